"""A batch as Pointcept's transforms and `collate_fn` give it (d74c646, datasets/transform.py and utils.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAMES = [f"class {c}" for c in range(20)]


def scene(
    generator: torch.Generator, classes: list[int], *, num_points: int, grid_size: float = 0.02
) -> dict[str, Tensor]:
    """One room: a blob an object, after `GridSample`, so that each voxel is there once."""
    centers = 0.8 * torch.arange(len(classes), dtype=torch.float32)[:, None] * torch.tensor([1.0, 0.5, 0.0])
    which = torch.arange(num_points) % len(classes)
    coord = centers[which] + 0.15 * torch.randn((num_points, 3), generator=generator)
    grid = ((coord - coord.amin(0)) / grid_size).floor().long()
    _, first = torch.unique(grid, dim=0, return_inverse=True)
    keep = torch.full((int(first.max()) + 1,), num_points).scatter_reduce_(0, first, torch.arange(num_points), "amin")
    coord, grid, which = coord[keep], grid[keep], which[keep]
    segment = torch.tensor(classes)[which]
    return {"coord": coord, "grid_coord": grid, "segment": segment, "instance": which}


def pointcept_batch(
    rooms: list[list[int]], *, ignored: tuple[int, ...] = (-1, 0, 1), num_points: int = 300
) -> dict[str, Any]:
    """float32 `coord` and `feat`, int64 `segment`, `instance`, `grid_coord`, the ends of the rooms in `offset`."""
    generator = torch.Generator().manual_seed(0)
    scenes = [scene(generator, classes, num_points=num_points) for classes in rooms]
    for room in scenes:
        room["instance"] = torch.where(torch.isin(room["segment"], torch.tensor(ignored)), -1, room["instance"])
        normal = torch.nn.functional.normalize(torch.randn(room["coord"].shape, generator=generator))
        color = torch.nn.functional.one_hot(room["segment"].clamp_min(0) % 3, 3).float()
        room["feat"] = torch.cat([color, normal], 1)
        room["instance_centroid"] = room["coord"].clone()
    batch: dict[str, Any] = {key: torch.cat([room[key] for room in scenes]) for key in scenes[0]}
    batch["offset"] = torch.tensor([len(room["coord"]) for room in scenes]).cumsum(0)
    return batch
