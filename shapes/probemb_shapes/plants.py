"""Generated plants: seeded clouds of a stem and its leaves with labels, a ply each, as a scanner's software saves them.

For trying the command `probemb` without a download:

    python -m probemb_shapes.plants --output plants --plants 40 --seed 0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

STEM, LEAF = 1, 2
"""The classes, as in the property `class`."""

_GOLDEN = np.pi * (3 - np.sqrt(5))  # from leaf to leaf about the stem
_NOISE = 0.0005
_COLOURS = {STEM: (118, 146, 72), LEAF: (64, 132, 52)}


def plant(rng: np.random.Generator, points: int = 4_000) -> tuple[Array, Array, Array]:
    """A plant about 0.3 high, z up, with 4 to 9 leaves, points in no order.

    Returns:
        Positions (N, 3) float64 in metres, instance (N,) from 0, class (N,).
    """
    height, leaves = rng.uniform(0.2, 0.35), int(rng.integers(4, 10))
    bend = rng.uniform(-0.05, 0.05, 2)

    def stem(t: Array) -> Array:
        return np.stack([bend[0] * t**2, bend[1] * t**2, height * t], axis=1)

    lengths = rng.uniform(0.08, 0.16, leaves)
    widths = lengths * rng.uniform(0.25, 0.45, leaves)
    areas = np.array([0.02 * height, *(lengths * widths / 2)])
    counts = np.maximum(30, np.round(points * areas / areas.sum())).astype(int)
    counts[-1] = max(30, points - counts[:-1].sum())

    t, around = rng.random(counts[0]), rng.uniform(0, 2 * np.pi, counts[0])
    radius = 0.005 * (1.2 - 0.7 * t)
    ring = np.stack([np.cos(around), np.sin(around), 0 * t], axis=1)
    parts = [stem(t) + radius[:, None] * ring]

    start = rng.uniform(0, 2 * np.pi)
    for i in range(leaves):
        along, across = rng.random(counts[i + 1]), rng.uniform(-1, 1, counts[i + 1])
        half = widths[i] / 2 * np.sin(np.pi * along**0.8) + 0.001  # pointed at both ends
        rise, droop = rng.uniform(0.3, 1.1), rng.uniform(0.4, 1.2)
        out = np.stack([np.cos(rise) * along, 0 * along, np.sin(rise) * along - droop * along**2 / 2], axis=1)
        blade = lengths[i] * out
        blade[:, 1] = half * across
        blade[:, 2] += 0.3 * half * np.abs(across)  # folded along the middle
        turn = start + i * _GOLDEN + rng.normal(0, 0.15)
        rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        parts.append(stem(np.array([0.2 + 0.75 * (i + rng.uniform(0, 0.5)) / leaves])) + blade @ rotation.T)

    pos = np.concatenate(parts)
    instance = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    pos += rng.normal(0, _NOISE, pos.shape)
    order = rng.permutation(len(pos))
    return pos[order], instance[order], np.where(instance[order] == 0, STEM, LEAF)


def write_plants(folder: str | Path, plants: int = 40, *, points: int = 4_000, seed: int = 0) -> list[Path]:
    """The files `plant_000.ply`, … with x, y, z, red, green, blue, instance and class; equal seeds give equal files."""
    from plyfile import PlyData, PlyElement

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = [*((axis, "f4") for axis in "xyz"), *((colour, "u1") for colour in ("red", "green", "blue"))]
    files = []
    for i in range(plants):
        rng = np.random.default_rng([seed, i])
        pos, instance, classes = plant(rng, points)
        vertex = np.empty(len(pos), dtype=[*fields, ("instance", "i4"), ("class", "u1")])
        colour = np.array([_COLOURS[int(c)] for c in classes]) + rng.normal(0, 12, (len(pos), 3))
        columns = [*pos.T, *colour.clip(0, 255).T, instance, classes]
        for name, values in zip(vertex.dtype.names or (), columns, strict=True):
            vertex[name] = values
        files.append(folder / f"plant_{i:03d}.ply")
        PlyData([PlyElement.describe(vertex, "vertex")]).write(files[-1])
    return files


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write generated plants, a ply each, with instance and class.")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--plants", type=int, default=40)
    parser.add_argument("--points", type=int, default=4_000, help="of a plant")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    files = write_plants(given.output, given.plants, points=given.points, seed=given.seed)
    sys.stdout.write(f"{len(files)} plants of {given.points} points in {given.output}\n")


if __name__ == "__main__":
    main()
