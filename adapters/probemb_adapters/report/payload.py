"""What the page's script is told of a shape: its numbers as base64, the colours of its instances, what matches what."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probemb_adapters.report.pictures import ShapeResult, instance_colors, match_shape, z_up

Array = np.ndarray[Any, np.dtype[Any]]

NONE = "#d4d4d4"
FALSE = ("#d7191c", "#ff5a4f", "#a50f15", "#f03b20", "#ff8578")
MISSED = ("#1a1a1a", "#4a4a52", "#2b2f38", "#5a5250", "#38302c")
_KEPT = 16  # points of each instance that subsampling keeps, so that none is out of sight


def shape_payload(
    shape: ShapeResult, max_points: int, *, section: str, classes: Sequence[str] | None, noun: str, unit: str
) -> dict[str, Any]:
    """All that the script needs to know of a shape, for JSON; arrays as {dtype, bdata}, quantized ones with a scale.

    Args:
        max_points: that are drawn, the same ones in all panels.
        section: title of the section, for the messages.
        classes, noun, unit: of the section.

    Raises:
        ValueError: tensors of the shape do not fit together or are not finite, or a class has no name.
    """
    _check(shape)
    count = len(shape.found)
    label = shape.found.label.cpu().numpy()
    truth = None if shape.truth is None else shape.truth.cpu().clamp_min(-1).numpy()
    chosen = _choose(label, truth, max_points)
    found: list[dict[str, Any]] = [
        {
            "class": _class(section, classes, int(shape.found.semantic[k])),
            "score": round(float(shape.found.score[k]), 3),
            "points": n,
        }
        for k, n in enumerate(np.bincount(label[label >= 0], minlength=count).tolist())  # as painted: masks may share
    ]
    colors = _hex(instance_colors(count))
    true: list[dict[str, Any]] = []
    right = 0
    if truth is not None:
        matches = match_shape(shape)
        true_of_found, found_of_true = matches.true_of_found.tolist(), matches.found_of_true.tolist()
        own = _hex(instance_colors(len(found_of_true)))
        sizes = np.bincount(truth[truth >= 0], minlength=len(own))
        best_true, best_found = _best(matches.iou), _best(matches.iou.T)
        for k, entry in enumerate(found):
            entry |= {"match": true_of_found[k], "best": best_true[k]}
        for g, n in enumerate(sizes.tolist()):
            name = None if shape.truth_classes is None else _class(section, classes, int(shape.truth_classes[g]))
            shown = own[g] if found_of_true[g] >= 0 else MISSED[g % len(MISSED)]
            true.append(
                {"class": name, "points": n, "match": found_of_true[g], "best": best_found[g], "own": own[g]}
                | {"color": shown}
            )
        false = iter(range(count))
        colors = [own[g] if g >= 0 else FALSE[next(false) % len(FALSE)] for g in true_of_found]
        right = sum(g >= 0 for g in true_of_found)
    for entry, color in zip(found, colors, strict=True):
        entry["color"] = color
    pos = z_up(shape.pos.detach().cpu().float().numpy(), shape.up)[chosen]
    mean: dict[str, Any] | None = None
    if shape.mean is not None:
        mu = shape.mean.detach().cpu().float()[:, :3].numpy()
        if shape.mean.shape[1] == 3:
            mu = z_up(mu, shape.up)
        seeds = mu[shape.found.seed.cpu().numpy()]
        mean = _quantized(np.concatenate([mu[chosen], seeds])) | {"dim": shape.mean.shape[1]}
    unsure = shape.uncertainty()
    spread = shape.log_std.shape[1]
    axes = ["σ"] if spread == 1 else [f"σ{a}" for a in "xyz"] if spread == 3 else [f"σ{a + 1}" for a in range(spread)]
    return {
        "name": shape.name,
        "noun": noun,
        "unit": unit,
        "drawn": len(chosen),
        "points": len(shape.pos),
        "right": right,
        "true": None if truth is None else int((sizes > 0).sum()),
        "false": None if truth is None else count - right,
        "input": _quantized(pos),
        "rgb": None if shape.rgb is None else _encoded(_bytes(shape.rgb)[chosen]),
        "truth": None if truth is None else {"label": _encoded(truth[chosen].astype("<i4")), "instances": true},
        "found": {"label": _encoded(label[chosen].astype("<i4")), "instances": found},
        "sigma": _quantized(shape.log_std.detach().cpu().float().numpy()[chosen]) | {"axes": axes},
        "unsure": None
        if unsure is None
        else _encoded(np.rint(255 * unsure.cpu().float().numpy()[chosen]).astype("u1")),
        "mean": mean,
        "none": NONE,
    }


def _check(shape: ShapeResult) -> None:
    n = len(shape.pos)
    if shape.pos.shape != (n, 3) or n == 0:
        raise ValueError(f"{shape.name}: expected pos (N, 3) of at least one point, got {tuple(shape.pos.shape)}")
    per_point: dict[str, Tensor | None] = {"truth": shape.truth, "found.label": shape.found.label}
    for name, labels in per_point.items():
        if labels is not None and labels.shape != (n,):
            raise ValueError(f"{shape.name}: expected {name} ({n},), one a point, got {tuple(labels.shape)}")
    for name, value in {"log_std": shape.log_std, "mean": shape.mean, "rgb": shape.rgb}.items():
        if value is None:
            continue
        if value.ndim != 2 or len(value) != n or value.shape[1] == 0:
            raise ValueError(f"{shape.name}: expected {name} ({n}, D), a row for each point, got {tuple(value.shape)}")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{shape.name}: {name} is not finite")
    if not bool(shape.pos.isfinite().all()):
        raise ValueError(f"{shape.name}: pos is not finite")
    if shape.rgb is not None and shape.rgb.shape[1] != 3:
        raise ValueError(f"{shape.name}: expected rgb ({n}, 3), got {tuple(shape.rgb.shape)}")


def _choose(label: Array, truth: Array | None, max_points: int) -> Array:
    """Rows of the points that are drawn: a random subset that holds some points of each instance."""
    n = len(label)
    if n <= max_points:
        return np.arange(n)
    order = np.random.default_rng(0).permutation(n)
    first = np.zeros(n, np.bool_)
    for ids in (label, truth):
        if ids is not None:
            ranked = np.argsort(ids[order], kind="stable")
            sorted_ids = ids[order][ranked]
            rank = np.arange(n) - np.searchsorted(sorted_ids, sorted_ids)  # within the instance
            first[ranked[(rank < _KEPT) & (sorted_ids >= 0)]] = True
    return np.asarray(order[np.argsort(~first, kind="stable")][:max_points])


def _best(iou: Tensor) -> list[list[float] | None]:
    """Column and value of the highest IoU in each row; None where nothing overlaps."""
    if iou.shape[1] == 0:
        return [None] * len(iou)
    return [
        [at, round(value, 3)] if value > 0 else None
        for value, at in zip(*(x.tolist() for x in iou.max(1)), strict=True)
    ]


def _class(section: str, classes: Sequence[str] | None, number: int) -> str | None:
    if classes is None:
        return None
    if not 0 <= number < len(classes):
        raise ValueError(f"{section}: class {number} has no name, there are {len(classes)}")
    return classes[number]


def _quantized(x: Array) -> dict[str, Any]:
    """Columns of x (N, D) in 16 bits between their least and greatest values."""
    low, high = x.min(0).astype(np.float64), x.max(0).astype(np.float64)
    scale = np.where(high > low, high - low, 1.0) / 65535
    return {
        "low": low.tolist(),
        "scale": scale.tolist(),
        "values": _encoded(np.rint((x - low) / scale).astype("<u2")),
    }


def _encoded(x: Array) -> dict[str, str]:
    if x.dtype == np.dtype("<i4"):
        x = x.astype(np.min_scalar_type(-1 - x.max(initial=0)).newbyteorder("<"))
    return {
        "dtype": x.dtype.str[1:],
        "bdata": base64.b64encode(np.ascontiguousarray(x).tobytes()).decode("ascii"),
    }


def _bytes(rgb: Tensor) -> Array:
    colors = rgb.detach().cpu()
    if colors.is_floating_point():
        colors = (colors.clamp(0, 1) * 255).round()
    return colors.to(torch.uint8).numpy()


def _hex(colors: Array) -> list[str]:
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.rint(colors * 255).astype(int).tolist()]
