"""The paper's figures as functions: each takes what a network gave for a shape, and returns a matplotlib figure.

    figure = input_to_embedding({"probabilistic": shape})
    figure.savefig("morph.png")

docs/gallery.md shows them, made by studies/figures.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from probemb_adapters.report.pictures import (
    GREY,
    WRONG,
    ShapeResult,
    draw_cloud,
    instance_colors,
    match_shape,
    z_up,
)
from probemb_lib import (
    GaussianEmbedding,
    aggregate_instances,
    index_instances,
    log_bhattacharyya,
    log_bhattacharyya_paired,
)

Array = NDArray[Any]
LEVELS = (0.05, 0.2, 0.35, 0.5, 0.8)  # of κ; 0.35 is the paper's τ
PANEL = 2.7  # inches


def similarity_contours(
    distances: Sequence[float] = (0, 1, 5, 10, 25),
    *,
    levels: Sequence[float] = LEVELS,
    std_range: tuple[float, float] = (0.1, 100.0),
) -> Figure:
    """κ of two one-dimensional Gaussians over their σ, a panel for each distance of their means (Fig. 3).

    At distance 0 it is β, which is 1 where the σ are equal; farther apart both σ must be large to be similar.

    Args:
        distances: Δμ, in the unit of σ.
        levels: of κ in (0, 1), drawn as lines.
        std_range: smallest and largest σ, on logarithmic axes.
    """
    low, high = map(math.log, std_range)
    log_std = torch.linspace(low, high, 161, dtype=torch.float64)
    std = log_std.exp().numpy()
    grid = torch.cartesian_prod(log_std, log_std)
    figure = Figure(figsize=(PANEL * len(distances) + 0.6, PANEL + 0.6), layout="constrained")
    for j, distance in enumerate(distances):
        mean = torch.zeros(len(grid), 1, dtype=torch.float64)
        pairs = GaussianEmbedding(mean, grid[:, :1]), GaussianEmbedding(mean + distance, grid[:, 1:])
        kappa = log_bhattacharyya_paired(*pairs).exp().view(len(std), len(std)).numpy()
        axis = figure.add_subplot(1, len(distances), j + 1, xscale="log", yscale="log", aspect="equal")
        axis.pcolormesh(std, std, kappa.T, cmap="viridis", vmin=0, vmax=1, shading="gouraud")
        axis.clabel(axis.contour(std, std, kappa.T, sorted(levels), colors="white", linewidths=0.8), fontsize=7)
        axis.set_title("β (Δμ = 0)" if distance == 0 else f"κ at Δμ = {distance:g}", fontsize=9)
        axis.set_xlabel("σ of one")
        if j == 0:
            axis.set_ylabel("σ of the other")
    figure.colorbar(matplotlib.cm.ScalarMappable(Normalize(0, 1), "viridis"), ax=figure.axes, label="similarity κ")
    return figure


def uncertainty(shape: ShapeResult, *, ellipsoids: int = 120, scale: float | None = None, seed: int = 0) -> Figure:
    """σ of the points: as ellipsoids around some of them, and ln σ of each axis as a colour (Fig. 5).

    Args:
        shape: with ``log_std`` (N, 3) or (N, 1).
        ellipsoids: how many points to draw one for.
        scale: half-axes in σ; None: so that they have room beside each other.
    """
    pos, log_std = z_up(shape.pos.cpu().numpy(), shape.up), shape.log_std.cpu().float()
    log_std = log_std.expand(len(pos), 3) if log_std.shape[1] == 1 else log_std
    if log_std.shape[1] != 3:
        raise ValueError(f"{shape.name}: expected log_std of 3 dimensions or 1, got {log_std.shape[1]}")
    figure = Figure(figsize=(4 * PANEL, PANEL + 0.5), layout="constrained")
    colors = np.vstack([instance_colors(len(shape.found)), GREY])[shape.found.label.cpu().numpy()]
    first = figure.add_subplot(1, 4, 1, projection="3d")
    draw_cloud(first, pos, colors * 0.4 + 0.6)
    # Axes of σ turn with the points: with y up, the third is the file's second, negated, which σ does not see.
    std = np.abs(z_up(log_std.exp().numpy(), shape.up))
    if scale is None:
        scale = float(f"{0.04 * np.ptp(pos, axis=0).max() / np.median(std):.1g}")
    std = std * scale
    for i in np.random.default_rng(seed).permutation(len(pos))[:ellipsoids]:
        x, y, z = _ellipsoid(pos[i], std[i])
        first.plot_surface(x, y, z, color=colors[i], alpha=0.35, linewidth=0)
    first.set_title(f"{scale:g} σ of some points, colour: instance", fontsize=9)
    shared = Normalize(*np.percentile(log_std.numpy(), [2, 98]))
    for d in range(3):
        axis = figure.add_subplot(1, 4, d + 2, projection="3d")
        draw_cloud(axis, pos, matplotlib.colormaps["viridis"](shared(log_std[:, d].numpy())))
        axis.set_title(f"ln σ along {'xyz'[d]} of the file", fontsize=9)
    figure.colorbar(matplotlib.cm.ScalarMappable(shared, "viridis"), ax=figure.axes[1:], shrink=0.7, label="ln σ")
    figure.suptitle(shape.name)
    return figure


def input_to_embedding(methods: Mapping[str, ShapeResult], *, steps: int = 5) -> Figure:
    """Points on their way from their positions to their means in the embedding (Fig. 6), coloured by instance.

    Args:
        methods: name → the shape with ``mean`` (N, D ≥ 3), of which the first three dimensions are shown; a row each.
        steps: pictures, the first the input and the last the embedding.
    """
    if steps < 2 or not methods:
        raise ValueError(f"expected a method and at least 2 steps, got {len(methods)} and {steps}")
    figure = Figure(figsize=(PANEL * steps, PANEL * len(methods) + 0.4), layout="constrained")
    for i, (name, shape) in enumerate(methods.items()):
        if shape.mean is None or shape.mean.shape[1] < 3:
            got = "none" if shape.mean is None else tuple(shape.mean.shape)
            raise ValueError(f"{shape.name}: expected mean (N, D) with D >= 3, got {got}")
        label = (shape.found.label if shape.truth is None else shape.truth).cpu().clamp_min(-1)
        colors = np.vstack([instance_colors(int(label.max()) + 1 if len(label) else 0), GREY])[label]
        start, end = (z_up(t[:, :3].cpu().numpy(), shape.up) for t in (shape.pos, shape.mean))
        for j, t in enumerate(np.linspace(0, 1, steps)):
            axis = figure.add_subplot(len(methods), steps, i * steps + j + 1, projection="3d")
            draw_cloud(axis, (1 - t) * start + t * end, colors)
            where = {0.0: "input", 1.0: "embedding"}.get(float(t), f"{t:.0%}")
            axis.set_title(f"{name}: {where}" if j == 0 else where, fontsize=9)
    return figure


def score_maps(
    shape: ShapeResult, probabilities: Tensor, classes: Sequence[str], *, instances: int = 3, columns: int = 2
) -> Figure:
    """What the center-aware loss asks for, and what the network answers (Fig. 7).

    Upper row: Q of the largest true instances, κ of each point with its own instance and 0 elsewhere. Lower row: for
    the classes with most points the maximum of Q over their instances, and the predicted P beside it.

    Args:
        shape: with ``truth``, ``truth_classes`` and ``mean``.
        probabilities: (N, L), columns as ``shape.truth_classes`` counts.
        classes: name of each column.
    """
    if shape.truth is None or shape.truth_classes is None or shape.mean is None:
        raise ValueError(f"{shape.name}: expected truth, truth_classes and mean")
    truth, embedding = shape.truth.cpu(), GaussianEmbedding(shape.mean.cpu().float(), shape.log_std.cpu().float())
    index = index_instances(truth.clamp_min(-1))
    centers = aggregate_instances(embedding, index)
    kappa = log_bhattacharyya(embedding, centers).exp()  # (N, K)
    own = torch.where(index.index[:, None] == torch.arange(index.num_instances), kappa, 0.0)
    class_of = shape.truth_classes.cpu()[index.id]  # (K,)
    points = torch.bincount(class_of, index.size.float(), minlength=len(classes))
    largest, common = index.size.argsort(descending=True)[:instances], points.argsort(descending=True)[:columns]
    common = common[points[common] > 0]
    pos, panels = z_up(shape.pos.cpu().numpy(), shape.up), max(len(largest), 2 * len(common))
    figure = Figure(figsize=(PANEL * panels, 2 * PANEL + 0.5), layout="constrained")

    def panel(row: int, column: int, value: Tensor, title: str) -> None:
        axis = figure.add_subplot(2, panels, row * panels + column + 1, projection="3d")
        draw_cloud(axis, pos, matplotlib.colormaps["inferno"](value.numpy()))
        axis.set_title(title, fontsize=9)

    for j, k in enumerate(largest):
        panel(0, j, own[:, k], f"Q of instance {int(index.id[k])}:\n{classes[int(class_of[k])]}")
    for j, c in enumerate(common):
        panel(1, 2 * j, own[:, class_of == c].max(1).values, f"Q of {classes[int(c)]}")
        panel(1, 2 * j + 1, probabilities[:, c].cpu().float(), f"P of {classes[int(c)]}, predicted")
    figure.colorbar(
        matplotlib.cm.ScalarMappable(Normalize(0, 1), "inferno"), ax=figure.axes, shrink=0.5, label="Q and P"
    )
    figure.suptitle(shape.name)
    return figure


def detections(methods: Mapping[str, Sequence[ShapeResult]]) -> Figure:
    """True and false detections of several methods on the same shapes (Figs. 4 and 8), beside the ground truth.

    Found instances that match at IoU 0.5 have the colour of the true one, others are red.

    Args:
        methods: name → the shapes, the same ones in the same order for each, with ground truth.
    """
    names, (first, *_) = list(methods), list(methods.values())
    if not first or any([s.name for s in shapes] != [s.name for s in first] for shapes in methods.values()):
        raise ValueError("expected the same shapes, and at least one, for every method")
    figure = Figure(figsize=(PANEL * (1 + len(names)), PANEL * len(first) + 0.5), layout="constrained")
    for i, shape in enumerate(first):
        pos = z_up(shape.pos.cpu().numpy(), shape.up)
        true_colors = np.vstack([instance_colors(len(match_shape(shape).present)), GREY])
        assert shape.truth is not None  # match_shape asks for it
        pictures = [("ground truth", true_colors[shape.truth.cpu().clamp_min(-1).numpy()], "")]
        for name in names:
            found = methods[name][i]
            match = match_shape(found).true_of_found.numpy()
            judged = np.vstack([np.where((match >= 0)[:, None], true_colors[match], WRONG), GREY])
            right = int((match >= 0).sum())
            pictures.append(
                (name, judged[found.found.label.cpu().numpy()], f"{right} true, {len(match) - right} false")
            )
        for j, (name, colors, caption) in enumerate(pictures):
            axis = figure.add_subplot(len(first), len(pictures), i * len(pictures) + j + 1, projection="3d")
            draw_cloud(axis, pos, colors)
            axis.set_title("\n".join(part for part in (name if i == 0 else "", caption) if part), fontsize=9)
    return figure


def _ellipsoid(center: Array, half: Array) -> list[Array]:
    u, v = np.mgrid[0 : 2 * np.pi : 13j, 0 : np.pi : 9j]
    sphere = (np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v))
    return [c + h * s for c, h, s in zip(center, half, sphere, strict=True)]
