"""Prints measurements as Markdown while they come, and remembers which conditions they meet.

Does not measure. Upstream: the sections. The output is meant for docs/gpu.md.
"""
import operator

COMPARE = {"<=": operator.le, ">=": operator.ge}


def show(value):
    """A figure with as many digits as it deserves."""
    if value is None:
        return "not measured"
    if isinstance(value, str):
        return value
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


def share(value):
    return "not measured" if value is None else f"{value:.0%}"


def ratio(ours, theirs):
    return "" if ours is None or not theirs else f"{ours / theirs:.2f}"


class Table:
    def __init__(self, title, *columns):
        print(f"\n### {title}\n")
        self.row(*columns)
        print("|" + "---|" * len(columns), flush=True)

    def row(self, *cells):
        print("| " + " | ".join(show(cell) for cell in cells) + " |", flush=True)


class Conditions:
    """What was asked of the engine, and what was measured."""

    def __init__(self):
        self.rows = []

    def check(self, what, comparison, wanted, measured):
        met = "not measured" if measured is None else "yes" if COMPARE[comparison](measured, wanted) else "NO"
        self.rows.append((what, f"{comparison} {wanted:g}", measured, met))

    def print(self):
        table = Table("What was asked", "", "asked", "measured", "met")
        for row in self.rows:
            table.row(*row)
