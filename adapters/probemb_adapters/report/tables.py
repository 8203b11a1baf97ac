"""Tables of results: for the terminal, as CSV and for the page."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from probemb_adapters.files import replaced_file


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        name: such as a method.
        values: one a column; floats are rounded, None is a dash.
        quoted: the values are those of a publication, and are marked so.
    """

    name: str
    values: Sequence[float | int | str | None]
    quoted: bool = False


@dataclass(frozen=True)
class Table:
    """Named rows of values, such as methods × IoU thresholds.

    Attributes:
        columns: their heads, without that of the names.
        text: said above it.
        quoted: where the quoted rows come from, said below.
        decimals: of floats.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    text: str = ""
    quoted: str = "as published by the paper"
    decimals: int = 1


def table_text(shown: Table) -> str:
    """A table for the terminal."""
    names = ["", *(row.name for row in shown.rows)]
    cells = [list(shown.columns)] + [
        [f"{v:.{shown.decimals}f}" if isinstance(v, float) else "–" if v is None else str(v) for v in row.values]
        for row in shown.rows
    ]
    width = max(map(len, names)) + 2
    column = max(16, *(len(cell) + 2 for line in cells for cell in line))
    lines = [f"{shown.title}. {shown.text}" if shown.text else shown.title]
    for name, line in zip(names, cells, strict=True):
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>{column}}" for cell in line))
    if any(row.quoted for row in shown.rows):
        lines.append(f"(paper): {shown.quoted}")
    return "\n".join(lines)


def write_table(shown: Table, path: Path) -> None:
    """A table as CSV, numbers with two decimals more than the terminal shows."""
    with replaced_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([shown.title, *shown.columns])
        for row in shown.rows:
            writer.writerow(
                [row.name, *(round(v, shown.decimals + 2) if isinstance(v, float) else v for v in row.values)]
            )
