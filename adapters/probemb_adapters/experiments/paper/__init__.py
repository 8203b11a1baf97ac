"""The numbers that the paper prints, one CSV a table, as they stand there."""

from __future__ import annotations

import csv
from pathlib import Path


def read_paper(name: str) -> list[dict[str, str]]:
    """The lines of one of the CSVs beside this file, such as ``partnet_map.csv``, by its heads.

    >>> sorted({line["level"] for line in read_paper("partnet_map.csv")})
    ['1', '2', '3']
    """
    with (Path(__file__).parent / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
