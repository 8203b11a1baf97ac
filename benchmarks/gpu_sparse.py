"""MinkUNet34C on plain torch's sparse convolutions on a device: forward and backward of a scene."""

from __future__ import annotations

import contextlib

import torch
from gpu_clock import Peer, table, timed
from harness import Results, missing


def sparse_step(results: Results, points: int, device: torch.device, rounds: int, seconds: float) -> None:
    """Of points on a floor and two walls, with four voxels for five of them, in float32 and under autocast."""
    lacking = missing(["torch_geometric"])
    if lacking is not None:
        results.lack("MinkUNet34C", lacking)
        return
    from probemb_adapters.networks.minkowski import MinkowskiBackbone, MinkUNet34C

    torch.manual_seed(0)
    backbone = MinkowskiBackbone(MinkUNet34C(), 0.02, engine="torch").to(device)
    g = torch.Generator().manual_seed(0)
    size = (points / 125_000) ** 0.5  # of the room, so that its points lie as dense with fewer of them
    positions = torch.rand(points, 3, generator=g) * torch.tensor([6.0, 6.0, 2.5]) * size
    positions[torch.arange(points), torch.arange(points) % 3] = 0.01
    positions = positions.to(device)

    def step(dtype: torch.dtype | None) -> Peer:
        def run() -> None:
            with torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext():
                features = backbone(positions, positions)
            features.float().square().mean().backward()

        return run

    peers = {"float32": step(None), "bfloat16": step(torch.bfloat16)}
    times = timed(peers, rounds, device, seconds=seconds)
    voxels = len(torch.unique(torch.floor(positions / 0.02), dim=0))
    print(table(f"MinkUNet34C, forward and backward, {voxels:,} voxels", times, "float32"), flush=True)
    results.numbers[f"minkunet34c_{points}"] = times
