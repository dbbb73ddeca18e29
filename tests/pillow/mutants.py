"""The damaged files that tests/pillow/run.py compares: the same ones each time."""

import pathlib
import random
import struct
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = (ROOT / "tests" / "golden" / "images", ROOT / "config" / "demo" / "samples")
SEEDS = (
    "blue-top.jpg", "ycbcr-420-64x48.jpg", "ycbcr-progressive-40x24.jpg", "gray-64x48.jpg", "cmyk-40x24.jpg",
    "exif-6-be.jpg",
    "shirt.png", "rgb-8.png", "gray-16.png", "rgb-8-interlaced.png", "palette-4-trns.png",
    "rgb-8-trns.png", "gray-alpha-8.png", "rgb-alpha-16-interlaced.png", "exif-6.png",
    "rgb-8-text.png",
    "lossy-33x31.webp", "lossless-33x31.webp", "lossy-alpha-33x31.webp", "exif-6.webp",
)
PNG_MARK = b"\x89PNG\r\n\x1a\n"


def flip_a_bit(noise, data):
    at = noise.randrange(len(data))
    data[at] ^= 1 << noise.randrange(8)


def set_a_byte(noise, data):
    data[noise.randrange(len(data))] = noise.choice((0, 1, 0x7F, 0x80, 0xFF, noise.randrange(256)))


def set_a_number(noise, data):
    """Of 2 or 4 bytes, as lengths, sizes and offsets are."""
    width = noise.choice((2, 4))
    at = noise.randrange(max(1, len(data) - width))
    number = noise.choice((0, 1, 2, 255, 256, 0x7FFF, 0xFFFF, noise.getrandbits(8 * width)))
    data[at:at + width] = number.to_bytes(width, noise.choice(("big", "little")))


def insert(noise, data):
    at = noise.randrange(len(data) + 1)
    data[at:at] = noise.randbytes(noise.randint(1, 8))


def delete(noise, data):
    at = noise.randrange(len(data))
    del data[at:at + noise.randint(1, 16)]


def cut(noise, data):
    del data[noise.randrange(1, len(data)):]


def cut_the_end(noise, data):
    del data[-noise.randint(1, min(32, len(data) - 1)):]


def repeat(noise, data):
    at = noise.randrange(len(data))
    piece = data[at:at + noise.randint(1, 64)]
    to = noise.randrange(len(data) + 1)
    data[to:to] = piece


def append(noise, data):
    data += noise.randbytes(noise.randint(1, 32))


WAYS = (flip_a_bit, flip_a_bit, flip_a_bit, set_a_byte, set_a_byte, set_a_number, insert, delete,
        cut, cut_the_end, repeat, append)


def chunks(data):
    """Of a sound PNG: (kind, content) pairs."""
    at = len(PNG_MARK)
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, bytearray(data[at + 8:at + 8 + length])
        at += 12 + length


def damage_a_chunk(noise, data):
    """In the content of a PNG's chunk, or in what the pixels unpack to, with the right sums: what
    the CRC would hide."""
    parts = list(chunks(data))
    kind, content = noise.choice([part for part in parts if part[1]])
    pixels = kind == b"IDAT" and sum(part[0] == b"IDAT" for part in parts) == 1 and \
        noise.random() < 0.5
    unpacked = bytearray(zlib.decompress(content)) if pixels else content
    noise.choice(WAYS)(noise, unpacked)
    content[:] = zlib.compress(unpacked) if pixels else unpacked
    data[:] = join(parts)


def end_the_pixels(noise, data):
    """A PNG's last IDAT ends after what is read at a time, or becomes two, somewhere in its last
    bytes, of which one may be wrong: not seen by who has all the rows before it has the sum."""
    parts = list(chunks(data))
    last = max(i for i, part in enumerate(parts) if part[0] == b"IDAT")
    stream = parts[last][1]
    if noise.random() < 0.5:
        stream[-noise.randint(1, 8)] ^= 1 << noise.randrange(8)
    if noise.random() < 0.5:
        end_after_a_block(stream)
    else:
        at = len(stream) - noise.randint(1, 12)
        parts[last:last + 1] = (b"IDAT", stream[:at]), (b"IDAT", stream[at:])
    data[:] = join(parts)


def end_after_a_block(stream):
    """Makes the stream longer, by packed blocks of nothing after its head, until its last bytes
    come after the 8 KiB that libspng reads at a time."""
    nothing = b"\0\0\0\xff\xff"
    while len(stream) % 8192 not in range(1, 9):
        stream[2:2] = nothing


def join(parts):
    return PNG_MARK + b"".join(
        struct.pack(">I", len(content)) + kind + content +
        struct.pack(">I", zlib.crc32(kind + content)) for kind, content in parts)


def mutants(count):
    """`count` (name, bytes) pairs, as many of each seed."""
    for seed in SEEDS:
        sound = next(folder / seed for folder in FOLDERS if (folder / seed).exists()).read_bytes()
        for number in range(count // len(SEEDS)):
            noise = random.Random(f"{seed} {number}")
            data = bytearray(sound)
            way = noise.random() if seed.endswith(".png") else 1
            if way < 0.4:
                damage_a_chunk(noise, data)
            elif way < 0.5:
                end_the_pixels(noise, data)
            else:
                for _ in range(noise.choice((1, 1, 1, 2, 3))):
                    if data:
                        noise.choice(WAYS)(noise, data)
            yield f"{seed}-{number}", bytes(data)
