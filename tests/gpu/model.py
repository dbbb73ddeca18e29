"""How long a batch of vit_b_32 should take on an H100 and an H200.

What a batch consists of is counted, not written down here: the emulated GPU (tests/emulator) traces
the graph that the CUDA backend replays, with the bytes and the flops of each launch. Only what the
hardware makes of them is assumed, in the constants below.

Usage: model.py COUNT_WORK [--write] [--trace FILE]
Compares the tables with those in README.md beside this file; --write replaces those. --trace keeps
the trace."""

import argparse
import dataclasses
import difflib
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

MODEL = "vit_b_32"
BATCHES = (1, 2, 4, 8, 16, 28, 32, 56, 64, 112, 128, 256)
COUNTED = 3  # of these the kernels run; at the others their bytes follow from how they grow
DETAILED = (1, 112)
README = pathlib.Path(__file__).with_name("README.md")
BEGIN, END = "<!-- model.py: begin -->", "<!-- model.py: end -->"

# Measured. Products and copies of large tensors, all at their full clock; memory of the H100 too.
PRODUCT_FLOPS = 790e12
MEMORY = {"H100": 3.0e12, "H200": 4.3e12}  # bytes/s
# Measured on an H200 (results/2026-11-26-*): probe.txt, and what ops_1.txt and ops_112.txt leave
# after the counted work.
SMS = 132
BOUNDARY = 0.55e-6      # of a graph's node: empty kernels of 1 to 132 blocks take 0.51 to 0.58 us
HOST = 12e-6            # launch of the graph, copy of the logits, wait: an empty kernel takes 8.3
PRODUCT_FIXED = 2.2e-6  # of a product, from its start to the first mma, and its last store
L2_RATE = 7e12          # bytes/s: layernorm of 5600 rows in warm caches
MMA_FLOPS = 130e12      # mma.sync in attention at batch 112, softmax between
# A card at its power limit (687 W) runs at 1755 to 1845 MHz instead of 1980: products that take
# longer than SHORT, in runs of seconds.
THROTTLED, SHORT = 0.9, 15e-6

# Assumed: nobody has measured these for our launches.
SPLIT_FIXED = 1.5e-6    # of a product with k split: the sum of the parts
L2_BYTES = 50e6         # of 50 to 60 MB: what is still there when the next launch wants it
INSTRUCTIONS = 29.6e12  # fp32, of all lanes a second
# Rows and columns of a product's tile, and the part of an SM's peak that such tiles reach.
TILES = ((64, 64, 0.45), (64, 128, 0.62), (128, 128, 0.80), (64, 256, 0.80), (192, 128, 0.86),
         (128, 256, 0.90))
SPLITS = (1, 2, 3, 4, 6, 8)
# Of each kernel: what a launch takes beyond its bytes (measured at batch 1), and instructions per
# 16-bit value written.
KERNELS = {
    "attention_mma_kernel": (2.4e-6, 0),
    "embed_kernel": (2.0e-6, 0),
    "gelu_kernel": (1.2e-6, 20),
    "layernorm_kernel": (1.0e-6, 0),
}


@dataclasses.dataclass
class Launch:
    """One node of the graph; bytes of device memory in sectors of 32. `touched` is what it reads or
    writes, once; `weights` the part of `read` that no launch before has written."""
    op: str
    label: str
    shape: tuple  # of a product: M, N, K, how many of them
    weights: int = 0
    read: int = 0
    written: int = 0
    touched: int = 0
    flops: int = 0

    @property
    def moved(self):
        return self.read + self.written


COUNTS = ("read", "written", "touched", "flops")


def parse(line):
    if line["op"] in ("copy", "fill"):
        sys.exit(f"the graph holds a {line['op']}: the model has no time for it")
    if line["op"] == "matmul":
        if (line["in"], line["compute"]) != ("bf16", "fp32"):
            sys.exit(f"a product in {line['in']}: the model's are in bf16")
        shape = (line["M"], line["N"], line["K"], line["batch"])
        label = "{K} to {N}".format(**line) + (", residual" if line["beta"] else "")
        return Launch("matmul", label, shape, line["weights"], *(line[name] for name in COUNTS))
    if line["op"] not in KERNELS:
        sys.exit(f"{line['op']} has no line in KERNELS")
    return Launch(line["op"], line["op"], (), 0, *(line.get(name) for name in COUNTS))


def grow(counted, batches, batch, where):
    """What was counted at `batches` must lie on a line a + b * batch: its value at `batch`."""
    if None in counted:
        sys.exit(f"{where}: not counted: was the emulator built with a sanitizer?")
    (b0, c0), (b1, c1) = zip(batches[:2], counted)
    slope = (c1 - c0) // (b1 - b0)
    if [c0 + slope * (b - b0) for b in batches] != counted:
        sys.exit(f"{where}: {counted} at batches {batches} do not grow by equal steps: raise COUNTED")
    return c0 + slope * (batch - b0)


def fill_in(networks):
    """Counts of the kernels that were not run, from those of the same launch at other batches."""
    counted = BATCHES[:COUNTED]
    for batch, launches in networks.items():
        if [x.op for x in launches] != [x.op for x in networks[BATCHES[0]]]:
            sys.exit(f"batch {batch} has other launches than batch {BATCHES[0]}: which counts fit?")
        for i, launch in enumerate(launches):
            for name in COUNTS if launch.op != "matmul" else ():
                values = [getattr(networks[b][i], name) for b in counted]
                where = f"launch {i} ({launch.op}), {name}"
                setattr(launch, name, grow(values, counted, batch, where))


