"""torch-points3d's batches and results (cf0061b): ``PanopticLabels`` and ``PanopticResults`` of models/panoptic.

Its models set ``labels`` and ``output`` from a PyG ``Batch``, here by attribute. Nothing of torch-points3d is imported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probemb_lib import HeadOutput, Instances, LabelConvention
from probemb_lib.labels import TORCH_POINTS3D


class PanopticResults(NamedTuple):
    """The fields of that of torch_points3d/models/panoptic/structures.py, in their order."""

    semantic_logits: Tensor
    offset_logits: Tensor
    cluster_scores: Tensor
    clusters: list[Tensor]
    cluster_type: Tensor


def labels_of(data: Any, convention: LabelConvention = TORCH_POINTS3D) -> tuple[Tensor, Tensor]:
    """``instance`` and ``semantic`` of a batch with ``instance_labels`` (0 none) and ``y`` (−1 ignored).

    Args:
        data: a PyG Batch; ``data.pos`` and ``data.batch`` need no conversion.
        convention: with the classes of the data set, such as ``for_scannet(TORCH_POINTS3D)``.
    """
    return convention.convert(data.instance_labels, data.y)


def results_of(output: HeadOutput, found: Instances, positions: Tensor, convention: LabelConvention) -> PanopticResults:
    """What ``PanopticTracker`` reads: logits of the host's classes, clusters as rows of points, their scores.

    Classes that are the background share its logit. Offsets lead to the centres μ.
    """
    classes = torch.arange(convention.num_classes or output.logits.shape[1], device=output.logits.device)
    column = classes + convention.class_shift
    for background in convention.background_classes:
        column = column.masked_fill(classes == background, 0)
    order = found.label.argsort(stable=True)
    member = order[int((found.label < 0).sum()) :]
    return PanopticResults(
        semantic_logits=output.logits[:, column],
        offset_logits=output.embedding.mean[:, :3] - positions,
        cluster_scores=found.score,
        clusters=list(member.split(found.size.tolist())),
        cluster_type=torch.zeros_like(found.semantic),
    )
