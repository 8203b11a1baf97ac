"""Differences of methods to a reference with their intervals, beside those of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from probemb_adapters.files import replaced_file

Differences = Mapping[str, tuple[float, float, float]]
"""Low end of the interval, difference and high end, in points, by method."""


def write_differences(
    differences: Differences, paper: Mapping[str, float], path: Path, *, title: str, label: str
) -> Path:
    """A picture with a line a method, the first on top.

    Args:
        paper: the differences that the paper has, by method.
        label: of the axis.
    """
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(differences)), layout="constrained")
    axes = figure.add_subplot()
    rows = {name: y for y, name in enumerate(reversed(list(differences)))}
    for name, y in rows.items():
        low, middle, high = differences[name]
        axes.plot([low, high], [y, y], color="tab:blue", lw=2, label="measured, 95 % interval" if y == 0 else None)
        axes.plot(middle, y, "o", color="tab:blue")
    if printed := [(paper[name], y) for name, y in rows.items() if name in paper]:
        axes.plot(*zip(*printed, strict=True), "D", color="tab:orange", label="paper, on its own data")
    axes.axvline(0, color="0.6", lw=1)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_xlabel(label)
    axes.set_title(title)
    axes.legend(loc="best", frameon=False)
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return path
