"""Figures of several rounds -> Markdown tables, for tests/bench/peers.py."""

import statistics


def middle(values, digits=1):
    return f"{statistics.median(values):.{digits}f}"


def spread(ratios):
    """The median and, in brackets, the smallest and the largest."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"


def ratios(ours, theirs):
    """Round by round: what the machine does from one round to the next falls out."""
    return [a / b for a, b in zip(ours, theirs)]


def table(title, head, rows):
    """The first column to the left, the others to the right."""
    lines = [f"**{title}**", "", "| " + " | ".join(head) + " |",
             "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    print("\n".join(lines) + "\n", flush=True)
