#!/usr/bin/python3
"""Writes odd_images.txt: files with odd metadata and odd ends, and what Pillow makes of each.

Line: name verdict ours file, a verdict being WIDTHxHEIGHT:fnv1a64 of the upright RGB pixels, or "refused";
ours is "same" but where we differ on purpose; the file is in hex. test_odd_images.c reads both. The Pillow of Debian 12 (9.4) is the measure; `make_odd_images.py
compare`, run by another one, names the lines where that differs. And prefixes.txt: name, then the lengths from
and to which Pillow opens the file of images/ though it is cut.
"""
import io
import itertools
import os
import struct
import sys
import warnings
import zlib

from PIL import Image, ImageOps

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "odd_images.txt")
IMAGES = os.path.join(os.path.dirname(PATH), "images")
PREFIX = b"Exif\0\0"
# Of TIFF's types, as struct has them; "2L" is a fraction. The last three are none.
TYPES = {1: "B", 2: "B", 3: "H", 4: "L", 5: "2L", 6: "b", 7: "B", 8: "h", 9: "l", 10: "2l", 11: "f", 12: "d",
         13: "L", 16: "Q", 0: "H", 15: "H", 17: "H"}


def fnv1a64(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def verdict(data):
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    except Exception:
        return "refused"
    return f"{image.width}x{image.height}:{fnv1a64(image.tobytes()):016x}"


def encode(*arguments, **options):
    pixels = [(x * 28, y * 51, x * y * 7 % 256) for y in range(5) for x in range(9)]
    image, file = Image.new("RGB", (9, 5)), io.BytesIO()
    image.putdata(pixels)
    image.save(file, *arguments, **options)
    return file.getvalue()


JPEG, PROGRESSIVE = encode("JPEG", optimize=True), encode("JPEG", progressive=True)
PNG, WEBP = encode("PNG"), encode("WEBP", lossless=True)
PIXELS, END = PNG.index(b"IDAT") - 4, PNG.index(b"IEND") - 4


# EXIF


def values(kind, endian, *numbers):
    code = TYPES[kind]
    numbers = [part for number in numbers for part in ((number, 1) if code[0] == "2" else (number,))]
    return struct.pack(endian + code[-1] * len(numbers), *numbers)


def tiff(endian, *entries, mark=None, following=0, count=None):
    """An entry: tag, type, how many, the bytes of the values."""
    head, data, behind = b"", b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, many, content in entries:
        head += struct.pack(endian + "HHL", tag, kind, many)
        head += content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(endian + "L", behind + len(data))
        data += content if len(content) > 4 else b""
    mark = mark or {"<": b"II*\0", ">": b"MM\0*"}[endian]
    start = struct.pack(endian + "LH", 8, len(entries) if count is None else count)
    return mark + start + head + struct.pack(endian + "L", following) + data


def orientation(number, kind=3, endian="<", tag=0x112):
    return tag, kind, 1, values(kind, endian, number)


def tiffs():
    """The structures that exif_orientation() reads."""
    for endian, name in (("<", "le"), (">", "be")):
        for kind in TYPES:
            one = orientation(6, kind, endian)
            yield f"type-{kind}-{name}", tiff(endian, one)
            yield f"type-{kind}-twice-{name}", tiff(endian, (0x112, kind, 2, values(kind, endian, 6, 8)))
            yield f"type-{kind}-after-short-{name}", tiff(endian, orientation(8, 3, endian), one)
            yield f"short-after-type-{kind}-{name}", tiff(endian, one, orientation(8, 3, endian))
        for kind in (5, 10, 11, 12):
            for label, numbers in (("half", (12, 2)), ("more", (13, 2)), ("nothing", (6, 0)), ("zeros", (0, 0))):
                content = struct.pack(endian + "2" + TYPES[kind][-1], *numbers)
                if kind > 10:
                    content = struct.pack(endian + TYPES[kind], {"half": 6.0, "more": 6.5, "nothing": float("nan"), "zeros": 0}[label])
                yield f"type-{kind}-{label}-{name}", tiff(endian, (0x112, kind, 1, content))
        yield f"srational-negative-{name}", tiff(endian, (0x112, 10, 1, struct.pack(endian + "2l", -6, -1)))
        for kind, number in ((8, -6), (9, -6), (9, 65542), (4, 65542), (3, 0), (3, 9), (3, 256), (16, 6 << 32)):
            yield f"type-{kind}-value-{number}-{name}", tiff(endian, orientation(number, kind, endian))
        one, far = orientation(6, 4, endian), struct.pack(endian + "L", 99999)
        yield f"none-{name}", tiff(endian, orientation(2, 3, endian, 0x128))
        yield f"no-values-{name}", tiff(endian, orientation(8, 3, endian), (0x112, 3, 0, b"\6\0\0\6"))
        yield f"before-a-far-value-{name}", tiff(endian, one, (0x8769, 4, 100, far), orientation(3, 3, endian))
        yield f"after-a-far-value-{name}", tiff(endian, (0x10F, 2, 100, far), one)
        yield f"after-an-unknown-type-{name}", tiff(endian, (0x10F, 99, 100, far), one)
        yield f"too-many-entries-{name}", tiff(endian, one, count=100)
        yield f"fewer-entries-{name}", tiff(endian, one, orientation(8, 3, endian), count=1)
        yield f"no-entries-{name}", tiff(endian, one, count=0)
        second = tiff(endian, one)[8:]
        yield f"in-the-second-{name}", tiff(endian, orientation(2, 3, endian, 0x128), following=26) + second
        yield f"in-both-{name}", tiff(endian, orientation(8, 3, endian), following=26) + second
        yield f"in-a-nested-{name}", tiff(endian, (0x8769, 4, 1, struct.pack(endian + "L", 26))) + second
        for label, length in (("next", 22), ("entry", 21), ("count", 9)):
            yield f"cut-in-{label}-{name}", tiff(endian, one)[:length]
        swapped = {"<": b"II\0*", ">": b"MM*\0"}[endian]
        yield f"swapped-mark-{name}", tiff(endian, one, mark=swapped)
    yield "bigtiff-mark-be", tiff(">", orientation(6, 3, ">"), mark=b"MM\0+")


H = tiff("<", orientation(8))
A, B, NONE = tiff("<", orientation(6, 4)), tiff(">", orientation(3, 3, ">")), tiff("<", orientation(2, 3, "<", 0x128))


# JPEG


def segment(marker, data):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(*parts, data=JPEG):
    return data[:20] + b"".join(parts) + data[20:]  # after JFIF


def jpegs():
    for name, data in tiffs():
        if name.startswith("type-"):
            yield "exif-" + name, jpeg(segment(0xE1, PREFIX + data))
    for name, data in {"garbage": b"garbage!", "of-7-bytes": A[:7], "bigtiff": b"II+\0" + A[4:]}.items():
        yield "damaged-exif-" + name, jpeg(segment(0xE1, PREFIX + data)), JPEG
    parts = {"a": segment(0xE1, PREFIX + A), "b": segment(0xE1, PREFIX + B), "none": segment(0xE1, PREFIX + NONE),
             "empty": segment(0xE1, PREFIX), "short": segment(0xE1, PREFIX[:5]), "unnamed": segment(0xE1, b""),
             "xmp": segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="8"/>'),
             "comment": segment(0xFE, PREFIX + B), "app2": segment(0xE2, PREFIX + B), "junk": b"junk",
             "filled": b"\xff\xff", "stuffed": b"\xff\0x", "restart": b"\xff\xd0", "start": b"\xff\xd9\xff\xd8",
             "no-length": b"\xff\xe5\0\0", "tem": b"\xff\1"}
    for first, second in itertools.product(parts, ("a", "b")):
        if first != second:
            yield f"segments-{first}-{second}", jpeg(parts[first], parts[second])
    scan = JPEG.index(b"\xff\xda")
    yield "exif-before-the-scan", JPEG[:scan] + parts["a"] + JPEG[scan:]
    yield "exif-after-the-pixels", JPEG[:-2] + parts["a"] + JPEG[-2:]
    yield "two-starts", b"\xff\xd8" + JPEG
    yield "empty-picture-before", b"\xff\xd8\xff\xd9" + JPEG
    yield "empty-pictures-before", b"\xff\xd8\xff\xd9" * 9 + JPEG
    yield "empty-picture-with-exif-before", b"\xff\xd8" + parts["a"] + b"\xff\xd9" + JPEG
    yield "tables-before", JPEG[:2] + JPEG[20:scan].split(b"\xff\xc0")[0] + b"\xff\xd9" + JPEG
    tails = {"nothing": b"", "x": b"x", "xyz": b"xyz", "text": b"<!-- text -->" * 9, "zeros": bytes(40),
             "ff": b"\xff", "start": b"\xff\xd8\xff", "comment": segment(0xFE, b"comment"), "app": segment(0xE5, b"abc"),
             "long": b"\xff\xfe\x7f\xffabc", "restart": b"\xff\xd3abc", "dnl": segment(0xDC, b"\0\5"),
             "frame": b"\xff\xc0\0\x11abc", "scan": JPEG[scan:scan + 14], "end": b"\xff\xff\xff\xd9", "again": JPEG,
             "arithmetic": b"\xff\xcc\0\4\0\0", "huffman": b"\xff\xc4\0\5\0\0\0", "tem": b"\xff\1\xff\xd9"}
    for kind, data in (("sequential", JPEG), ("progressive", PROGRESSIVE)):
        for name, tail in tails.items():
            yield f"{kind}-end-{name}", data[:-2] + tail
            yield f"{kind}-cut-end-{name}", data[:-4] + tail
    for name, late in (("marker", b"\xff\xe5\x7f\xff"), ("restart", b"\xff\xd2"), ("end", b"\xff\xd9"), ("frame", b"\xff\xc0\0\x11")):
        for back in (4, 8, 16):
            yield f"stray-{name}-{back}-before-the-end", JPEG[:-back] + late + JPEG[-back:]


# PNG


def chunk(kind, data, wrong=0):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def png(before=b"", after=b""):
    return PNG[:PIXELS] + before + PNG[PIXELS:END] + after + PNG[END:]


RAW, XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"


def profile(data, head=b"\nexif\n      40\n", width=72, between=b"\n"):
    text = data.hex().encode()
    return head + between.join(text[i : i + width] for i in range(0, len(text), width)) + b"\n"


def plain(key, text):
    return chunk(b"tEXt", key + b"\0" + text)


def packed(key, text, raw=None, way=b"\0"):
    return chunk(b"zTXt", key + b"\0" + way + (zlib.compress(text, 9) if raw is None else raw))


def international(key, text, flag=0, way=0, language=b"", name=b"", raw=None):
    text = raw if raw is not None else zlib.compress(text, 9) if flag else text
    return chunk(b"iTXt", key + b"\0" + bytes([flag, way]) + language + b"\0" + name + b"\0" + text)


def attribute(number):
    return b'<rdf:Description tiff:Orientation="%s"/>' % number


def element(number):
    return b"<tiff:Orientation>%s</tiff:Orientation>" % number


def notes():
    """Chunks that say something of the orientation."""
    yield from {"exif": chunk(b"eXIf", A), "exif-none": chunk(b"eXIf", NONE), "exif-empty": chunk(b"eXIf", b""),
                "exif-of-9": chunk(b"eXIf", tiff(">", orientation(9, 3, ">"))),
                "exif-text": plain(b"exif", B), "exif-text-prefixed": plain(b"exif", PREFIX + B),
                "exif-text-empty": plain(b"exif", b"")}.items()
    for name, make in (("plain", plain), ("packed", packed), ("international", international)):
        yield f"profile-{name}", make(RAW, profile(PREFIX + A))
        yield f"xmp-{name}", make(XMP, attribute(b"8"))
    yield "profile-packed-international", international(RAW, profile(B), 1)
    yield "xmp-packed-international", international(XMP, element(b"8"), 1)
    for name, text in {"bare": profile(A), "none": profile(NONE), "no-head": profile(A, b""), "short-head": profile(A, b"exif\n40\n"),
                       "upper": profile(A).upper(), "short-lines": profile(A, width=3), "blanks": profile(A, width=2, between=b" \t\v\f"),
                       "crlf": profile(A, b"\r\nexif\r\n 40\r\n", between=b"\r\n"), "no-last-line": profile(A)[:-1],
                       "empty": b"", "three-lines": b"\nexif\n  40\n"}.items():
        yield f"profile-{name}", plain(RAW, text)
    yield "profile-of-another-name", plain(b"Raw profile type EXIF", profile(A))
    for kind in (b"tEXt", b"zTXt", b"iTXt"):
        yield f"profile-nameless-{kind.decode()}", chunk(kind, RAW)
    yield "profile-no-data", chunk(b"zTXt", RAW + b"\0\0")
    for number in (b"1", b"0", b"9", b"10", b"63", b"", b"x", b" 6"):
        label = number.decode().strip() or f"blank-{len(number)}"
        yield f"xmp-attribute-{label}", international(XMP, attribute(number))
        yield f"xmp-element-{label}", international(XMP, element(number))
    yield "xmp-single-quotes", international(XMP, attribute(b"6").replace(b'"', b"'"))
    yield "xmp-first-of-two", international(XMP, attribute(b"x") + element(b"3") + attribute(b"6"))
    yield "xmp-utf-16", international(XMP, attribute(b"6").decode().encode("utf-16"))
    yield "xmp-no-utf-8", international(XMP, b"\xff" + attribute(b"6"))
    yield "xmp-packed-no-utf-8", international(XMP, b"\xff" + attribute(b"6"), 1)
    yield "xmp-plain-latin-1", plain(XMP, b"\xff" + attribute(b"6"))
    yield "xmp-language", international(XMP, attribute(b"6"), language=b"en", name=b"n\xc3\xa4me")
    yield "xmp-bad-language", international(XMP, attribute(b"6"), language=b"\xff")
    yield "xmp-bad-name", international(XMP, attribute(b"6"), name=b"\xff")
    yield "xmp-unpacked-way-1", international(XMP, attribute(b"6"), 0, 1)
    yield "xmp-packed-way-1", international(XMP, attribute(b"6"), 1, 1)
    yield "xmp-packed-flag-2", international(XMP, attribute(b"6"), 2)
    stream = zlib.compress(attribute(b"6") + bytes(range(256)) * 2 + b" " * 999, 9)
    damages = {"cut": stream[:-6], "half": stream[: len(stream) // 2], "longer": stream + b"more", "bad-sum": stream[:-1] + b"?",
               "garbage": b"\x78\x9cgarbage", "headless": stream[2:], "nothing": b"", "one-byte": stream[:1]}
    for name, raw in damages.items():
        yield f"xmp-packed-{name}", packed(XMP, b"", raw)
        yield f"xmp-international-{name}", international(XMP, b"", 1, raw=raw)
    for label, length in (("megabyte", 1 << 20), ("megabyte-less", (1 << 20) - 1), ("900k", 900000)):
        text = attribute(b"6").rjust(length)
        yield f"xmp-{label}", international(XMP, text, 1)
        yield f"text-{label}", international(b"Comment", text, 1) + packed(b"Comment", text)
    yield "thousand-texts", b"".join(plain(b"k", b"v") for _ in range(1100))
    yield "unknown-critical", chunk(b"ABCD", b"data")


def pieces(size, *between):
    stream = PNG[PIXELS + 8 : END - 4]
    parts = [chunk(b"IDAT", stream[i : i + size]) for i in range(0, len(stream), size)]
    return PNG[:PIXELS] + b"".join(between).join(parts)


def pngs():
    for name, data in tiffs():
        yield "exif-" + name, png(chunk(b"eXIf", data))
    every, third = dict(notes()), international(XMP, attribute(b"3"))
    for name, note in every.items():
        yield f"{name}-before", png(note)
        yield f"{name}-after", png(b"", note)
        yield f"{name}-then-xmp", png(note, third)
        yield f"xmp-then-{name}", png(third, note)
    chosen = ("exif", "exif-none", "exif-empty", "exif-text", "profile-plain", "profile-none", "xmp-international")
    for one, two in itertools.permutations(chosen, 2):
        yield f"both-{one}-{two}", png(every[one] + every[two])
        yield f"around-{one}-{two}", png(every[one], every[two])
    stream, end = PNG[PIXELS + 8 : END - 4], PNG[END:]
    for cut in range(1, 32):
        yield f"cut-by-{cut}", PNG[:-cut]
        yield f"pieces-cut-by-{cut}", (pieces(9) + end)[:-cut]
        yield f"note-cut-by-{cut}", png(b"", every["profile-packed"])[:-12 - cut]
    yield "wrong-sum-of-pixels", PNG[:PIXELS] + chunk(b"IDAT", stream, 1) + end
    yield "wrong-sum-of-header", PNG[:8] + chunk(b"IHDR", PNG[16:29], 1) + PNG[33:]
    yield "wrong-sum-of-a-note-after", png(b"", chunk(b"eXIf", A, 1))
    yield "wrong-adler", PNG[:PIXELS] + chunk(b"IDAT", stream[:-1] + b"?") + end
    yield "no-adler", PNG[:PIXELS] + chunk(b"IDAT", stream[:-4]) + end
    yield "longer-stream", PNG[:PIXELS] + chunk(b"IDAT", stream + b"more") + end
    yield "more-rows", PNG[:PIXELS] + chunk(b"IDAT", zlib.compress(zlib.decompress(stream) * 2)) + end
    yield "half-a-row-less", PNG[:PIXELS] + chunk(b"IDAT", zlib.compress(zlib.decompress(stream)[:-9])) + end
    yield "empty-pieces", PNG[:PIXELS] + chunk(b"IDAT", b"") * 2 + pieces(5, chunk(b"IDAT", b""))[PIXELS:] + end
    yield "pieces-apart", pieces(40, every["xmp-international"]) + end
    yield "late-pixels", PNG[:END] + chunk(b"IDAT", b"more") + every["xmp-international"] + end
    yield "late-pixels-cut", PNG[:END] + chunk(b"IDAT", b"more")[:-5]
    yield "no-chunk-after", PNG[:END] + b"\0\0\0\0a-bc\0\0\0\0" + every["exif"] + end
    yield "no-chunk-before", PNG[:PIXELS] + b"\0\0\0\0a-bc\0\0\0\0" + PNG[PIXELS:]
    yield "end-before-the-pixels", PNG[:PIXELS] + end + PNG[PIXELS:]
    for name, header in {"long": PNG[16:29] + b"x", "short": PNG[16:28], "way-1": PNG[16:26] + b"\1" + PNG[27:29],
                         "filter-1": PNG[16:27] + b"\1" + PNG[28:29]}.items():
        yield f"header-{name}", PNG[:8] + chunk(b"IHDR", header) + PNG[33:]
    yield "header-late", PNG[:8] + every["xmp-international"] + PNG[8:]
    yield "header-twice", PNG[:33] + PNG[8:]
    animated = chunk(b"acTL", struct.pack(">II", 2, 0))
    frame = struct.pack(">IIIIIHHBB", 0, 9, 5, 0, 0, 1, 1, 0, 0)
    yield "animation-note-in-the-second", png(animated, chunk(b"fcTL", frame) + every["xmp-international"])
    yield "animation-of-one", png(chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", frame),
                                  chunk(b"fcTL", b"\0\0\0\1" + frame[4:]) + every["xmp-international"])
    yield "rows-missing", PNG[:PIXELS] + chunk(b"IDAT", zlib.compress(zlib.decompress(stream)[:56])) + end, b""
    yield "pieces-of-another-kind", PNG[:PIXELS] + chunk(b"IDAT", stream[:20]) + chunk(b"iDAT", stream[20:]) + end
    yield from palettes()
    yield from damaged_notes()


def damaged_notes():
    """What Pillow refuses a picture for, and a file that shows what we do."""
    long = attribute(b"6").ljust((1 << 20) + 1)
    for name, note in {"exif-garbage": chunk(b"eXIf", b"garbage!"), "exif-of-7-bytes": chunk(b"eXIf", A[:7]),
                       "exif-prefixed": chunk(b"eXIf", PREFIX + A), "exif-bigtiff": chunk(b"eXIf", b"II+\0" + A[4:]),
                       "exif-in-a-packed-text": packed(b"exif", A), "profile-no-hex": plain(RAW, profile(A).replace(b"4", b"#")),
                       "profile-odd": plain(RAW, profile(A)[:-2]), "profile-apart": plain(RAW, profile(A, width=3, between=b" ")),
                       "profile-garbage": plain(RAW, profile(b"garbage!")), "text-way-1": packed(b"Comment", b"text", way=b"\1"),
                       "xmp-over-a-megabyte": international(XMP, long, 1), "text-over-a-megabyte": packed(b"Comment", long),
                       "gamma-short": chunk(b"gAMA", b"\0"), "profile-of-colours": chunk(b"iCCP", b"x\0\1"),
                       "size-short": chunk(b"pHYs", b"x"), "transparency-short": chunk(b"tRNS", b"")}.items():
        instead = chunk(b"eXIf", A) if name == "exif-prefixed" else b""
        yield f"damaged-{name}-before", png(note), png(instead)
        yield f"damaged-{name}-after", png(b"", note), png(instead)
        yield f"damaged-{name}-and-xmp", png(note + international(XMP, attribute(b"8"))), png(instead or chunk(b"eXIf", H))
    yield "damaged-sum-of-exif", png(chunk(b"eXIf", A, 1)), PNG
    yield "damaged-sum-of-text", png(chunk(b"tEXt", b"Comment\0text", 1)), PNG
    yield "damaged-sum-of-unknown", png(chunk(b"prVt", b"data", 1)), PNG


def palettes():
    rows = zlib.compress(b"".join(b"\0" + bytes([0x10 * y, 0x32, 0x54, 0xF7, 0x90]) for y in range(5)))
    start = PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 5, 4, 3, 0, 0, 0))
    pixels = chunk(b"IDAT", rows)
    for length in (0, 2, 3, 10, 48, 60, 768, 770, 771):
        yield f"palette-of-{length}-bytes", start + chunk(b"PLTE", bytes((i * 37 + 5) % 256 for i in range(length))) + pixels + PNG[END:]
    yield "palette-none", start + pixels + PNG[END:]
    yield "palette-late", start + pixels + chunk(b"PLTE", b"abc" * 16) + PNG[END:]
    yield "palette-twice", start + chunk(b"PLTE", b"abc" * 16) + chunk(b"PLTE", b"def" * 7) + pixels + PNG[END:]
    yield "palette-wrong-sum", start + chunk(b"PLTE", b"abc" * 16, 1) + pixels + PNG[END:]


