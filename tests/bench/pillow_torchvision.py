#!/usr/bin/python3
"""Pillow + torchvision for tests/bench/peers.py decode: what a picture costs one core.

    /usr/bin/python3 tests/bench/pillow_torchvision.py MODEL SECONDS FILE...

Prints a JSON object a line, {"file", "mode", "decode_ms", "preprocess_ms", "total_ms"}, median CPU
time of one thread. decode: file -> RGB picture; preprocess: the model's transform of torchvision,
to the normalised float tensor (vitserve ends at the bytes of the crop: it normalises within the
first layer). mode exact: torchvision's usual way; fast: Pillow's draft(), which decodes at 1/2, 1/4
or 1/8 where the transform makes the picture smaller anyway.
"""

import json
import statistics
import sys
import time

import torch
import torchvision
from PIL import Image

from peer_models import MODELS


def transform_of(model):
    recipe, version = MODELS[model][0].split(".")
    return getattr(getattr(torchvision.models, recipe), version).transforms()


def once(path, fast, transform):
    """Milliseconds of (decode, preprocess)."""
    start = time.thread_time()
    image = Image.open(path)
    if fast:
        side, (width, height) = transform.resize_size[0], image.size
        scale = side / min(width, height)
        image.draft("RGB", (max(side, round(width * scale)), max(side, round(height * scale))))
    image = image.convert("RGB")
    decoded = time.thread_time()
    transform(image)
    return 1e3 * (decoded - start), 1e3 * (time.thread_time() - decoded)


def measure(path, mode, transform, seconds):
    once(path, mode == "fast", transform)
    samples, end = [], time.monotonic() + seconds
    while not samples or time.monotonic() < end:
        samples.append(once(path, mode == "fast", transform))
    return {"file": path, "mode": mode,
            "decode_ms": statistics.median(decode for decode, _ in samples),
            "preprocess_ms": statistics.median(preprocess for _, preprocess in samples),
            "total_ms": statistics.median(map(sum, samples))}


def main():
    transform, seconds = transform_of(sys.argv[1]), float(sys.argv[2])
    torch.set_num_threads(1)
    with torch.inference_mode():
        for path in sys.argv[3:]:
            for mode in ("exact", "fast"):
                print(json.dumps(measure(path, mode, transform, seconds)), flush=True)


if __name__ == "__main__":
    main()
