"""Sparse convolutions in plain torch beside MinkowskiEngine: time and memory of MinkUNet on an open room.

Both engines run one network with one set of weights on the same voxels. One thread; memory is the peak of a training
step above what the network and its input take, in a process of its own.

    python benchmarks/sparse.py              some minutes
    python benchmarks/sparse.py --quick      a small network on few points, for CI
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from harness import PeakMemory, Results, Table, in_new_process, missing, run_alone, timed

# isort: split
import torch
from torch import Tensor

from probemb_adapters.networks.minkowski import MinkowskiBackbone, MinkUNet, MinkUNet14A, MinkUNet34C, voxelize
from probemb_shapes.rooms import Models, generate

PROJECT = Path(__file__).resolve().parents[1]
ENGINES: dict[str, Literal["minkowski", "torch"]] = {"MinkowskiEngine": "minkowski", "plain torch": "torch"}
VARIANTS: dict[str, type[MinkUNet]] = {"14A": MinkUNet14A, "34C": MinkUNet34C}
Case = tuple[str, float, int]
"""Variant, metres a voxel, points."""


def room(points: int, spacing: float) -> tuple[Tensor, Tensor]:
    """Colours −1 … 1 and positions of the vertices of a room, as many as there are or are asked for."""
    scan = generate(Models(PROJECT / "data" / "scan_objects"), 0, 0, cameras=24, spacing=spacing)
    rows = torch.randperm(len(scan.pos), generator=torch.Generator().manual_seed(0))[:points]
    return torch.from_numpy(scan.rgb)[rows] / 127.5 - 1, torch.from_numpy(scan.pos).float()[rows]


def network(engine: Literal["minkowski", "torch"], case: Case) -> MinkowskiBackbone:
    torch.manual_seed(0)
    return MinkowskiBackbone(VARIANTS[case[0]](in_channels=3), case[1], engine=engine)


def step(backbone: MinkowskiBackbone, colours: Tensor, positions: Tensor) -> None:
    backbone.train()
    backbone(colours, positions).square().mean().backward()
    backbone.zero_grad()


def predict(backbone: MinkowskiBackbone, colours: Tensor, positions: Tensor) -> Tensor:
    backbone.eval()
    with torch.no_grad():
        features: Tensor = backbone(colours, positions)
    return features


def memory(engine: Literal["minkowski", "torch"], case: Case, inputs: tuple[Tensor, Tensor]) -> float:
    """Megabytes of a training step, gradients included."""
    backbone = network(engine, case)
    step(backbone, *(x[:200] for x in inputs))  # code and buffers are loaded
    with PeakMemory() as peak:
        step(backbone, *inputs)
    return peak.megabytes


def benchmark(quick: bool) -> Results:
    results = Results()
    lacking = missing(["MinkowskiEngine"])
    engines = {name: engine for name, engine in ENGINES.items() if engine == "torch" or lacking is None}
    cases: list[Case] = [("14A", 0.1, 3_000)] if quick else [("14A", 0.05, 50_000), ("34C", 0.02, 50_000)]
    numbers = {}
    for case in cases:
        variant, voxel_size, points = case
        inputs = room(points, 0.08 if quick else min(voxel_size, 0.03))
        count = len(voxelize(inputs[1], voxel_size).coordinates)
        place = f"MinkUNet{variant}, {len(inputs[1]):,} points in {count:,} voxels of {100 * voxel_size:g} cm"
        peaks = {name: in_new_process(memory, engine, case, inputs) for name, engine in engines.items()}
        numbers[place] = peaks
        note = "peak of a step: " + ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items())
        ways: dict[str, Callable[..., object]] = {"training step": step, "prediction": predict}
        for title, way in ways.items():
            peers = {name: partial(way, network(engine, case), *inputs) for name, engine in engines.items()}
            baseline = next(iter(engines))
            lacks = {} if lacking is None else {"MinkowskiEngine": lacking}
            rows = timed(peers, 1 if quick else 5, seconds=120)
            results.add(Table(f"{title}, {place}", rows, baseline, "plain torch", lacks, note))
    results.numbers["peak_mb"] = numbers
    return results


if __name__ == "__main__":
    run_alone("sparse", __doc__, benchmark)
