#!/usr/bin/python3
"""Writes images/: small JPEG, PNG and WebP files of every kind, and images/list.txt, what Pillow makes of them.

Line of the list: file apply_orientation width height fnv1a64, the hash being that of the RGB pixels.
test_image.c reads it. Needs Pillow and numpy. PNG files are made by hand, since Pillow cannot write most
of their kinds; 16-bit gray is the one kind where Pillow is not the measure (it clips, we keep the high
byte).
"""
import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

from make_preprocess import fnv1a64

DIRECTORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "images")
GRAY, RGB, INDEXED, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, RGB: 3, INDEXED: 1, GRAY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = {GRAY: (1, 2, 4, 8, 16), RGB: (8, 16), INDEXED: (1, 2, 4, 8), GRAY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
NAMES = {GRAY: "gray", RGB: "rgb", INDEXED: "palette", GRAY_ALPHA: "gray-alpha", RGB_ALPHA: "rgb-alpha"}
random = np.random.default_rng(7)
lines = []


def record(name, data, pillow_is_the_measure=True, expected=None):
    with open(os.path.join(DIRECTORY, name), "wb") as file:
        file.write(data)
    image = Image.open(io.BytesIO(data))
    image.load()
    for apply_orientation in (0, 1):
        result = ImageOps.exif_transpose(image) if apply_orientation else image
        result = result.convert("RGB") if pillow_is_the_measure else Image.fromarray(expected)
        width, height = result.size
        lines.append(f"{name} {apply_orientation} {width} {height} {fnv1a64(result.tobytes()):016x}\n")


def picture(width, height, channels=3):
    """Gradients with an edge and some noise; not symmetric under any turn."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (x * 3 + y * 5) % 256, 255 - (x + 2 * y) % 256]
    result = np.stack(planes[:channels], -1)
    result[height // 2 :, : width // 3] //= 3
    result = result + random.integers(-9, 10, result.shape)
    return np.clip(result, 0, 255).astype(np.uint8)


# JPEG


def jpeg(pixels, mode=None, **options):
    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, "JPEG", **options)
    return file.getvalue()


def tiff_orientation(orientation, endian):
    """Three entries, so that it has to be searched for; the text lies behind the directory."""
    entries = struct.pack(endian + "HHII", 0x010E, 2, 6, 50)
    entries += struct.pack(endian + "HHIHH", 0x0112, 3, 1, orientation, 0)
    entries += struct.pack(endian + "HHIHH", 0x0128, 3, 1, 2, 0)
    mark = {"<": b"II*\0", ">": b"MM\0*"}[endian]
    return mark + struct.pack(endian + "IH", 8, 3) + entries + struct.pack(endian + "I", 0) + b"text.\0"


def adobe_transform(data, transform):
    at = data.index(b"Adobe") + 11
    return data[:at] + bytes([transform]) + data[at + 1 :]


def write_jpegs():
    for width, height in [(1, 1), (8, 8), (17, 13), (33, 31), (64, 48)]:
        size = f"{width}x{height}"
        record(f"gray-{size}.jpg", jpeg(picture(width, height, 1)[:, :, 0]))
        for subsampling, name in enumerate(["444", "422", "420"]):
            record(f"ycbcr-{name}-{size}.jpg", jpeg(picture(width, height), subsampling=subsampling, quality=85))
    for width, height in [(17, 13), (40, 24)]:
        size = f"{width}x{height}"
        record(f"gray-progressive-{size}.jpg", jpeg(picture(width, height, 1)[:, :, 0], progressive=True))
        record(f"ycbcr-progressive-{size}.jpg", jpeg(picture(width, height), progressive=True))
        record(f"ycbcr-optimized-{size}.jpg", jpeg(picture(width, height), quality=30, optimize=True))
        cmyk = jpeg(picture(width, height, 4), "CMYK", quality=90)
        record(f"cmyk-{size}.jpg", cmyk)
        record(f"ycck-{size}.jpg", adobe_transform(cmyk, 2))
        record(f"cmyk-progressive-{size}.jpg", jpeg(picture(width, height, 4), "CMYK", progressive=True))

    plain = jpeg(picture(19, 21), subsampling=0)
    assert plain[2:4] == b"\xff\xe0"
    after_jfif = 4 + struct.unpack(">H", plain[4:6])[0]
    adobe_rgb = b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, 0)
    record("rgb-19x21.jpg", plain[:2] + adobe_rgb + plain[after_jfif:])
    record("bare-19x21.jpg", plain[:2] + plain[after_jfif:])

    notes = b"\xff\xfe" + struct.pack(">H", 302) + b"a remark " * 33 + b"end"
    profile = b"\xff\xe2" + struct.pack(">H", 66) + b"ICC_PROFILE\0\1\1" + bytes(50)
    record("notes-19x21.jpg", plain[:after_jfif] + notes + profile + plain[after_jfif:])

    for orientation in range(1, 9):
        for endian, name in [("<", "le"), (">", "be")]:
            exif = b"Exif\0\0" + tiff_orientation(orientation, endian)
            record(f"exif-{orientation}-{name}.jpg", jpeg(picture(21, 10), exif=exif, quality=60))

    # Damaged in the middle of the scan: libjpeg warns, Pillow shows what there is.
    data = bytearray(jpeg(picture(40, 24), quality=90))
    data[data.index(b"\xff\xda") + 300] ^= 0x10
    record("damaged-40x24.jpg", bytes(data))


# PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_rows(samples, depth):
    """(height, width, channels) -> one byte string per row."""
    height, width, channels = samples.shape
    flat = samples.reshape(height, width * channels)
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in flat]
    bits = (flat[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]


def paeth(a, b, c):
    pa, pb, pc = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def filter_rows(rows, step):
    """All five filters in turn."""
    result, above = b"", bytes(len(rows[0]))
    for number, row in enumerate(rows):
        left = bytes(step) + row
        corner = bytes(step) + above
        kind = (number + 1) % 5
        guesses = {
            0: lambda i: 0,
            1: lambda i: left[i],
            2: lambda i: above[i],
            3: lambda i: (left[i] + above[i]) // 2,
            4: lambda i: paeth(left[i], above[i], corner[i]),
        }
        result += bytes([kind]) + bytes((row[i] - guesses[kind](i)) & 255 for i in range(len(row)))
        above = row
    return result


def png(samples, colour, depth, interlaced=False, before=b"", after=b"", piece=1000):
    height, width, _ = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    stream = b""
    for x, y, step_x, step_y in passes:
        part = samples[y::step_y, x::step_x]
        if part.size:
            stream += filter_rows(pack_rows(part, depth), max(1, CHANNELS[colour] * depth // 8))
    stream = zlib.compress(stream, 9)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    pieces = b"".join(chunk(b"IDAT", stream[i : i + piece]) for i in range(0, len(stream), piece))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pieces + after + chunk(b"IEND", b"")


def samples_of(width, height, colour, depth):
    top = 1 << depth
    if colour == INDEXED:
        return random.integers(0, top, (height, width, 1))
    coarse = picture(width, height, CHANNELS[colour]).astype(np.int64) * 257 >> (16 - depth)
    if depth == 16:  # the low byte tells nothing of the high one
        return coarse & 0xFF00 | random.integers(0, 256, coarse.shape)
    return np.clip(coarse + random.integers(-1, 2, coarse.shape), 0, top - 1)


def palette(entries):
    return chunk(b"PLTE", random.integers(0, 256, entries * 3).astype(np.uint8).tobytes())


def record_png(name, samples, colour, depth, *arguments, **options):
    gray16 = colour == GRAY and depth == 16
    expected = np.repeat(samples >> 8, 3, 2).astype(np.uint8) if gray16 else None
    record(name, png(samples, colour, depth, *arguments, **options), not gray16, expected)


def write_pngs():
    for colour, depths in DEPTHS.items():
        for depth in depths:
            before = palette(1 << depth) if colour == INDEXED else b""
            for interlaced in (False, True):
                name = f"{NAMES[colour]}-{depth}{'-interlaced' if interlaced else ''}.png"
                record_png(name, samples_of(19, 14, colour, depth), colour, depth, interlaced, before)
    # Sizes at which some passes of an interlaced picture are empty.
    for width, height in [(1, 1), (1, 5), (5, 1), (2, 2), (3, 9), (4, 4)]:
        record_png(f"interlaced-{width}x{height}.png", samples_of(width, height, RGB, 8), RGB, 8, True)
        record_png(f"interlaced-gray-2-{width}x{height}.png", samples_of(width, height, GRAY, 2), GRAY, 2, True)

    def indexed(depth):
        return samples_of(16, 9, INDEXED, depth), INDEXED, depth

    record_png("palette-8-short.png", *indexed(8), before=palette(100))
    record_png("palette-4-short.png", *indexed(4), before=palette(5))
    record_png("palette-2-short-interlaced.png", *indexed(2), True, palette(3))
    record_png("palette-4-trns.png", *indexed(4), before=palette(16) + chunk(b"tRNS", bytes(range(0, 240, 20))))
    record_png("palette-4-trns-one.png", *indexed(4), before=palette(16) + chunk(b"tRNS", b"\xff\xff\x00"))
    gray = samples_of(16, 9, GRAY, 4)
    record_png("gray-4-trns.png", gray, GRAY, 4, before=chunk(b"tRNS", struct.pack(">H", int(gray[3, 3, 0]))))
    rgb = samples_of(16, 9, RGB, 8)
    clear = chunk(b"tRNS", struct.pack(">HHH", *map(int, rgb[3, 3])))
    record_png("rgb-8-trns.png", rgb, RGB, 8, before=clear)
    record_png("rgb-8-suggested-palette.png", rgb, RGB, 8, before=palette(7))
    record_png("rgb-8-gamma-sbit.png", rgb, RGB, 8, before=chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sBIT", b"\5\6\5"))
    text = chunk(b"tEXt", b"Title\0a picture") + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"long " * 999))
    record_png("rgb-8-text.png", rgb, RGB, 8, before=text, after=text + chunk(b"prVt", b"private"))
    record_png("rgb-8-pieces.png", rgb, RGB, 8, before=chunk(b"IDAT", b""), piece=7)
    for orientation, endian in [(1, "<"), (3, ">"), (5, "<"), (6, ">"), (7, "<"), (8, ">")]:
        exif = chunk(b"eXIf", tiff_orientation(orientation, endian))
        record_png(f"exif-{orientation}.png", rgb, RGB, 8, before=exif)
        record_png(f"exif-{orientation}-after.png", rgb, RGB, 8, after=exif)


# WebP


def webp(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", **options)
    return file.getvalue()


def riff(kind, data):
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def webp_file(*chunks):
    return riff(b"RIFF", b"WEBP" + b"".join(chunks))


def image_chunks(data):
    """The chunks that hold the pixels, out of a file."""
    result, at = b"", 12
    while at < len(data):
        end = at + 8 + (struct.unpack("<I", data[at + 4 : at + 8])[0] + 1) // 2 * 2
        if data[at : at + 4] in (b"VP8 ", b"VP8L", b"ALPH"):
            result += data[at:end]
        at = end
    return result


def three(number):
    return struct.pack("<I", number)[:3]


def extended(width, height, flags):
    """Flags: 2 animation, 4 XMP, 8 EXIF, 16 alpha, 32 colour profile."""
    return riff(b"VP8X", struct.pack("<I", flags) + three(width - 1) + three(height - 1))


def frame(x, y, pixels, flags=0, **options):
    """Flags: 1 clear it when its time is over, 2 replace what is below instead of blending."""
    height, width = pixels.shape[:2]
    place = three(x // 2) + three(y // 2) + three(width - 1) + three(height - 1) + three(100) + bytes([flags])
    return riff(b"ANMF", place + image_chunks(webp(pixels, **options)))


def animation(width, height, *frames, flags=16, after=b""):
    background = struct.pack("<IH", 0xFF336699, 0)
    return webp_file(extended(width, height, 2 | flags), riff(b"ANIM", background), *frames, after)


def few_colours(count):
    return random.integers(0, 256, (count, 3)).astype(np.uint8)[random.integers(0, count, (14, 19))]


def write_webps():
    for width, height in [(1, 1), (17, 13), (33, 31)]:
        size = f"{width}x{height}"
        record(f"lossy-{size}.webp", webp(picture(width, height), quality=85))
        record(f"lossless-{size}.webp", webp(picture(width, height), lossless=True))
        record(f"lossy-alpha-{size}.webp", webp(picture(width, height, 4), quality=60))
        record(f"lossless-alpha-{size}.webp", webp(picture(width, height, 4), lossless=True, exact=True))
    record("lossy-coarse.webp", webp(picture(40, 24), quality=3, method=6))
    record("lossy-fast.webp", webp(picture(40, 24), quality=40, method=0))
    for count in (1, 2, 4, 16, 200):  # pixels of few colours share bytes
        record(f"lossless-{count}-colours.webp", webp(few_colours(count), lossless=True))
    clear = picture(16, 9, 4)
    clear[2:7, 3:9, 3] = 0  # what lies under it shows
    record("lossy-clear.webp", webp(clear, alpha_quality=50, exact=True))
    record("lossless-clear.webp", webp(clear, lossless=True, exact=True))

    for orientation in range(1, 9):
        exif = tiff_orientation(orientation, "<>"[orientation % 2])
        if orientation % 3 == 0:
            exif = b"Exif\0\0" + exif  # not meant to be there, but some write it
        pixels = image_chunks(webp(picture(21, 10), lossless=orientation > 4))
        record(f"exif-{orientation}.webp", webp_file(extended(21, 10, 8), pixels, riff(b"EXIF", exif)))
    pixels = image_chunks(webp(picture(21, 10)))
    exif = riff(b"EXIF", tiff_orientation(6, "<"))
    record("exif-unannounced.webp", webp_file(extended(21, 10, 0), pixels, exif))
    profile, notes = riff(b"ICCP", bytes(51)), riff(b"XMP ", b"<x/>")
    strange = riff(b"note", b"nobody knows this")
    record("notes.webp", webp_file(extended(21, 10, 36), profile, strange, pixels, notes, strange))

    moving = [picture(24, 18, 4) for _ in range(3)]
    for name, options in [("lossy", {"quality": 70}), ("lossless", {"lossless": True, "exact": True})]:
        frames = [frame(0, 0, moving[0], **options), frame(4, 6, moving[1][:7, :9], **options)]
        record(f"animation-{name}.webp", animation(24, 18, *frames))
        small = frame(6, 4, moving[2][:9, :13], **options)
        record(f"animation-{name}-small.webp", animation(24, 18, small, frames[0]))
        corner = frame(10, 8, moving[2][:10, :14, :3], 3, **options)
        record(f"animation-{name}-corner.webp", animation(24, 18, corner, frames[1], flags=0))
    turned = animation(24, 18, small, frames[0], flags=24, after=riff(b"EXIF", tiff_orientation(7, "<")))
    record("animation-turned.webp", turned)
    record("animation-one-frame.webp", animation(24, 18, frames[0]))


def write_hostile():
    """Not in the list: not to be decoded."""
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(16 << 20), 9))
    with open(os.path.join(DIRECTORY, "hostile-text-bomb.png"), "wb") as file:
        file.write(png(samples_of(4, 4, RGB, 8), RGB, 8, before=bomb))


def main():
    os.makedirs(DIRECTORY, exist_ok=True)
    write_jpegs()
    write_pngs()
    write_hostile()
    write_webps()
    with open(os.path.join(DIRECTORY, "list.txt"), "w") as file:
        file.writelines(lines)


if __name__ == "__main__":
    main()
