"""Volumes of touching balls through the network in windows: time and memory against their size, beside all at once.

The network is a stand-in with a real one's cost of a small layer: Gaussian blobs lie on a lattice, the gradient of the
logarithm of the image points to their centres, and a head made by hand passes it on. Every size runs in a process of
its own, on one thread. Memory is the peak above the input, the volume in half precision; the positions count.

    python benchmarks/volume.py              up to 128 x 512 x 512 voxels: about three minutes
    python benchmarks/volume.py --quick      small volumes, for CI
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from harness import Growth, PeakMemory, Results, in_new_process, run_alone

# isort: split
import torch
from torch import Tensor, nn

from probemb_lib import DenseHead, DenseOutput, Instances, cluster_tiles, greedy_cluster, window_predictor
from probemb_lib.convert import grid_positions

Shape = tuple[int, int, int]
Way = Callable[[Tensor, nn.Module], Instances]

PERIOD, STD = 24, 4.0  # of the blobs, in voxels
TILE, OVERLAP = 64.0, 12.0  # half of a blob's distance to the next
MIN_POINTS = 20
AT_ONCE = 5_000_000  # voxels; more takes many times the memory of the tiles


class Network(nn.Module):
    """One convolution for its cost, the gradient for the result."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(1, 8, 3, padding=1)
        self.head = DenseHead.probabilistic(12, 2, "BCZYX", offset_scale=100.0, initial_std=2.0, hidden=())
        branches = self.head.head
        with torch.no_grad():
            for parameter in branches.parameters():
                parameter.zero_()
            branches.centers[0].weight[:, :3] = 0.01 * torch.eye(3)  # tanh is straight at zero
            branches.scores[0].weight[1, 3], branches.scores[0].bias[1] = 20.0, -5.0

    def forward(self, window: Tensor) -> DenseOutput:
        window = window.float()
        logs = window.clamp_min(1e-3).log()
        gradient = torch.cat([torch.gradient(logs, dim=axis)[0] for axis in (2, 3, 4)], dim=1)
        return self.head(torch.cat([STD**2 * gradient, window, self.convolution(window)], dim=1))


def build(shape: Shape) -> Tensor:
    """Blobs on a lattice, (1, 1, Z, Y, X) in half precision."""
    axes = [torch.exp(-((torch.arange(n) % PERIOD - PERIOD // 2) ** 2) / (2 * STD**2)) for n in shape]
    return (axes[0][:, None, None] * axes[1][:, None] * axes[2]).half()[None, None]


def whole(volume: Tensor, network: nn.Module) -> Instances:
    """Predicted and clustered at once."""
    with torch.no_grad():
        output = network(volume)
    return greedy_cluster(output.embedding, output.probabilities, min_points=MIN_POINTS)


def tiled(volume: Tensor, network: nn.Module) -> Instances:
    """What the library does."""
    positions = grid_positions(volume.shape[2:])
    predict = window_predictor(volume, network)
    return cluster_tiles(positions, predict, tile_size=TILE, overlap=OVERLAP, axes=(0, 1, 2), min_points=MIN_POINTS)


def measure(way: Way, shape: Shape) -> dict[str, float]:
    """Seconds, memory and instances of a volume."""
    network = Network().eval()
    way(build((8, 32, 32)), network)  # code and buffers are loaded
    volume = build(shape)
    with PeakMemory() as peak:
        start = time.perf_counter()
        found = way(volume, network)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mb": peak.megabytes, "instances": len(found)}


def measure_sizes(shapes: Sequence[Shape]) -> Results:
    rows: list[dict[str, Any]] = []
    print(f"\n{'':30}{'tiles':>27}{'whole':>27}\n{'volume':>16}{'voxels':>14}", end="")
    print(2 * f"{'s':>9}{'MB':>8}{'found':>10}")
    for shape in shapes:
        size = math.prod(shape)
        ways: dict[str, Way] = {"tiled": tiled, "whole": whole} if size <= AT_ONCE else {"tiled": tiled}
        row: dict[str, Any] = {name: in_new_process(measure, way, shape) for name, way in ways.items()}
        print(f"{' x '.join(map(str, shape)):>16}{size:14,}", end="")
        print("".join(f"{r['seconds']:9.1f}{r['peak_mb']:8.0f}{r['instances']:10,}" for r in row.values()), flush=True)
        rows.append({"voxels": size, **row})
    results = Results(numbers={"tile_size": TILE, "overlap": OVERLAP, "sizes": rows})
    for kind, title in (("tiled", "Volume in tiles"), ("whole", "Volume at once")):
        own = [row for row in rows if kind in row]
        seconds, peaks = ([row[kind][name] for row in own] for name in ("seconds", "peak_mb"))
        results.add(
            Growth(f"{title}, small network and clustering", "voxels", [r["voxels"] for r in own], seconds, peaks)
        )
    return results


def benchmark(quick: bool) -> Results:
    return measure_sizes([(16, 32, 32), (24, 64, 64)] if quick else [(64, 128, 128), (64, 256, 256), (128, 512, 512)])


if __name__ == "__main__":
    run_alone("volume", __doc__, benchmark)
