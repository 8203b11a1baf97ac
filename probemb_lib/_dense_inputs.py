"""What heads, targets and tables of images and volumes are given: shapes, spacings, tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

Spacing: TypeAlias = float | Sequence[float]
"""Distance between neighbouring pixels: one number, or one an axis in the order of the layout."""


def image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(shape)
    if len(shape) not in (3, 4) or min(shape) < 0:
        raise ValueError(f"shape: expected (B, H, W) or (B, Z, Y, X), got {shape}")
    return shape


def plain(x: Tensor) -> Tensor:
    """Without a subclass that only carries something along, whose operators may be slow or refuse; those that replace
    what is computed (fake, distributed) stay."""
    carries = type(x) is not Tensor and type(x).__torch_dispatch__ is Tensor.__torch_dispatch__
    return x.as_subclass(Tensor) if carries else x
