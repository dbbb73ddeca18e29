"""tests/bench/peers.py decode: what a JPEG costs one core, from its bytes to the crop, in vitserve
(build/tests/bench_decode) and in Pillow + torchvision."""

import json

import numpy
from PIL import Image

import peer_run
from peer_table import middle, ratios, spread, table

SIZES = [(500, 375), (4000, 3000)]
COLUMNS = ["decode_ms", "preprocess_ms", "total_ms"]


def noise(generator, cells, size, strength):
    """Noise of so many cells down the picture, smoothly enlarged to its size: (height, width)."""
    across = cells * size[0] // size[1]
    values = generator.normal(0, strength, (cells, across)).astype(numpy.float32)
    return numpy.asarray(Image.fromarray(values).resize(size, Image.BILINEAR))


def picture(size):
    """Noise of every scale, the finer the weaker, and colours that change slowly: it compresses like
    a photo, to 0.2 to 0.4 bytes a pixel at quality 90."""
    generator = numpy.random.default_rng(1)
    grey = generator.normal(0, 4, size[::-1]).astype(numpy.float32) + 128
    cells, strength = 4, 40.0
    while cells <= size[1]:
        grey += noise(generator, cells, size, strength)
        cells, strength = 2 * cells, 0.7 * strength
    red, blue = (sum(noise(generator, cells, size, 8) for cells in (4, 16, 64)) for _ in range(2))
    pixels = numpy.stack([grey + red, grey, grey + blue], axis=2)
    return Image.fromarray(numpy.clip(pixels, 0, 255).astype(numpy.uint8))


def photo(size):
    """The path of a JPEG of this size, quality 90, colours halved both ways (4:2:0)."""
    path = peer_run.FOLDER / f"{size[0]}x{size[1]}.jpg"
    if not path.exists():
        picture(size).save(path, quality=90, subsampling="4:2:0")
    return path


def lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def measure(options, paths):
    """Both in turn, round by round."""
    bench = options.binary.parent / "tests" / "bench_decode"
    rows = []
    for number in range(1, options.rounds + 1):
        answers = {"pillow": peer_run.script("pillow_torchvision.py", options.model,
                                             options.seconds, *paths, threads=1),
                   "vitserve": peer_run.output([bench, *paths])}
        rows += [{"round": number, "engine": engine, **line}
                 for engine, text in answers.items() for line in lines(text)]
    return rows


def figures(rows, engine, path, mode, column):
    return [row[column] for row in rows
            if (row["engine"], row["file"], row["mode"]) == (engine, str(path), mode)]


def print_table(options, paths, rows):
    body = []
    for path in paths:
        for mode in ("exact", "fast"):
            for engine, name in (("vitserve", "vitserve"), ("pillow", "Pillow + torchvision")):
                body.append([f"{path.name} ({path.stat().st_size // 1000} kB), {mode}: {name}",
                             *(middle(figures(rows, engine, path, mode, column), 2)
                               for column in COLUMNS), "", ""])
            ours = figures(rows, "vitserve", path, mode, "total_ms")
            body[-2][-2:] = [spread(ratios(figures(rows, "pillow", path, theirs, "total_ms"), ours))
                             for theirs in (mode, "exact")]
    table(f"A JPEG on one core, ms: median of {options.rounds} rounds",
          ["", "decode", "preprocess", "both", "times faster", "than exact Pillow"], body)


def run(options):
    paths = [photo(size) for size in SIZES]
    rows = measure(options, paths)
    print_table(options, paths, rows)
    return {"model": options.model, "rows": rows}
