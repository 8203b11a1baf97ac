"""Panoptic quality (Kirillov et al., CVPR 2019, Eq. 1): PQ = Σ IoU / (TP + ½ FP + ½ FN) = SQ · RQ.

Over the pairs of a predicted and a true segment of one class with IoU > ½, of which each segment has at most one.
SQ = Σ IoU / TP is the quality of what was found, RQ = TP / (TP + ½ FP + ½ FN) that of finding.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probemb_lib.metrics.base import Evaluator
from probemb_lib.metrics.inputs import Array, Bool, Float64, Int, as_numpy
from probemb_lib.metrics.overlaps import as_pair, find_objects, find_overlaps


class _Image(NamedTuple):
    """Of one image, for each class (L,)."""

    tp: Int
    fp: Int
    fn: Int
    iou: Float64  # summed over the true positives


class PanopticQuality(Evaluator[_Image]):
    """PQ, SQ and RQ of objects in images and volumes, for each class and over classes.

    Counts are pooled over the images. A segment is the pixels of one number and one class. Classes that have neither
    true nor predicted segments are left out of the means. Background is no segment; stuff, where it is to count, is a
    class whose pixels have one number.

    Ignored pixels are Kirillov's void: they are taken out of unions, and a predicted segment without a partner is no
    false positive if more than half of it is ignored.

    Args:
        num_classes: L, columns of the probabilities, the background (0) counted. 2 for label images without classes.

    Raises:
        TypeError: ``num_classes`` is no integer.
        ValueError: ``num_classes`` is below 2.

    >>> metric = PanopticQuality()
    >>> metric.update(pred=np.array([1, 1, 1, 0, 5]), true=np.array([7, 7, 0, 2, 0]))  # IoU 2/3, a miss, a false alarm
    >>> {name: round(float(value), 3) for name, value in metric.compute().items() if name in ("pq", "sq", "rq")}
    {'pq': 0.333, 'sq': 0.667, 'rq': 0.5}
    """

    _record = _Image
    _cloud = "image"
    _settings = ("num_classes",)

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.num_classes = operator.index(num_classes)
        if self.num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, the background counted, got {num_classes}")

    def update(
        self,
        pred: Array,
        true: Array,
        pred_semantic: Array | None = None,
        true_semantic: Array | None = None,
        ignored: Array | None = None,
    ) -> None:
        """Add one image or volume.

        Args:
            pred: integers of any shape, 0 outside, each number an object.
            true: likewise, of the same shape.
            pred_semantic: integers of the same shape, the class of each pixel of an object, in [1, L); of the others it
                is not looked at. None: class 1.
            true_semantic: likewise.
            ignored: bool, of the same shape; None: no pixel.

        Raises:
            TypeError: label images or classes that are not integers, or ``ignored`` that is not bool.
            ValueError: shapes differ, a number is negative, or a class is outside [1, L).
        """
        shape = np.shape(as_numpy(true))
        pred_id, true_id, mask = as_pair(pred, true, ignored)
        pred_segment, pred_class = self._segments("pred_semantic", pred_id, pred_semantic, shape, None)
        true_segment, true_class = self._segments("true_semantic", true_id, true_semantic, shape, mask)
        pairs = find_overlaps(pred_segment, true_segment, mask)
        of_pred, of_true = pred_class[pairs.pred_id - 1], true_class[pairs.true_id - 1]
        matched = pairs.match((pairs.iou > 0.5) & (of_pred[pairs.pred] == of_true[pairs.true]))
        wrong = ~pairs.mostly_ignored
        wrong[pairs.pred[matched]] = False
        tp = self._count(of_true[pairs.true[matched]])
        iou: Float64 = np.bincount(of_true[pairs.true[matched]], pairs.iou[matched], self.num_classes).astype(
            np.float64
        )
        self._records.append(_Image(tp, self._count(of_pred[wrong]), self._count(of_true) - tp, iou))

    def compute(self) -> dict[str, NDArray[np.generic]]:
        """
        Returns:
            Float64 and int64 arrays.

            - ``pq``, ``sq``, ``rq`` (): means over the classes with a segment, NaN where there is none
            - ``class_pq``, ``class_sq``, ``class_rq`` (L,): NaN for classes without a segment; ``class_sq`` is 0, as in
              torchmetrics, where nothing was found
            - ``tp``, ``fp``, ``fn`` (L,)
        """
        counts = [np.array([r[i] for r in self._records]).reshape(-1, self.num_classes).sum(0) for i in range(4)]
        tp, fp, fn = (count.astype(np.int64) for count in counts[:3])
        with np.errstate(invalid="ignore"):
            rq = 2 * tp / (2 * tp + fp + fn)
            pq = 2 * counts[3] / (2 * tp + fp + fn)
        valid = ~np.isnan(rq)
        sq = np.where(valid, counts[3] / np.maximum(tp, 1), np.nan)

        def mean(x: Float64) -> NDArray[np.float64]:
            return np.asarray(x[valid].mean() if valid.any() else np.nan)

        means = {"pq": mean(pq), "sq": mean(sq), "rq": mean(rq)}
        return {**means, "class_pq": pq, "class_sq": sq, "class_rq": rq, "tp": tp, "fp": fp, "fn": fn}

    def _count(self, classes: Int) -> Int:
        return np.bincount(classes, minlength=self.num_classes)

    def _segments(
        self, name: str, ids: NDArray[np.int64], semantic: Array | None, shape: tuple[int, ...], ignored: Bool | None
    ) -> tuple[Int, Int]:
        """Of each pixel the number of its segment from 1, 0 in none; and the class of each segment."""
        inside = ids > 0 if ignored is None else (ids > 0) & ~ignored
        if semantic is None:
            classes = np.ones_like(ids)
        else:
            array = as_numpy(semantic)
            if array.dtype.kind not in "iu":
                raise TypeError(f"{name}: expected integers, got {array.dtype}")
            if array.shape != shape:
                raise ValueError(f"{name}: expected the shape of true, {shape}, got {array.shape}")
            classes = array.reshape(-1).astype(np.int64)
            wrong = inside & ((classes < 1) | (classes >= self.num_classes))
            if wrong.any():
                raise ValueError(
                    f"{name}: expected classes of objects in 1 .. {self.num_classes - 1}, got {classes[wrong][0]}"
                )
            classes = np.clip(classes, 0, self.num_classes - 1)
        _, row, _ = find_objects(ids)
        key, segment, _ = find_objects(np.where(ids > 0, row * self.num_classes + classes + 1, 0))
        return np.where(ids > 0, segment + 1, 0), (key - 1) % self.num_classes
