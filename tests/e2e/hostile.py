"""Small inputs that cost much, for soak_hostile.py: pictures whose few bytes claim many pixels, and
the requests around them."""

import base64
import gzip
import json
import random
import struct
import zlib

import vitserve


# ---- JPEG ---------------------------------------------------------------------------------------

EXIF_6 = (b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
          b"\0\0\0\0")


def segment(marker, data):
    return struct.pack(">BBH", 0xff, marker, 2 + len(data)) + data


def huffman(kind, symbol):
    """A table of one code: the bit 0. Zeros stand for whatever is missing at the end of a scan."""
    return segment(0xc4, bytes([kind, 1]) + bytes(15) + bytes([symbol]))


def scan(components, first, last):
    return segment(0xda, bytes([len(components)]) + b"".join(bytes([c, 0]) for c in components) +
                   bytes([first, last, 0]))


def jpeg(width, height, components=3, scans=0, sampling=0x11, turned=False, ac=False):
    """scans: 0 is a baseline picture, else so many of a progressive one, all without data."""
    frame = struct.pack(">BHHB", 8, height, width, components) + b"".join(
        bytes([c, sampling if c == 1 else 0x11, 0]) for c in range(1, components + 1))
    data = (b"\xff\xd8" + (EXIF_6 if turned else b"") + segment(0xdb, b"\0" + bytes([1] * 64)) +
            segment(0xc2 if scans else 0xc0, frame) + huffman(0x00, 0) +
            huffman(0x10, 0xe0 if scans else 0))
    every = range(1, components + 1)
    if not scans:
        data += scan(every, 0, 63)
    for i in range(scans):
        data += scan([1 + i % components], 1, 63) if ac and i else scan(every, 0, 0)
    return data + b"\xff\xd9"


# ---- PNG ----------------------------------------------------------------------------------------

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_passes(width, height, interlaced):
    if not interlaced:
        return [(width, height)]
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))
    return [((width - x + dx - 1) // dx, (height - y + dy - 1) // dy) for x, y, dx, dy in starts]


def png(width, height, colour=0, depth=1, interlaced=False):
    """All zeros."""
    packer = zlib.compressobj(9)
    packed = []
    for columns, rows in png_passes(width, height, interlaced):
        if columns > 0 and rows > 0:
            row = 1 + (columns * CHANNELS[colour] * depth + 7) // 8
            left, block = row * rows, bytes(1 << 20)
            for at in range(0, left, len(block)):
                packed.append(packer.compress(block[:left - at]))
    packed.append(packer.flush())
    palette = png_chunk(b"PLTE", bytes(6)) if colour == 3 else b""
    return (b"\x89PNG\r\n\x1a\n" +
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0,
                                           int(interlaced))) +
            palette + png_chunk(b"IDAT", b"".join(packed)) + png_chunk(b"IEND", b""))


# ---- WebP ---------------------------------------------------------------------------------------

def webp(width, height):
    """Lossless, of one colour: five codes of one symbol each, which take no bits."""
    bits = "".join(reversed(f"{width - 1:014b}")), "".join(reversed(f"{height - 1:014b}"))
    bits = bits[0] + bits[1] + "0" + "000" + "0" + "0" + "0" + "1000" * 5
    bits += "0" * (-len(bits) % 8)
    data = b"\x2f" + bytes(int(bits[i:i + 8][::-1], 2) for i in range(0, len(bits), 8))
    data += b"\0" * (len(data) % 2)
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


# ---- requests -----------------------------------------------------------------------------------

def request(path, body, kind="image/jpeg", **headers):
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}",
             f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def plain(picture):
    return request("/classify", picture)


def preprocess(picture):
    return request("/preprocess", picture)


def form(picture, count=64):
    kind, body = vitserve.multipart([(str(i), picture) for i in range(count)])
    return request("/classify", body, kind)


def packed_form(picture, count=64):
    kind, body = vitserve.multipart([(str(i), picture) for i in range(count)])
    return request("/classify", gzip.compress(body), kind, Content_Encoding="gzip")


