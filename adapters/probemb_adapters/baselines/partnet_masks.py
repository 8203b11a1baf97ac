r"""PartNet's own instance segmentation: Mo et al., "PartNet: A Large-scale Benchmark for Fine-grained and Hierarchical
Part-level 3D Object Understanding", CVPR 2019, arXiv 1812.02713, section 5.3.

The network fills K = 200 masks and one for points of no instance: a softmax over K + 1 columns m. With T instances as
masks y_t over the N points of a shape, and the relaxed intersection over union

    rIoU(p, q) = ⟨p, q⟩ / (‖p‖₁ + ‖q‖₁ − ⟨p, q⟩),

the Hungarian method finds the matching M of instances to columns that maximizes Σ_t rIoU(m_M(t), y_t), and

    L_ins   = −1/T Σ_t rIoU(m_M(t), y_t)
    L_other = −rIoU(m_other, y_other)                 where there are such points
    L_conf  = mean_{k: c_k > 0.1} (s_k − c_k)² + mean_{k: c_k ≤ 0.1} (s_k − c_k)²
    L_reg   = 1/N Σ_k ‖m_k‖₂                          over all columns: few are used
    L       = L_sem + L_ins + L_other + L_conf + 0.1 L_reg,

L_sem the cross entropy of classes. s_k is the confidence of a column, and c_k what it should be, a constant: the rIoU
of a matched column, 0 of the others. With T > K the K best pairs are matched.

Grouping: each point belongs to its largest column, or to no instance; the column's confidence is the score. Confidences
come from the maximum of the features over the shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from probemb_adapters.baselines.method import (
    Branches,
    cloud_numbers,
    clouds_of,
    instances_of,
    mean_or_nothing,
    nothing,
    perceptron,
    semantic_loss,
    total,
)
from probemb_lib import InstanceIndex, Instances
from probemb_lib.aggregate import as_index
from probemb_lib.gaussian import at_least_float32
from probemb_lib.head import HIDDEN


class MaskOutput(NamedTuple):
    """What the head gives for N points of B clouds.

    Attributes:
        masks: (N, K + 1) before the softmax, the last column of points of no instance.
        logits: (N, L).
        confidence: (B, K) before the sigmoid.
        positions: (N, D).
    """

    masks: Tensor
    logits: Tensor
    confidence: Tensor
    positions: Tensor


def relaxed_iou(p: Tensor, q: Tensor) -> Tensor:
    """rIoU of every pair of masks with values in [0, 1], (P, N) and (Q, N): (P, Q). Two empty masks have 0.

    >>> relaxed_iou(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]))  # 0.5 / (1 + 1 − 0.5)
    tensor([[0.3333]])
    """
    with torch.autocast(p.device.type, enabled=False):  # a product of matrices would drop to half precision
        both = p @ q.T
    union = p.sum(1)[:, None] + q.sum(1) - both
    return both / union.clamp_min(torch.finfo(both.dtype).tiny)


def matching(overlap: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of (T, K) whose values have the largest sum, each at most once: min(T, K) pairs."""
    rows, columns = linear_sum_assignment(overlap.detach().cpu().double().numpy(), maximize=True)
    return torch.from_numpy(rows).to(overlap.device), torch.from_numpy(columns).to(overlap.device)


def mask_losses(
    masks: Tensor, confidence: Tensor, instance: Tensor | InstanceIndex, batch: Tensor | None = None
) -> dict[str, Tensor]:
    """The terms "ins", "other", "conf" and "reg", each the mean over the clouds that have it.

    Args:
        masks: (N, K + 1) before the softmax.
        confidence: (B, K) before the sigmoid.
        instance: (N,) ids, or their index. Ignored points are in no sum.
    """
    index = as_index(instance, batch, masks)
    terms: dict[str, list[Tensor]] = {"ins": [], "other": [], "conf": [], "reg": []}
    for rows in clouds_of(index):
        m = masks[rows].softmax(1).T  # (K + 1, n)
        cloud = index.point_batch[rows[0]]
        of = index.index[rows]
        numbers = (index.batch == cloud).nonzero()  # (T, 1)
        terms["reg"].append(torch.linalg.vector_norm(m, dim=1).sum() / len(rows))
        if bool((of < 0).any()):
            terms["other"].append(-relaxed_iou(m[-1:], (of < 0).to(m.dtype)[None])[0, 0])
        if len(numbers):
            overlap = relaxed_iou((of == numbers).to(m.dtype), m[:-1])  # (T, K)
            t, k = matching(overlap)
            matched = overlap[t, k]
            terms["ins"].append(-matched.mean())
            terms["conf"].append(confidence_loss(confidence[cloud], k, matched.detach()))
    return {name: mean_or_nothing(values, masks, confidence) for name, values in terms.items()}


def confidence_loss(confidence: Tensor, columns: Tensor, overlap: Tensor) -> Tensor:
    """L_conf of one cloud.

    Args:
        confidence: (K,) before the sigmoid.
        columns: (M,) those that are matched.
        overlap: (M,) their rIoU.

    >>> confidence_loss(torch.zeros(3), torch.tensor([2]), torch.tensor([0.7]))  # (½ − 0.7)² + (½ − 0)²
    tensor(0.2900)
    """
    target = torch.zeros_like(confidence).index_copy(0, columns, overlap.to(confidence.dtype))
    error, high = (confidence.sigmoid() - target).square(), target > 0.1
    return sum((error[part].mean() for part in (high, ~high) if bool(part.any())), start=nothing(confidence))


class MaskHead(nn.Module):
    """Masks and classes of points, confidences of clouds."""

    def __init__(self, in_channels: int, num_classes: int, num_masks: int, hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.branches = Branches(in_channels, (num_masks + 1, num_classes), hidden)
        self.confidence = perceptron(in_channels, *hidden, num_masks)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> MaskOutput:
        masks, logits = self.branches(features)
        cloud = cloud_numbers(features, batch)
        clouds = int(cloud.max()) + 1 if len(cloud) else 0
        index = cloud[:, None].expand_as(features)
        shape = features.new_zeros((clouds, features.shape[1]))
        shape = shape.scatter_reduce(0, index, features, "amax", include_self=False)  # (B, C)
        confidence = at_least_float32(self.confidence(shape)) + nothing(*self.confidence.parameters())
        return MaskOutput(masks, logits, confidence, at_least_float32(positions))


class PartNetMasks:
    """The method.

    Args:
        in_channels, num_classes, hidden: see :class:`~probemb_lib.ProbabilisticHead`.
        num_masks: K.
        min_points: least size of an instance.
        background: column of no class, or None.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        num_masks: int = 200,
        min_points: int = 1,
        background: int | None = 0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        self.head = MaskHead(in_channels, num_classes, num_masks, hidden)
        self.min_points, self.background = min_points, background

    def loss(
        self, output: MaskOutput, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        index = as_index(instance, batch, output.logits)
        terms = mask_losses(output.masks, output.confidence, index)
        terms["semantic"] = semantic_loss(output.logits, index, semantic, self.background)
        return total({"reg": 0.1}, terms)

    @torch.no_grad()
    def group(self, output: MaskOutput, batch: Tensor | None = None) -> Instances:
        cloud, columns = cloud_numbers(output.masks, batch), output.masks.shape[1]
        column = output.masks.argmax(1)
        label = torch.where(column < columns - 1, cloud * (columns - 1) + column, -1)
        return instances_of(
            label,
            output.logits.softmax(1),
            output.positions,
            batch,
            background=self.background,
            score=output.confidence.sigmoid().flatten(),
            min_points=self.min_points,
        )
