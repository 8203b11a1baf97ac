"""The classes of a maker of shapes, declared as one table: a name → the names below it, in the order of the classes.

A table is nested, such as {"lamp": {"body": ("pole", "cord"), "base": ()}}; a name with nothing below it is a leaf.
PartNet's levels and its lists of classes follow from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias, Union

Table: TypeAlias = Mapping[str, Union["Table", tuple[str, ...]]]
Levels: TypeAlias = dict[int, tuple[str, ...]]


def leaves(table: Table) -> Iterator[tuple[str, ...]]:
    """The names from the root down to each leaf, in the table's order.

    >>> list(leaves({"lamp": {"body": ("pole", "cord"), "base": ()}}))
    [('lamp', 'body', 'pole'), ('lamp', 'body', 'cord'), ('lamp', 'base')]
    """
    for name, below in table.items():
        if not below:
            yield (name,)
        elif isinstance(below, tuple):
            yield from ((name, leaf) for leaf in below)
        else:
            yield from ((name, *rest) for rest in leaves(below))


def levels(table: Table) -> Levels:
    """Part paths of PartNet's three levels of granularity: two names, three names, and the leaves themselves.

    >>> levels({"lamp": {"body": {"jointed": ("bar",), "cord": ()}, "base": ()}})[2]
    ('lamp/body/jointed', 'lamp/body/cord', 'lamp/base')
    """
    names = list(leaves(table))
    cut = {n: tuple(dict.fromkeys("/".join(path[: n + 1]) for path in names)) for n in (1, 2)}
    return cut | {3: tuple("/".join(path) for path in names)}


def stats_files(category: str, levels: Levels) -> dict[Path, str]:
    """PartNet's lists of classes, one a level: the file below the root → its text."""
    folder = Path("stats") / "after_merging_label_ids"
    return {
        folder / f"{category}-level-{level}.txt": "".join(f"{i} {path} leaf\n" for i, path in enumerate(paths, start=1))
        for level, paths in levels.items()
    }


def write_stats(root: Path, category: str, levels: Levels) -> None:
    """Write `stats_files` under ``root``."""
    for path, text in stats_files(category, levels).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
