"""Average precision of part instances, as the PartNet benchmark computes it.

The protocol is that of the evaluation script of PartNet (Mo et al., CVPR 2019), in its number formats too:
true positives, recall and precision are float32, the 101 terms of the interpolated AP are summed in float64,
and an AP is stored as float32. These formats show in the result: kept in float64, a recall such as 7/25 falls
on the other side of a recall level. They are set one by one here and do not depend on the version of numpy.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probemb_lib.metrics.base import Evaluator
from probemb_lib.metrics.inputs import Array, Bool, Float32, Float64, Int, as_integers, as_numpy, as_scores

_LEVELS = np.arange(0, 1.01, 0.01).astype(np.float32)  # (101,) levels of recall
_CHUNK = 1 << 14  # points a matrix product takes at once; float32 counts are exact up to 2²⁴


class _Shape(NamedTuple):
    """What one shape leaves behind: a few numbers for each prediction, no masks."""

    pred_class: Int  # (P,) in descending order of the score
    pred_score: Float32  # (P,)
    hit: Bool  # (T, P) true positive at each threshold
    gt_class: Int  # (G,) of the rows that own a point


class PartNetAP(Evaluator[_Shape]):
    """Part and shape mAP of PartNet instance segmentation.

    A prediction is compared with the ground-truth (GT) instances of its own class in its shape. Predictions
    of a shape are taken in descending order of their scores (equal scores: lower row first); each meets the
    GT instance of highest IoU that is not used yet (equal IoU: lower row first). It is a true positive, and
    uses the instance, if the IoU is strictly greater than the threshold; otherwise it is a false positive.
    Points marked ``other`` are taken out of the predicted masks beforehand.

    - *class AP* pools the predictions of a class over all shapes: 101-point interpolated AP, see
      :func:`average_precision`. *part mAP* is its mean over the classes that have GT.
    - *shape AP* is the mean of the AP in one shape over the classes found in its GT or among its predictions.
      *shape mAP* is its mean over the shapes that have such a class.

    Several processes: each updates an object of its own on its part of the shapes. The objects are small and
    can be pickled; gather them (``torch.distributed.all_gather_object``), join them with :meth:`merge_state`.
    The result is, to the bit, that of one process that took the shapes in the order of merging. That order shows
    in the columns of ``shape_ap``, in the rank of predictions of one class with exactly equal scores (earlier
    shape first), and in the rounding of the sum in ``shape_map``, nowhere else. For the numbers of one process
    give each process a contiguous part of the shapes, none twice, and merge by rank.

    Args:
        num_classes: C, the part classes of the category and level; 0-based, without background.
        iou_thresholds: T thresholds in [0, 1).

    Raises:
        TypeError: ``num_classes`` is no integer.
        ValueError: no class, no threshold, or one outside [0, 1).

    Source: evaluation script of the PartNet segmentation experiments (Mo et al., CVPR 2019).

    Example: one shape of four points; the second prediction repeats the first.

    >>> metric = PartNetAP(num_classes=1, iou_thresholds=(0.5,))
    >>> metric.update(
    ...     pred_masks=np.array([[True, True, False, False], [True, True, False, False]]),
    ...     pred_classes=np.array([0, 0]),
    ...     pred_scores=np.array([0.9, 0.8], np.float32),
    ...     gt_instance=np.array([0, 0, 1, 1]),
    ...     gt_classes=np.array([0, 0]),
    ... )
    >>> result = metric.compute()
    >>> round(float(result["part_map"][0]), 4)  # half of the GT is found at precision 1: 51 of 101 levels
    0.505
    """

    _record = _Shape
    _cloud = "shape"
    _settings = ("num_classes", "iou_thresholds")

    def __init__(self, num_classes: int, iou_thresholds: Sequence[float] = (0.25, 0.5, 0.75)) -> None:
        super().__init__()
        self.num_classes = operator.index(num_classes)
        self.iou_thresholds = tuple(float(t) for t in iou_thresholds)
        if self.num_classes < 1:
            raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
        if not self.iou_thresholds or not all(0 <= t < 1 for t in self.iou_thresholds):
            raise ValueError(f"iou_thresholds: expected one or more numbers in [0, 1), got {iou_thresholds}")

    def update(
        self,
        pred_masks: Array,
        pred_classes: Array,
        pred_scores: Array,
        gt_instance: Array,
        gt_classes: Array,
        other: Array | None = None,
    ) -> None:
        """Add one shape whose predictions are masks, which may overlap; leave out invalid slots.

        Args:
            pred_masks: bool (P, N). An empty mask, or one on ``other`` points only, is a false positive.
            pred_classes: integer (P,) in [0, C).
            pred_scores: real (P,), in any order; compared as float32.
            gt_instance: integer (N,), the row of ``gt_classes`` that owns the point, or −1. Rows without
                points are dropped, as in the official ground truth. Points of no row count in unions.
            gt_classes: integer (G,) in [0, C).
            other: bool (N,), the points to take out of the predictions. ``None``: no point.

        Raises:
            TypeError: masks or ``other`` not bool, classes or rows not integer, scores not real numbers.
            ValueError: shapes that do not fit together, a class or row out of range, a score that is NaN.
        """
        masks = as_numpy(pred_masks)
        if masks.dtype != np.bool_:
            raise TypeError(f"pred_masks: expected bool, got {masks.dtype}; pass pred_masks != 0")
        gt_classes = self._classes("gt_classes", gt_classes)
        gt_instance = _rows("gt_instance", gt_instance, len(gt_classes), "gt_classes")
        kept = _kept(other, len(gt_instance))
        if masks.ndim != 2 or masks.shape[1] != len(gt_instance):
            raise ValueError(
                f"pred_masks: expected shape (P, {len(gt_instance)}), a column for each point of "
                f"gt_instance, got {masks.shape}"
            )
        overlap, pred_size = _count_masks(masks, gt_instance, len(gt_classes), kept)
        self._add(overlap, pred_size, pred_classes, pred_scores, gt_instance, gt_classes)

    def update_labels(
        self,
        label: Array,
        pred_classes: Array,
        pred_scores: Array,
        gt_instance: Array,
        gt_classes: Array,
        other: Array | None = None,
    ) -> None:
        """Add one shape whose predictions are a label map, as clustering gives it: no masks, same result.

        Args:
            label: integer (N,), the row of ``pred_classes`` that the point belongs to, or −1.
            pred_classes, pred_scores, gt_instance, gt_classes, other: as in :meth:`update`.

        Raises:
            TypeError, ValueError: as :meth:`update`.

        >>> import torch
        >>> metric = PartNetAP(num_classes=1, iou_thresholds=(0.5,))
        >>> zero = torch.zeros(1, dtype=torch.long)
        >>> metric.update_labels(torch.tensor([0, 0, -1]), zero, torch.ones(1), torch.tensor([0, 0, 0]), zero)
        >>> metric.compute()["part_map"].tolist()
        [1.0]
        """
        pred_classes = self._classes("pred_classes", pred_classes)
        label = _rows("label", label, len(pred_classes), "pred_classes")
        gt_classes = self._classes("gt_classes", gt_classes)
        gt_instance = _rows("gt_instance", gt_instance, len(gt_classes), "gt_classes")
        kept = _kept(other, len(gt_instance))
        if len(label) != len(gt_instance):
            raise ValueError(
                f"label: expected {len(gt_instance)} values, one for each point of gt_instance, got {len(label)}"
            )
        overlap, pred_size = _count_labels(label, len(pred_classes), gt_instance, len(gt_classes), kept)
        self._add(overlap, pred_size, pred_classes, pred_scores, gt_instance, gt_classes)

    def compute(self) -> dict[str, NDArray[Any]]:
        """The results over all B shapes so far, as fractions (not per cent), shapes in order of update.

        Returns:
            - ``class_ap`` float32 (T, C): 0 where the class has no GT.
            - ``class_valid`` bool (C,): the class has GT.
            - ``class_gt_count`` int64 (C,): GT instances over all shapes.
            - ``part_map`` float64 (T,): mean of ``class_ap`` over valid classes; nan if there is none.
            - ``shape_ap`` float32 (T, B): 0 where the shape is not valid.
            - ``shape_valid`` bool (B,): the shape has GT or a prediction.
            - ``shape_map`` float64 (T,): mean of ``shape_ap`` over valid shapes; nan if there is none.
        """
        c, b = self.num_classes, len(self._records)
        pred_class, pred_score, hit, gt_class = self._pooled()
        class_gt_count = np.bincount(gt_class, minlength=c)
        class_ap = _average_precisions(hit, pred_score, pred_class, class_gt_count)  # (T, C)

        # Within each shape the same, grouped by the pair (shape, class) instead of the class.
        pred_pair = pred_class + c * _repeat([len(s.pred_class) for s in self._records])
        gt_pair = gt_class + c * _repeat([len(s.gt_class) for s in self._records])
        pair_gt_count = np.bincount(gt_pair, minlength=b * c)
        present = (pair_gt_count + np.bincount(pred_pair, minlength=b * c) > 0).reshape(b, c)
        pair_ap = _average_precisions(hit, pred_score, pred_pair, pair_gt_count)  # (T, B·C)
        shape_ap = np.nan_to_num(_mean(pair_ap.reshape(len(hit), b, c), present)).astype(np.float32)  # (T, B)

        class_valid = class_gt_count > 0
        shape_valid = np.asarray(present.any(axis=1))
        return {
            "class_ap": class_ap,
            "class_valid": class_valid,
            "class_gt_count": class_gt_count,
            "part_map": _mean(class_ap, class_valid),
            "shape_ap": shape_ap,
            "shape_valid": shape_valid,
            "shape_map": _mean(shape_ap, shape_valid),
        }

    def part_map(self) -> NDArray[Any]:
        """``part_map`` of :meth:`compute` alone, float64 (T,): a third of the work, for resampling."""
        pred_class, pred_score, hit, gt_class = self._pooled()
        class_gt_count = np.bincount(gt_class, minlength=self.num_classes)
        return _mean(_average_precisions(hit, pred_score, pred_class, class_gt_count), class_gt_count > 0)

    def curve(self, class_id: int, threshold: float) -> tuple[Float32, Float32]:
        """Precision and recall of a class, in the numbers that its AP is computed from.

        Args:
            class_id: in [0, C).
            threshold: one of ``iou_thresholds``.

        Returns:
            precision and recall, float32 (L + 1,), for the L predictions of the class in descending order of
            their scores, after the leading point (precision 1, recall 0). Without GT, their recall is nan.

        Raises:
            ValueError: no such class or threshold.
        """
        if not 0 <= class_id < self.num_classes:
            raise ValueError(f"class_id: expected 0 (0-based) to {self.num_classes - 1}, got {class_id}")
        if threshold not in self.iou_thresholds:
            raise ValueError(f"threshold: expected one of {self.iou_thresholds}, got {threshold}")
        pred_class, pred_score, hit, gt_class = self._pooled()
        rows = np.flatnonzero(pred_class == class_id)
        rows = rows[np.argsort(-pred_score[rows], kind="stable")]
        true = np.cumsum(hit[self.iou_thresholds.index(threshold), rows]).astype(np.float32)
        gt_count = np.count_nonzero(gt_class == class_id)
        precision = true / np.arange(1, len(true) + 1, dtype=np.float32)
        recall = true / np.float32(gt_count) if gt_count else np.full_like(true, np.nan)
        return np.insert(precision, 0, 1), np.insert(recall, 0, 0)

    def _classes(self, name: str, x: Array) -> Int:
        classes = as_integers(name, x)
        if classes.size and (classes.min() < 0 or classes.max() >= self.num_classes):
            raise ValueError(
                f"{name}: expected 0 to {self.num_classes - 1}, got {classes.min()} to {classes.max()}; "
                "classes are 0-based and there is no background: subtract 1 if yours count from 1"
            )
        return classes.astype(np.int64)

    def _add(
        self,
        overlap: Int,
        pred_size: Int,
        pred_classes: Array,
        pred_scores: Array,
        gt_instance: Int,
        gt_classes: Int,
    ) -> None:
        """Match one shape, given |prediction ∩ GT| (P, G) and |prediction| (P,) without `other` points."""
        classes, scores = self._classes("pred_classes", pred_classes), as_scores(pred_scores).astype(np.float32)
        if not len(classes) == len(scores) == len(pred_size):
            raise ValueError(
                f"expected a class and a score for each of the {len(pred_size)} predictions, got "
                f"{len(classes)} pred_classes and {len(scores)} pred_scores; drop invalid slots everywhere"
            )
        gt_size = np.bincount(gt_instance[gt_instance >= 0], minlength=len(gt_classes))
        gt = np.flatnonzero(gt_size)
        rank = np.argsort(-scores, kind="stable")
        overlap, classes = overlap[np.ix_(rank, gt)], classes[rank]
        # Integers divided in float64: equal fractions stay equal, one on a threshold stays on it. Every GT
        # left owns a point, so no union is empty.
        iou = overlap / (pred_size[rank, None] + gt_size[gt] - overlap)  # (P, G)
        iou[classes[:, None] != gt_classes[gt]] = 0
        self._records.append(_Shape(classes, scores[rank], _match(iou, self.iou_thresholds), gt_classes[gt]))

    def _pooled(self) -> _Shape:
        """All shapes end to end, in order."""
        no_hit = np.zeros((len(self.iou_thresholds), 0), np.bool_)
        empty = _Shape(np.zeros(0, np.int64), np.zeros(0, np.float32), no_hit, np.zeros(0, np.int64))
        return _Shape(*(np.concatenate(parts, axis=-1) for parts in zip(empty, *self._records, strict=True)))


def average_precision(hit: Array, gt_count: int) -> float:
    """101-point interpolated average precision of one ranked list, in the number formats of PartNet.

    With TP(n) true positives among the first n predictions, precision(n) = TP(n) / n and
    recall(n) = TP(n) / gt_count,

        AP = 1/101 Σ_t max {precision(n) : n ≥ 0, recall(n) ≥ t},  t = 0, 0.01, …, 1,

    where n = 0 is a leading point of precision 1 and recall 0, and the maximum over nothing is 0.

    Args:
        hit: bool (L,), in descending order of the score: true positive or not.
        gt_count: number of ground-truth instances.

    Returns:
        AP in [0, 1]; 0 if there is no prediction or no ground truth.

    Raises:
        TypeError: ``hit`` is not bool.
        ValueError: ``hit`` is not 1-D, or has more true positives than there are instances.

    >>> round(average_precision(np.array([True, False, True]), gt_count=2), 4)  # 51 levels at 1, 50 at 2/3
    0.835
    """
    hits = as_numpy(hit)
    if hits.dtype != np.bool_:
        raise TypeError(f"hit: expected bool, got {hits.dtype}; pass hit != 0")
    if hits.ndim != 1:
        raise ValueError(f"hit: expected shape (L,), got {hits.shape}")
    if hits.sum() > gt_count:
        raise ValueError(f"gt_count: expected at least the {hits.sum()} true positives, got {gt_count}")
    same = np.zeros(len(hits), np.int64)
    return float(_interpolate(hits[None], same, np.array([gt_count]))[0, 0])


def _average_precisions(hit: Bool, score: Float32, group: Int, gt_count: Int) -> Float32:
    """AP of each threshold and group, (T, M), for hit (T, n), score (n,), group (n,) and gt_count (M,)."""
    order = np.lexsort((-score, group))  # stable, hence in order of arrival where scores are equal
    return _interpolate(hit[:, order], group[order], gt_count).astype(np.float32)


def _interpolate(hit: Bool, group: Int, gt_count: Int) -> Float64:
    """The same in float64, for predictions sorted by group and then by descending score.

    Precision only falls between true positives (TP). The maximum over recall ≥ t is therefore one over TPs,
    from the k-th on, where k is the least number of TPs whose recall reaches t.
    """
    size = np.bincount(group, minlength=len(gt_count))
    rank = np.arange(1, len(group) + 1) - (np.cumsum(size) - size)[group]  # (n,) from 1 within the group
    counted = (size > 0) & (gt_count > 0)
    ap = np.zeros((len(hit), len(gt_count)))
    for ap_row, hit_row in zip(ap, hit, strict=True):
        at = np.flatnonzero(hit_row)
        true = np.bincount(group[at], minlength=len(gt_count))  # (M,) TPs of each group
        before = np.cumsum(true) - true  # (M,) TPs of the groups before
        k = np.arange(1, len(at) + 1) - before[group[at]]
        precision: Float32 = np.divide(k, rank[at], dtype=np.float32)
        envelope = np.append(_max_from_here_on(precision, group[at]), np.float32(0))  # last: nothing reached
        for count in np.unique(gt_count[counted]):  # groups of equal GT share the k of each level
            recall = np.arange(count + 1, dtype=np.float32) / np.float32(count)
            needed = np.searchsorted(recall, _LEVELS)  # (101,) k; 0 at level 0 and there only
            m = np.flatnonzero(counted & (gt_count == count))
            index = np.where(needed <= true[m, None], before[m, None] + needed - 1, -1)  # (m, 101)
            terms = envelope[index].astype(np.float64)
            terms[:, 0] = 1  # the leading point
            ap_row[m] = np.cumsum(terms / len(_LEVELS), axis=1)[:, -1]  # in order; np.sum adds in pairs
    return ap


def _max_from_here_on(value: Float32, group: Int) -> Float32:
    """Maximum over a value and those after it in its group; values > 0, groups in ascending order."""
    # The bits of positive floats order as the floats do. Above them goes the negated group: it rises as the
    # backward pass enters the next group, and the maximum starts afresh.
    key = value.view(np.int32).astype(np.int64) - (group << 32)
    key = np.maximum.accumulate(key[::-1])[::-1]
    return (key & 0xFFFFFFFF).astype(np.int32).view(np.float32)


def _match(iou: Float64, thresholds: Sequence[float]) -> Bool:
    """True positives (T, P), for IoU (P, G) with rows in descending order of the score, 0 between classes.

    The best unused GT counts only above the threshold. So it is enough to walk the pairs above it,
    predictions in order and the GT of each by descending IoU, and to take the first GT that is not used.
    """
    pred, gt = np.nonzero(iou > min(thresholds))
    value = iou[pred, gt]
    order = np.lexsort((-value, pred))  # stable, hence the lower GT row first where IoU is equal
    pairs = list(zip(pred[order].tolist(), gt[order].tolist(), value[order].tolist(), strict=True))
    hit = np.zeros((len(thresholds), len(iou)), np.bool_)
    for row, threshold in zip(hit, thresholds, strict=True):
        matched: set[int] = set()
        used: set[int] = set()
        for p, g, pair_iou in pairs:
            if pair_iou > threshold and p not in matched and g not in used:
                matched.add(p)
                used.add(g)
        row[list(matched)] = True
    return hit


def _count_masks(masks: Bool, gt_instance: Int, num_gt: int, kept: Bool) -> tuple[Int, Int]:
    """Kept points that masks (P, N) share with each GT row, (P, G), and kept points of each mask, (P,)."""
    counts = np.zeros((len(masks), num_gt + 1), np.int64)
    for start in range(0, masks.shape[1], _CHUNK):
        part = slice(start, start + _CHUNK)
        owner, keep = gt_instance[part], kept[part]
        weight = np.zeros((num_gt + 1, len(owner)), np.float32)  # one row a GT; the last is all kept points
        owned = np.flatnonzero(keep & (owner >= 0))
        weight[owner[owned], owned] = 1
        weight[-1] = keep
        counts += (masks[:, part].astype(np.float32) @ weight.T).astype(np.int64)
    return counts[:, :-1], counts[:, -1]


def _count_labels(label: Int, num_pred: int, gt_instance: Int, num_gt: int, kept: Bool) -> tuple[Int, Int]:
    """The same for the masks label == 0, …, P − 1: one histogram of the pairs (prediction, GT)."""
    pair = (label + 1) * (num_gt + 1) + gt_instance + 1  # row and column 0: no prediction, no GT
    counts = np.bincount(pair[kept], minlength=(num_pred + 1) * (num_gt + 1))
    counts = counts.reshape(num_pred + 1, num_gt + 1)[1:]
    return counts[:, 1:], counts.sum(axis=1)


def _mean(value: Float32, valid: Bool) -> Float64:
    """Mean over the valid entries of the last axis, nan if none: summed in float32, divided in float64."""
    total = np.sum(value * valid, axis=-1).astype(np.float64)
    count = np.broadcast_to(valid.sum(axis=-1), total.shape)
    mean = np.full(total.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _repeat(counts: list[int]) -> Int:
    """0 repeated counts[0] times, 1 repeated counts[1] times, …"""
    return np.repeat(np.arange(len(counts)), np.array(counts, np.int64))


def _rows(name: str, x: Array, length: int, table: str) -> Int:
    rows = as_integers(name, x)
    if rows.size and (rows.min() < -1 or rows.max() >= length):
        raise ValueError(
            f"{name}: expected -1 or a row of {table}, which has {length}, got {rows.min()} to {rows.max()}; "
            f"number the instances as in {table} and give -1 to the points of none"
        )
    return rows.astype(np.int64)


def _kept(other: Array | None, length: int) -> Bool:
    if other is None:
        return np.ones(length, np.bool_)
    array = as_numpy(other)
    if array.dtype != np.bool_:
        raise TypeError(f"other: expected bool, got {array.dtype}; pass other != 0")
    if array.shape != (length,):
        raise ValueError(f"other: expected shape ({length},) as gt_instance, got {array.shape}")
    return np.asarray(~array)
