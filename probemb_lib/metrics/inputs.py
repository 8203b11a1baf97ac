"""What evaluators take: numpy or torch, checked."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any] | Tensor
Bool: TypeAlias = NDArray[np.bool_]
Int: TypeAlias = NDArray[np.int64]
Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]


def as_numpy(x: Array) -> NDArray[Any]:
    """An array on the host; numpy has no bfloat16, so it becomes float32."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return np.asarray(x)


def as_integers(name: str, x: Array) -> NDArray[Any]:
    array = as_numpy(x)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":  # an empty tensor is float without being meant so
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return array


def as_scores(x: Array) -> NDArray[Any]:
    array = as_numpy(x)
    if array.ndim != 1:
        raise ValueError(f"pred_scores: expected one dimension, got shape {array.shape}")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"pred_scores: expected real numbers, got {array.dtype}")
    if np.isnan(array).any():
        raise ValueError(f"pred_scores: expected no NaN, got {np.isnan(array).sum()}; look for their source")
    return array
