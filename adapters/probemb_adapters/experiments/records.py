"""What studies have in common: the budget of a training, and what they keep of their runs to go on where they were
interrupted, a CSV with a line a run and metrics."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probemb_adapters.experiments import partnet
from probemb_adapters.files import readable, replaced_file
from probemb_adapters.training import LAST
from probemb_lib.metrics import LabelImageAP, PartNetAP, ScanNetAP

FAMILIES = ("Chair", "Lamp", "StorageFurniture", "Table")
"""Of generated furniture: the paper's "large" categories."""

IOUS, IOU = (0.25, 0.5, 0.75), 0.5
"""Thresholds of a table, and that of its differences and plots."""


@dataclass
class Budget:
    """Of a training: the same for all that a study compares."""

    shapes: int = 1_000
    """generated training shapes of a category; a tenth of it for validation and for test"""
    epochs: int = 10
    """passes over ``epoch_shapes``"""
    epoch_shapes: int = 160
    """training shapes drawn an epoch"""
    batch_size: int = 4
    """shapes a step"""
    train_points: int = 1_024
    """points of a shape in training"""
    points: int = 2_048
    """points of a shape in validation and test"""
    width: float = 0.5
    """factor of the widths of PointNet++'s layers"""
    learning_rate: float = 3e-3
    """highest, of Adam"""

    @property
    def steps(self) -> int:
        """Of the optimizer."""
        return self.epochs * (self.epoch_shapes // self.batch_size)

    def of_shapes(self, category: str, level: int, seed: int, folder: Path, accelerator: str) -> partnet.Options:
        """The training of a category's network in a folder, which goes on where it was interrupted."""
        return partnet.Options(
            category=category,
            level=level,
            seed=seed,
            generated_shapes=self.shapes,
            epochs=self.epochs,
            epoch_shapes=self.epoch_shapes,
            batch_size=self.batch_size,
            train_points=self.train_points,
            points=self.points,
            width=self.width,
            learning_rate=self.learning_rate,
            max_norm=5.0,
            accelerator=accelerator,  # type: ignore[arg-type]
            output=folder,
            resume=(folder / LAST).exists(),
        )


def read_lines(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV by its heads; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines_of(path: Path, budget: Mapping[str, Any]) -> list[dict[str, str]]:
    """The lines of runs of this budget: only those are compared."""
    asked = {name: "" if value is None else str(value) for name, value in budget.items()}
    return [line for line in read_lines(path) if asked.items() <= line.items()]


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """One more line, with empty cells where it lacks a column or brings a new one; an interruption leaves the file as
    it was, or with the whole line."""
    lines = [*read_lines(path), line]
    with replaced_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys([*lines[0], *line])))
        writer.writeheader()
        writer.writerows(lines)


def save_metric(path: Path, metric: PartNetAP | ScanNetAP | LabelImageAP) -> None:
    """What was found in each cloud or image, for intervals over them."""
    made_with: dict[str, Any] = (
        {"class_ids": metric.class_ids}
        if isinstance(metric, ScanNetAP)
        else {"num_classes": metric.num_classes}
        if isinstance(metric, PartNetAP)
        else {"iou_thresholds": metric.iou_thresholds}
    )
    state = {**made_with, **metric.state_dict()}
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **state)


def load_metric(path: Path) -> PartNetAP:
    """The metric of a file of :func:`save_metric`, of shapes."""
    with readable(path), np.load(path, allow_pickle=False) as file:
        metric = PartNetAP(int(file["num_classes"]))
        metric.load_state_dict(file)
    return metric


def load_scenes(path: Path) -> ScanNetAP:
    """The metric of a file of :func:`save_metric`, of scenes."""
    with readable(path), np.load(path, allow_pickle=False) as file:
        metric = ScanNetAP(file["class_ids"].tolist())
        metric.load_state_dict(file)
    return metric


def load_images(path: Path) -> LabelImageAP:
    """The metric of a file of :func:`save_metric`, of images."""
    with readable(path), np.load(path, allow_pickle=False) as file:
        metric = LabelImageAP(file["iou_thresholds"].tolist())
        metric.load_state_dict(file)
    return metric


def reset_peak_memory(device: torch.device) -> None:
    """Let :func:`peak_memory` count from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """Megabytes at most since :func:`reset_peak_memory`: of the GPU, or of this process with its libraries; NaN where
    the system does not tell, that is everywhere but on Linux."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), float("nan"))
