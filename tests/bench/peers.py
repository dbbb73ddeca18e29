#!/usr/bin/python3
"""vitserve beside its peers, on the same weights and the same pictures, in turn.

    ./dev bench [engine|decode|http|load|all] [OPTIONS]                  installs, builds, runs this
    /usr/bin/python3 -B tests/bench/peers.py engine --batch 1,8 --threads 2 --json figures.json

engine  images/s of batches: vitserve, ONNX Runtime, PyTorch, in each precision that they have
decode  ms per picture of one core: vitserve, Pillow + torchvision
http    POST /classify under wrk beside the engine alone
load    closed loop: vitserve, FastAPI + PyTorch, Node + ONNX Runtime; open loop: vitserve at shares of
        its capacity, up to three times as much; with --json FILE.json the plot FILE.svg
all     the first three of them, shortened

Prints Markdown: medians over rounds, and ratios with their spread (min..max), each ratio taken within
a round. Shared machines drift by 20 % within minutes: run nothing beside it, and trust no difference
within the spread. Needs torch, torchvision, Pillow, onnx, OpenBLAS, wrk, FastAPI,
uvicorn, and node with onnxruntime-node and sharp in build/peers/node_modules: `./dev bench` sees to it. The files of the models stay in build/peers.
"""

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import time

import peer_decode
import peer_engine
import peer_http
import peer_load
from peer_run import FOLDER, ROOT

PARTS = {"engine": peer_engine.run, "decode": peer_decode.run, "http": peer_http.run}
ALONE = {"load": peer_load.run}  # not in `all`
MODELS = ["vit_b_32", "vit_b_16", "vit_l_32", "vit_l_16"]  # vit_h_14 would not fit an ONNX file
# The defaults of each part alone, and what `all` shortens.
DEFAULTS = {"batch": [1, 2, 4, 8, 16, 32], "threads": sorted({os.cpu_count(), 1})[::-1]}
SHORT = {"batch": [1, 16], "threads": [os.cpu_count()]}
# For each figure of a round. wrk does not count what is under way at its end, of 16 clients half a
# batch or so: 5 % of what a server does in 2 seconds.
SECONDS = {"engine": 2, "decode": 2, "http": 10, "load": 10}
SHORT_SECONDS = {"engine": 1, "decode": 1, "http": 5}


def numbers(text):
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise ValueError(text)
    return values


def precisions(text):
    values = text.split(",")
    if not set(values) <= set(peer_engine.LIMITS):
        raise ValueError(text)
    return values


def parse():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=[*PARTS, *ALONE, "all"], default="all")
    parser.add_argument("--model", choices=MODELS, default="vit_b_32")
    parser.add_argument("--batch", type=numbers, help="default 1,2,4,8,16,32")
    parser.add_argument("--threads", type=numbers, help="default: all cores, and 1")
    parser.add_argument("--precisions", type=precisions, default=list(peer_engine.LIMITS),
                        help="of the engine; default fp32,bf16,int8")
    parser.add_argument("--precision", default="auto", help="of the server; default auto")
    parser.add_argument("--clients", type=numbers, default=[1, 16], help="of the server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, help="for each figure of a round; default 2, over HTTP 10")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build" / "vitserve")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="the raw figures")
    options = parser.parse_args()
    for name, value in (SHORT if options.part == "all" else DEFAULTS).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.rounds < 1 or options.seconds is not None and options.seconds < 1:
        parser.error("--rounds and --seconds are at least 1")
    options.binary = options.binary.absolute()
    return options


def machine():
    """What the figures depend on."""
    with open("/proc/cpuinfo", encoding="ascii") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                            capture_output=True, text=True, check=False).stdout.strip()
    return {"date": datetime.date.today().isoformat(), "commit": commit, "cpu": names[0],
            "cores": os.cpu_count(), "busy_cores": busy_cores()}


def busy_cores(seconds=1.0):
    """How many cores others keep busy, before we begin."""
    def idle():
        with open("/proc/stat", encoding="ascii") as file:
            return sum(map(int, file.readline().split()[4:6])) / os.sysconf("SC_CLK_TCK")
    before = idle()
    time.sleep(seconds)
    return max(0.0, os.cpu_count() - (idle() - before) / seconds)


def main():
    options = parse()
    FOLDER.mkdir(parents=True, exist_ok=True)
    figures = machine()
    print(f"{figures['date']}, {figures['commit']}, {figures['cores']} cores of {figures['cpu']}\n")
    if figures["busy_cores"] > 0.2:
        print(f"**{figures['busy_cores']:.1f} cores were busy before anything began: something else "
              "runs on this machine, and these figures do not count.**\n", flush=True)
    all_parts = options.part == "all"
    seconds = options.seconds
    for part in PARTS if all_parts else [options.part]:
        options.seconds = seconds or (SHORT_SECONDS if all_parts else SECONDS)[part]
        figures[part] = {**PARTS, **ALONE}[part](options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"peers.py: {error}")
