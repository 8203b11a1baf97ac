"""Pictures of clouds and what was found in them, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probemb_lib import Instances

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(f'pictures need matplotlib ({error}): pip install "probemb-lib[viz]"') from error

GREY = (0.82, 0.82, 0.82)
WRONG = (0.85, 0.1, 0.1)


class ShapeResult(NamedTuple):
    """One shape with its ground truth and what was found.

    Attributes:
        name: title of the row.
        pos: (N, 3), y up.
        truth: (N,) instance of each point, −1 none.
        found: what :func:`probemb_lib.greedy_cluster` returned for the same points.
    """

    name: str
    pos: Tensor
    truth: Tensor
    found: Instances
    log_std: Tensor


def match_instances(truth: Tensor, label: Tensor, iou_threshold: float = 0.5) -> Tensor:
    """The true instance of each found one, where their IoU is above the threshold; −1 where there is none.

    Classes are not looked at, and above 0.5 a match is unique. Points of no true instance are left out of the found
    masks, as PartNet's evaluation does.

    Args:
        truth: (N,) instance of each point, −1 none.
        label: (N,) row of the found instance, −1 none.

    Returns:
        (K,) int64, K one more than the largest label.

    >>> match_instances(torch.tensor([0, 0, 1, 1, -1]), torch.tensor([1, 1, 0, 1, 0]))
    tensor([-1,  0])
    """
    rows, columns = int(label.max()) + 1 if len(label) else 0, int(truth.max()) + 1 if len(truth) else 0
    if rows == 0 or columns == 0:
        return torch.full((rows,), -1, dtype=torch.int64)
    both = (label >= 0) & (truth >= 0)
    overlap = torch.bincount(label[both] * columns + truth[both], minlength=rows * columns).view(rows, columns)
    union = overlap.sum(1, keepdim=True) + torch.bincount(truth[truth >= 0], minlength=columns) - overlap
    iou, best = (overlap / union.clamp_min(1)).max(1)
    return torch.where(iou > iou_threshold, best, -1)


def instance_colors(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(count, 3) RGB colours that neighbours in number do not share."""
    tab = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    order = np.arange(20) * 2 % 20 + np.arange(20) // 10  # the ten strong colours first
    return np.asarray(np.array(tab)[order][np.arange(count) % 20])


def contact_sheet(shapes: Sequence[ShapeResult], path: str | Path, *, title: str = "") -> Path:
    """A row for each shape: ground truth, what was found, which of it is right, and σ; written as an image.

    Found instances have the colour of the true one that they match at IoU 0.5. In the third column instances without
    a match are red, and points of no instance grey. The last column shows mean ln σ over the axes, bright is uncertain.

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
    columns = ("ground truth", "found", "right (red: false)", "uncertainty ln σ")
    figure = Figure(figsize=(2.6 * len(columns), 2.5 * len(shapes) + 0.6), layout="constrained")
    axes = [
        [figure.add_subplot(len(shapes), len(columns), len(columns) * i + j + 1, projection="3d") for j in range(4)]
        for i in range(len(shapes))
    ]
    for i, shape in enumerate(shapes):
        truth, label = shape.truth.cpu(), shape.found.label.cpu()
        match = match_instances(truth, label)
        true_colors = np.vstack([instance_colors(int(truth.max()) + 1 if len(truth) else 0), GREY])
        spare = instance_colors(len(true_colors) - 1 + len(match))[len(true_colors) - 1 :]
        matched = np.where((match >= 0)[:, None], true_colors[match.numpy()], spare)
        judged = np.where((match >= 0)[:, None], true_colors[match.numpy()], WRONG)
        sigma = shape.log_std.cpu().float().mean(1).numpy()
        colors: list[Any] = [
            true_colors[truth.numpy()],
            np.vstack([matched, GREY])[label.numpy()],
            np.vstack([judged, GREY])[label.numpy()],
            matplotlib.colormaps["viridis"](_unit_range(sigma)),
        ]
        for j, (axis, color) in enumerate(zip(axes[i], colors, strict=True)):
            _draw(axis, shape.pos.cpu().numpy(), color)
            if i == 0:
                axis.set_title(columns[j], fontsize=10)
        right = int((match >= 0).sum())
        axes[i][0].text2D(
            0.0,
            0.02,
            f"{shape.name}: {right} of {len(true_colors) - 1} found, {len(match) - right} false",
            transform=axes[i][0].transAxes,
            fontsize=8,
        )
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=110)
    return Path(path)


def _unit_range(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    low, high = np.percentile(x, [2, 98]) if len(x) else (0.0, 1.0)
    return np.clip((x - low) / max(high - low, 1e-9), 0, 1)


def _draw(axis: Any, pos: np.ndarray[Any, Any], color: Any) -> None:
    x, y, z = pos[:, 0], pos[:, 1], pos[:, 2]
    axis.scatter(x, -z, y, c=color, s=1.2, linewidths=0, depthshade=False)  # y up
    half = max(float(np.ptp(pos, axis=0).max()) / 2, 1e-6) if len(pos) else 1.0
    center = (pos.max(0) + pos.min(0)) / 2 if len(pos) else np.zeros(3)
    axis.set_xlim(center[0] - half, center[0] + half)
    axis.set_ylim(-center[2] - half, -center[2] + half)
    axis.set_zlim(center[1] - half, center[1] + half)
    axis.set_box_aspect((1, 1, 1), zoom=1.35)
    axis.view_init(elev=20, azim=-60)
    axis.set_axis_off()
