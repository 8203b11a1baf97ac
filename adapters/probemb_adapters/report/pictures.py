"""Pictures of clouds and what was found in them, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probemb_adapters.files import missing_extra, replaced_file
from probemb_adapters.report.tally import Judged, Tally
from probemb_lib import GaussianEmbedding, Instances

try:
    import matplotlib
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing_extra("pictures need matplotlib", "viz", error) from error

GREY = (0.82, 0.82, 0.82)
WRONG = (0.85, 0.1, 0.1)
_HUES = (  # strong, light and dark shades; no red, which says "false", and no grey, which says "none"
    "#1f77b4 #ff7f0e #2ca02c #9467bd #e377c2 #17becf #bcbd22",
    "#8ab8e6 #ffbb78 #8fd98f #c5b0d5 #f7b6d2 #8fe0e8 #dbdb6d",
    "#0b3c66 #9c4a00 #12601c #4d2a7a #8c2f75 #0b666f #6b6c10",
)


class ShapeResult(NamedTuple):
    """One shape with what was found in it, and its ground truth if there is one.

    Attributes:
        name: title of the row.
        pos: (N, 3).
        truth: (N,) instance of each point, negative: none. None: there is no ground truth.
        found: what :func:`probemb_lib.greedy_cluster` returned for the same points.
        log_std: (N, D) or (N, 1), ln σ of the embedding.
        mean: (N, D), μ of the embedding, if it is to be shown.
        rgb: (N, 3) colour of the input, uint8 or a fraction of one, if it has any.
        truth_classes: (G,) class of each true instance, numbered as ``found.semantic``. With it, only instances of
            the same class match, as in the evaluation; without it, classes are not looked at.
        up: the coordinate that points up.
    """

    name: str
    pos: Tensor
    truth: Tensor | None
    found: Instances
    log_std: Tensor
    mean: Tensor | None = None
    rgb: Tensor | None = None
    truth_classes: Tensor | None = None
    up: Literal["y", "z"] = "y"

    def uncertainty(self) -> Tensor | None:
        """(N,) how unsure it is that a point is of its instance; None without the embedding's means.

        See :meth:`probemb_lib.Instances.uncertainty`.
        """
        if self.mean is None:
            return None
        return self.found.uncertainty(GaussianEmbedding(self.mean, self.log_std.to(self.mean.dtype)))

    def tally(self) -> Tally:
        """What was found of what is there."""
        if self.truth is None:
            return Tally(len(self.found), None, 0)
        matches = match_shape(self)
        return Tally(len(self.found), int(matches.present.sum()), int((matches.true_of_found >= 0).sum()))

    def judged(self) -> Judged:
        """What was found, with the scores; there must be ground truth."""
        matches = match_shape(self)
        right = (matches.true_of_found >= 0).tolist()
        return Judged(self.found.score.tolist(), right, int(matches.present.sum()))


class Matches(NamedTuple):
    """Which found instance is which true one, for K found and G true instances.

    Attributes:
        true_of_found: (K,) int64, the true instance, −1 false.
        found_of_true: (G,) int64, the found instance, −1 missed.
        iou: (K, G), classes not looked at.
        present: (G,) bool, the true instance has points.
    """

    true_of_found: Tensor
    found_of_true: Tensor
    iou: Tensor
    present: Tensor


def match_instances(truth: Tensor, label: Tensor, iou_threshold: float = 0.5) -> Tensor:
    """The true instance of each found one, where their IoU is above the threshold; −1 where there is none.

    Classes are not looked at, and above 0.5 a match is unique. Points of no true instance are left out of the found
    masks, as PartNet's evaluation does.

    Args:
        truth: (N,) instance of each point, negative: none.
        label: (N,) row of the found instance, −1 none.

    Returns:
        (K,) int64, K one more than the largest label.

    >>> match_instances(torch.tensor([0, 0, 1, 1, -1]), torch.tensor([1, 1, 0, 1, 0]))
    tensor([-1,  0])
    """
    return _above(_iou(truth, label, _count(label), _count(truth)), iou_threshold)


def match_shape(shape: ShapeResult, iou_threshold: float = 0.5) -> Matches:
    """Found and true instances of a shape that belong together, by IoU and, where the shape has them, by classes.

    Raises:
        ValueError: the shape has no ground truth, or fewer classes than true instances; the threshold is below 0.5,
            where a match is not unique.
    """
    if shape.truth is None:
        raise ValueError(f"{shape.name}: expected ground truth to match with, got none")
    if iou_threshold < 0.5:
        raise ValueError(f"iou_threshold: expected at least 0.5, where a match is unique, got {iou_threshold}")
    truth, label, classes = shape.truth.cpu(), shape.found.label.cpu(), shape.truth_classes
    iou = _iou(truth, label, len(shape.found), _count(truth))  # (K, G)
    same = torch.ones_like(iou, dtype=torch.bool)
    if classes is not None:
        if len(classes) < iou.shape[1]:
            raise ValueError(
                f"{shape.name}: expected truth_classes for {iou.shape[1]} true instances, got {len(classes)}"
            )
        same = shape.found.semantic.cpu()[:, None] == classes.cpu()[: iou.shape[1]]
    true_of_found = _above(iou * same, iou_threshold)
    return Matches(
        true_of_found,
        _above((iou * same).T, iou_threshold),
        iou,
        torch.bincount(truth[truth >= 0], minlength=iou.shape[1]) > 0,
    )


def _count(ids: Tensor) -> int:
    return max(int(ids.max()) + 1, 0) if len(ids) else 0


def _iou(truth: Tensor, label: Tensor, rows: int, columns: int) -> Tensor:
    """(rows, columns) IoU of found and true instances, over the points of true instances."""
    both = (label >= 0) & (truth >= 0)
    overlap = torch.bincount(label[both] * columns + truth[both], minlength=rows * columns).view(rows, columns)
    union = overlap.sum(1, keepdim=True) + torch.bincount(truth[truth >= 0], minlength=columns) - overlap
    return overlap / union.clamp_min(1)


def _above(iou: Tensor, threshold: float) -> Tensor:
    """Column of the highest IoU in each row, −1 where it is not above the threshold."""
    if iou.shape[1] == 0:
        return torch.full((iou.shape[0],), -1, dtype=torch.int64)
    best, at = iou.max(1)
    return torch.where(best > threshold, at, -1)


def instance_colors(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(count, 3) RGB colours that neighbours in number do not share; none is red or grey. They repeat after 21."""
    palette = [to_rgb(color) for hues in _HUES for color in hues.split()]
    return np.asarray(np.array(palette)[np.arange(count) % len(palette)])


