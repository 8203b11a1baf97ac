"""A floor of rooms clustered in tiles: time and memory against its size, and agreement with the whole at once.

Rooms of a fixed density with furniture as surfaces of boxes; floor and walls are the background. A network is
simulated that looks at each point alone: centres, uncertainties and scores with noise, and some points of floor and
walls taken for furniture. Every size runs in a process of its own, on one thread. Memory is the peak above the input:
the positions and what the simulated network knows of the points.

    python benchmarks/large_scene.py              30 rooms, 5,000,000 points: about two minutes
    python benchmarks/large_scene.py --quick      small rooms, for CI
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from harness import Growth, PeakMemory, Results, in_new_process, run_alone

# isort: split
import numpy as np
import torch
from torch import Tensor

from probemb_lib import GaussianEmbedding, Instances, greedy_cluster
from probemb_lib.clustering.tiles import cluster_tiles

ROOM = np.array([7.0, 6.0, 2.8])  # metres
ROOMS_IN_A_ROW = 6
OBJECTS = 25  # in a room
STRUCTURE = 0.4  # part of the points on floor and walls
# width, depth and height of furniture: its row is its class, after the background
FURNITURE = np.array(
    [[0.5, 0.5, 0.9], [1.4, 0.8, 0.75], [1.9, 0.9, 0.8], [0.8, 0.45, 1.8], [0.4, 0.4, 0.5], [2.0, 1.6, 0.5]]
)
FREQUENCY = [0.4, 0.12, 0.04, 0.16, 0.26, 0.02]
NOISE = 65_537  # rows of a table, a prime: neighbours in space or in the file get unrelated ones

TILE, OVERLAP = 6.0, 1.0  # half the longest piece of furniture
THRESHOLD, MIN_POINTS = 0.35, 30


class Floor(NamedTuple):
    """The input: positions, and which object each point is on; and the objects, of which row 0 is none."""

    positions: Tensor  # (N, 3) float32
    object_of: Tensor  # (N,) int16
    center: Tensor  # (K, 3) float32
    size: Tensor  # (K, 3)
    kind: Tensor  # (K,) int64, the class
    noise: Tensor  # (NOISE, 8)

    def predict(self, index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        """What the simulated network says of some points."""
        position, of = self.positions[index], self.object_of[index].long()
        noise = self.noise[index % NOISE]
        center, size = self.center[of], self.size[of]
        nothing = of == 0
        center[nothing], size[nothing] = position[nothing], 0.3
        away = ((position - center) / size).norm(dim=1)  # at most 0.87 on a box
        # The farther from the centre the worse; across a thin object as well as along it.
        mean = center + noise[:, :3] * (0.05 + 0.15 * away[:, None]) * size
        log_std = (0.35 * size).log() + 0.1 * noise[:, 3:6]
        score = (0.95 * (-1.5 * away.square()).exp() + 0.02 * noise[:, 6]).clamp(0.05, 0.999)
        mistaken = nothing & (noise[:, 7] > 2.6)  # one in 200
        score[nothing] = (torch.where(mistaken, 0.3, 0.01)[nothing] + 0.005 * noise[nothing, 6]).clamp_min(0)
        probabilities = torch.zeros(len(index), 1 + len(FURNITURE))
        probabilities[:, 0] = torch.where(nothing & ~mistaken, 0.9, 0.04)
        probabilities.scatter_(1, self.kind[of].clamp_min(1)[:, None], score[:, None])
        return GaussianEmbedding(mean, log_std), probabilities


def furnish(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre, size and class of what stands in a room, not in each other; 5 cm from all."""
    low, high, kinds = np.zeros((0, 2)), np.zeros((0, 2)), random.choice(len(FURNITURE), OBJECTS, p=FREQUENCY)
    sizes = FURNITURE[kinds] * random.uniform(0.85, 1.1, (OBJECTS, 3))
    turned = random.random(OBJECTS) < 0.5
    sizes[turned, :2] = sizes[turned, 1::-1]
    order = np.argsort(-sizes[:, :2].prod(axis=1), kind="stable")  # large ones find a place first
    sizes, kinds = sizes[order], kinds[order]
    for size in sizes[:, :2]:
        while True:
            corner = random.uniform(0.05, ROOM[:2] - size - 0.05)
            if not ((corner < high + 0.05) & (low < corner + size + 0.05)).all(axis=1).any():
                break
        low, high = np.vstack([low, corner]), np.vstack([high, corner + size])
    center = np.column_stack([(low + high) / 2, sizes[:, 2] / 2])
    return center, sizes, kinds + 1


