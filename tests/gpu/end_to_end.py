"""The GPU beside the CPU, same model, same pictures: the logits of every batch size and precision;
then the server: start to ready, requests a second. Usage: end_to_end.py BINARY [MODEL [BATCHES]]"""

import json
import os
import pathlib
import sys
import tempfile
import threading
import time

os.environ["VITSERVE_BINARY"] = str(pathlib.Path(sys.argv[1]).resolve())
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import vitserve  # noqa: E402

NAME = sys.argv[2] if len(sys.argv) > 2 else "vit_b_32"
BATCHES = [int(b) for b in (sys.argv[3] if len(sys.argv) > 3 else
                            "1,2,4,8,16,28,32,56,64,84,112,128,168,224,256").split(",")]
MODEL = ("--model", NAME, "--random-weights", "1")
LIMITS = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 2e-2}


def logits(paths, *options):
    """What vitserve classify gives for these files, in one batch."""
    finished = vitserve.run("classify", *MODEL, "--json", "--logits", "--max-batch", len(paths),
                            *options, *paths)
    if finished.returncode != 0:
        raise AssertionError(finished.stderr)
    return [json.loads(line)["results"][0]["logits"] for line in finished.stdout.splitlines()]


def relative_error(got, expected):
    difference = sum((a - b) ** 2 for a, b in zip(got, expected))
    return (difference / sum(b * b for b in expected)) ** 0.5


def requests_per_second(server, picture, clients=64, seconds=10):
    counts, end = [0] * clients, time.monotonic() + seconds

    def client(i):
        connection = server.connect()
        while time.monotonic() < end:
            if vitserve.exchange(connection, "POST", "/classify", picture).status == 200:
                counts[i] += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def compare_batches(paths, precision, limit):
    """The worst error over all batch sizes; every place of a batch counts."""
    expected = logits(paths, "--device", "cpu", "--precision", "fp32")
    worst = 0.0
    for batch in BATCHES:
        files = [paths[i % len(paths)] for i in range(batch)]
        got = logits(files, "--device", "cuda", "--precision", precision)
        error = max(relative_error(got[i], expected[i % len(paths)]) for i in range(batch))
        if not error <= limit:
            print(f"{precision}, batch {batch}: rel-L2 {error:.2e} is over {limit:.0e}")
        worst = max(worst, error)
    return worst


def main():
    vitserve.TIMEOUT = 120
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        pictures = [vitserve.png(seed=seed, width=300, height=260) for seed in range(8)]
        paths = [pathlib.Path(folder) / f"{i}.png" for i in range(len(pictures))]
        for path, picture in zip(paths, pictures):
            path.write_bytes(picture)
        for precision, limit in LIMITS.items():
            worst = compare_batches(paths, precision, limit)
            start = time.monotonic()
            with vitserve.Server("--device", "cuda", "--precision", precision,
                                 model=MODEL) as server:
                ready = time.monotonic() - start
                rate = requests_per_second(server, pictures[0])
            print(f"{precision}: rel-L2 worst {worst:.2e} (limit {limit:.0e}) over batches of "
                  f"{BATCHES}; ready after {ready:.2f} s; {rate:.0f} requests/s of one PNG from "
                  "64 clients in Python", flush=True)
            failed |= not worst <= limit
    sys.exit(failed)


if __name__ == "__main__":
    main()
