"""Rooms as mmdetection3d's `Pack3DDetInputs` and `ScanNetInstanceSegDataset` give them (1.4.0)."""

from __future__ import annotations

from typing import Any

import torch
from mmdet3d.structures import Det3DDataSample, PointData

IDS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
META = {"seg_valid_class_ids": IDS, "classes": tuple(f"class {c}" for c in IDS)}
UNNAMED = 18  # what PointSegClassMapping makes of wall, floor and the rest


def mmdet3d_batch(rooms: list[list[int]], points_each: int = 120) -> dict[str, Any]:
    """Points (N, 6) a room, and a sample with `gt_pts_seg` and `eval_ann_info`; classes 0 … 17, and 18 the rest."""
    generator = torch.Generator().manual_seed(0)
    clouds, samples = [], []
    for classes in rooms:
        which = torch.arange(len(classes)).repeat_interleave(points_each)
        center = which[:, None] * torch.tensor([0.9, 0.4, 0.0])
        positions = center + 0.15 * torch.randn((len(which), 3), generator=generator)
        semantic = torch.tensor(classes)[which]
        clouds.append(torch.cat([positions, torch.nn.functional.one_hot(semantic % 3, 3).float()], 1))
        masks = {"pts_instance_mask": which + 1, "pts_semantic_mask": semantic}  # walls and floors have ids too
        sample = Det3DDataSample()
        sample.gt_pts_seg = PointData(**masks)
        sample.eval_ann_info = {name: mask.clone() for name, mask in masks.items()}
        samples.append(sample)
    return {"inputs": {"points": clouds}, "data_samples": samples}
