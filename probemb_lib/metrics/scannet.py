"""Average precision of object instances, as the ScanNet v2 benchmark computes it.

The protocol is that of the evaluation script of the ScanNet instance segmentation benchmark (Dai et al., CVPR 2017),
its less known rules included: predictions meet the ground truth in the order in which they are given and not by
score, the share of vertices that excuses a false positive moves with the IoU threshold, and 0.95 is no threshold.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from probemb_lib.metrics.base import Evaluator
from probemb_lib.metrics.inputs import Array, Bool, Float64, Int, as_integers, as_numpy, as_scores

CLASS_IDS = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""nyu40 ids of the 18 classes of ScanNet v2's instance benchmark."""

# In the script they come from numpy.arange and are up to 4e-16 larger. That makes no difference: a quotient of two
# counts that is not exactly 3/5 is further from it, and one that is exceeds neither 0.6 nor 0.6000000000000001.
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.25)
_AP, _AP50, _AP25 = slice(0, 9), 0, 9  # AP is the mean over the first nine

_TABLE = 1 << 21  # vertex ids below are counted in a table of this length, larger ones sorted


class _Scene(NamedTuple):
    """What one scene leaves behind: a few numbers for each prediction, no masks."""

    pred_class: Int  # (P,) index into class_ids
    pred_score: Float64  # (P,)
    true: NDArray[np.int32]  # (T, P) true positives that enter the curve with the prediction's score
    false: NDArray[np.int32]  # (T, P) false positives; neither of them: the prediction is left out
    gt_count: Int  # (C,) instances that can be found or missed


class _Truth(NamedTuple):
    """The ground truth of a scene as columns of a table of counts."""

    ids: Int  # (V,)
    column: Int  # of each id: 0 is void, 1 … G are the instances by ascending id
    size: Int  # (1 + G,) vertices of each column
    gt_class: Int  # (G,) index into class_ids


class _Curves(NamedTuple):
    """Points by class and descending score, M in all."""

    cls: Int  # (M,) index into class_ids
    precision: Float64  # (T, M)
    recall: Float64  # (T, M) nan without GT


