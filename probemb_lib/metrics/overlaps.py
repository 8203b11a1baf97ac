"""Objects of two label images: which overlap by how much, and which belong together.

IoU = |A ∩ B| / |A ∪ B| of each pair that shares a pixel, in O(pixels): no matrix of all pairs, no mask an object.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probemb_lib.metrics.inputs import Array, Bool, Float64, Int, as_numpy


class Overlaps(NamedTuple):
    """The P predicted and G true objects of an image, and the M pairs of them that share a pixel.

    Attributes:
        pred_id, true_id: (P,), (G,) numbers in the label images, ascending.
        pred, true: (M,) rows of a pair.
        iou: (M,) of a pair.
        mostly_ignored: (P,) more than half of the pixels are ignored.
    """

    pred_id: Int
    true_id: Int
    pred: Int
    true: Int
    iou: Float64
    mostly_ignored: Bool

    def match(self, candidates: Bool) -> Int:
        """Pairs (M,) that use each object at most once: as many of the candidates as can be, then of the greatest sum
        of IoU."""
        pairs = np.flatnonzero(candidates)
        pred, true = self.pred[pairs], self.true[pairs]
        alone = (np.bincount(pred, minlength=1)[pred] == 1) & (np.bincount(true, minlength=1)[true] == 1)
        if alone.all():  # always above 0.5, and nearly always below
            return pairs
        from scipy.optimize import linear_sum_assignment  # half a second to import, and seldom needed

        rest = pairs[~alone]
        _, i = np.unique(self.true[rest], return_inverse=True)
        _, j = np.unique(self.pred[rest], return_inverse=True)
        gain, number = np.zeros((i.max() + 1, j.max() + 1)), np.full((i.max() + 1, j.max() + 1), -1)
        gain[i, j] = 1 + self.iou[rest] / (2 * min(gain.shape))  # the sum of the second terms is below 1
        number[i, j] = rest
        chosen = number[linear_sum_assignment(gain, maximize=True)]
        return np.sort(np.concatenate([pairs[alone], chosen[chosen >= 0]]))


def find_overlaps(pred: NDArray[np.int64], true: NDArray[np.int64], ignored: Bool | None) -> Overlaps:
    """The overlaps of two label images (N,), 0 outside; ignored pixels are in no object, and their objects may vanish.

    A predicted object whose pixels are all ignored stays, without a pair and as mostly ignored.
    """
    pred_id, pred_row, pred_size = find_objects(pred)
    hidden = np.zeros(len(pred_id), dtype=np.int64)
    if ignored is not None:
        hidden = np.bincount(pred_row[ignored & (pred > 0)], minlength=len(pred_id))
        true = np.where(ignored, 0, true)
    true_id, true_row, true_size = find_objects(true)
    both = (pred > 0) & (true > 0)
    pair, _, shared = find_objects(true_row[both] * len(pred_id) + pred_row[both] + 1)
    i, j = np.divmod(pair - 1, max(len(pred_id), 1))
    union = true_size[i] + (pred_size - hidden)[j] - shared
    return Overlaps(pred_id, true_id, j, i, shared / union, 2 * hidden > pred_size)


def find_objects(x: NDArray[np.int64]) -> tuple[Int, Int, Int]:
    """Positive numbers that occur, ascending; the row of each element among them (of zeros: any); how often each."""
    if not x.any():
        none = np.zeros(0, dtype=np.int64)
        return none, np.zeros_like(x), none
    if x.max() <= 4 * x.size:  # a table of all numbers instead of a sort
        count = np.bincount(x)
        count[0] = 0
        number = np.flatnonzero(count)
        row = np.cumsum(count > 0) - 1
        return number, row[x], count[number]
    number, row, count = np.unique(x, return_inverse=True, return_counts=True)
    first = int(number[0] == 0)
    return number[first:], row.reshape(-1) - first, count[first:]


def as_label_image(name: str, x: Array) -> NDArray[np.int64]:
    """A label image on the host, checked, in its shape.

    Raises:
        TypeError: not integers.
        ValueError: a number is negative, or none of int64.
    """
    array = as_numpy(x)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected a label image of integers, 0 outside, got {array.dtype}")
    wide = array.astype(np.int64)
    if wide.size and wide.min() < 0:
        raise ValueError(
            f"{name}: expected 0 outside and numbers > 0 of objects, got {wide.min()}; of ignored pixels make the mask "
            "ignored, and of Instances a label image with label_image"
        )
    return wide


def as_pair(
    pred: Array, true: Array, ignored: Array | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], Bool | None]:
    """Two label images and the ignored pixels, each (N,).

    Raises:
        TypeError: label images that are not integers, or ``ignored`` that is not bool.
        ValueError: shapes differ, or a number is negative.
    """
    pred_image, true_image = as_label_image("pred", pred), as_label_image("true", true)
    if pred_image.shape != true_image.shape:
        raise ValueError(f"pred: expected the shape of true, {true_image.shape}, got {pred_image.shape}")
    mask = None if ignored is None else as_numpy(ignored)
    if mask is not None:
        if mask.dtype != np.bool_:
            raise TypeError(f"ignored: expected bool, True on pixels that do not count, got {mask.dtype}")
        if mask.shape != true_image.shape:
            raise ValueError(f"ignored: expected the shape of true, {true_image.shape}, got {mask.shape}")
        mask = mask.reshape(-1)
    return pred_image.reshape(-1), true_image.reshape(-1), mask
