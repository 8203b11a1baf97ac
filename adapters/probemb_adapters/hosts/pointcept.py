"""A model for Pointcept's trainer, evaluator and tester: ``model = dict(type="ProbEmb-v1m1", backbone=...)``.

Importing this file registers it. A configuration does so by
``custom_imports = dict(imports=["probemb_adapters.hosts.pointcept"], allow_failed_imports=False)``; for several GPUs,
whose processes do not read the configuration, add ``import probemb_adapters.hosts.pointcept`` at the end of
pointcept/models/__init__.py. Read from Pointcept d74c646.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from probemb_lib import (
    HeadOutput,
    Instances,
    LabelConvention,
    ProbabilisticEmbeddingLoss,
    ProbabilisticHead,
    greedy_cluster,
)
from probemb_lib.convert import batch_from_offset
from probemb_lib.labels import POINTCEPT

try:
    from pointcept.models.builder import MODELS, build_model
except ImportError as error:
    raise ImportError(
        f"probemb_adapters.hosts.pointcept is imported within Pointcept ({error}): clone "
        "github.com/Pointcept/Pointcept, install what its README lists, and run from its folder"
    ) from error


def convention_of(
    num_classes: int,
    semantic_ignore_index: int = -1,
    segment_ignore_index: Sequence[int] = (-1, 0, 1),
    instance_ignore_index: int = -1,
) -> LabelConvention:
    """The settings of Pointcept's instance segmentation as a convention.

    The classes of ``segment_ignore_index`` are the background. Where class 0 is among them (ScanNet: wall) it gives its
    column to the background and no class is renumbered; where it has instances (S3DIS: ceiling) all move up by one.

    >>> convention_of(20).num_columns, convention_of(13, segment_ignore_index=(-1,)).num_columns
    (20, 14)
    """
    background = tuple(c for c in segment_ignore_index if c >= 0)
    return replace(
        POINTCEPT,
        no_instance=(instance_ignore_index,),
        ignored_semantic=(semantic_ignore_index,),
        num_classes=num_classes,
        background_classes=background,
        class_shift=0 if 0 in background else 1,
    )


def predictions_of(found: Instances, convention: LabelConvention) -> dict[str, Tensor]:
    """What ``InsSegEvaluator`` and ``InsSegTester`` read: masks (P, N), classes (P,) of the data set, scores (P,), on
    the CPU, where they index them."""
    return {
        "pred_masks": found.masks().cpu(),
        "pred_classes": convention.host_classes(found.semantic).cpu(),
        "pred_scores": found.score.cpu(),
    }


@MODELS.register_module("ProbEmb-v1m1")
class ProbEmb(nn.Module):
    """A backbone of Pointcept with the probabilistic head, the whole loss and the greedy clustering.

    Arguments that "PG-v1m1" has too mean the same.

    Args:
        backbone: its configuration, or a module; called with the whole dict, gives features (N, C) or a ``Point``.
        backbone_out_channels: C; of a backbone in ``enc_mode``, of all its levels together.
        semantic_num_classes, semantic_ignore_index, segment_ignore_index, instance_ignore_index: as in the data's
            configuration; see :func:`convention_of`.
        offset_scale: about the radius of the largest instance, in the unit of ``coord`` (metres).
        initial_std: about σ before training, in that unit; 0.3 for our rooms; None: ``offset_scale``, the paper's.
        hidden: widths of the head's branches.
        threshold: τ of the clustering; fit it on validation scenes with :func:`~probemb_lib.fit_threshold`.
        min_points: of an instance; the evaluator counts none below 100.
        min_score: of an instance.
        refine: whether the members of an instance decide on its points, class and score; the paper does not.
    """

    def __init__(
        self,
        backbone: dict[str, Any] | nn.Module,
        backbone_out_channels: int = 64,
        semantic_num_classes: int = 20,
        semantic_ignore_index: int = -1,
        segment_ignore_index: Sequence[int] = (-1, 0, 1),
        instance_ignore_index: int = -1,
        offset_scale: float = 2.0,
        initial_std: float | None = None,
        hidden: Sequence[int] = (128, 64),
        threshold: float = 0.35,
        min_points: int = 50,
        min_score: float = 0.0,
        refine: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone if isinstance(backbone, nn.Module) else build_model(backbone)
        self.convention = convention_of(
            semantic_num_classes, semantic_ignore_index, segment_ignore_index, instance_ignore_index
        )
        self.head = ProbabilisticHead(
            backbone_out_channels,
            self.convention.num_columns,
            offset_scale=offset_scale,
            initial_std=initial_std,
            hidden=hidden,
        )
        self.loss = ProbabilisticEmbeddingLoss()
        self.threshold, self.min_points, self.min_score, self.refine = threshold, min_points, min_score, refine

    def forward(self, data_dict: dict[str, Any]) -> dict[str, Tensor]:
        """Scalars "loss", "bce", "dice", "score", "entropy" where there are labels; in evaluation also what
        :func:`predictions_of` gives."""
        batch = batch_from_offset(data_dict["offset"], num_points=len(data_dict["coord"]))
        output: HeadOutput = self.head(_features(self.backbone(data_dict)), data_dict["coord"], batch)
        result: dict[str, Tensor] = {}
        if "instance" in data_dict and "segment" in data_dict:
            instance, semantic = self.convention.convert(data_dict["instance"], data_dict["segment"])
            result |= self.loss(output, instance, semantic, batch)
        if not self.training:
            found = greedy_cluster(
                output.embedding,
                output.probabilities,
                batch=batch,
                threshold=self.threshold,
                min_points=self.min_points,
                min_score=self.min_score,
                refine=self.refine,
            )
            result |= predictions_of(found, self.convention)
        return result


def _features(point: Any) -> Tensor:
    """(N, C) of a tensor or a ``Point``; levels that an encoder left pooled are brought back to the points."""
    if isinstance(point, Tensor):
        return point
    feat: Tensor = point["feat"]
    while "pooling_parent" in point:
        inverse, point = point["pooling_inverse"], point["pooling_parent"]
        feat = torch.cat([point["feat"], feat[inverse]], dim=-1)
    return feat
