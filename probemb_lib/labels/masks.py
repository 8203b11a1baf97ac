"""From a stack of masks to labels."""

from __future__ import annotations

import torch
from torch import Tensor

from probemb_lib.labels.values import IGNORED, NO_INSTANCE, is_integer


def labels_from_masks(masks: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Masks of K instances, as detectors, Mask3D and evaluators keep them, to ``instance`` and ``semantic``.

    A point of several masks is ignored, as nobody knows which of them it teaches.

    Args:
        masks: (K, …) bool, of points (K, N) or pixels (K, H, W); K may be 0.
        classes: (K,) the column of each instance, where 0 is the background's. None: all are class 1.

    Returns:
        ``instance`` (…), the row of the only mask of a point, −1 in none, −100 in several; ``semantic`` (…), the class
        of that row, 0 in none, −100 in several. New int64 tensors.

    Raises:
        TypeError: ``masks`` is not a tensor of bool, or ``classes`` are not integers.
        ValueError: ``masks`` has no axis of points, or ``classes`` is not (K,) and ≥ 0.

    >>> labels_from_masks(torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0]]).bool(), torch.tensor([3, 4]))
    (tensor([   0, -100,    1,   -1]), tensor([   3, -100,    4,    0]))
    """
    given = {"masks": masks} if classes is None else {"masks": masks, "classes": classes}
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}: torch.as_tensor makes one")
    if masks.dtype != torch.bool:
        raise TypeError(f"masks: expected torch.bool, got {masks.dtype}; use masks > 0")
    if masks.ndim < 2:
        raise ValueError(f"masks: expected (K, ...), one mask an instance, got {tuple(masks.shape)}")
    if classes is None:
        classes = torch.ones(len(masks), dtype=torch.int64, device=masks.device)
    if not is_integer(classes.dtype):
        raise TypeError(f"classes: expected an integer type, got {classes.dtype}")
    classes = classes.long()  # torch compares no uint16
    if classes.shape != masks.shape[:1] or (classes < 0).any():
        raise ValueError(
            f"classes: expected ({len(masks)},), a class >= 0 for each mask, got {tuple(classes.shape)}"
            + (f" with {int(classes.min())}" if classes.numel() else "")
        )
    owners = masks.sum(0)
    instance = torch.full_like(owners, NO_INSTANCE)
    for k, mask in enumerate(masks):
        instance[mask] = k
    semantic = torch.nn.functional.pad(classes, (0, 1))[instance]  # −1 reads the last, 0
    return instance.masked_fill(owners > 1, IGNORED), semantic.masked_fill(owners > 1, IGNORED)
