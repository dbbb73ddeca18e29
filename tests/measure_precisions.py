#!/usr/bin/env python3
"""How often bf16 and int8 give the class that fp32 gives, and how far their logits are from its: on pieces of
photos, cut at random places and sizes (seeded), through `vitserve classify`.

    python3 tests/measure_precisions.py --model deit_tiny_patch16_224 --photos ../shared/data/photos \\
        --weights ../shared/data/deit_tiny_patch16_224.timm.safetensors

Needs Debian's python3-pil (/usr/bin/python3).
"""

import argparse
import json
import math
import pathlib
import random
import statistics
import subprocess
import tempfile

from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent


def cut_pieces(photos, count, folder, seed=1):
    """`count` square pieces of the photos, a third to all of the shorter side, as PNG."""
    dice = random.Random(seed)
    pictures = [Image.open(path).convert("RGB") for path in sorted(photos)]
    paths = []
    for i in range(count):
        picture = pictures[i % len(pictures)]
        side = int(min(picture.size) * dice.uniform(0.34, 1.0))
        left, top = (dice.randint(0, length - side) for length in picture.size)
        piece = picture.crop((left, top, left + side, top + side)).resize((256, 256), Image.BICUBIC)
        paths.append(pathlib.Path(folder) / f"{i:04}.png")
        piece.save(paths[-1], compress_level=1)
    return paths


def classify(options, precision, paths):
    """The logits of each file."""
    command = [options.binary, "classify", "--device", "cpu", "--model", options.model, "--json", "--logits",
               "--precision", precision]
    if options.weights:
        command += ["--weights", options.weights]
    text = subprocess.run([*command, *map(str, paths)], check=True, capture_output=True, text=True).stdout
    return [json.loads(line)["results"][0]["logits"] for line in text.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(HERE.parent / "build" / "vitserve"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--photos", required=True, help="a folder of pictures")
    parser.add_argument("--pieces", type=int, default=1000)
    parser.add_argument("--precisions", default="bf16,int8")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = cut_pieces(pathlib.Path(options.photos).iterdir(), options.pieces, folder)
        exact = classify(options, "fp32", paths)
        for precision in options.precisions.split(","):
            rough = classify(options, precision, paths)
            same = sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(exact, rough, strict=True))
            errors = [math.dist(a, b) / math.hypot(*a) for a, b in zip(exact, rough, strict=True)]
            print(f"{precision}: the class of fp32 on {100 * same / len(paths):.1f} % of {len(paths)} pieces, "
                  f"rel-L2 of the logits {statistics.median(errors):.1e}, at most {max(errors):.1e}")


if __name__ == "__main__":
    main()
