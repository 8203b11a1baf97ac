"""Masks that may share points, and how they become a label map: intersection over union, suppression, labels."""

from __future__ import annotations

import torch
from torch import Tensor


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of masks (P, n) and (Q, n): (P, Q). Two empty masks have 0.

    >>> mask_iou(torch.tensor([[True, True, False]]), torch.tensor([[False, True, True], [True, True, True]]))
    tensor([[0.3333, 0.6667]])
    """
    a, b = a.float(), b.float()
    with torch.autocast(a.device.type, enabled=False):  # a product of matrices would drop to half precision
        both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1) - both).clamp_min(1)


def suppress(masks: Tensor, score: Tensor, iou: float) -> Tensor:
    """Rows of the masks (P, n) that overlap none of higher score by more than ``iou``, the highest score first.

    >>> masks = torch.tensor([[True, True, False], [True, True, True], [False, False, True]])
    >>> suppress(masks, torch.tensor([0.5, 0.9, 0.4]), 0.5)
    tensor([1, 2])
    """
    order = score.argsort(descending=True, stable=True)
    overlap = (mask_iou(masks[order], masks[order]) > iou).triu(1)
    keep = torch.ones_like(order, dtype=torch.bool)
    for i in range(len(order)):
        if keep[i]:
            keep &= ~overlap[i]
    return order[keep]


def labels_of(masks: Tensor) -> Tensor:
    """(n,) the first of the masks (P, n) that a point is in, or −1.

    >>> labels_of(torch.tensor([[False, True, True, False], [True, True, False, False]]))
    tensor([ 1,  0,  0, -1])
    """
    if len(masks) == 0:
        return torch.full(masks.shape[1:], -1, dtype=torch.int64, device=masks.device)
    return torch.where(masks.any(0), masks.int().argmax(0), -1)
