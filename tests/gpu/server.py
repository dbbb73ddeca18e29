"""The server end to end on the GPU: ten photos against PyTorch's logits, the time from start to
ready, requests a second. Usage: server.py photos|load MODEL; the programs lie beside this file."""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
os.environ["VITSERVE_BINARY"] = str(HERE / "vitserve")
sys.path.insert(0, str(HERE / "e2e"))
import vitserve  # noqa: E402

LIMITS = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 2e-2}
DATA = HERE / "data"


def photos():
    """True if every precision classifies the photos as PyTorch does."""
    golden = json.loads((DATA / "golden_deit_tiny.json").read_text(encoding="utf-8"))
    model = ("--model", "deit_tiny_patch16_224", "--device", "cuda", "--weights",
             DATA / "deit_tiny_patch16_224.timm.safetensors")
    good = True
    for precision, limit in LIMITS.items():
        finished = vitserve.run("classify", *model, "--precision", precision, "--json", "--logits",
                                *(DATA / "photos" / name for name in golden))
        if finished.returncode != 0:
            print(f"{precision}: {finished.stderr}")
            good = False
            continue
        errors, wrong = [], []
        for line in finished.stdout.splitlines():
            result = json.loads(line)["results"][0]
            expected = golden[pathlib.Path(result["name"]).name]
            errors.append(math.dist(result["logits"], expected["logits"]) /
                          math.hypot(*expected["logits"]))
            if result["predictions"][0]["class"] != expected["top5"][0]:
                wrong.append(result["name"])
        print(f"{precision}: {len(errors)} photos, rel-L2 at most {max(errors):.2e} "
              f"(limit {limit:.0e}), other classes than PyTorch's: {wrong or 'none'}")
        good &= len(errors) == len(golden) and max(errors) <= limit and not wrong
    return good


def raw_pixels(name):
    """An Open Inference Protocol request with one picture of cropped pixels: nothing to decode."""
    with vitserve.Server("--device", "cpu", model=("--model", name, "--random-weights", "1"),
                         ) as server:
        side = server.request("GET", "/model").json["architecture"]["image_size"]
    header = json.dumps({
        "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, side, side, 3],
                    "parameters": {"binary_data_size": side * side * 3}}],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}).encode()
    return header + os.urandom(side * side * 3), len(header)


def run_load(server, file, clients, seconds, *options):
    """Requests a second that were answered with 200, and the median latency in ms."""
    printed = subprocess.run([HERE / "load", f"127.0.0.1:{server.port}", "--clients", str(clients),
                              "--seconds", str(seconds), *options, file],
                             check=True, capture_output=True, text=True).stdout
    times = []
    for line in printed.splitlines():
        outcome, latency, _ = line.split()
        if outcome == "200":
            times.append(float(latency))
    times.sort()
    return len(times) / seconds, times[len(times) // 2] if times else math.nan


def load(name, seconds):
    """True if the server starts and answers everything."""
    model = ("--model", name, "--random-weights", "1", "--device", "cuda")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        photo = HERE / "photo.jpg"
        picture = pathlib.Path(folder) / "pixels.bin"
        body, header_length = raw_pixels(name)
        picture.write_bytes(body)
        for attempt in ("nothing tuned", "tuned before"):
            start = time.monotonic()
            server = vitserve.Server(model=model)
            with server:
                ready = time.monotonic() - start
                batch = server.request("GET", "/model").json["runtime"]["max_batch"]
                print(f"ready after {ready:.2f} s ({attempt}), batches of up to {batch}", flush=True)
                if attempt == "nothing tuned":
                    continue
                for clients in (1, 16, 256):
                    rate, median = run_load(server, photo, clients, seconds)
                    print(f"JPEG, {clients} clients: {rate:.0f} requests/s, p50 {median:.2f} ms",
                          flush=True)
                    good &= rate > 0
                    rate, median = run_load(
                        server, picture, clients, seconds, "--path", f"/v2/models/{name}/infer",
                        "--header", f"Inference-Header-Content-Length: {header_length}")
                    print(f"pixels, {clients} clients: {rate:.0f} requests/s, p50 {median:.2f} ms",
                          flush=True)
                    good &= rate > 0
    return good


def main():
    vitserve.TIMEOUT = 1200 if (HERE / "emulated").exists() else 120
    if sys.argv[1] == "photos":
        good = photos()
    else:
        good = load(sys.argv[2], float(os.environ.get("SECONDS_EACH", "3")))
    sys.exit(not good)


if __name__ == "__main__":
    main()
