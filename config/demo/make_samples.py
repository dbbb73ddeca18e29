#!/usr/bin/env python3
"""Writes samples/: twelve pictures for people to try the built-in model with, made from the test set of Fashion-MNIST, so
none of them was seen in training. One of each class, enlarged: the first that the model gets right by the number of the
test image; then two product photos as shops show them, an item in colour on white.

    apt-get install python3-pil dataset-fashion-mnist
    /usr/bin/python3 config/demo/make_samples.py
"""
import gzip
import pathlib

from PIL import Image, ImageOps

DATASET = "/usr/share/datasets/fashion-mnist"
HERE = pathlib.Path(__file__).resolve().parent
# File name and number of the test image.
SAMPLES = [("t-shirt.png", 19), ("trouser.png", 2), ("pullover.png", 1), ("dress.png", 13), ("coat.png", 6),
           ("sandal.png", 8), ("shirt.png", 7), ("sneaker.png", 9), ("bag.png", 18), ("ankle-boot.png", 0)]
PHOTOS = [("red-sneaker.jpg", 22, (200, 30, 40)), ("blue-top.jpg", 27, (40, 70, 190))]


def load():
    with gzip.open(f"{DATASET}/t10k-images-idx3-ubyte.gz") as file:
        return file.read()[16:]


def picture(pixels, number):
    size = 28 * 28
    return Image.frombytes("L", (28, 28), pixels[number * size:(number + 1) * size])


def main():
    pixels = load()
    folder = HERE / "samples"
    folder.mkdir(exist_ok=True)
    for name, number in SAMPLES:
        picture(pixels, number).resize((280, 280), Image.BICUBIC).save(folder / name, optimize=True)
    for name, number, colour in PHOTOS:
        large = picture(pixels, number).resize((448, 448), Image.BICUBIC)
        shaded = ImageOps.colorize(large, black="white", mid=colour, white=tuple(c // 3 for c in colour))
        canvas = Image.new("RGB", (560, 448), "white")
        canvas.paste(shaded, (56, 0))
        canvas.save(folder / name, quality=90)


if __name__ == "__main__":
    main()
