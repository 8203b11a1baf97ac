"""The ground truth of a shape as PartNet's evaluation takes it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data


class EvaluationTargets(NamedTuple):
    """One shape's ground truth, in the order in which `PartNetAP.update` takes it after the predictions.

    Attributes:
        gt_instance: (N,) int64, the row of `gt_classes` that owns the point, or −1.
        gt_classes: (G,) int64, the **0-based** class of each instance.
        other: (N,) bool, points outside every instance, which the metric removes from predictions.
    """

    gt_instance: Tensor
    gt_classes: Tensor
    other: Tensor


def evaluation_targets(data: Data) -> EvaluationTargets:
    """The ground truth of one item of `PartNetInstances` for `probemb_lib.metrics.PartNetAP`.

    ``metric.update(masks, classes, scores, *evaluation_targets(data))``; take the items of a batch with
    ``batch.to_data_list()``.

    Raises:
        ValueError: an instance id in 0 … G−1 has no point, or points of several classes (a transform dropped
            points or changed labels).

    >>> data = Data(instance=torch.tensor([0, -1, 1, 1]), semantic=torch.tensor([2, 0, 1, 1]))
    >>> evaluation_targets(data).gt_classes
    tensor([1, 0])
    """
    instance, semantic = data.instance, data.semantic
    member = instance >= 0
    base = int(semantic.max()) + 1 if len(semantic) else 1
    key = torch.unique(instance[member] * base + semantic[member])  # one key: unique of pairs is many times slower
    rows, classes = key // base, key % base
    if not torch.equal(rows, torch.arange(len(rows), device=rows.device)):
        raise ValueError(
            "expected instance ids 0 … G−1, each with a point and one class, got (instance, class) "
            f"{list(zip(rows.tolist(), classes.tolist(), strict=True))}: relabel after a transform that "
            "drops points or changes labels"
        )
    return EvaluationTargets(instance, classes - 1, ~member)
