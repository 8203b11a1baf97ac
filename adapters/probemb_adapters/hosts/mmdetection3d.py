"""A segmentor for mmdetection3d: ``model = dict(type="ProbEmb3D", backbone=..., head=...)``.

Importing this file registers the segmentor and its head. A configuration does so by
``custom_imports = dict(imports=["probemb_adapters.hosts.mmdetection3d"], allow_failed_imports=False)``. Read from
mmdetection3d 1.4.0 (fe25f7a).
"""

from __future__ import annotations

from collections.abc import Sequence
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
from probemb_lib.convert import pack_list
from probemb_lib.labels import for_s3dis, for_scannet, mmdetection3d, mmdetection3d_instances

try:
    from mmdet3d.models.segmentors.base import Base3DSegmentor
    from mmdet3d.registry import MODELS
    from mmdet3d.structures import PointData
except ImportError as error:
    raise ImportError(
        f"probemb_adapters.hosts.mmdetection3d is imported within mmdetection3d ({error}): install mmdet3d with mmcv "
        "and mmdet as its documentation says"
    ) from error


def convention_of(labels: str) -> LabelConvention:
    """Of a data set in mmdetection3d.

    Args:
        labels: "scannet-instances" is ``ScanNetInstanceSegDataset`` (18 classes, 18 the rest); "scannet", "s3dis"
            are the semantic sets with ``pts_instance_mask`` loaded beside.

    >>> convention_of("scannet-instances").num_columns
    19
    """
    conventions = {
        "scannet-instances": mmdetection3d_instances(18),
        "scannet": for_scannet(mmdetection3d(20)),
        "s3dis": for_s3dis(mmdetection3d(13)),
    }
    if labels not in conventions:
        raise ValueError(f"labels: expected one of {', '.join(conventions)}, got {labels!r}")
    return conventions[labels]


def predictions_of(found: Instances, convention: LabelConvention) -> dict[str, Tensor]:
    """What ``InstanceSegMetric`` reads of ``pred_pts_seg``: the instance of each point, −1 none, and the class and
    score of each instance."""
    return {
        "pts_instance_mask": found.label,
        "instance_labels": convention.host_classes(found.semantic),
        "instance_scores": found.score,
    }


@MODELS.register_module()
class ProbEmb3DHead(nn.Module):
    """Features and positions of points to Gaussians and scores; the loss; the clustering.

    Args:
        in_channels: of the features.
        labels: see :func:`convention_of`.
        offset_scale: about the radius of the largest instance, in metres.
        initial_std: about σ before training, in that unit; 0.3 for our rooms; None: ``offset_scale``, the paper's.
        hidden: widths of the branches.
        threshold, min_points, refine: of the clustering; the paper does not refine.
    """

    def __init__(
        self,
        in_channels: int,
        labels: str = "scannet-instances",
        offset_scale: float = 2.0,
        initial_std: float | None = None,
        hidden: Sequence[int] = (128, 64),
        threshold: float = 0.35,
        min_points: int = 50,
        refine: bool = True,
    ) -> None:
        super().__init__()
        self.convention = convention_of(labels)
        self.head = ProbabilisticHead(
            in_channels,
            self.convention.num_columns,
            offset_scale=offset_scale,
            initial_std=initial_std,
            hidden=hidden,
        )
        self.parts = ProbabilisticEmbeddingLoss()
        self.threshold, self.min_points, self.refine = threshold, min_points, refine

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor) -> HeadOutput:
        """(N, C), (N, 3), (N,)."""
        output: HeadOutput = self.head(features, positions, batch)
        return output

    def loss(self, output: HeadOutput, batch: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """The total as "loss", which mmengine adds up; the parts have no "loss" in their names, and are logged."""
        masks = [sample.gt_pts_seg for sample in data_samples]
        instance, semantic = self.convention.convert(
            torch.cat([mask.pts_instance_mask for mask in masks]), torch.cat([mask.pts_semantic_mask for mask in masks])
        )
        losses: dict[str, Tensor] = self.parts(output, instance, semantic, batch)
        return losses

    def predict(self, output: HeadOutput, batch: Tensor, num_clouds: int) -> list[dict[str, Tensor]]:
        """One result a cloud, as :func:`predictions_of`."""
        found = greedy_cluster(
            output.embedding,
            output.probabilities,
            batch=batch,
            threshold=self.threshold,
            min_points=self.min_points,
            refine=self.refine,
        )
        return [predictions_of(cloud, self.convention) for cloud in found.split(num_clouds)]


@MODELS.register_module()
class ProbEmb3D(Base3DSegmentor):
    """Backbone on points, head, and the three modes of mmengine's models.

    Args:
        backbone: gives features for each point: "PointNet2SASSG" and its like, which take (B, N, 3 + C) and return a
            dict with "fp_features", or any module (B, N, 3 + C) → (B, C', N). Rooms of one batch have equal length, as
            ``PointSample`` leaves them.
        head: "ProbEmb3DHead".
        data_preprocessor, init_cfg: of the base class.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        head: dict[str, Any],
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone, self.head = MODELS.build(backbone), MODELS.build(head)

    def extract_feat(self, batch_inputs: Tensor) -> Tensor:
        """(B, N, 3 + C) → (B · N, C')."""
        features = self.backbone(batch_inputs)
        if isinstance(features, dict):
            features = features["fp_features"][-1]
        flat: Tensor = features.transpose(1, 2).flatten(0, 1)
        return flat

    def encode_decode(self, batch_inputs: Tensor, batch_data_samples: Sequence[Any]) -> Tensor:
        """The scores (B, L, N): what the base class calls the segmentation map."""
        output, _ = self._output({"points": list(batch_inputs)})
        scores: Tensor = output.logits.unflatten(0, batch_inputs.shape[:2]).transpose(1, 2)
        return scores

    def _output(self, inputs: dict[str, Any]) -> tuple[HeadOutput, Tensor]:
        points, batch = pack_list(inputs["points"])
        output: HeadOutput = self.head(self.extract_feat(torch.stack(list(inputs["points"]))), points[:, :3], batch)
        return output, batch

    def loss(self, batch_inputs: dict[str, Any], batch_data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """``mode="loss"``."""
        output, batch = self._output(batch_inputs)
        losses: dict[str, Tensor] = self.head.loss(output, batch, batch_data_samples)
        return losses

    def predict(self, batch_inputs: dict[str, Any], batch_data_samples: Sequence[Any]) -> Sequence[Any]:
        """``mode="predict"``: the samples with ``pred_pts_seg``."""
        output, batch = self._output(batch_inputs)
        results = self.head.predict(output, batch, len(batch_data_samples))
        for sample, result in zip(batch_data_samples, results, strict=True):
            sample.set_data({"pred_pts_seg": PointData(**result)})
        return batch_data_samples

    def _forward(self, batch_inputs: dict[str, Any], batch_data_samples: Sequence[Any] | None = None) -> HeadOutput:
        return self._output(batch_inputs)[0]
