"""Average precision of label images, as StarDist and Cellpose count it: AP(τ) = TP / (TP + FP + FN).

An object is found if a predicted one has IoU ≥ τ with it, each used once. There are no scores and no curve: others
call it accuracy, threat score or Jaccard index of detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from probemb_lib.metrics.base import Evaluator
from probemb_lib.metrics.inputs import Array, Float64, Int
from probemb_lib.metrics.overlaps import as_pair, find_overlaps

IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Those of the tables of StarDist and EmbedSeg. As decimals: ``np.arange`` gives 0.6000000000000001, and an object of
IoU 3/5 would be missed."""


class _Image(NamedTuple):
    """Counts of one image at each threshold, (T,)."""

    tp: Int
    fp: Int
    fn: Int
    iou: Float64  # summed over the true positives


class LabelImageAP(Evaluator[_Image]):
    """AP(τ) = TP / (TP + FP + FN) of images and volumes, pooled and by image, with what else the counts give.

    True and predicted objects with IoU ≥ τ are matched one to one, as many as can be, and of these matchings the one
    with the greatest sum of IoU (for τ > ½ there is only one). TP are the pairs, FP the predicted objects without a
    partner, FN the true ones.

    - *pooled* (``ap``): the counts of all images together, ``matching_dataset`` of StarDist (``accuracy``).
    - *by image* (``image_ap``): ``average_precision`` of Cellpose, and with ``mean_image_ap``, their mean over images,
      ``matching_dataset(by_image=True)`` of StarDist and AP_dsb of EmbedSeg.

    An image in which nothing is and nothing was found has no AP: NaN, as in Cellpose, and it is left out of
    ``mean_image_ap``; StarDist counts it as 0. An image in which only one of both is empty has 0. Numbers of objects
    need not be consecutive.

    Several processes: :meth:`merge_state`; intervals: :meth:`subset`.

    Args:
        iou_thresholds: T thresholds in (0, 1].

    Raises:
        ValueError: no threshold, or one outside (0, 1].

    Source: ``stardist/matching.py`` of StarDist 0.9.2 and ``cellpose/metrics.py`` of Cellpose 4.2.1, both of which give
    the same numbers on drawn label images, in their float32.

    >>> metric = LabelImageAP((0.5, 0.75))
    >>> metric.update(pred=np.array([1, 1, 1, 0, 5]), true=np.array([7, 7, 0, 0, 2]))  # IoU 2/3 and 1
    >>> metric.compute()["ap"]
    array([1.        , 0.33333333])
    """

    _record = _Image
    _cloud = "image"
    _settings = ("iou_thresholds",)

    def __init__(self, iou_thresholds: Sequence[float] = IOU_THRESHOLDS) -> None:
        super().__init__()
        self.iou_thresholds = tuple(float(t) for t in iou_thresholds)
        if not self.iou_thresholds or not all(0 < t <= 1 for t in self.iou_thresholds):
            raise ValueError(f"iou_thresholds: expected one or more numbers in (0, 1], got {iou_thresholds}")

    def update(self, pred: Array, true: Array, ignored: Array | None = None) -> None:
        """Add one image or volume; of a batch call it for each, as an array (B, H, W) is a volume.

        Args:
            pred: integers of any shape, 0 outside, each number an object: ``label_image(found, shape)[b]``.
            true: likewise, of the same shape.
            ignored: bool, of the same shape, pixels that count nowhere: they are taken out of the objects, and a
                predicted object without a partner is no false positive if more than half of it is ignored. None: no
                pixel.

        Raises:
            TypeError: label images that are not integers, or ``ignored`` that is not bool.
            ValueError: shapes differ, or a number is negative.
        """
        pairs = find_overlaps(*as_pair(pred, true, ignored))
        matches = [pairs.match(pairs.iou >= t) for t in self.iou_thresholds]
        tp = np.array([len(m) for m in matches])
        free = np.array([pairs.mostly_ignored.sum() - pairs.mostly_ignored[pairs.pred[m]].sum() for m in matches])
        iou = np.array([pairs.iou[m].sum() for m in matches])
        self._records.append(_Image(tp, len(pairs.pred_id) - tp - free, len(pairs.true_id) - tp, iou))

    def compute(self) -> dict[str, NDArray[np.generic]]:
        """
        Returns:
            Float64 and int64 arrays; a ratio 0 / 0 is NaN, where StarDist writes 0.

            - ``ap`` (T,) pooled, ``image_ap`` (B, T), ``mean_image_ap`` (T,)
            - ``tp``, ``fp``, ``fn`` (T,) over all images
            - ``precision``, ``recall``, ``f1`` (T,) pooled
            - ``sq`` (T,) mean IoU of the true positives, ``pq`` (T,) = f1 · sq: ``mean_matched_score`` and
              ``panoptic_quality`` of StarDist
        """
        rows, columns = len(self), len(self.iou_thresholds)
        counts = [np.array([r[i] for r in self._records]).reshape(rows, columns) for i in range(3)]
        image_tp, image_fp, image_fn = (count.astype(np.int64) for count in counts)
        tp, fp, fn = (count.sum(0) for count in (image_tp, image_fp, image_fn))
        iou = np.array([r.iou for r in self._records]).reshape(rows, columns).sum(0)
        image_ap = _ratio(image_tp, image_tp + image_fp + image_fn)
        valid = ~np.isnan(image_ap)
        return {
            "ap": _ratio(tp, tp + fp + fn),
            "image_ap": image_ap,
            "mean_image_ap": _ratio(np.where(valid, image_ap, 0).sum(0), valid.sum(0)),
            "tp": tp,
            "fp": fp,
            "fn": fn,
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, tp + fn),
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "sq": _ratio(iou, tp),
            "pq": _ratio(2 * iou, 2 * tp + fp + fn),
        }


class LabelImageMatches(NamedTuple):
    """Pairs of a predicted and a true object, by the number of the true one.

    Attributes:
        pred, true: (M,) numbers in the label images.
        iou: (M,) of each pair.
    """

    pred: Int
    true: Int
    iou: Float64


def match_label_images(
    pred: Array, true: Array, iou_threshold: float = 0.5, ignored: Array | None = None
) -> LabelImageMatches:
    """Which predicted object is which true one: the true positives of :class:`LabelImageAP`, for overlays and errors.

    Args:
        pred, true, ignored: see :meth:`LabelImageAP.update`.
        iou_threshold: τ in (0, 1].

    Raises:
        TypeError, ValueError: as of :class:`LabelImageAP`.

    >>> match_label_images(np.array([1, 1, 1, 0, 5]), np.array([7, 7, 0, 0, 2]), 0.75)
    LabelImageMatches(pred=array([5]), true=array([2]), iou=array([1.]))
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold: expected a number in (0, 1], got {iou_threshold}")
    pairs = find_overlaps(*as_pair(pred, true, ignored))
    matched = pairs.match(pairs.iou >= iou_threshold)
    return LabelImageMatches(pairs.pred_id[pairs.pred[matched]], pairs.true_id[pairs.true[matched]], pairs.iou[matched])


def _ratio(a: NDArray[np.generic], b: NDArray[np.generic]) -> Float64:
    """a / b, NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(a, b))