# WebP


def webps():
    size = struct.pack("<I", 8)[:3] + struct.pack("<I", 4)[:3]
    for name, data in itertools.chain(tiffs(), {"type-damaged-mark": b"garbage!"}.items()):
        for label, exif in (("", data), ("prefixed-", PREFIX + data)):
            chunks = b"VP8X" + struct.pack("<II", 10, 8) + size + WEBP[12:]
            chunks += b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2)
            if name.startswith("type-"):
                file = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
                yield (f"exif-{label}{name}", file) + ((WEBP,) if data == b"garbage!" else ())


def opened_prefixes(data):
    """The first and the last length of each run."""
    opened = [length for length in range(len(data)) if verdict(data[:length]) != "refused"]
    firsts = [length for length in opened if length - 1 not in opened]
    lasts = [length for length in opened if length + 1 not in opened]
    return zip(firsts, lasts)


def write_prefixes():
    with open(os.path.join(IMAGES, "list.txt")) as file:
        names = sorted({line.split()[0] for line in file})
    with open(os.path.join(os.path.dirname(PATH), "prefixes.txt"), "w") as file:
        for name in names:
            with open(os.path.join(IMAGES, name), "rb") as image:
                for first, last in opened_prefixes(image.read()):
                    file.write(f"{name} {first} {last}\n")


def main():
    warnings.simplefilter("ignore")
    Image.init()
    if sys.argv[1:] == ["compare"]:
        with open(PATH) as file:
            for name, expected, _, data in map(str.split, file):
                if verdict(bytes.fromhex(data)) != expected:
                    print(name, expected, verdict(bytes.fromhex(data)))
        return
    with open(PATH, "w") as file:
        for kind, make in (("jpeg", jpegs), ("png", pngs), ("webp", webps)):
            for name, data, *instead in make():
                theirs, ours = verdict(data), verdict(instead[0]) if instead else "same"
                ours = "same" if ours == theirs else ours
                file.write(f"{kind}-{name} {theirs} {ours} {data.hex()}\n")
    write_prefixes()


if __name__ == "__main__":
    main()
