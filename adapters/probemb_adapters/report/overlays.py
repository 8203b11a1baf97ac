"""Pictures of images and what was found in them, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from probemb_adapters.files import missing_extra, replaced_file
from probemb_adapters.report.pictures import WRONG, instance_colors, match_instances, unit_range
from probemb_adapters.report.tally import Tally

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError as error:
    raise missing_extra("pictures need matplotlib", "viz", error) from error

Array = np.ndarray[Any, np.dtype[Any]]


class ImageResult(NamedTuple):
    """One image with what was found in it, and its ground truth if there is one.

    Of a volume (Z, Y, X) one slice is drawn, that with the most objects; what is found is counted in all of them.

    Attributes:
        name: title of the row.
        image: (H, W) grey values, or (Z, Y, X).
        truth: label image of that shape, 0 background; None: there is no ground truth.
        found: label image of that shape.
        uncertainty: of each pixel in its object, from 0 to 1, if it is to be shown.
    """

    name: str
    image: Array
    truth: Array | None
    found: Array
    uncertainty: Array | None = None

    def tally(self) -> Tally:
        """What was found of what is there."""
        count = _present(self.found)
        if self.truth is None:
            return Tally(count, None, 0)
        return Tally(count, _present(self.truth), int((_matches(self.truth, self.found) >= 0).sum()))


def image_panels(result: ImageResult) -> dict[str, Array]:
    """Pictures (H, W, 3) in [0, 1] by what they show: the input, ground truth, what was found, uncertainty.

    Objects that match above IoU 0.5 share a colour. False ones are red, missed ones white. Bright is unsure.
    """
    count = int(result.found.max(initial=0))
    of_found, of_truth = instance_colors(count), np.zeros((0, 3))
    if result.truth is not None:
        match = _matches(result.truth, result.found)
        colors = instance_colors(int(result.truth.max(initial=0)))
        of_found = np.array([colors[row] if row >= 0 else WRONG for row in match]).reshape(count, 3)
        of_truth = np.where(np.isin(np.arange(len(colors)), match)[:, None], colors, 1.0)
    if (z := shown_slice(result)) is not None:
        parts = {name: part[z] for name, part in result._asdict().items() if name != "name" and part is not None}
        result = result._replace(**parts)
    image, found = result.image, result.found
    panels = {"input": overlay(image, np.zeros_like(found), np.zeros((0, 3)))}
    if result.truth is not None:
        panels["truth"] = overlay(image, result.truth, of_truth)
    panels["found"] = overlay(image, found, of_found)
    if result.uncertainty is not None:
        panels["uncertainty"] = panels["input"].copy()
        colors = matplotlib.colormaps["viridis"](unit_range(result.uncertainty[found > 0]))
        panels["uncertainty"][found > 0] = colors[:, :3]
    return panels


def shown_slice(result: ImageResult) -> int | None:
    """The slice of a volume with the most true, or else found, objects; None of an image."""
    if result.image.ndim == 2:
        return None
    label = result.found if result.truth is None else result.truth
    return int(np.argmax([_present(part) for part in label]))


def overlay_sheet(results: Sequence[ImageResult], path: str | Path, *, title: str = "") -> Path:
    """A row for each image, with the pictures of :func:`image_panels`; written as a picture.

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
    rows = [image_panels(result) for result in results]
    heads = max((list(panels) for panels in rows), key=len)
    figure = Figure(figsize=(3.2 * len(heads), 3.3 * len(results) + 0.6), layout="constrained")
    grid = figure.subplots(len(results), len(heads), squeeze=False)
    for axes, panels, result in zip(grid, rows, results, strict=True):
        for axis, head in zip(axes, heads, strict=True):
            if head in panels:
                axis.imshow(panels[head], interpolation="nearest")
            axis.set_axis_off()
        z = shown_slice(result)
        of_slice = "" if z is None else f"; slice {z + 1} of {len(result.image)}"
        axes[0].set_title(f"{result.name}: {result.tally()}{of_slice}", fontsize=8, loc="left")
    told = {"truth": "ground truth", "uncertainty": "uncertainty, bright is unsure"}
    if "truth" in heads:
        told["found"] = "found, red is false"
    names = "; ".join(told.get(head, head) for head in heads)
    figure.suptitle(f"{title} ({names})" if title else names, fontsize=10)
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


def _present(label: Array) -> int:
    return int((np.bincount(label.ravel())[1:] > 0).sum())


def _matches(truth: Array, found: Array) -> Array:
    """(n,) row of the true object that each of the found ones 1 … n matches, −1 where none."""
    match = np.full(int(found.max(initial=0)), -1)
    of_truth, of_found = (torch.from_numpy(x.astype(np.int64) - 1).flatten() for x in (truth, found))
    some = match_instances(of_truth, of_found).numpy()
    match[: len(some)] = some
    return match


def _has_other_neighbour(label: Array) -> Array:
    padded = np.pad(label, 1, mode="edge")
    centre = padded[1:-1, 1:-1]
    shifts = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.any([centre != shift for shift in shifts], axis=0))
