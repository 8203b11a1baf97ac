"""Values of labels: the two that are no instance, and integers of any type read without a wrap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NO_INSTANCE = -1
"""``instance`` of a point outside every instance."""

IGNORED = -100
"""``instance`` or ``semantic`` of a point that takes no part; the ``ignore_index`` of ``torch``'s losses."""


def listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def as_int64(x: Tensor | NDArray[Any], name: str, codes: tuple[int, ...]) -> Tensor:
    """Labels as int64, in which none of the convention's ``codes`` was wrapped around by a narrower type."""
    if isinstance(x, Tensor):
        if not is_integer(x.dtype):
            raise TypeError(f"{name}: expected an integer type, got {x.dtype}; cast it to int64 if it is whole")
        low, bits = torch.iinfo(x.dtype).min, torch.iinfo(x.dtype).bits
        wide = x.to(torch.int64)
    elif not isinstance(x, np.ndarray):
        raise TypeError(f"{name}: expected a tensor or a numpy array, got {type(x).__name__}: np.asarray makes one")
    else:
        if x.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected an integer type, got {x.dtype}; cast it to int64 if it is whole")
        low, bits = int(np.iinfo(x.dtype).min), np.iinfo(x.dtype).bits
        wide = torch.from_numpy(x.astype(np.int64, order="C"))  # a copy, in native byte order
    if low == 0 and (wide < 0).any():
        raise ValueError(f"{name}: expected values below 2**63, got larger ones in {x.dtype}")
    for code in codes:
        wrapped = (code - low) % 2**bits + low
        if wrapped != code and wrapped not in codes and (wide == wrapped).any():
            raise ValueError(
                f"{name}: expected a type that holds {code}, got {x.dtype}, where {code} becomes {wrapped}, "
                "which occurs; read the labels as int64 from the start"
            )
    return wide


def isin(x: Tensor, values: tuple[int, ...]) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    for value in values:  # a handful: each comparison is cheaper than torch.isin's sort
        found |= x == value
    return found


def check_meaning(x: Tensor, known: Tensor, name: str) -> None:
    unknown = x[(x < 0) & ~known]
    if unknown.numel():
        raise ValueError(
            f"{name}: expected values >= 0 or with a meaning in this convention, got "
            f"{sorted(set(unknown.tolist()))[:5]}; is it another convention, or did a narrow type "
            "wrap around?"
        )
