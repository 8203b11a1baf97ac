"""What studies keep of their runs, so that they go on where they were interrupted: a CSV with a line a run, metrics."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probemb_adapters.files import readable, replaced_file
from probemb_lib.metrics import PartNetAP


def read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV by its heads; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """One more line, with empty cells where it lacks a column or brings a new one; an interruption leaves the file as
    it was, or with the whole line."""
    lines = [*read_lines(path), line]
    with replaced_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys([*lines[0], *line])))
        writer.writeheader()
        writer.writerows(lines)


def save_metric(path: Path, metric: PartNetAP) -> None:
    """What was found in each shape, for intervals over shapes."""
    state: dict[str, Any] = {"num_classes": metric.num_classes, **metric.state_dict()}
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **state)


def load_metric(path: Path) -> PartNetAP:
    """The metric of a file of :func:`save_metric`."""
    with readable(path), np.load(path, allow_pickle=False) as file:
        metric = PartNetAP(int(file["num_classes"]))
        metric.load_state_dict(file)
    return metric
