#!/usr/bin/env python3
"""Accuracy of the built-in model through the real server, over HTTP: the test set of Fashion-MNIST (Debian's
dataset-fashion-mnist) as PNG, as it is and inverted (a dark item on white), in every precision, and how often
the precisions agree.

    python3 tests/measure_demo.py                                     # 10,000 images; fp32, bf16 and int8
    python3 tests/measure_demo.py --images 200 --precisions fp32,bf16 --emulated build/tests/emulator/vitserve
"""

import argparse
import gzip
import os
import pathlib
import struct
import sys
import zlib

HERE = pathlib.Path(__file__).resolve().parent
DATASET = pathlib.Path("/usr/share/datasets/fashion-mnist")
SIDE, FORM = 28, 50  # pixels, images in a request


def load(count):
    """Rows of bytes and labels of the first `count` test images."""
    with gzip.open(DATASET / "t10k-images-idx3-ubyte.gz") as file:
        pixels = file.read()[16:]
    with gzip.open(DATASET / "t10k-labels-idx1-ubyte.gz") as file:
        labels = file.read()[8:]
    size = SIDE * SIDE
    return [pixels[i * size:(i + 1) * size] for i in range(count)], list(labels[:count])


def gray_png(png_chunk, pixels, inverted):
    if inverted:
        pixels = bytes(255 - value for value in pixels)
    rows = b"".join(b"\0" + pixels[y * SIDE:(y + 1) * SIDE] for y in range(SIDE))
    return (b"\x89PNG\r\n\x1a\n" +
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)) +
            png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b""))


def classify(vitserve, options, variables, pictures):
    """The class that the server answers for each picture."""
    forms = [pictures[i:i + FORM] for i in range(0, len(pictures), FORM)]
    with vitserve.Server("--max-queue", 1024, "--request-timeout-ms", 600000, model=options, variables=variables) as server:
        def send(form):
            kind, body = vitserve.multipart([(f"{i}.png", data) for i, data in enumerate(form)])
            answer = server.classify(body, "?top_k=1", Content_Type=kind)
            if answer.status != 200:
                raise SystemExit(f"{answer.status}: {answer.body}")
            return [result["predictions"][0]["class"] for result in answer.results]
        return sum(vitserve.together(send, forms, threads=4), [])


def percent(a, b):
    return 100.0 * sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(HERE.parent / "build" / "vitserve"))
    parser.add_argument("--emulated", help="vitserve beside the emulated CUDA module: run in bf16 too")
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--precisions", default="fp32,bf16,int8")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE / "e2e"))
    import vitserve

    images, labels = load(options.images)
    runs = [(name, options.binary, ("--device", "cpu", "--precision", name)) for name in
            options.precisions.split(",")]
    if options.emulated:
        runs.append(("emulated bf16", options.emulated,
                     ("--device", "cuda", "--precision", "bf16", "--max-batch", "8")))
    vitserve.TIMEOUT = 3600
    for inverted in (False, True):
        pictures = [gray_png(vitserve.png_chunk, pixels, inverted) for pixels in images]
        answers = {}
        for name, binary, model in runs:
            vitserve.BINARY = os.path.abspath(binary)
            answers[name] = classify(vitserve, model, {}, pictures)
            first = next(iter(answers))
            print(f"{'inverted' if inverted else 'as it is':9} {name:14} right {percent(answers[name], labels):6.2f} %, "
                  f"like {first} {percent(answers[name], answers[first]):6.2f} %", flush=True)


if __name__ == "__main__":
    main()
