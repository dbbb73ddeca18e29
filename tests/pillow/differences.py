"""The kinds of damaged files of which we say something else than Pillow, and why (README.md). Each
is a test on the very file: a difference that merely looks like one of these is none of them."""

import io
import itertools
import struct
import zlib

from PIL import Image

PNG_MARK = b"\x89PNG\r\n\x1a\n"
PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
BLOCK = 8192
TURNS = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE,
         6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90}
MOST_NOTES = 8  # 2 to this power of files are tried


def png_chunks(data):
    """(kind, whole chunk) pairs, as far as there are whole ones, and then what is left."""
    at = len(PNG_MARK)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if length > len(data) - at - 12:
            break
        yield kind, data[at:at + 12 + length]
        at += 12 + length
    yield b"IEND", data[at:]


def webp_chunks(data):
    """(kind, whole chunk) pairs: what is left after them is passed over by everyone."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        if length > len(data) - at - 8:
            break
        yield kind, data[at:at + 8 + length + length % 2]
        at += 8 + length + length % 2


def riff(parts):
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts


def without_notes(data):
    """The file less some of its metadata, each way to leave some out."""
    if data.startswith(PNG_MARK):
        parts, head = list(png_chunks(data)), PNG_MARK
        notes = [i for i, (kind, _) in enumerate(parts) if kind not in PIXELS]
    else:
        parts, head = list(webp_chunks(data)), data[:12]
        notes = [i for i, (kind, _) in enumerate(parts) if kind in (b"EXIF", b"XMP ", b"ICCP")]
    for count in range(1, min(len(notes), MOST_NOTES) + 1):
        for left_out in itertools.combinations(notes, count):
            kept = b"".join(part for i, (_, part) in enumerate(parts) if i not in left_out)
            yield head + kept if head == PNG_MARK else riff(kept)


def damaged_metadata(data, our, their, pillow):
    """Metadata never decide whether a picture opens: less those that Pillow gives it up for, it is
    to Pillow what it is to us."""
    return our.status == "opened" and their.status == "refused" and any(
        our[2:] == pillow(rest)[2:] for rest in without_notes(data))


def rows_wanted(header):
    """The bytes that the pixels of a PNG unpack to, each row with its filter."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", header)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2),
              (0, 1, 1, 2)) if interlaced else ((0, 1, 0, 1),)
    total = 0
    for left, by_x, top, by_y in passes:
        columns, rows = len(range(left, width, by_x)), len(range(top, height, by_y))
        total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    return total


def png_stream(data):
    """The header of a PNG and what its pixels are packed in."""
    parts = list(png_chunks(data))
    return parts[0][1][8:], b"".join(part[8:-4] for kind, part in parts if kind == b"IDAT")


def rows_missing(data, our, their, _pillow):
    """A PNG whose packed pixels end early is truncated, also where they end with a row: Pillow shows
    black for what is missing."""
    if not data.startswith(PNG_MARK) or (our.status, their.status) != ("refused", "opened"):
        return False
    header, stream = png_stream(data)
    unpack = zlib.decompressobj()
    return len(unpack.decompress(stream)) < rows_wanted(header) and unpack.eof


def last_block(data):
    """Where in the packed pixels of a PNG the last block begins that libspng reads of them: it reads
    8 KiB at a time, never of two chunks."""
    at = begin = 0
    for kind, part in png_chunks(data):
        if kind == b"IDAT" and len(part) > 12:
            begin = at + (len(part) - 13) // BLOCK * BLOCK
            at += len(part) - 12
    return begin


def sum_in_a_later_block(data, our, their, _pillow):
    """libspng reads no further once it has all the rows: a wrong checksum is not seen that ends in
    another block than the last row."""
    if not data.startswith(PNG_MARK) or (our.status, their.status) != ("opened", "refused"):
        return False
    header, stream = png_stream(data)
    rows = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stream[2:last_block(data)])
    return len(rows) >= rows_wanted(header)


def metadata_not_written_again(data, our, their, _pillow):
    """Pillow's exif_transpose() also writes the metadata anew, and gives a picture up where it
    cannot. Turned by hand it is what it is to us."""
    if (our.status, their.status) != ("opened", "refused"):
        return False
    try:
        image = Image.open(io.BytesIO(data))
        way = TURNS.get(image.getexif().get(0x112))
        image = image.transpose(way) if way is not None else image
        return our.pixels == (*image.size, image.convert("RGB").tobytes())
    except Exception:  # pylint: disable=broad-except
        return False


KINDS = (damaged_metadata, rows_missing, sum_in_a_later_block, metadata_not_written_again)
