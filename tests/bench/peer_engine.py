"""tests/bench/peers.py engine: images a second of batches in vitserve, ONNX Runtime and PyTorch."""

import functools
import math
import sys

import peer_run
from peer_table import middle, ratios, spread, table

# relative L2 of the logits against PyTorch's in fp32
LIMITS = {"fp32": 1e-4, "bf16": 5e-2, "int8": 1e-1}
NAMES = {"vitserve": "vitserve", "onnxruntime": "ONNX Runtime", "pytorch": "PyTorch"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def list_engines(options):
    """(name, precision), those of one precision side by side, so that they run soon after each
    other. ONNX Runtime in fp32 is always among them: everything is compared with it. It has no
    bf16 on this processor."""
    listed = [] if "fp32" in options.precisions else [("onnxruntime", "fp32")]
    for precision in options.precisions:
        listed.append(("vitserve", precision))
        if precision != "bf16":
            listed.append(("onnxruntime", precision))
        listed.append(("pytorch", precision))
    return listed


def runner(name, options):
    engines = {"vitserve": functools.partial(peer_run.vitserve, options.binary),
               "onnxruntime": peer_run.onnxruntime, "pytorch": peer_run.pytorch}
    return engines[name]


def job(options, folder, precision, threads, **changes):
    return {"model": options.model, "folder": folder, "precision": precision, "threads": threads,
            "batches": options.batch, "seconds": options.seconds, "check": False, "variants": None,
            **changes}


def relative_error(found, expected):
    if len(found) != len(expected):
        return math.inf
    error = math.dist(found, expected) / math.hypot(*expected)
    return error if error == error else math.inf  # NaN is no agreement


def check(options, folder, engines):
    """Everyone computes the same thing, or there is nothing to compare: the logits of one picture
    against PyTorch's in fp32. Returns (engines that run, PyTorch's fastest variants by precision, a
    report) and stops the program where the logits differ."""
    threads = max(options.threads)
    expected = peer_run.pytorch(job(options, folder, "fp32", threads, check=True, batches=[],
                                    variants={}))["logits"]
    able, variants, report = [], {}, []
    for name, precision in engines:
        entry = {"engine": name, "precision": precision}
        report.append(entry)
        try:
            answer = runner(name, options)(job(options, folder, precision, threads, check=True))
        except peer_run.Failed as failure:
            if name != "vitserve" or precision == "fp32" or not failure.is_refusal():
                raise
            entry["refused"] = failure.text.splitlines()[-1]
            say(f"{name} {precision}: refused: {entry['refused']}")
            continue
        entry.update(error=relative_error(answer["logits"], expected),
                     version=answer.get("version"), variants=answer.get("variants"))
        say(f"{name} {precision}: the logits differ by {entry['error']:.1e}")
        if not entry["error"] <= LIMITS[precision]:
            sys.exit(f"{name} {precision} does not compute the same: relative L2 error "
                     f"{entry['error']:.2e} is over {LIMITS[precision]:.0e}")
        able.append((name, precision))
        variants[precision] = answer.get("variants") or variants.get(precision)
    return able, variants, report


def measure(options, folder, engines, variants):
    """All engines in turn, round by round. Returns rows of raw figures."""
    rows = []
    for number in range(1, options.rounds + 1):
        for threads in options.threads:
            for name, precision in engines:
                say(f"round {number}: {name} {precision}, {threads} threads")
                chosen = variants.get(precision) if name == "pytorch" else None
                answer = runner(name, options)(job(options, folder, precision, threads,
                                                   variants=chosen))
                rows += [{"round": number, "engine": name, "precision": precision,
                          "threads": threads, **result} for result in answer["results"]]
    return rows


def rates(rows, name, precision, threads, batch):
    """One figure a round."""
    return [row["images_per_second"] for row in rows
            if (row["engine"], row["precision"], row["threads"], row["batch"]) ==
            (name, precision, threads, batch)]


def pairs(engines):
    """(ours, theirs): with ONNX Runtime in fp32, and with each peer in the same precision."""
    found = []
    for ours in engines:
        if ours[0] == "vitserve":
            wanted = [("onnxruntime", "fp32"), ("onnxruntime", ours[1]), ("pytorch", ours[1])]
            found += [(ours, theirs) for theirs in dict.fromkeys(wanted) if theirs in engines]
    return found


def title(engine):
    return f"{NAMES[engine[0]]} {engine[1]}"


def print_settings(report):
    """Which versions ran, and how far their logits are from PyTorch's in fp32."""
    for entry in report:
        if "refused" in entry:
            continue
        print(f"- {title((entry['engine'], entry['precision']))}: ", end="")
        print(*[part for part in (
            f"version {entry['version']}" if entry["version"] else None,
            f"logits within {entry['error']:.1e}",
            "fastest by batch: " + ", ".join(f"{b} {v}" for b, v in entry["variants"].items())
            if entry["variants"] else None) if part], sep="; ")
    print()


def print_tables(options, engines, report, rows):
    head = [f"batch {batch}" for batch in options.batch]
    for threads in options.threads:
        lines = [[title(engine), *(middle(rates(rows, *engine, threads, batch))
                                   for batch in options.batch)] for engine in engines]
        lines += [[title((entry["engine"], entry["precision"])), f"refused: {entry['refused']}",
                   *[""] * (len(options.batch) - 1)] for entry in report if "refused" in entry]
        what = f"{options.model}, {threads} thread{'s' if threads > 1 else ''}"
        table(f"{what}: images/s, median of {options.rounds} rounds",
              ["engine", *head], lines)
        lines = [[f"{title(ours)} / {title(theirs)}",
                  *(spread(ratios(rates(rows, *ours, threads, batch),
                                  rates(rows, *theirs, threads, batch)))
                    for batch in options.batch)] for ours, theirs in pairs(engines)]
        table(f"{what}: ratio, median (min..max) of {options.rounds} rounds", ["", *head], lines)


def run(options):
    folder = peer_run.files_of(options.model)
    engines, variants, report = check(options, folder, list_engines(options))
    rows = measure(options, folder, engines, variants)
    print_settings(report)
    print_tables(options, engines, report, rows)
    return {"model": options.model, "checks": report, "rows": rows}
