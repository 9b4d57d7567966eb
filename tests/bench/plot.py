"""A plot of the ratios to C, for --plot: it needs matplotlib, which nothing else here does."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from tests.bench.report import Table

HEIGHT = 0.8
"""The width of all bars of a load together; the loads are 1 apart."""


def draw(tables: Sequence[Table], path: Path, title: str) -> None:
    """Write a picture, in the format that the name of the file says: a bar for each load and server, and the goals."""
    from matplotlib.figure import Figure

    compared = [table for table in tables if "c" in table.rounds]
    names = list(dict.fromkeys(name for table in compared for name in table.rounds if name != "c"))
    figure = Figure(figsize=(9, 1 + 0.9 * len(compared)), layout="constrained")
    axes = figure.subplots()
    thick = HEIGHT / max(1, len(names))
    for place, name in enumerate(names):
        rows = [row for row, table in enumerate(compared) if name in table.rounds]
        spreads = [compared[row].ratio("c", "cpu", name) for row in rows]
        heights = [row - HEIGHT / 2 + (place + 0.5) * thick for row in rows]
        errors = [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]
        axes.barh(heights, [each.median for each in spreads], thick, xerr=errors, label=name)
    for row, table in enumerate(compared):
        goal = dict(table.case.goals).get("c")
        if goal:
            axes.plot([goal, goal], [row - HEIGHT / 2, row + HEIGHT / 2], color="black", linestyle=":")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(compared)), [table.case.title for table in compared])
    axes.invert_yaxis()
    axes.set_xlabel("CPU time of C, reading 64 KiB, divided by the server's; dotted: what echod must reach")
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize="small")
    figure.legend(loc="outside right center", fontsize="small")
    figure.savefig(path)
