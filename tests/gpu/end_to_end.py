"""The server on the GPU beside the same model on the CPU: start to ready, logits of a set of
pictures in every precision, requests a second. Usage: end_to_end.py BINARY"""

import os
import pathlib
import sys
import threading
import time

os.environ["VITSERVE_BINARY"] = str(pathlib.Path(sys.argv[1]).resolve())
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import vitserve  # noqa: E402

MODEL = ("--model", "vit_b_32", "--random-weights", "1")
LIMITS = {"fp32": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 2e-2}


def logits(server, pictures):
    return [server.classify(picture, "?logits=1").results[0]["logits"] for picture in pictures]


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


def main():
    vitserve.TIMEOUT = 120
    pictures = [vitserve.png(seed=seed, width=300, height=260) for seed in range(8)]
    with vitserve.Server("--device", "cpu", model=MODEL) as server:
        expected = logits(server, pictures)
    failed = False
    for precision, limit in LIMITS.items():
        start = time.monotonic()
        with vitserve.Server("--device", "cuda", "--precision", precision, model=MODEL) as server:
            ready = time.monotonic() - start
            errors = [relative_error(*pair) for pair in zip(logits(server, pictures), expected)]
            rate = requests_per_second(server, pictures[0])
        print(f"{precision}: ready after {ready:.2f} s, rel-L2 worst {max(errors):.2e} (limit "
              f"{limit:.0e}), {rate:.0f} requests/s of one PNG from 64 clients in Python")
        failed |= max(errors) > limit
    sys.exit(failed)


if __name__ == "__main__":
    main()
