"""Lines on logarithmic axes as an SVG, in plain Python, for tests/bench/peers.py."""

import html
import math

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 80, 150, 50, 60
COLOURS = ["#1f77b4", "#2ca02c", "#ff7f0e", "#d62728", "#7f7f7f", "#9467bd"]


def ticks(low, high):
    """1, 2, 5, 10, ... between them."""
    values = [mantissa * 10.0 ** power for power in range(math.floor(math.log10(low)) - 1,
                                                          math.ceil(math.log10(high)) + 2)
              for mantissa in (1, 2, 5)]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def bounds(values):
    """From the tick below the least to the one above the greatest."""
    low = max(t for t in ticks(min(values) / 10, min(values)))
    high = min(t for t in ticks(max(values), max(values) * 10))
    return low, high if high > low else 2 * low


class Axis:
    def __init__(self, values, start, end):
        self.low, self.high = bounds(values)
        self.start, self.end = start, end

    def at(self, value):
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)


def text(x, y, words, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(words)}</text>'


def grid(x_axis, y_axis):
    parts = []
    for value in ticks(x_axis.low, x_axis.high):
        x = x_axis.at(value)
        parts += [f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>',
                  text(x, HEIGHT - BOTTOM + 18, f"{value:g}")]
    for value in ticks(y_axis.low, y_axis.high):
        y = y_axis.at(value)
        parts += [f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>',
                  text(LEFT - 8, y + 4, f"{value:g}", "end")]
    return parts


def curve(points, x_axis, y_axis, colour):
    """A line from point to point, broken where a value is missing."""
    parts, d, pen = [], "", "M"
    for x, y in points:
        if y is None:
            pen = "M"
            continue
        d += f"{pen}{x_axis.at(x):.1f} {y_axis.at(y):.1f}"
        pen = "L"
        parts.append(f'<circle cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" r="3" '
                     f'fill="{colour}"/>')
    return [f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="2"/>', *parts] if d else []


def svg(title, x_name, y_name, lines):
    """lines: {name: [(x, y)]}, all above 0; y may be None."""
    points = [(x, y) for line in lines.values() for x, y in line if y is not None]
    if not points:
        points = [(1, 1)]
    x_axis = Axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    y_axis = Axis([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
             text(WIDTH / 2, 26, title, more='font-size="16"'),
             *grid(x_axis, y_axis),
             text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, x_name),
             text(22, (TOP + HEIGHT - BOTTOM) / 2, y_name)]
    for i, (name, line) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        parts += curve(line, x_axis, y_axis, colour)
        y = TOP + 10 + 20 * i
        parts += [f'<path d="M{WIDTH - RIGHT + 12} {y}h20" stroke="{colour}" stroke-width="2"/>',
                  text(WIDTH - RIGHT + 38, y + 4, name, "start")]
    return "\n".join([*parts, "</svg>"]) + "\n"
