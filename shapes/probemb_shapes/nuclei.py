"""Generated volumes of nuclei with labels: clumps of ellipsoids that touch, clear space between clumps, blur and noise.

    image, label = nuclei_volume(np.random.default_rng(0), (32, 128, 128), spacing=(2.0, 1.0, 1.0))

Slices are farther apart than pixels, as a microscope has them, and blur is stronger along z.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RADII = 5.0, 8.0
"""Least and greatest mean radius, in the unit of ``spacing``."""

GAP = 8.0
"""Between nuclei of different clumps, at least."""

_CLUMP = 12  # nuclei, at most
_PRESSED = 0.9  # distance of neighbours in a clump, in sums of their radii
_BLUR = 1.5, 0.8, 0.8
_NOISE = 0.12

Volume = NDArray[np.float32]


def nuclei_volume(
    rng: np.random.Generator, shape: Sequence[int], *, spacing: Sequence[float] = (2.0, 1.0, 1.0)
) -> tuple[Volume, NDArray[np.int32]]:
    """A volume (Z, Y, X) of about 0 outside and 1 inside, and its label image: 0 background, 1 … n nuclei.

    Args:
        shape: of the volume, in voxels.
        spacing: of voxels along z, y and x.

    Raises:
        ValueError: not three axes, or numbers that are not positive.

    >>> image, label = nuclei_volume(np.random.default_rng(0), (16, 48, 48))
    >>> image.shape == label.shape
    True
    >>> bool(image[label > 0].mean() > 3 * image[label == 0].mean())
    True
    """
    if len(shape) != 3 or len(spacing) != 3 or min(shape) < 1 or min(spacing) <= 0:
        raise ValueError(f"expected a shape and a spacing of three positive numbers, got {shape} and {spacing}")
    step = np.asarray(spacing, float)
    centers, radii = _place(rng, np.asarray(shape) * step)
    label = np.zeros(tuple(shape), np.int32)
    nearest = np.full(tuple(shape), 1.0, np.float32)  # 1 at the surface of a nucleus
    image = np.zeros(tuple(shape), np.float32)
    for number, (center, radius) in enumerate(zip(centers, radii, strict=True), 1):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        axes = radius * rng.uniform(0.85, 1.15, 3)
        low = np.maximum(0, np.floor((center - axes.max()) / step)).astype(int)
        high = np.minimum(shape, np.ceil((center + axes.max()) / step).astype(int) + 1)
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        x = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
        far = np.linalg.norm(((x * step - center) @ turn) / axes, axis=-1).astype(np.float32)
        mine = far < nearest[window]  # what two claim is of the one whose centre is nearer in its own radii
        nearest[window][mine], label[window][mine] = far[mine], number
        image[window][mine] = rng.uniform(0.6, 1.4) * (1 - 0.3 * far[mine] ** 2)
    image = ndimage.gaussian_filter(image, _BLUR / step)
    return (image + _NOISE * rng.standard_normal(tuple(shape), np.float32)).astype(np.float32), label


def _place(rng: np.random.Generator, extent: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Centres (n, 3) and radii (n,): clumps at random places that keep their distance, until few more fit."""
    centers, radii, missed = np.zeros((0, 3)), np.zeros(0), 0
    while missed < 100:
        clump, own = [rng.uniform(0, extent)], [rng.uniform(*RADII)]
        for _ in range(int(rng.integers(_CLUMP))):
            to, radius = int(rng.integers(len(clump))), rng.uniform(*RADII)
            way = rng.normal(size=3)
            place = clump[to] + _PRESSED * (own[to] + radius) * way / np.linalg.norm(way)
            apart = np.linalg.norm(np.stack(clump) - place, axis=1) / (np.asarray(own) + radius)
            if apart.min() >= _PRESSED - 1e-9 and ((place >= 0) & (place < extent)).all():
                clump, own = [*clump, place], [*own, radius]
        new, size = np.stack(clump), np.asarray(own)
        gaps = np.linalg.norm(centers[:, None] - new, axis=-1) - radii[:, None] - size  # (n, clump)
        if len(centers) and gaps.min() < GAP:
            missed += 1
            continue
        missed = 0
        centers, radii = np.concatenate([centers, new]), np.concatenate([radii, size])
    return centers, radii