def count(program, keep):
    """The launches of each batch, as the emulated GPU saw them."""
    with tempfile.TemporaryDirectory() as folder:
        trace = keep or os.path.join(folder, "trace")
        variables = {**os.environ, "EMULATOR_TRACE": trace, "EMULATOR_TRACE_RUN": str(COUNTED),
                     "EMULATOR_CC": "9.0", "EMULATOR_RACES": "0", "XDG_CACHE_HOME": folder}
        subprocess.run([program, MODEL, *map(str, BATCHES)], env=variables, check=True)
        with open(trace, encoding="ascii") as file:
            lines = [json.loads(line) for line in file]
    networks = {batch: [parse(line) for line in lines if line["graph"] == number]
                for number, batch in enumerate(BATCHES, 1)}
    fill_in(networks)
    return networks


def product_seconds(launch):
    """Arithmetic of a product: the best of tiles and splits of k, in whole waves over the SMs."""
    M, N, K, products = launch.shape
    best = math.inf
    for rows, columns, share in TILES:
        tiles = math.ceil(M / rows) * math.ceil(N / columns) * products
        tile = 2.0 * rows * columns * K / (PRODUCT_FLOPS / SMS * share)
        for split in SPLITS:
            if split > 1 and (K / split < 192 or tiles * split > 2 * SMS):
                continue
            seconds = math.ceil(tiles * split / SMS) * tile / split
            if split > 1:  # partial sums, in fp32, written and read
                seconds += SPLIT_FIXED + 8.0 * split * M * N * products / L2_RATE
            best = min(best, seconds)
    return best


def memory_seconds(launch, before, memory):
    """Weights come from memory; of the rest, what the launch before and this one leave in L2."""
    apart = launch.touched + (before.touched if before else 0)
    near = min(1.0, L2_BYTES / apart)
    rest = launch.moved - launch.weights
    return launch.weights / memory + rest * (near / L2_RATE + (1.0 - near) / memory)


def seconds_of(launch, before, memory):
    bytes_ = memory_seconds(launch, before, memory)
    if launch.op == "matmul":
        seconds = PRODUCT_FIXED + max(bytes_, product_seconds(launch))
        return BOUNDARY + (seconds / THROTTLED if seconds > SHORT else seconds)
    fixed, instructions = KERNELS[launch.op]
    arithmetic = max(launch.flops / MMA_FLOPS, launch.written / 2 * instructions / INSTRUCTIONS)
    return BOUNDARY + fixed + max(bytes_, arithmetic)


def predict(launches, memory):
    """Seconds of each launch."""
    return [seconds_of(launch, before, memory)
            for launch, before in zip(launches, [None, *launches])]


def summary(networks):
    yield "| batch | launches | GFLOP | MB moved | H100: ms | images/s | H200: ms | images/s |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|"
    for batch, launches in networks.items():
        cells = [batch, len(launches), f"{sum(x.flops for x in launches) * 1e-9:.2f}",
                 f"{sum(x.moved for x in launches) * 1e-6:.2f}"]
        for memory in MEMORY.values():
            seconds = HOST + sum(predict(launches, memory))
            cells += [f"{seconds * 1e3:.3f}", f"{batch / seconds:.0f}"]
        yield "| " + " | ".join(map(str, cells)) + " |"


def details(batch, launches):
    """Equal launches are one line: as many of them, and the µs of all."""
    yield (f"| batch {batch} | launches | MFLOP of one | kB of one | H100: µs of one | of all "
           "| H200: of all |")
    yield "|---|--:|--:|--:|--:|--:|--:|"
    times = {name: predict(launches, memory) for name, memory in MEMORY.items()}
    groups = {}
    for i, launch in enumerate(launches):
        groups.setdefault((launch.label, launch.flops, launch.moved), []).append(i)
    for (label, flops, moved), members in groups.items():
        h100, h200 = (1e6 * sum(times[name][i] for i in members) for name in MEMORY)
        yield (f"| {label} | {len(members)} | {flops * 1e-6:.1f} | {moved * 1e-3:.2f} "
               f"| {h100 / len(members):.1f} | {h100:.0f} | {h200:.0f} |")
    yield f"| the host | | | | | {HOST * 1e6:.0f} | {HOST * 1e6:.0f} |"


def report(networks):
    tables = [summary(networks), *(details(batch, networks[batch]) for batch in DETAILED)]
    return "\n\n".join("\n".join(table) for table in tables)


def main():
    parser = argparse.ArgumentParser(description="see the head of this file")
    parser.add_argument("program", help="count_work, beside the emulated module")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--trace")
    arguments = parser.parse_args()
    tables = report(count(arguments.program, arguments.trace))
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    before, tail = rest.split(END)
    if arguments.write:
        README.write_text(f"{head}{BEGIN}\n{tables}\n{END}{tail}", encoding="utf-8")
        return
    changes = difflib.unified_diff(before.strip().splitlines(), tables.splitlines(),
                                   "README.md", "counted", lineterm="", n=0)
    changes = "\n".join(changes)
    if changes:
        sys.exit(f"{changes}\nThe work of a batch has changed. If that is meant: "
                 f"{sys.argv[0]} {arguments.program} --write")


if __name__ == "__main__":
    main()
