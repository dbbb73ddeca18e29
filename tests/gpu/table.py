"""One table from the files of run.sh: ours beside PyTorch's. Usage: table.py FOLDER"""

import json
import pathlib
import sys

FLOPS = {"vit_b_32": 8818372608}


def load(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def main():
    folder = pathlib.Path(sys.argv[1])
    ours, torch = load(folder / "bench_bf16.json"), load(folder / "torch.json")
    if not ours:
        sys.exit("no bench_bf16.json: the bench did not run")
    theirs = {row["batch"]: row for row in torch["results"]} if torch else {}
    flops = FLOPS[ours["model"]]
    print("| batch | ms | images/s | TFLOP/s | % of limit | torch eager | torch.compile | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for row in ours["results"]:
        batch, rate = row["batch"], row["images_per_second"]
        other = theirs.get(batch, {})
        eager, compiled = ((1e3 * batch / other[key] if key in other else None)
                           for key in ("eager_ms", "compile_ms"))
        best = max((r for r in (eager, compiled) if r), default=None)
        print(f"| {batch} | {row['ms_p50']:.3f} | {rate:.0f} | {rate * flops * 1e-12:.1f} "
              f"| {row['percent_of_limit']:.1f} | {eager or 0:.0f} | {compiled or 0:.0f} "
              f"| {rate / best if best else 0:.2f} |")


if __name__ == "__main__":
    main()
