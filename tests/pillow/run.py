"""Pillow's verdict on damaged files beside ours: opened or refused, the pixels and the crop.

usage: run.py DECODER [--count N] [--keep FOLDER]

DECODER is build/tests/pillow_decode. Prints how often each kind of difference of differences.py
was seen; a difference of no such kind is printed, kept in FOLDER where that is given, and fails.
The Pillow of Debian 12 (9.4) is the measure (README.md).
"""

import argparse
import collections
import io
import pathlib
import struct
import subprocess
import sys
import warnings

import PIL
from PIL import Image, ImageOps

from differences import KINDS
from mutants import mutants

RESIZE, CROP, MAX_PIXELS = 64, 56, 1 << 20  # as decode.c has them
MOST_OUT_OF_PROPORTION = 32  # Pillow resizes all of the picture: such a one would be huge

# status: "opened", "refused" or "too large". why: the error. pixels: width, height, bytes.
Verdict = collections.namedtuple("Verdict", "status why pixels crop", defaults=("", None, None))


def center_crop(image):
    width, height = image.size
    shorter, longer = sorted(image.size)
    if longer > MOST_OUT_OF_PROPORTION * shorter:
        return None
    longer = int(RESIZE * longer / shorter)
    size = (RESIZE, longer) if width <= height else (longer, RESIZE)
    left, top = (int(round((side - CROP) / 2)) for side in size)
    resized = image.resize(size, Image.BICUBIC)
    return resized.crop((left, top, left + CROP, top + CROP)).tobytes()


def in_rgb(image):
    """16-bit gray keeps its high byte (README.md), where Pillow clips to white."""
    if image.mode == "I":
        values = struct.unpack(f"={image.width * image.height}i", image.tobytes())
        image = Image.frombytes("L", image.size, bytes(value >> 8 for value in values))
    return image.convert("RGB")


def theirs(data):
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
        if image.width * image.height > MAX_PIXELS:
            return Verdict("too large")
        image = in_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # pylint: disable=broad-except
        return Verdict("refused", f"{type(error).__name__}: {error}")
    return Verdict("opened", "", (*image.size, image.tobytes()), center_crop(image))


def ours(decoder, data):
    decoder.stdin.write(struct.pack("<I", len(data)) + data)
    decoder.stdin.flush()
    word, *rest = decoder.stdout.readline().decode(errors="replace").split(maxsplit=2)
    if word == "refused":
        status = "too large" if rest[0] == "image_too_large" else "refused"
        return Verdict(status, rest[1].strip())
    width, height = map(int, rest)
    pixels = decoder.stdout.read(width * height * 3)
    return Verdict("opened", "", (width, height, pixels), decoder.stdout.read(CROP * CROP * 3))


def same(our, their):
    if "opened" not in (our.status, their.status):
        return True  # for whatever reason
    if our.status != their.status or our.pixels != their.pixels:
        return False
    return their.crop is None or our.crop == their.crop


def describe(our, their):
    words = f"we: {our.status} {our.why}; Pillow: {their.status} {their.why}"
    if our.pixels and their.pixels:
        pairs = zip(our.pixels[2], their.pixels[2])
        words += f"; {our.pixels[:2]} and {their.pixels[:2]}, most {max(abs(a - b) for a, b in pairs)}"
    return words


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("decoder")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None
    seen, kinds, unknown = collections.Counter(), collections.Counter(), 0
    with subprocess.Popen([options.decoder], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as decoder:
        for name, data in mutants(options.count):
            our, their = ours(decoder, data), theirs(data)
            seen[our.status, their.status] += 1
            if same(our, their):
                continue
            kind = next((kind for kind in KINDS if kind(data, our, their, theirs)), None)
            if kind:
                kinds[kind.__name__.replace("_", " ")] += 1
                continue
            unknown += 1
            print(f"{name}: {describe(our, their)}")
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / name).write_bytes(data)
        decoder.stdin.close()
    print(f"{seen.total()} mutants, Pillow {PIL.__version__}")
    for (our_status, their_status), count in sorted(seen.items()):
        print(f"{count:7} we: {our_status}, Pillow: {their_status}")
    for name, count in kinds.most_common():
        print(f"{count:7} known differences: {name}")
    print(f"{unknown:7} unknown differences")
    return 1 if unknown or decoder.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