class ScanNetAP(Evaluator[_Scene]):
    """AP, AP50 and AP25 of ScanNet instance segmentation.

    - *Ground truth* (GT): the vertices of one id ``label · 1000 + instance`` with a label of ``class_ids``. All other
      vertices (id 0, wall, floor …) are *void*. An instance below ``min_region_size`` can be neither found nor missed.
    - *Predictions* with another label or below ``min_region_size`` vertices are dropped.
    - *Matching*, for each IoU threshold t: the GT instances of a class by ascending id, and for each the predictions
      of its class **in the order given**. The first whose IoU is strictly above t, and that no earlier instance took,
      is taken. Each further one is a duplicate: a false positive with the lower of its score and the instance's, while
      the instance keeps the higher; a duplicate is not taken and may serve a later instance. Only below t = 0.5
      can that order change the result.
    - *False positives* are also the predictions without any GT instance of their class above t, however small,
      unless more than the share t of their vertices is void or in instances of their class below the least size.
    - *AP* of a class: the area under its curve of precision over recall, pooled over the scenes, by the trapezoidal
      rule. Equal scores enter the curve together, and it begins at precision 1 and recall 0. *class AP* is the mean
      over t = 0.5, 0.55, …, 0.9. A class without GT is nan and no part of the average. One with GT whose predictions
      are all left out, which stops the official script with an error, is 0.

    Several processes: each updates an object of its own on its part of the scenes. The objects are small and can be
    pickled; gather them (``torch.distributed.all_gather_object``), join them with :meth:`merge_state`. The result is,
    to the bit, that of one process, in whatever order they are merged. Give each scene to one process only: a scene
    that a sampler repeats to fill up a batch counts twice.

    Args:
        class_ids: C labels to evaluate; by default the 18 of ScanNet v2, in NYU40 ids. Results are in their order.
        min_region_size: vertices that a prediction or GT instance needs to count.

    Raises:
        TypeError: ``class_ids`` or ``min_region_size`` are no integers.
        ValueError: no class, one below 1 or twice, or a size below 1.

    Source: ScanNet benchmark, evaluation of 3D semantic instances (Dai et al., CVPR 2017).

    Example: a chair (5) of three vertices, beside two void ones, and a prediction of IoU 3/4.

    >>> metric = ScanNetAP(min_region_size=1)
    >>> metric.update(
    ...     pred_masks=np.array([[True, True, True, True, False]]),
    ...     pred_labels=np.array([5]),
    ...     pred_scores=np.array([0.9]),
    ...     gt=np.array([5001, 5001, 5001, 0, 0]),
    ... )
    >>> result = metric.compute()
    >>> round(result["ap"], 4), result["ap50"], result["ap25"]  # found at 0.5, 0.55, …, 0.7: 5 of 9 thresholds
    (0.5556, 1.0, 1.0)
    """

    _record = _Scene
    _cloud = "scene"
    _settings = ("class_ids", "min_region_size")

    def __init__(self, class_ids: Sequence[int] = CLASS_IDS, *, min_region_size: int = 100) -> None:
        super().__init__()
        self.class_ids = tuple(operator.index(i) for i in class_ids)
        self.min_region_size = operator.index(min_region_size)
        if not self.class_ids or min(self.class_ids) < 1 or len(set(self.class_ids)) < len(self.class_ids):
            raise ValueError(f"class_ids: expected one or more distinct labels from 1 on, got {class_ids}")
        if self.min_region_size < 1:
            raise ValueError(f"min_region_size: expected at least 1 vertex, got {min_region_size}")

    def update(self, pred_masks: Array, pred_labels: Array, pred_scores: Array, gt: Array) -> None:
        """Add one scene whose predictions are masks, which may overlap. The order of the predictions counts.

        Args:
            pred_masks: bool (P, V), over all vertices of the mesh.
            pred_labels: integer (P,), label ids as in ``class_ids``, not indices; others are dropped.
            pred_scores: real (P,), higher is more confident; compared as float64.
            gt: integer (V,), label · 1000 + instance; 0 for vertices of no instance.

        Raises:
            TypeError: masks not bool, labels or gt not integer, scores not real numbers.
            ValueError: shapes that do not fit together, a negative gt, a score that is NaN.
        """
        masks = as_numpy(pred_masks)
        if masks.dtype != np.bool_:
            raise TypeError(
                f"pred_masks: expected bool, got {masks.dtype}; pass pred_masks != 0, and bits packed by "
                "numpy.packbits to update_packed"
            )
        truth = self._truth(gt)
        if masks.ndim != 2 or masks.shape[1] != len(truth.ids):
            raise ValueError(
                f"pred_masks: expected shape (P, {len(truth.ids)}), a column for each vertex of gt, got {masks.shape}"
            )
        self._add(_count_masks(masks, truth), pred_labels, pred_scores, truth)

    def update_packed(self, pred_bits: Array, pred_labels: Array, pred_scores: Array, gt: Array) -> None:
        """Add one scene whose predictions are packed masks, ``numpy.packbits(pred_masks, axis=1)``: same result.

        Args:
            pred_bits: uint8 (P, ⌈V / 8⌉), the first vertex in the most significant bit. Bits beyond V do not count.
            pred_labels, pred_scores, gt: as in :meth:`update`.

        Raises:
            TypeError, ValueError: as :meth:`update`.

        >>> metric = ScanNetAP(min_region_size=1)
        >>> bits = np.packbits([[True, True, True, True, False]], axis=1)
        >>> metric.update_packed(bits, np.array([5]), np.array([0.9]), np.array([5001, 5001, 5001, 0, 0]))
        >>> round(metric.compute()["ap"], 4)
        0.5556
        """
        bits = as_numpy(pred_bits)
        if bits.dtype != np.uint8:
            raise TypeError(
                f"pred_bits: expected uint8 as numpy.packbits gives it, got {bits.dtype}; pass bool masks to update"
            )
        truth = self._truth(gt)
        size = len(truth.ids)
        if bits.ndim != 2 or bits.shape[1] != -(-size // 8):
            raise ValueError(
                f"pred_bits: expected shape (P, {-(-size // 8)}), 8 of the {size} vertices of gt in each byte, got "
                f"{bits.shape}; pack along axis 1"
            )
        # One mask unpacked at a time, so that the memory is that of one.
        masks = (np.unpackbits(row, count=size).view(np.bool_) for row in bits)
        self._add(_count_masks(masks, truth), pred_labels, pred_scores, truth)

    def update_labels(self, label: Array, pred_labels: Array, pred_scores: Array, gt: Array) -> None:
        """Add one scene whose predictions are a label map, as clustering gives it: no masks, same result.

        Args:
            label: integer (V,), the row of ``pred_labels`` that the vertex belongs to, or −1.
            pred_labels, pred_scores, gt: as in :meth:`update`.

        Raises:
            TypeError, ValueError: as :meth:`update`.

        >>> metric = ScanNetAP(min_region_size=1)
        >>> label, gt = np.array([0, 0, 0, 0, -1]), np.array([5001, 5001, 5001, 0, 0])
        >>> metric.update_labels(label, np.array([5]), np.array([0.9]), gt)
        >>> round(metric.compute()["ap"], 4)
        0.5556
        """
        label, num_pred = as_integers("label", label), len(as_integers("pred_labels", pred_labels))
        if label.size and (label.min() < -1 or label.max() >= num_pred):
            raise ValueError(
                f"label: expected -1 or a row of pred_labels, which has {num_pred}, got {label.min()} to "
                f"{label.max()}; number the predictions from 0 and give -1 to the vertices of none"
            )
        truth = self._truth(gt)
        if len(label) != len(truth.ids):
            raise ValueError(f"label: expected {len(truth.ids)} values, one for each vertex of gt, got {len(label)}")
        # One histogram of the pairs (GT, prediction), −1 included.
        pair = (truth.column * (num_pred + 1) + 1).take(truth.ids)
        pair += label.astype(np.int64, copy=False)
        counts = np.bincount(pair, minlength=len(truth.size) * (num_pred + 1)).reshape(-1, num_pred + 1)
        self._add(counts[:, 1:].T, pred_labels, pred_scores, truth)

    def compute(self) -> dict[str, Any]:
        """The results over all scenes so far, as fractions (not per cent), classes in the order of ``class_ids``.

        Returns:
            - ``ap``, ``ap50``, ``ap25`` float: mean of the three below over classes that are not nan; nan if none is.
            - ``class_ap``, ``class_ap50``, ``class_ap25`` float64 (C,): the mean over the nine thresholds 0.5 … 0.9,
              at 0.5, and at 0.25; nan where the class has no GT.
            - ``class_ap_per_threshold`` float64 (C, T): for 0.5, 0.55, …, 0.9, and 0.25 last.
            - ``class_gt_count`` int64 (C,): GT instances of at least ``min_region_size`` vertices.
        """
        scenes = self._pooled()
        ap = _areas(_curves(scenes), scenes.gt_count)
        class_ap = {"class_ap": ap[:, _AP].mean(axis=1), "class_ap50": ap[:, _AP50], "class_ap25": ap[:, _AP25]}
        known = scenes.gt_count > 0
        return {
            **{key.removeprefix("class_"): _mean(value[known]) for key, value in class_ap.items()},
            **class_ap,
            "class_ap_per_threshold": ap,
            "class_gt_count": scenes.gt_count,
        }

    def curve(self, class_id: int, threshold: float) -> tuple[Float64, Float64]:
        """Precision and recall of a class, in the numbers that its AP is computed from.

        Args:
            class_id: one of ``class_ids``.
            threshold: 0.5, 0.55, …, 0.9, or 0.25.

        Returns:
            precision and recall, float64 (L + 1,), for the L distinct scores that count for the class, in descending
            order, after the leading point (precision 1, recall 0). Without GT, their recall is nan.

        Raises:
            ValueError: no such class or threshold.
        """
        if class_id not in self.class_ids:
            raise ValueError(f"class_id: expected one of the labels {self.class_ids}, got {class_id}")
        if threshold not in THRESHOLDS:
            raise ValueError(f"threshold: expected one of {THRESHOLDS}, got {threshold}")
        scenes, t = self._pooled(), THRESHOLDS.index(threshold)
        true, false = scenes.true[t], scenes.false[t]
        rows = (scenes.pred_class == self.class_ids.index(class_id)) & (true + false > 0)
        counted = _Scene(
            scenes.pred_class[rows], scenes.pred_score[rows], true[None, rows], false[None, rows], scenes.gt_count
        )
        curve = _curves(counted)
        return np.insert(curve.precision[0], 0, 1), np.insert(curve.recall[0], 0, 0)

    def _truth(self, gt: Array) -> _Truth:
        """Which column of a table of counts each vertex belongs to: 0 is void, then the instances by ascending id."""
        ids = as_integers("gt", gt)
        if ids.dtype.itemsize == 1:
            raise TypeError(f"gt: expected integers that hold label * 1000 + instance, got {ids.dtype}; use int64")
        ids = ids.astype(np.int64, copy=False)
        # One pass over the vertices: read as unsigned, a negative id is larger than any other.
        largest = int(ids.view(np.uint64).max(initial=0))
        if largest > np.iinfo(np.int64).max:
            raise ValueError(
                f"gt: expected label * 1000 + instance, 0 for vertices of no instance, got {ids.min()}; set negative "
                "marks to 0, and look for ids that a small integer type has wrapped"
            )
        if largest < _TABLE:
            count = np.bincount(ids)
            present = positions = np.flatnonzero(count > 0)  # much faster than of integers
        else:
            present, ids, count = np.unique(ids, return_inverse=True, return_counts=True)
            positions = np.arange(len(present))
        size, gt_class = count[positions], self._class_index(present // 1000)
        kept = gt_class >= 0
        column = count  # the same length; it is not needed any more
        column[positions] = np.where(kept, np.cumsum(kept), 0)
        return _Truth(ids, column, np.append(size[~kept].sum(), size[kept]), gt_class[kept])

    def _class_index(self, labels: Int) -> Int:
        """Positions in ``class_ids``, −1 for other labels."""
        equal = labels[:, None] == np.array(self.class_ids)
        return np.where(equal.any(axis=1), equal.argmax(axis=1), -1)

    def _add(self, overlap: Int, pred_labels: Array, pred_scores: Array, truth: _Truth) -> None:
        """Add a scene by the vertices that each prediction shares with void and with each GT instance, (P, 1 + G)."""
        labels = as_integers("pred_labels", pred_labels).astype(np.int64)
        scores = as_scores(pred_scores).astype(np.float64)
        if not len(overlap) == len(labels) == len(scores):
            raise ValueError(
                f"expected a label and a score for each of the {len(overlap)} predictions, got "
                f"{len(labels)} pred_labels and {len(scores)} pred_scores"
            )
        pred_class, pred_size = self._class_index(labels), overlap.sum(axis=1)
        kept = (pred_class >= 0) & (pred_size >= self.min_region_size)
        overlap, pred_class, scores, pred_size = overlap[kept], pred_class[kept], scores[kept], pred_size[kept]

        void, overlap, gt_size = overlap[:, 0], overlap[:, 1:], truth.size[1:]
        overlap = np.where(pred_class[:, None] == truth.gt_class, overlap, 0)
        # Integers divided in float64: one rounding, as in the script, so that an IoU on a threshold stays on it.
        iou = overlap / (pred_size[:, None] + gt_size - overlap)  # (P, G)
        large = gt_size >= self.min_region_size
        true, false = _match(iou * large, scores)

        threshold = np.array(THRESHOLDS)[:, None]
        excused = (void + overlap[:, ~large].sum(axis=1)) / pred_size  # (P,) share of the vertices
        false += (iou.max(axis=1, initial=0) <= threshold) & (excused <= threshold)
        gt_count = np.bincount(truth.gt_class[large], minlength=len(self.class_ids))
        self._records.append(_Scene(pred_class, scores, true.astype(np.int32), false.astype(np.int32), gt_count))

    def _pooled(self) -> _Scene:
        """All scenes as one."""
        nothing = np.zeros((len(THRESHOLDS), 0), np.int32)
        no_gt = np.zeros(len(self.class_ids), np.int64)
        empty = _Scene(np.zeros(0, np.int64), np.zeros(0), nothing, nothing, no_gt)
        pred_class, pred_score, true, false, gt_count = zip(empty, *self._records, strict=True)
        return _Scene(
            np.concatenate(pred_class),
            np.concatenate(pred_score),
            np.concatenate(true, axis=1),
            np.concatenate(false, axis=1),
            np.sum(gt_count, axis=0),
        )


def _count_masks(masks: Iterable[Bool], truth: _Truth) -> Int:
    """Vertices that each mask (V,) shares with each column, (P, 1 + G)."""
    column = truth.column.take(truth.ids)
    counts = [np.bincount(column[mask], minlength=len(truth.size)) for mask in masks]
    return np.array(counts, np.int64).reshape(len(counts), len(truth.size))


def _match(iou: Float64, scores: Float64) -> tuple[Int, Int]:
    """True positives and duplicates, (T, P) each, for IoU (P, G): columns by ascending id, 0 for pairs not to match."""
    gt, pred = np.nonzero((iou > min(THRESHOLDS)).T)  # by GT, and for each the predictions in the order given
    pairs = list(zip(gt.tolist(), pred.tolist(), iou[pred, gt].tolist(), strict=True))
    score = scores.tolist()
    true: list[int] = []  # positions in (T, P)
    duplicate: list[int] = []
    for t, threshold in enumerate(THRESHOLDS):
        row = t * len(iou)
        best: dict[int, int] = {}  # GT → prediction whose score it has
        taken: set[int] = set()
        for g, p, pair_iou in pairs:
            if pair_iou <= threshold or p in taken:
                continue
            if g not in best:
                best[g] = p
                taken.add(p)
            elif score[p] > score[best[g]]:
                duplicate.append(row + best[g])
                best[g] = p
            else:
                duplicate.append(row + p)
        # A prediction comes twice if, as a duplicate, it has raised the score of an earlier instance.
        true += [row + p for p in best.values()]
    return _count(true, len(iou)), _count(duplicate, len(iou))


def _count(positions: list[int], width: int) -> Int:
    counts = np.bincount(np.array(positions, np.int64), minlength=len(THRESHOLDS) * width)
    return counts.reshape(len(THRESHOLDS), width)


def _curves(scenes: _Scene) -> _Curves:
    """The curve of each class: a point for each of its distinct scores, without the leading point (1, 0)."""
    order = np.lexsort((-scenes.pred_score, scenes.pred_class))
    cls, score = scenes.pred_class[order], scenes.pred_score[order]
    last = np.flatnonzero(np.append((cls[1:] != cls[:-1]) | (score[1:] != score[:-1]), True)[: len(cls)])
    first = np.searchsorted(cls, cls[last])  # where the class of each point begins
    counts = []
    for entries in (scenes.true, scenes.false):
        total = np.cumsum(np.pad(entries[:, order], ((0, 0), (1, 0))), axis=1)
        counts.append(total[:, last + 1] - total[:, first])
    true, entered = counts[0], counts[0] + counts[1]
    precision, recall = np.ones(true.shape), np.full(true.shape, np.nan)
    # Where nothing has entered yet, the point is the leading one once more.
    np.divide(true, entered, out=precision, where=entered > 0)
    gt_count = scenes.gt_count[cls[last]]
    np.divide(true, gt_count, out=recall, where=gt_count > 0)
    return _Curves(cls[last], precision, recall)


def _areas(curves: _Curves, gt_count: Int) -> Float64:
    """Area under the curve of each class and threshold, (C, T), by the trapezoidal rule; nan without GT.

    A score with which nothing enters repeats the point before it and adds no area. So a class without anything that
    counts has AP 0 and needs no rule of its own.
    """
    first = np.append(True, curves.cls[1:] != curves.cls[:-1])[: len(curves.cls)]  # follows the leading point (1, 0)
    width = curves.recall - np.where(first, 0, np.roll(curves.recall, 1, axis=1))  # (T, M)
    height = (curves.precision + np.where(first, 1, np.roll(curves.precision, 1, axis=1))) / 2
    ap = np.zeros((len(gt_count), len(width)))
    np.add.at(ap, curves.cls, (width * height).T)
    ap[gt_count == 0] = np.nan
    return ap


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else float("nan")
