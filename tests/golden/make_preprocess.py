#!/usr/bin/python3
"""Writes preprocess.txt: what torchvision does to generated pictures of many sizes, as hashes.

Line: width height resize crop filter fnv1a64, the hash being that of the (crop, crop, 3) uint8 result.
test_preprocess.c generates the same pixels. Needs Pillow, numpy and torchvision; takes a minute and,
for the longest pictures, 2 GB.
"""
import os
import random

import numpy as np
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

FILTERS = {
    "bilinear": (Image.BILINEAR, InterpolationMode.BILINEAR),
    "bicubic": (Image.BICUBIC, InterpolationMode.BICUBIC),
}


def pixels(width, height):
    """Noise over blocks of 8 x 8 noise: both what a filter blurs and what it keeps."""

    def noise(index, seed):
        value = (index.astype(np.uint32) + np.uint32(seed)) * np.uint32(2654435761)
        value = (value ^ (value >> np.uint32(15))) * np.uint32(2246822519)
        return value >> np.uint32(24)

    y, x, channel = np.ogrid[:height, :width, :3]
    fine = noise((y * width + x) * 3 + channel, 1)
    coarse = noise(((y // 8) * width + x // 8) * 3 + channel, 2)
    return ((fine + 3 * coarse) // 4).astype(np.uint8)


def fnv1a64(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def our_arithmetic(image, resize, crop, resample):
    """The sizes and offsets as preprocess.c computes them; Pillow does the rest."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = int(resize * long / short)
    size = (resize, longer) if width <= height else (longer, resize)

    def offset(side):
        half, odd = divmod(side - crop, 2)
        return half + (odd & half & 1)

    left, top = offset(size[0]), offset(size[1])
    return image.resize(size, resample).crop((left, top, left + crop, top + crop))


def sizes():
    """200: by hand what is special, at random (always the same) the rest."""
    chosen = [
        (1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (1, 7), (7, 1), (5, 5), (16, 16), (17, 31),
        (5000, 3), (3, 5000), (5000, 7), (2999, 5), (1, 400), (400, 1), (2, 999), (1000, 4),
        (224, 224), (256, 256), (255, 257), (257, 255), (256, 224), (224, 256), (223, 225),
        (512, 512), (511, 513), (768, 512), (1024, 768), (640, 480), (480, 640), (641, 479),
        (256, 1000), (1001, 256), (256, 257), (300, 256), (2000, 1500), (1499, 2001), (3000, 224),
        (231, 3001), (4032, 3024),
    ]
    generator = random.Random(20240229)
    while len(chosen) < 200:
        side = generator.choice([12, 60, 300, 900, 1600])
        ratio = generator.choice([1.0, 1.34, 1.5, 1.78, 3.0, 9.0])
        short = generator.randint(max(1, side // 3), side)
        long = min(1600, int(short * generator.uniform(1.0, ratio)))
        size = (short, long) if generator.random() < 0.5 else (long, short)
        if size not in chosen:
            chosen.append(size)
    return chosen


def cases():
    """Every size with the usual recipe; some with those where resize - crop is odd, 0 or large."""
    every = sizes()
    for width, height in every:
        yield width, height, 256, 224
    for width, height in every[::7]:
        for resize, crop in [(242, 224), (224, 224), (232, 224), (255, 224), (28, 28), (40, 3), (1, 1)]:
            yield width, height, resize, crop
    yield 28, 28, 28, 28
    yield 384, 384, 384, 384
    yield 700, 500, 438, 384


def main():
    Image.MAX_IMAGE_PIXELS = None
    lines = []
    for width, height, resize, crop in cases():
        image = Image.fromarray(pixels(width, height))
        for name, (resample, mode) in FILTERS.items():
            result = CenterCrop(crop)(Resize(resize, mode)(image))
            assert result.size == (crop, crop)
            ours = our_arithmetic(image, resize, crop, resample)
            assert result.tobytes() == ours.tobytes(), (width, height, resize, crop, name)
            lines.append(f"{width} {height} {resize} {crop} {name} {fnv1a64(result.tobytes()):016x}\n")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "preprocess.txt"), "w") as file:
        file.writelines(lines)


if __name__ == "__main__":
    main()
