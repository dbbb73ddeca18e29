"""One table from the files of run.sh: ours beside PyTorch's. Usage: table.py FOLDER"""

import json
import pathlib
import sys

FLOPS = {"vit_b_32": 8818372608}


def read_lines(path):
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]
    except (OSError, ValueError):
        return []


def main():
    folder = pathlib.Path(sys.argv[1])
    benches = read_lines(folder / "bench_bf16.txt")
    theirs = {(row["kind"], row["batch"]): 1e3 * row["batch"] / row["ms"]
              for row in read_lines(folder / "torch.jsonl")}
    if not benches:
        print("no bench_bf16.txt: the bench did not run")
        return
    ours = benches[0]
    print("| batch | ms p50 | ms p99 | images/s | TFLOP/s | % of limit | torch eager | compiled "
          "| ours / best |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in ours["results"]:
        batch, rate = row["batch"], row["images_per_second"]
        tflops = rate * FLOPS.get(ours["model"], 0) * 1e-12
        eager, compiled = theirs.get(("eager", batch)), theirs.get(("compile", batch))
        best = max(eager or 0, compiled or 0)
        cells = [f"{batch}", f"{row['ms_p50']:.3f}", f"{row['ms_p99']:.3f}", f"{rate:.0f}",
                 f"{tflops:.1f}", f"{row['percent_of_limit']:.1f}",
                 f"{eager:.0f}" if eager else "", f"{compiled:.0f}" if compiled else "",
                 f"{rate / best:.2f}" if best else ""]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
