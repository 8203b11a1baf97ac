"""One picture of the results: bars of times relative to this library's, shares of stages, growth on log-log axes."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from harness import Growth, Results, Shares, Table, write_file
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

OURS, PEER, FASTER = "#2a6f97", "#9aa5ab", "#c8553d"
STAGES = ["#90be6d", "#f9c74f", "#f8961e", "#b5838d", "#c9ada7", "#adb5bd", "#43aa8b"]
LINE_INCHES, PANEL_INCHES = 0.23, 2.6


def draw(head: Mapping[str, Any], subjects: Mapping[str, Results], path: Path) -> None:
    """Write a PNG. Subjects without tables, shares and growth leave no trace in it.

    Raises:
        ValueError: there is nothing to draw.
    """
    compared = {name: [t for t in r.tables if len(t.rows) > 1] for name, r in subjects.items()}
    tables = {name: of_subject for name, of_subject in compared.items() if of_subject}
    shares = [s for r in subjects.values() for s in r.shares]
    curves = [group for r in subjects.values() for group in _by_size(r.growth)]
    left = sum(_lines(t) for t in tables.values()) * LINE_INCHES + len(tables)
    right = [0.5 * len(shares) + 1.2] * bool(shares) + [PANEL_INCHES] * len(curves)
    if not tables and not right:
        raise ValueError("expected results with a table, shares or growth, got none of them: nothing to draw")
    height = max(left, sum(right) + 0.7 * len(right), 3.0) + 1.0
    figure = plt.figure(figsize=(8.0 * (bool(tables) + bool(right)), height), layout="constrained")
    versions = ", ".join(f"{name} {head['versions'][name]}" for name in ("torch", "numpy"))
    figure.suptitle(f"{head['machine']}, one thread, {head['date']}, commit {head['commit']}, {versions}", fontsize=11)
    sides: Any = figure.subfigures(1, bool(tables) + bool(right), squeeze=False)[0]
    if tables:
        axes = _column(sides[0], [_lines(t) for t in tables.values()])
        for axis, (name, of_subject) in zip(axes, tables.items(), strict=True):
            _bars(axis, name, of_subject)
    if right:
        rows = iter(_column(sides[-1], right, columns=2))
        if shares:
            _stacked(_merged(sides[-1], next(rows)), shares)
        for group, (time, memory) in zip(curves, rows, strict=True):
            _growth(time, group, "seconds", [g.seconds for g in group], 0)
            _growth(memory, group, "peak MB above the input", [g.megabytes for g in group], 1)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    plt.close(figure)
    write_file(path, content.getvalue())


def _column(side: Any, heights: list[float], columns: int = 1) -> Any:
    axes = side.subplots(len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    return axes if columns > 1 else axes[:, 0]


def _merged(side: Any, axes: Any) -> Any:
    """One axis over the place of a row of them."""
    grid, row = axes[0].get_gridspec(), axes[0].get_subplotspec().rowspan.start
    for axis in axes:
        axis.remove()
    return side.add_subplot(grid[row, :])


def _lines(tables: list[Table]) -> int:
    return sum(len(t.rows) + 1 for t in tables) + 2


def _bars(axis: Any, subject: str, tables: list[Table]) -> None:
    """A bar for each peer: its time over that of the library's row. The row itself is the line at 1."""
    labels, place = [], 0
    for table in tables:
        labels.append((place, table.title, True))
        place += 1
        ours = table.rows[table.ours]["min_s"]
        for name, row in table.rows.items():
            ratio = row["min_s"] / ours
            # The library's row, and the same under torch.compile or from another form of the input, have its color.
            of_library = name.startswith(re.split(r"\W", table.ours)[0])
            color = OURS if of_library else PEER if ratio >= 1 else FASTER
            axis.barh(place, ratio - 1 if ratio != 1 else 0.0, left=1, color=color)
            axis.plot([1, 1], [place - 0.4, place + 0.4], color=OURS, linewidth=3 if name == table.ours else 1)
            text = f" {ratio:.3g}×" if ratio >= 1 else f"{ratio:.2g}× "
            axis.text(ratio, place, text, va="center", ha="left" if ratio >= 1 else "right", fontsize=7)
            labels.append((place, name, False))
            place += 1
    axis.set_xscale("log")
    axis.margins(x=0.15)
    _plain_numbers(axis.xaxis)
    axis.set_ylim(place - 0.3, -0.7)
    axis.set_yticks([at for at, _, _ in labels], [text for _, text, _ in labels], fontsize=7)
    for tick, (_, _, is_title) in zip(axis.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if is_title else "normal")
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_title(f"{subject}: time of each over that of probemb_lib; longer is slower", fontsize=9, loc="right")


def _stacked(axis: Any, shares: list[Shares]) -> None:
    kinds = list(dict.fromkeys(_kind(stage) for s in shares for stage in s.seconds if stage not in s.library))
    for place, s in enumerate(shares):
        total, left = sum(s.seconds.values()), 0.0
        for stage, seconds in s.seconds.items():
            color = OURS if stage in s.library else STAGES[kinds.index(_kind(stage)) % len(STAGES)]
            axis.barh(place, 100 * seconds / total, left=left, color=color, edgecolor="white", height=0.5)
            left += 100 * seconds / total
            if seconds > 0.12 * total:
                middle = left - 50 * seconds / total
                axis.text(
                    middle, place, f"{stage}\n{100 * seconds / total:.0f} %", ha="center", va="center", fontsize=6
                )
        text = f"{s.title}: {' + '.join(s.library)} {100 * s.library_share:.1f} %"
        axis.text(0, place - 0.34, text, fontsize=7, va="bottom")
    axis.set_ylim(len(shares) - 0.5, -0.8)
    axis.set_yticks([])
    axis.set_xlim(0, 100)
    axis.set_xlabel("per cent of the time", fontsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_title("What the time is spent on; the library's part is dark blue", fontsize=9, loc="left")


def _kind(stage: str) -> str:
    """What a stage and its backward pass share a color by."""
    return stage.split(",")[0]


def _plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10, 20 … on an axis of few decades, powers of ten on one of many."""
    low, high = axis.get_view_interval()
    few = high < 1000 * low
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _by_size(growth: list[Growth]) -> list[list[Growth]]:
    groups: dict[str, list[Growth]] = {}
    for g in growth:
        groups.setdefault(g.size, []).append(g)
    return list(groups.values())


def _growth(axis: Any, group: list[Growth], quantity: str, values: list[list[float]], which: int) -> None:
    for g, y in zip(group, values, strict=True):
        if all(map(math.isfinite, y)):
            label = f"{g.title}\n∝ {g.size}$^{{{g.exponents[which]:.2f}}}$"
            axis.loglog(g.x, y, "o-", markersize=3, linewidth=1.2, label=label)
    if axis.lines:
        axis.legend(fontsize=6, frameon=False)
        axis.margins(y=0.25)
        low, high = axis.get_ylim()
        wider = max(1.0, math.sqrt(10 * low / high))  # a decade at least: what hardly changes shall look so
        axis.set_ylim(low / wider, high * wider)
        _plain_numbers(axis.xaxis)
        _plain_numbers(axis.yaxis)
    else:
        axis.text(0.5, 0.5, "not known on this system", transform=axis.transAxes, ha="center", fontsize=8)
    axis.set_xlabel(group[0].size, fontsize=8)
    axis.set_ylabel(quantity, fontsize=8)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=7)
