"""pointcept/engines/hooks/evaluator.py: what `InsSegEvaluator` asks of a model's results, and no evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class InsSegEvaluator:
    """`associate_instances(pred, segment, instance)`: the class and score of each mask, its points by class name.

    The real one reads class names and settings off `trainer.cfg.data`; so does this.
    """

    trainer: Any = None

    def __init__(self, segment_ignore_index: tuple[int, ...] = (-1,), instance_ignore_index: int = -1) -> None:
        self.segment_ignore_index, self.instance_ignore_index = segment_ignore_index, instance_ignore_index

    def associate_instances(
        self, pred: dict[str, Any], segment: Tensor, instance: Tensor
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        masks, classes, scores = pred["pred_masks"], pred["pred_classes"], pred["pred_scores"]
        names, ignored = self.trainer.cfg.data.names, self.segment_ignore_index
        if not (len(masks) == len(classes) == len(scores) and masks.shape[1] == len(segment) == len(instance)):
            raise AssertionError("pred_masks (P, N), pred_classes (P,), pred_scores (P,)")
        masks = masks[:, torch.arange(masks.shape[1])]  # to all points, by an index on the CPU
        found: dict[str, Any] = {name: [] for i, name in enumerate(names) if i not in ignored}
        for mask, label, score in zip(masks, classes, scores, strict=True):
            if label in ignored:
                continue
            points = np.count_nonzero(np.not_equal(mask, 0))
            found[names[label]].append({"confidence": float(score), "vert_count": points})
        truth: dict[str, Any] = {name: [] for name in found}
        for i in instance.unique():
            label = segment[instance == i][0]
            if i != self.instance_ignore_index and label not in ignored:
                truth[names[label]].append({"vert_count": int((instance == i).sum())})
        return truth, found
