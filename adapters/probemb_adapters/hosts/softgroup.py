"""SoftGroup's batches and results (a0b5f99): ``collate_fn`` of softgroup/data/custom.py, and ``get_instances``.

Points are packed with ``batch_idxs``; features are those of voxels, brought back by ``v2p_map``. Nothing of SoftGroup
is imported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib import Instances, LabelConvention
from probemb_lib.labels import SOFTGROUP, for_scannet


class Points(NamedTuple):
    """What head and loss take: positions (N, 3), labels and cloud of each point (N,)."""

    positions: Tensor
    instance: Tensor
    semantic: Tensor
    batch: Tensor


def points_of(batch: dict[str, Any], convention: LabelConvention | None = None) -> Points:
    """
    Args:
        batch: of SoftGroup's loader: "coords_float", "instance_labels", "semantic_labels", "batch_idxs".
        convention: by default ScanNet's, wall and floor the background; ``for_s3dis(SOFTGROUP)`` for S3DIS.
    """
    labels = for_scannet(SOFTGROUP) if convention is None else convention
    instance, semantic = labels.convert(batch["instance_labels"], batch["semantic_labels"])
    return Points(batch["coords_float"], instance, semantic, batch["batch_idxs"].long())


def features_of_points(voxel_features: Tensor, batch: dict[str, Any]) -> Tensor:
    """(V, C) of ``output_layer`` → (N, C), as SoftGroup's ``forward_backbone`` does."""
    return voxel_features[batch["v2p_map"].long()]


def instances_of(found: Instances, scan_id: str) -> list[dict[str, Any]]:
    """What ``ScanNetEval`` takes of one scan: a list of {scan_id, label_id, conf, pred_mask}.

    ``label_id`` counts from 1 the classes that have instances; so do the columns here, of ScanNet and of S3DIS.

    >>> import torch
    >>> from probemb_lib import GaussianEmbedding, greedy_cluster
    >>> found = greedy_cluster(GaussianEmbedding(torch.zeros(2, 3), torch.zeros(2, 1)), torch.tensor([[0.1, 0.9]] * 2))
    >>> (one,) = instances_of(found, "scene0011_00")
    >>> one["label_id"], one["pred_mask"]
    (1, {'length': 2, 'counts': '1 2'})
    """
    return [
        {"scan_id": scan_id, "label_id": int(label), "conf": float(score), "pred_mask": run_lengths(mask.cpu().numpy())}
        for mask, label, score in zip(found.masks(), found.semantic, found.score, strict=True)
    ]


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """softgroup/util/rle.py's format: starts, from 1, and lengths of the runs of points in the mask, in turn."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    runs = ends.reshape(-1, 2)
    pairs = np.stack([runs[:, 0] + 1, runs[:, 1] - runs[:, 0]], 1)
    return {"length": len(mask), "counts": " ".join(map(str, pairs.ravel()))}
