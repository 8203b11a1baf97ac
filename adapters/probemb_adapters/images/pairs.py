"""An image with its instances, which is what all readers of this folder give."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class LabelledImage(NamedTuple):
    """A grey image or volume and what is known of its instances.

    Attributes:
        name: such as the file's, without folder and ending.
        image: (H, W), or (Z, Y, X) for a volume, of any number type.
        label: the same shape, integers: 0 background, 1 … n instances; None where nothing is known.
    """

    name: str
    image: Array
    label: Array | None


def normalize(image: Array, low: float = 1.0, high: float = 99.8) -> NDArray[np.float32]:
    """x ↦ (x − p_low) / (p_high − p_low), with percentiles of the whole image; not clipped.

    So exposure and bit depth of a microscope do not matter. An image that is constant between the percentiles becomes
    0 there, and its extremes are divided by 1.

    Args:
        image: of any shape.
        low, high: per cent, 0 <= low < high <= 100.

    Raises:
        ValueError: percentiles out of order, an empty image, or one with NaN or infinity.

    >>> normalize(np.array([[10, 20], [20, 30]], np.uint16), 0, 100)
    array([[0. , 0.5],
           [0.5, 1. ]], dtype=float32)
    """
    if not 0 <= low < high <= 100:
        raise ValueError(f"expected percentiles 0 <= low < high <= 100, got {low} and {high}")
    if image.size == 0 or not np.isfinite(image).all():
        raise ValueError(f"expected an image of finite numbers, got shape {image.shape} with NaN, infinity or nothing")
    bottom, top = np.percentile(image, [low, high])
    return ((image.astype(np.float32) - np.float32(bottom)) / np.float32(top - bottom or 1.0)).astype(np.float32)
