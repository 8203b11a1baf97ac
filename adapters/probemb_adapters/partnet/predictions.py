"""Ground truth and predictions in the files that PartNet's evaluation script reads, and their evaluation::

    {folder}/ins_seg_h5_gt/{Category}-{level}/test-{00..}.h5    as `ins_seg_h5`: one row a shape
        pts            (B, N, 3) float32
        gt_mask        (B, 200, N) bool
        gt_mask_label  (B, 200) uint8      0-based class of each mask
        gt_mask_valid  (B, 200) bool       slots that hold an instance
        gt_mask_other  (B, N) bool         points outside every instance
    {predictions}/test-{00..}.h5            the same shapes in the same files
        mask           (B, 200, N) bool
        label          (B, 200) uint8      0-based class
        valid          (B, 200) bool       slots that hold a prediction
        conf           (B, 200) float32    confidence

Points are in the order of the file, all of them: N = 10,000. Files by other programs may have any number of
slots. Source: the data set's published scripts (Mo et al., "PartNet", CVPR 2019).

    write_ground_truth("partnet", "Chair", 3)
    write_predictions("predictions/Chair-3", "partnet/ins_seg_h5_gt/Chair-3", found)   # found: ShapePredictions
    evaluate_files("partnet/ins_seg_h5_gt/Chair-3", "predictions/Chair-3", num_classes=39).compute()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from probemb_adapters.partnet._h5 import Array, check_arrays, new_files, open_h5, write_rows
from probemb_adapters.partnet.dataset import POINTS, PartNetShape
from probemb_adapters.partnet.detection import MAX_CLASSES, SLOTS, instance_slots, write_split
from probemb_adapters.partnet.instances import PartNetInstances
from probemb_adapters.partnet.targets import EvaluationTargets
from probemb_lib.metrics import PartNetAP
from probemb_lib.metrics.inputs import as_numpy

LAYOUT = "ins_seg_h5_gt"

_GROUND_TRUTH: dict[str, tuple[tuple[int | str, ...], str]] = {
    "gt_mask": (("B", "slots", "N"), "bool"),
    "gt_mask_label": (("B", "slots"), "integers"),
    "gt_mask_valid": (("B", "slots"), "bool"),
    "gt_mask_other": (("B", "N"), "bool"),
}
_PREDICTIONS: dict[str, tuple[tuple[int | str, ...], str]] = {
    "mask": (("B", "slots", "N"), "bool"),
    "label": (("B", "slots"), "integers"),
    "valid": (("B", "slots"), "bool"),
    "conf": (("B", "slots"), "floats"),
}


class ShapePredictions(NamedTuple):
    """Predicted instances of one shape, all valid, in the order of the file's points.

    Attributes:
        masks: (P, N) bool; they may overlap.
        classes: (P,) integer, **0-based**.
        scores: (P,) real, the confidences.
        shape_id: {file}/{row}, such as test-00/12.
    """

    masks: Array | Tensor
    classes: Array | Tensor
    scores: Array | Tensor
    shape_id: str


def shape_predictions(
    data: Data, masks: Array | Tensor, classes: Array | Tensor, scores: Array | Tensor
) -> ShapePredictions:
    """Predictions on an item of `PartNetInstances` or `PartNetDetection`, brought into the order of its file.

    With the result of `greedy_cluster` on an item, whose column 0 is the background:
    ``shape_predictions(data, found.masks(), found.semantic - 1, found.score)``.

    Args:
        data: the item; its ``point`` and ``shape_id`` are used. Take the items of a batch with
            ``batch.to_data_list()``.
        masks: (P, N) bool, over the points of the item.
        classes: (P,) integer, 0-based.
        scores: (P,) real.

    Raises:
        ValueError: the item has not all points of its shape, or the masks are not over its points.

    >>> data = Data(point=torch.tensor([2, 0, 1]), shape_id="test-00/0")
    >>> shape_predictions(data, torch.tensor([[True, False, False]]), torch.tensor([0]), torch.ones(1)).masks
    array([[False, False,  True]])
    """
    point, given = as_numpy(data.point), as_numpy(masks)
    if not np.array_equal(np.sort(point), np.arange(len(point))):
        raise ValueError(
            f"{data.shape_id}: expected all points of the shape, got a choice of {len(point)}: PartNet's files have "
            f"a value for each of {POINTS} points, so read the shape with num_points={POINTS}, or carry predictions "
            "on fewer points to all of them"
        )
    if given.ndim != 2 or given.shape[1] != len(point):
        raise ValueError(f"{data.shape_id}: expected masks (P, {len(point)}) over the item's points, got {given.shape}")
    ordered = np.empty_like(given)
    ordered[:, point] = given
    return ShapePredictions(ordered, classes, scores, data.shape_id)


def write_ground_truth(
    root: str | Path,
    category: str,
    level: int,
    *,
    split: str = "test",
    output: str | Path | None = None,
    num_points: int = POINTS,
) -> list[Path]:
    """Write the ground truth of a split from `ins_seg_h5`, one h5 file for each, with a copy of its json.

    Instances without a point get no slot, and a point that two instances share belongs to the later one. One
    shape is in memory at a time. The files take their places when all are written: an error leaves nothing.

    Args:
        root: the folder that holds `ins_seg_h5` and `stats`.
        category, level, split: what to write.
        output: the folder in which `ins_seg_h5_gt` is made; by default ``root``.
        num_points: the first points of each shape that are written; 10,000 in PartNet's protocols.

    Returns:
        the h5 files.

    Raises:
        FileExistsError: the folder has files of the split already.
        ValueError: a shape has more than 200 instances, or the level more than 255 classes.
        FileNotFoundError, ValueError, OSError: as `PartNetInstances`.
    """
    data = PartNetInstances(root, category, level, split, num_points=num_points)
    folder = (Path(root) if output is None else Path(output)) / LAYOUT / f"{category}-{level}"

    def arrays(shape: PartNetShape) -> dict[str, Array]:
        masks, classes = instance_slots(shape)
        return {
            "pts": shape.pos,
            "gt_mask": masks,
            "gt_mask_label": np.maximum(classes - 1, 0).astype(np.uint8),
            "gt_mask_valid": classes > 0,
            "gt_mask_other": shape.instance < 0,
        }

    return write_split(data, Path(root) / "ins_seg_h5" / category, folder, split, arrays)


def write_predictions(
    folder: str | Path,
    gt_folder: str | Path,
    predictions: Iterable[ShapePredictions],
    *,
    split: str = "test",
) -> list[Path]:
    """Write predictions, a file for each file of the ground truth.

    The slots of a shape are in descending order of the confidence (equal ones: lower row first). Of more than
    200 predictions the 200 with the highest confidence are kept. One shape is in memory at a time if
    ``predictions`` is a generator. The files take their places when all are written: an error leaves nothing.

    Args:
        folder: where the files go.
        gt_folder: the ground truth, such as `ins_seg_h5_gt/Chair-3`.
        predictions: one of each shape, in the order of the files: that of the data set, without shuffling.
        split: the prefix of the files' names.

    Returns:
        the files.

    Raises:
        FileExistsError: ``folder`` has files of the split already.
        FileNotFoundError, OSError: the ground truth is missing or unreadable.
        TypeError: masks are not bool, classes not integer, confidences not real.
        ValueError: a shape out of order, missing or too many; arrays that do not fit the shape or each other;
            a class outside 0 … 254; a confidence that is not finite. The message names the shape.
    """
    folder = Path(folder)
    sizes = {path: check_arrays(path, _GROUND_TRUTH) for path in _h5_files(Path(gt_folder), split)}
    given = iter(predictions)

    def rows(path: Path, count: int, num_points: int) -> Iterator[dict[str, Array]]:
        for row in range(count):
            shape_id = f"{path.stem}/{row}"
            shape = next(given, None)
            if shape is None or shape.shape_id != shape_id:
                raise ValueError(
                    f"expected predictions for {shape_id}, got {'no more' if shape is None else shape.shape_id}: "
                    f"pass one of each shape of {gt_folder}, in the order of its files (shuffle=False)"
                )
            yield _slots(shape, num_points)

    with new_files(folder, f"{split}-*.h5") as temporary:
        for path, size in sizes.items():
            write_rows(temporary / path.name, size["B"], rows(path, size["B"], size["N"]))
        extra = next(given, None)
        if extra is not None:
            raise ValueError(f"got predictions for {extra.shape_id} after the last shape of {gt_folder}")
    return [folder / path.name for path in sizes]


def read_ground_truth(
    folder: str | Path, num_classes: int, *, split: str = "test"
) -> Iterator[tuple[str, EvaluationTargets]]:
    """The ``shape_id`` and the ground truth of each shape, in the order of the file's points; one in memory at a time.

    Slots that are not valid, or have no point, are left out.

    Args:
        folder: such as `ins_seg_h5_gt/Chair-3`.
        num_classes: C, the part classes of the level.
        split: the prefix of the files' names.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: a file is truncated or corrupt.
        ValueError: an array is missing or of another shape or type; a class is not in 0 … C − 1; instances
            overlap, which PartNet's do not. The message names the file and the shape.
    """
    for path in _h5_files(Path(folder), split):
        for row in range(check_arrays(path, _GROUND_TRUTH)["B"]):
            yield f"{path.stem}/{row}", _read_targets(path, row, num_classes)


def read_predictions(folder: str | Path, num_classes: int, *, split: str = "test") -> Iterator[ShapePredictions]:
    """The valid predictions of each shape, as `write_predictions` or PartNet's scripts wrote them; one at a time.

    Slots that are not valid are not looked at.

    Args:
        folder: the folder of the files.
        num_classes: C, the part classes of the level.
        split: the prefix of the files' names.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: a file is truncated or corrupt.
        ValueError: an array is missing or of another shape or type; a class is not in 0 … C − 1; a confidence
            is not finite. The message names the file and the shape.
    """
    for path in _h5_files(Path(folder), split):
        for row in range(check_arrays(path, _PREDICTIONS)["B"]):
            yield _read_slots(path, row, num_classes)


def evaluate_files(
    gt_folder: str | Path,
    pred_folder: str | Path,
    num_classes: int,
    *,
    split: str = "test",
    iou_thresholds: Sequence[float] = (0.25, 0.5, 0.75),
) -> PartNetAP:
    """PartNet's part and shape mAP of a folder of predictions: ``evaluate_files(...).compute()``.

    Only one shape is in memory at a time.

    Args:
        gt_folder: the ground truth, such as `ins_seg_h5_gt/Chair-3`.
        pred_folder: the predictions, in files of the same names.
        num_classes: C, the part classes of the level.
        split: the prefix of the files' names.
        iou_thresholds: as in `PartNetAP`.

    Raises:
        FileNotFoundError: the ground truth, or the predictions of one of its files, are missing.
        ValueError: predictions for a file or a number of shapes or points that the ground truth does not have;
            else as :func:`read_ground_truth` and :func:`read_predictions`.
        OSError: a file is truncated or corrupt.
    """
    gt_paths, pred_folder = _h5_files(Path(gt_folder), split), Path(pred_folder)
    for path in gt_paths:
        gt, pred = check_arrays(path, _GROUND_TRUTH), check_arrays(pred_folder / path.name, _PREDICTIONS)
        if (gt["B"], gt["N"]) != (pred["B"], pred["N"]):
            raise ValueError(
                f"{pred_folder / path.name} has {pred['B']} shapes of {pred['N']} points, but {path} has {gt['B']} "
                f"of {gt['N']}: predict every shape on all of its points"
            )
    extra = sorted({p.name for p in _h5_files(pred_folder, split)} - {p.name for p in gt_paths})
    if extra:
        raise ValueError(f"{pred_folder} has predictions for {', '.join(extra)}, which {gt_folder} has not")
    metric = PartNetAP(num_classes, iou_thresholds)
    truths = read_ground_truth(gt_folder, num_classes, split=split)
    for (_, targets), found in zip(truths, read_predictions(pred_folder, num_classes, split=split), strict=True):
        metric.update(found.masks, found.classes, found.scores, *targets)
    return metric


def _h5_files(folder: Path, split: str) -> list[Path]:
    paths = sorted(folder.glob(f"{split}-*.h5"))
    if not paths:
        raise FileNotFoundError(f"no {split}-*.h5 in {folder}: expected the folder of one category and level")
    return paths


def _read_targets(path: Path, row: int, num_classes: int) -> EvaluationTargets:
    with open_h5(path, f"shape {row}") as file:
        slots = np.flatnonzero(file["gt_mask_valid"][row])
        masks = file["gt_mask"][row, : slots.max(initial=-1) + 1][slots]
        classes = file["gt_mask_label"][row][slots].astype(np.int64)
        other = file["gt_mask_other"][row]
    has_point = masks.any(axis=1)
    masks, classes = masks[has_point], classes[has_point]
    _check_classes(path, row, "gt_mask_label", classes, num_classes)
    shared = np.count_nonzero(masks.sum(axis=0) > 1)
    if shared:
        raise ValueError(
            f"{path}, shape {row}: instances of gt_mask overlap in {shared} points, PartNet's do not: write the "
            "ground truth again with write_ground_truth"
        )
    instance = np.full(len(other), -1, dtype=np.int64)
    owner, point = np.nonzero(masks)
    instance[point] = owner
    return EvaluationTargets(torch.from_numpy(instance), torch.from_numpy(classes), torch.from_numpy(other))


def _read_slots(path: Path, row: int, num_classes: int) -> ShapePredictions:
    with open_h5(path, f"shape {row}") as file:
        slots = np.flatnonzero(file["valid"][row])
        masks = file["mask"][row, : slots.max(initial=-1) + 1][slots]
        classes = file["label"][row][slots].astype(np.int64)
        scores = file["conf"][row][slots].astype(np.float32)
    _check_classes(path, row, "label", classes, num_classes)
    if not np.isfinite(scores).all():
        raise ValueError(f"{path}, shape {row}: expected finite conf, got {scores[~np.isfinite(scores)].tolist()}")
    return ShapePredictions(masks, classes, scores, f"{path.stem}/{row}")


def _check_classes(path: Path, row: int, name: str, classes: Array, num_classes: int) -> None:
    if classes.size and (classes.min() < 0 or classes.max() >= num_classes):
        raise ValueError(
            f"{path}, shape {row}: expected {name} 0 … {num_classes - 1} in valid slots, got {classes.min()} to "
            f"{classes.max()}: classes are 0-based here, and num_classes leaves out the background"
        )


def _slots(shape: ShapePredictions, num_points: int) -> dict[str, Array]:
    """A row of the file."""
    masks, classes, scores = as_numpy(shape.masks), as_numpy(shape.classes), as_numpy(shape.scores)
    name = shape.shape_id
    if masks.dtype != np.bool_:
        raise TypeError(f"{name}: expected masks of bool, got {masks.dtype}; pass masks != 0")
    if classes.size and classes.dtype.kind not in "iu":  # an empty tensor is float without being meant so
        raise TypeError(f"{name}: expected classes of integers, got {classes.dtype}")
    if scores.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected scores of real numbers, got {scores.dtype}")
    p = masks.shape[:1]
    if not masks.shape == (*p, num_points) or not classes.shape == scores.shape == p:
        raise ValueError(
            f"{name}: expected masks (P, {num_points}), classes (P,) and scores (P,), got {masks.shape}, "
            f"{classes.shape} and {scores.shape}; the masks are over all points of the file, in its order"
        )
    if classes.size and (classes.min() < 0 or classes.max() >= MAX_CLASSES):
        raise ValueError(
            f"{name}: expected classes 0 … {MAX_CLASSES - 1}, 0-based and as uint8 in the file, got {classes.min()} "
            f"to {classes.max()}"
        )
    with np.errstate(over="ignore"):
        scores = scores.astype(np.float32)
    if not np.isfinite(scores).all():
        raise ValueError(f"{name}: expected finite scores as float32, got {scores[~np.isfinite(scores)].tolist()}")
    best = np.argsort(-scores, kind="stable")[:SLOTS]
    row = {
        "mask": np.zeros((SLOTS, num_points), np.bool_),
        "label": np.zeros(SLOTS, np.uint8),
        "valid": np.arange(SLOTS) < len(best),
        "conf": np.zeros(SLOTS, np.float32),
    }
    row["mask"][: len(best)] = masks[best]
    row["label"][: len(best)] = classes[best]
    row["conf"][: len(best)] = scores[best]
    return row