def contact_sheet(shapes: Sequence[ShapeResult], path: str | Path, *, title: str = "") -> Path:
    """A row for each shape: ground truth, what was found, which of it is right, and σ; written as an image.

    Found instances have the colour of the true one that they match at IoU 0.5. In the third column instances without
    a match are red, and points of no instance grey. The last column shows the uncertainty of points in instances,
    bright is unsure, or mean ln σ over the axes for shapes without means. Without ground truth only what was found and
    this are drawn.

    Args:
        shapes: at least one.
        path: the image to write; its ending chooses the format.

    Returns:
        ``path``.

    Raises:
        ValueError: no shape.
    """
    if not shapes:
        raise ValueError("expected at least one shape to draw, got none")
    last = "ln σ" if shapes[0].mean is None else "uncertainty (bright: unsure)"
    columns = ("ground truth", "found", "right (red: false)", last)
    figure = Figure(figsize=(2.6 * len(columns), 2.5 * len(shapes) + 0.6), layout="constrained")
    axes = [
        [figure.add_subplot(len(shapes), len(columns), len(columns) * i + j + 1, projection="3d") for j in range(4)]
        for i in range(len(shapes))
    ]
    for i, shape in enumerate(shapes):
        for j, (axis, color) in enumerate(zip(axes[i], _columns(shape), strict=True)):
            if color is None:
                axis.set_axis_off()
            else:
                draw_cloud(axis, z_up(shape.pos.cpu().numpy(), shape.up), color)
            if i == 0:
                axis.set_title(columns[j], fontsize=10)
        axes[i][0].text2D(0.0, 0.02, f"{shape.name}: {shape.tally()}", transform=axes[i][0].transAxes, fontsize=8)
    figure.suptitle(title, fontsize=12)
    path = Path(path)
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format=path.suffix[1:] or None)
    return path


def z_up(points: np.ndarray[Any, Any], up: Literal["y", "z"]) -> np.ndarray[Any, Any]:
    """The same points (N, 3) turned so that z points up."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], 1) if up == "y" else points


def _columns(shape: ShapeResult) -> list[Any]:
    """Colours of the points in each column, None where there is nothing to draw."""
    label = shape.found.label.cpu().numpy()
    unsure, inside = shape.uncertainty(), label >= 0
    if unsure is None:
        sigma = matplotlib.colormaps["viridis"](unit_range(shape.log_std.mean(1).cpu().float().numpy()))
    else:
        sigma = np.full((len(label), 4), (*GREY, 1.0))
        sigma[inside] = matplotlib.colormaps["viridis"](unit_range(unsure.cpu().float().numpy()[inside]))
    if shape.truth is None:
        found = np.vstack([instance_colors(len(shape.found)), GREY])
        return [None, found[label], None, sigma]
    matches = match_shape(shape)
    match, present = matches.true_of_found.numpy(), matches.present
    true_colors = np.vstack([instance_colors(len(present)), GREY])
    spare = instance_colors(len(present) + len(match))[len(present) :]
    found = np.where((match >= 0)[:, None], true_colors[match], spare)
    judged = np.where((match >= 0)[:, None], true_colors[match], WRONG)
    return [
        true_colors[shape.truth.cpu().clamp_min(-1).numpy()],
        np.vstack([found, GREY])[label],
        np.vstack([judged, GREY])[label],
        sigma,
    ]


def middle(x: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The percentiles 2 and 98 of values (n,); 0 and 1 of none."""
    low, high = np.percentile(x, [2, 98]) if len(x) else (0.0, 1.0)
    return float(low), float(high)


def unit_range(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """From 0 to 1 between the percentiles 2 and 98."""
    low, high = middle(x)
    return np.clip((x - low) / max(high - low, 1e-9), 0, 1)


def draw_cloud(
    axis: Any,
    pos: np.ndarray[Any, Any],
    color: Any,
    *,
    size: float = 1.2,
    zoom: float = 1.35,
    around: np.ndarray[Any, Any] | None = None,
) -> None:
    """Points (N, 3), z up, on a 3-D axis without frame, in equal proportions.

    Args:
        size: of a point, in square points.
        around: points that fill the picture; None: ``pos``.
    """
    x, y, z = pos[:, 0], pos[:, 1], pos[:, 2]
    axis.scatter(x, y, z, c=color, s=size, linewidths=0, depthshade=False)
    around = pos if around is None else around
    half = max(float(np.ptp(around, axis=0).max()) / 2, 1e-6) if len(around) else 1.0
    center = (around.max(0) + around.min(0)) / 2 if len(around) else np.zeros(3)
    axis.set_xlim(center[0] - half, center[0] + half)
    axis.set_ylim(center[1] - half, center[1] + half)
    axis.set_zlim(center[2] - half, center[2] + half)
    axis.set_box_aspect((1, 1, 1), zoom=zoom)
    axis.view_init(elev=20, azim=-60)
    axis.set_axis_off()