def packed_json(picture, count=64):
    body = json.dumps({"images": [base64.b64encode(picture).decode()] * count}).encode()
    return request("/classify", gzip.compress(body), "application/json", Content_Encoding="gzip")


def infer(parts, **headers):
    return request("/v2/models/fashion_vit/infer", json.dumps(parts).encode(), "application/json",
                   **headers)


def oip(picture, count=64):
    data = [base64.b64encode(picture).decode()] * count
    return infer({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [count, 1],
                              "data": data}]})


WAYS = (plain, preprocess, form, packed_form, packed_json, oip)


def relatives(pictures, count, seed):
    """So many requests: every picture, and every way of sending it, at least once."""
    chosen = random.Random(seed)
    pairs = [(name, picture, WAYS[i % len(WAYS)]) for i, (name, picture) in enumerate(pictures)]
    while len(pairs) < count:
        name, picture = chosen.choice(pictures)
        pairs.append((name, picture, chosen.choice(WAYS)))
    return [(f"{way.__name__} of {name}", way(picture)) for name, picture, way in pairs]


def pictures():
    """Kind -> [(name, file)], none of more than 64 million pixels."""
    sides = ((8000, 8000), (65500, 977), (977, 65500), (3000, 2000))
    progressive = [(f"{w}x{h}, {c} components, {s} scans{', turned' * t}{', ac' * a}",
                    jpeg(w, h, c, s, sampling, t, a))
                   for (w, h), c, s, sampling, t, a in zip(
                       sides * 4, (4, 3, 1, 4) * 4, (32, 32, 32, 250, 10, 64, 130, 32) * 2,
                       (0x11, 0x22, 0x11, 0x21, 0x41, 0x12) * 3, (True, False, False) * 6,
                       (False, True, False, False, True) * 4)]
    baseline = [(f"{w}x{h}, {c} components{', turned' * t}", jpeg(w, h, c, 0, sampling, t))
                for (w, h), c, sampling, t in zip(sides * 3, (4, 3, 1) * 4, (0x11, 0x22, 0x41) * 4,
                                                  (True, False) * 6)]
    png_sides = ((1, 64000000), (64000000, 1), (8000, 8000), (61, 1048576), (1048576, 61))
    pngs = [(f"{w}x{h}, colour {c}, {d} bits{', interlaced' * i}", png(w, h, c, d, i))
            for (w, h), c, d, i in zip(png_sides * 3, (0, 0, 0, 3, 0, 2, 4) * 3,
                                       (1, 1, 1, 1, 1, 8, 8) * 3,
                                       (False, False, True, False, True) * 3)]
    pngs.append(("8000x8000, colour 6, 16 bits, interlaced", png(8000, 8000, 6, 16, True)))
    webps = [(f"{w}x{h}", webp(w, h)) for w, h in ((8000, 8000), (16383, 3900), (3900, 16383),
                                                   (16383, 1), (2000, 1000))]
    return {"progressive JPEG": progressive, "baseline JPEG": baseline, "PNG": pngs, "WebP": webps}


def json_bombs():
    """Bodies that take long to parse, and those whose answer is far longer."""
    def packed(path, body):
        return request(path, gzip.compress(body), "application/json", Content_Encoding="gzip")
    classify, v2, full = "/classify", "/v2/models/fashion_vit/infer", 30 << 20
    texts = {"escapes": b'{"image": "' + b'\\"' * (full // 2) + b'"}',
             "brackets": b"[" * 60 + b"[]," * (full // 3) + b"[]" + b"]" * 60,
             "keys": b"{" + b",".join(b'"%d":0' % i for i in range(1000000)) + b"}",
             "an id": b'{"id": "' + b"x" * full + b'", "inputs": []}',
             "numbers": b'{"inputs":[{"data":[' + b"0," * (full // 2) + b"0]}]}",
             "blanks": b" " * full + b"{}", "nonsense": b"x" * full,
             "unicode": b'{"image": "' + b"\\u00e4" * (full // 6) + b'"}',
             "base64": b'{"image": "' + b"A" * full + b'"}',
             "depth": b"[" * full}
    return [(f"{name} to {path}", packed(path, text)) for name, text in texts.items()
            for path in (classify, v2)]
