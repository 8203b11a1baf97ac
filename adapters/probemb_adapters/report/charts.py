"""Charts of a run: lines over a common axis, which the page draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from probemb_lib import ThresholdFit
from probemb_lib.metrics import PartNetAP

Array = np.ndarray[Any, np.dtype[Any]]


class Line(NamedTuple):
    """A named line of a chart; numbers that are not finite leave a gap."""

    name: str
    x: Sequence[float] | Array
    y: Sequence[float] | Array


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis.

    Attributes:
        mark: a value of x to mark with a vertical line, and what to write there.
        unit_square: both axes from 0 to 1, as for precision and recall.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    text: str = ""
    mark: tuple[float, str] | None = None
    unit_square: bool = False


def precision_recall_charts(metrics: Mapping[str, PartNetAP], classes: Sequence[str]) -> list[Chart]:
    """Precision over recall, a chart for each IoU threshold and a line for each method and class with ground truth.

    Args:
        metrics: evaluators by the name of the method, with equal thresholds.
        classes: names of their 0-based classes; a single one is not named in the charts.

    Raises:
        ValueError: no evaluator, or evaluators whose thresholds or number of classes differ from the first's or from
            ``classes``.
    """
    if not metrics:
        raise ValueError("expected at least one evaluator, got none")
    thresholds = next(iter(metrics.values())).iou_thresholds
    for name, metric in metrics.items():
        if metric.iou_thresholds != thresholds or metric.num_classes != len(classes):
            raise ValueError(
                f"{name}: expected thresholds {thresholds} and {len(classes)} classes, got {metric.iou_thresholds} "
                f"and {metric.num_classes}"
            )
    valid = {name: metric.compute()["class_valid"] for name, metric in metrics.items()}
    charts = []
    for threshold in thresholds:
        lines = []
        for name, metric in metrics.items():
            for c in np.flatnonzero(valid[name]).tolist():
                precision, recall = metric.curve(c, threshold)
                label = [name] * (len(metrics) > 1 or len(classes) == 1) + [classes[c]] * (len(classes) > 1)
                lines.append(Line(": ".join(label), recall, precision))
        charts.append(
            Chart(f"Precision and recall, IoU above {threshold:g}", "recall", "precision", lines, unit_square=True)
        )
    return charts


def fit_chart(fit: ThresholdFit, metric: str = "mAP at IoU 0.5") -> Chart:
    """The validation metric over the clustering threshold τ, the best one marked."""
    return Chart(
        "Choice of the clustering threshold",
        "threshold τ",
        f"{metric} on validation",
        [Line("validation", fit.grid, fit.metrics)],
        mark=(fit.threshold, f"τ = {fit.threshold:g}"),
    )


def loss_chart(history: Sequence[float], name: str = "training") -> Chart:
    """The mean loss of each epoch."""
    return Chart("Training", "epoch", "loss", [Line(name, range(1, len(history) + 1), history)])
