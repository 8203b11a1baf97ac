"""From results to a host's labels."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib.labels.values import NO_INSTANCE, as_int64, check_meaning, is_integer


def to_host_labels(
    label: Tensor | NDArray[Any], *, none: int = 0, start: int = 1, dtype: torch.dtype = torch.int64
) -> Tensor:
    """A label map of results, −1 outside every instance, in a host's convention.

    host = none where label = −1, else label + start. The defaults are those of label images (EmbedSeg,
    StarDist, Cellpose, scikit-image); Pointcept wants ``none=-1, start=0``.

    Args:
        label: any shape, any integer type, ≥ −1, such as ``Instances.label``.
        none: the host's value outside every instance.
        start: the host's id of instance 0.
        dtype: an integer type of torch, e.g. ``torch.uint16`` for an image file.

    Returns:
        A new tensor of the shape of ``label``.

    Raises:
        TypeError: ``label`` or ``dtype`` is not an integer type.
        ValueError: a label is below −1, an instance gets the value ``none``, or a value does not fit into
            ``dtype``, where a cast would wrap around and merge instances.

    >>> to_host_labels(torch.tensor([-1, 0, 1]))
    tensor([0, 1, 2])
    """
    if not is_integer(dtype):
        raise TypeError(f"dtype: expected an integer type of torch, got {dtype}")
    ids = as_int64(label, "label", (NO_INSTANCE,))
    outside = ids == NO_INSTANCE
    check_meaning(ids, outside, "label")
    host = (ids + start).masked_fill(outside, none)
    if (host[~outside] == none).any():
        raise ValueError(f"none: expected a value that no instance has, got {none}, the id of instance {none - start}")
    limits = torch.iinfo(dtype)
    if host.numel():
        low, high = int(host.min()), int(host.max())
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"dtype: expected one that holds {low} .. {high}, got {dtype} with {limits.min} .. {limits.max}"
            )
    return host.to(dtype)
