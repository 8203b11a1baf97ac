"""Pictures of images and what was found in them, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from probemb_adapters.files import missing_extra, replaced_file
from probemb_adapters.report.pictures import WRONG, instance_colors, match_instances

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing_extra("pictures need matplotlib", "viz", error) from error

Array = np.ndarray[Any, np.dtype[Any]]


class ImageResult(NamedTuple):
    """One image with what was found in it, and its ground truth if there is one.

    Attributes:
        name: title of the row.
        image: (H, W) grey values.
        truth: (H, W) label image, 0 background; None: there is no ground truth.
        found: (H, W) label image.
    """

    name: str
    image: Array
    truth: Array | None
    found: Array


def overlay_sheet(results: Sequence[ImageResult], path: str | Path, *, title: str = "") -> Path:
    """A row for each image: the image, ground truth and what was found, coloured over it; written as a picture.

    Objects of both that match above IoU 0.5 share a colour. False ones are red, missed ones white.

    Args:
        results: at least one.
        path: the picture to write; its ending chooses the format.

    Returns:
        ``path``.

    Raises:
        ValueError: no image.
    """
    if not results:
        raise ValueError("expected at least one image to draw, got none")
    heads = ("image", "ground truth", "found") if any(r.truth is not None for r in results) else ("image", "found")
    figure = Figure(figsize=(3.2 * len(heads), 3.3 * len(results) + 0.6), layout="constrained")
    grid = figure.subplots(len(results), len(heads), squeeze=False)
    for row, result in zip(grid, results, strict=True):
        pictures, caption = _columns(result)
        shown = pictures if len(heads) == 3 else [pictures[0], pictures[2]]
        for axis, picture in zip(row, shown, strict=True):
            if picture is not None:
                axis.imshow(picture, interpolation="nearest")
            axis.set_axis_off()
        row[0].set_title(f"{result.name}: {caption}", fontsize=8, loc="left")
    figure.suptitle(f"{title} ({', '.join(heads)})" if title else ", ".join(heads), fontsize=10)
    path = Path(path)
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=100, format=path.suffix[1:] or None)
    return path


def overlay(image: Array, label: Array, colors: Array, *, opacity: float = 0.45) -> Array:
    """(H, W, 3) in [0, 1]: an image between its percentiles 1 and 99.8, with objects coloured and their borders drawn.

    Args:
        image: (H, W).
        label: (H, W), 0 background.
        colors: (n, 3) of the objects 1 … n.
    """
    low, high = np.percentile(image, [1, 99.8])
    grey = np.clip((image.astype(np.float64) - low) / max(float(high - low), 1e-9), 0, 1)
    picture = np.repeat(np.sqrt(grey)[..., None], 3, axis=2)  # dark objects are seen too
    inside = label > 0
    border = inside & _has_other_neighbour(label)
    color = np.vstack([np.zeros((1, 3)), colors])[label.astype(np.int64)]
    weight = (opacity * inside + (1 - opacity) * border)[..., None]
    return np.asarray((1 - weight) * picture + weight * color)


def _columns(result: ImageResult) -> tuple[list[Array | None], str]:
    count = int(result.found.max(initial=0))
    none = np.zeros((0, 3))
    plain = overlay(result.image, np.zeros_like(result.found), none)
    if result.truth is None:
        return [plain, None, overlay(result.image, result.found, instance_colors(count))], f"{count} found"
    true_count = int(result.truth.max(initial=0))
    truth, found = (torch.from_numpy(x.astype(np.int64) - 1).flatten() for x in (result.truth, result.found))
    present, shown = (
        np.bincount(x.ravel(), minlength=n + 1)[1:] > 0 for x, n in ((result.truth, true_count), (result.found, count))
    )
    match = np.full(count, -1)
    some = match_instances(truth, found).numpy()
    match[: len(some)] = some
    colors = instance_colors(true_count)
    of_found = np.where((match >= 0)[:, None], colors[match] if true_count else np.zeros((count, 3)), WRONG)
    missed = np.setdiff1d(np.arange(true_count), match)
    colors = colors.copy()
    colors[missed] = 1.0
    right = int((match >= 0).sum())
    caption = f"{right} of {int(present.sum())} found, {int(shown.sum()) - right} false"
    return [plain, overlay(result.image, result.truth, colors), overlay(result.image, result.found, of_found)], caption


def _has_other_neighbour(label: Array) -> Array:
    padded = np.pad(label, 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    shifts = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.any([centre != shift for shift in shifts], axis=0))