def on_boxes(
    random: np.random.Generator, center: np.ndarray, size: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly over the visible faces of boxes, and the box of each."""
    x, y, z = size.T
    area = np.stack([y * z, y * z, x * z, x * z, x * y], axis=1)  # not the bottom
    face = random.choice(area.size, n, p=(area / area.sum()).ravel())
    box, side = face // 5, face % 5
    unit = random.random((n, 3)) - 0.5
    unit[np.arange(n), side // 2] = np.where(side % 2, 0.5, -0.5)
    unit[side == 4, 2] = 0.5
    return center[box] + unit * size[box], box


def build(rooms: int, points_in_room: int) -> Floor:
    """The first rooms of the floor: a room is the same on every floor."""
    positions = np.empty((rooms * points_in_room, 3), dtype=np.float32)
    object_of = np.zeros(rooms * points_in_room, dtype=np.int16)
    centers, sizes, kinds = [np.zeros((1, 3))], [np.ones((1, 3))], [np.zeros(1, dtype=np.int64)]
    for room in range(rooms):
        random = np.random.default_rng(room)
        origin = np.array([room % ROOMS_IN_A_ROW, room // ROOMS_IN_A_ROW, 0]) * ROOM
        center, size, kind = furnish(random)
        n = round(points_in_room * STRUCTURE)
        shell, _ = on_boxes(random, ROOM[None] / 2, ROOM[None], n)
        shell[:, 2] = ROOM[2] - shell[:, 2]  # a box without its bottom, upside down: walls and floor
        things, box = on_boxes(random, center, size, points_in_room - n)
        rows = slice(room * points_in_room, (room + 1) * points_in_room)
        order = random.permutation(points_in_room)
        positions[rows] = (np.concatenate([shell, things]) + origin)[order]
        object_of[rows] = np.concatenate([np.zeros(n, dtype=np.int64), box + 1 + OBJECTS * room])[order]
        centers.append(center + origin)
        sizes.append(size)
        kinds.append(kind)
    noise = np.random.default_rng(2**31).normal(size=(NOISE, 8)).astype(np.float32)
    return Floor(
        torch.from_numpy(positions),
        torch.from_numpy(object_of),
        torch.from_numpy(np.concatenate(centers)).float(),
        torch.from_numpy(np.concatenate(sizes)).float(),
        torch.from_numpy(np.concatenate(kinds)),
        torch.from_numpy(noise),
    )


def whole(floor: Floor) -> tuple[Instances, dict[str, float]]:
    """Predicted and clustered at once."""
    start = time.perf_counter()
    predicted = floor.predict(torch.arange(len(floor.positions)))
    seconds = time.perf_counter() - start
    return greedy_cluster(*predicted, threshold=THRESHOLD, min_points=MIN_POINTS), {"network_s": seconds}


def measure(way: Callable[[Floor], tuple[Instances, dict[str, float]]], rooms: int, points_in_room: int) -> Measured:
    """Cluster a floor of some rooms."""
    way(build(1, 2000))  # code and buffers are loaded
    floor = build(rooms, points_in_room)
    with PeakMemory() as peak:
        start = time.perf_counter()
        found, details = way(floor)
        seconds = time.perf_counter() - start
    return Measured(found.label, {"seconds": seconds, "peak_mb": peak.megabytes} | details | quality(found, floor))


class Measured(NamedTuple):
    """Labels and numbers; memory is the peak above what was there before, NaN where the system does not tell."""

    label: Tensor
    numbers: dict[str, float]


def tiled(floor: Floor) -> tuple[Instances, dict[str, float]]:
    """What the library does, and what of the time is the simulated network's."""
    sizes: list[int] = []
    seconds = 0.0

    def predict(index: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        nonlocal seconds
        start = time.perf_counter()
        result = floor.predict(index)
        seconds += time.perf_counter() - start
        sizes.append(len(index))
        return result

    found = cluster_tiles(
        floor.positions, predict, tile_size=TILE, overlap=OVERLAP, threshold=THRESHOLD, min_points=MIN_POINTS
    )
    return found, {
        "network_s": seconds,
        "tiles": len(sizes),
        "largest_tile": max(sizes),
        "points_predicted": sum(sizes),
    }


def pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of labels that points have, and how many points."""
    width = int(b.max()) + 1
    key, count = torch.unique(a * width + b, return_counts=True)
    return key // width, key % width, count


def agreement(label: Tensor, expected: Tensor) -> float:
    """Part of the points whose instances in both results are each other's best match; none matches none."""
    a, b, count = pairs(label + 1, expected + 1)
    best_a = torch.zeros(int(a.max()) + 1, dtype=torch.int64).scatter_reduce(0, a, count, "amax")
    best_b = torch.zeros(int(b.max()) + 1, dtype=torch.int64).scatter_reduce(0, b, count, "amax")
    matched = (count == best_a[a]) & (count == best_b[b]) & ((a == 0) == (b == 0))
    return int(count[matched].sum()) / len(label)


def quality(found: Instances, floor: Floor) -> dict[str, float]:
    """Instances, and the part of the objects that one of them covers with an IoU above 0.5 or 0.9."""
    a, b, count = pairs(found.label + 1, floor.object_of.long())
    size_a, size_b = torch.bincount(found.label + 1), torch.bincount(floor.object_of.long())
    iou = (count / (size_a[a] + size_b[b] - count))[(a > 0) & (b > 0)]
    objects = len(floor.kind) - 1
    return {
        "instances": len(found),
        "found_50": int((iou > 0.5).sum()) / objects,
        "found_90": int((iou > 0.9).sum()) / objects,
    }


def show(rows: list[dict[str, Any]]) -> None:
    print(f"\n{'':24}{'tiles':>36}{'whole':>28}")
    print(f"{'rooms':>6}{'points':>12}{'tiles':>6}", end="")
    print(f"{'s':>8}{'network':>9}{'MB':>8}{'IoU>.9':>8}{'s':>10}{'MB':>9}{'IoU>.9':>8}{'same points':>14}")
    for row in rows:
        own, at_once = row["tiled"], row["whole"]
        print(f"{row['rooms']:6}{row['points']:12,}{own['tiles']:6}", end="")
        print(f"{own['seconds']:8.2f}{own['network_s']:9.2f}{own['peak_mb']:8.0f}{own['found_90']:8.1%}", end="")
        print(f"{at_once['seconds']:10.2f}{at_once['peak_mb']:9.0f}{at_once['found_90']:8.1%}", end="")
        print(f"{row['same_points']:14.3%}")


def measure_sizes(rooms: list[int], points_in_room: int) -> Results:
    rows: list[dict[str, Any]] = []
    for n in rooms:
        own, at_once = (in_new_process(measure, way, n, points_in_room) for way in (tiled, whole))
        row: dict[str, Any] = {"rooms": n, "points": len(own.label), "objects": OBJECTS * n}
        row |= {"tiled": own.numbers, "whole": at_once.numbers}
        rows.append(row | {"same_points": agreement(own.label, at_once.label)})
    show(rows)
    results = Results(numbers={"tile_size": TILE, "overlap": OVERLAP, "points_in_room": points_in_room, "sizes": rows})
    points = [float(row["points"]) for row in rows]
    for kind, title in (("tiled", "Rooms in tiles"), ("whole", "Rooms at once")):
        seconds, peaks = ([row[kind][name] for row in rows] for name in ("seconds", "peak_mb"))
        results.add(Growth(f"{title}, simulated network and clustering", "points", points, seconds, peaks))
    return results


def benchmark(quick: bool) -> Results:
    return measure_sizes([1, 4], 10_000) if quick else measure_sizes([1, 5, 10, 30], 166_667)


if __name__ == "__main__":
    run_alone("large_scene", __doc__, benchmark)
