"""Head and loss in the training of SpatialEmbeddings (39ea249) and EmbedSeg (2b2aab8): their data, network and loop.

    model = torch.nn.Sequential(BranchedERFNet([16]), DenseHead.probabilistic(16, 2, offset_scale=20.0, hidden=(32,)))
    criterion = Criterion()

in the place of theirs; ``init_output`` is left out. Nothing of either is imported.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from probemb_lib import CenterAwareLoss, DenseOutput, ProbabilisticEmbeddingLoss, aggregate_instances, dense_targets
from probemb_lib.similarity import log_bhattacharyya


class Criterion(nn.Module):
    """Called as ``SpatialEmbLoss``: ``criterion(output, instances, labels, center_images, w_inst=…, iou=…)``.

    Args:
        loss: by default the whole objective, with the complement that one class needs.
        use_labels: classes are read from ``labels`` (Cityscapes with several classes) instead of one for all.
    """

    def __init__(self, loss: ProbabilisticEmbeddingLoss | None = None, *, use_labels: bool = False) -> None:
        super().__init__()
        self.loss = ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True)) if loss is None else loss
        self.use_labels = use_labels

    def forward(
        self,
        prediction: DenseOutput,
        instances: Tensor,
        labels: Tensor,
        center_images: Tensor | None = None,
        w_inst: float = 1,
        w_var: float = 10,
        w_seed: float = 1,
        iou: bool = False,
        iou_meter: Any = None,
    ) -> Tensor:
        """
        Args:
            prediction: of the model that ends with a :class:`~probemb_lib.DenseHead`.
            instances, labels: (B, H, W) or (B, D, H, W), 0 none, of any integer type.
            center_images, w_inst, w_var, w_seed: of their loss; not used. Weights are those of ``loss``.
            iou, iou_meter: with both, ``iou_meter.update`` gets, for each true instance, the IoU of the points more
                similar than ½ to its aggregated Gaussian, as theirs does.

        Returns:
            A scalar.
        """
        semantic = labels.long() if self.use_labels else None
        instance, class_of = dense_targets(instances.long(), prediction.shape, semantic=semantic)
        total: Tensor = self.loss(prediction.packed, instance, class_of, prediction.batch)["loss"]
        if iou and iou_meter is not None:
            for value in ious(prediction, instance):
                iou_meter.update(value)
        return total


@torch.no_grad()
def ious(prediction: DenseOutput, instance: Tensor) -> list[float]:
    """Of each true instance, image by image."""
    values: list[float] = []
    for b in range(prediction.shape[0]):
        here = prediction.batch == b
        x, ids = prediction.embedding.select(here), instance[here]
        true = ids.unique()
        true = true[true >= 0]
        if len(true):
            masks = ids == true[:, None]  # (K, N)
            near = log_bhattacharyya(x, aggregate_instances(x, ids)).exp().T > 0.5
            values += ((near & masks).sum(1) / (near | masks).sum(1)).tolist()
    return values
