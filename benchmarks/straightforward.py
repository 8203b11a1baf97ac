"""The APs of PartNet and ScanNet as their protocols are written down, and random shapes and scenes to run them on.

Boolean masks, and for each threshold a loop over predictions and ground truth: what one writes first. It shares no
code with probemb_lib and answers as the official scripts do, for PartNet to the bit;
tests/core/metrics/test_partnet.py and tests/core/metrics/test_scannet.py check it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Shape(NamedTuple):
    """The arguments of `PartNetAP.update`."""

    pred_masks: np.ndarray
    pred_classes: np.ndarray
    pred_scores: np.ndarray
    gt_instance: np.ndarray
    gt_classes: np.ndarray
    other: np.ndarray | None


def partnet_ap(shapes: Sequence[Shape], num_classes: int, iou_thresholds: Sequence[float]) -> dict[str, Any]:
    """What `PartNetAP.compute` returns after an update with each shape."""
    class_ap = np.zeros((len(iou_thresholds), num_classes), np.float32)
    shape_ap = np.zeros((len(iou_thresholds), len(shapes)), np.float32)
    gt_count = np.zeros((len(shapes), num_classes), np.int64)
    pred_count = np.zeros((len(shapes), num_classes), np.int64)
    truth = []  # (mask, class) of each instance that has a point
    for b, x in enumerate(shapes):
        masks = [x.gt_instance == g for g in range(len(x.gt_classes))]
        truth.append([(mask, c) for mask, c in zip(masks, x.gt_classes, strict=True) if mask.any()])
        gt_count[b] = [sum(c == k for _, c in truth[b]) for k in range(num_classes)]
        pred_count[b] = [np.sum(x.pred_classes == k) for k in range(num_classes)]
    for t, threshold in enumerate(iou_thresholds):
        pooled: list[list[tuple[float, bool]]] = [[] for _ in range(num_classes)]
        for b, x in enumerate(shapes):
            kept = np.ones(len(x.gt_instance), bool) if x.other is None else ~x.other
            used = [False] * len(truth[b])
            ranked: list[list[tuple[float, bool]]] = [[] for _ in range(num_classes)]
            for p in sorted(range(len(x.pred_scores)), key=lambda p: -x.pred_scores[p]):
                mask = x.pred_masks[p] & kept
                best_iou, best = 0.0, -1
                for g, (gt_mask, c) in enumerate(truth[b]):
                    if c == x.pred_classes[p] and not used[g]:
                        iou = np.sum(mask & gt_mask) / float(np.sum(mask | gt_mask))
                        if iou > best_iou:
                            best_iou, best = iou, g
                hit = best >= 0 and best_iou > threshold
                if hit:
                    used[best] = True
                ranked[x.pred_classes[p]].append((x.pred_scores[p], hit))
            present = (gt_count[b] > 0) | (pred_count[b] > 0)
            if present.any():
                ap = np.array([interpolated(ranked[k], gt_count[b, k]) for k in range(num_classes)], np.float32)
                shape_ap[t, b] = np.sum(ap * present) / present.sum()
            for k in range(num_classes):
                pooled[k] += ranked[k]
        class_ap[t] = [interpolated(pooled[k], gt_count[:, k].sum()) for k in range(num_classes)]
    class_valid = gt_count.sum(axis=0) > 0
    shape_valid = ((gt_count > 0) | (pred_count > 0)).any(axis=1)
    return {
        "class_ap": class_ap,
        "class_valid": class_valid,
        "class_gt_count": gt_count.sum(axis=0),
        "part_map": mean(class_ap, class_valid),
        "shape_ap": shape_ap,
        "shape_valid": shape_valid,
        "shape_map": mean(shape_ap, shape_valid),
    }


def interpolated(ranked: list[tuple[float, bool]], gt_count: int) -> float:
    """101-point AP of (score, hit), precision and recall in float32."""
    if gt_count == 0 or not ranked:
        return 0.0
    ranked = sorted(ranked, key=lambda pair: -pair[0])
    recall, precision = [np.float32(0)], [np.float32(1)]
    true = 0
    for n, (_, hit) in enumerate(ranked, start=1):
        true += hit
        recall.append(np.float32(true) / np.float32(gt_count))
        precision.append(np.float32(true) / np.float32(n))
    recalls, precisions = np.array(recall), np.array(precision)
    ap = 0.0
    for level in np.arange(0, 1.01, 0.01).astype(np.float32):
        ap += float(np.max(precisions[recalls >= level], initial=0)) / 101
    return ap


def mean(value: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if not valid.any():
        return np.full(len(value), np.nan)
    return np.array([float(np.sum(row * valid)) / valid.sum() for row in value])


def random_shape(seed: int, num_points: int, num_pred: int, num_gt: int, num_classes: int) -> Shape:
    """Contiguous GT, predictions that are shifted GT of mostly the right class, 5 % of the points other."""
    rng = np.random.default_rng(seed)
    gt_instance = np.minimum(np.arange(num_points) * (num_gt + 1) // num_points, num_gt)
    gt_instance[gt_instance == num_gt] = -1
    gt_classes = rng.integers(num_classes, size=num_gt)
    target = rng.integers(num_gt, size=num_pred)
    width = num_points // (num_gt + 1)
    shift = rng.integers(-width // 2, width // 2 + 1, size=num_pred)
    masks = np.stack([np.roll(gt_instance == g, s) for g, s in zip(target, shift, strict=True)])
    pred_classes = np.where(rng.random(num_pred) < 0.8, gt_classes[target], rng.integers(num_classes, size=num_pred))
    scores = rng.random(num_pred).astype(np.float32)
    return Shape(masks, pred_classes, scores, gt_instance, gt_classes, rng.random(num_points) < 0.05)


class Scene(NamedTuple):
    """The arguments of `ScanNetAP.update`."""

    pred_masks: np.ndarray
    pred_labels: np.ndarray
    pred_scores: np.ndarray
    gt: np.ndarray


SCANNET_THRESHOLDS = np.append(np.arange(0.5, 0.95, 0.05), 0.25)


def scannet_ap(scenes: Sequence[Scene], class_ids: Sequence[int], min_region_size: int = 100) -> dict[str, Any]:
    """What `ScanNetAP.compute` returns after an update with each scene."""
    ap = np.full((len(class_ids), len(SCANNET_THRESHOLDS)), np.nan)
    gt_count = np.zeros(len(class_ids), np.int64)
    overlaps = [scannet_overlaps(scene, class_ids) for scene in scenes]
    for c, class_id in enumerate(class_ids):
        truth = [[x for x in gt if x["label"] == class_id] for gt, _ in overlaps]
        found = [[x for x in p if x["label"] == class_id and x["size"] >= min_region_size] for _, p in overlaps]
        gt_count[c] = sum(x["size"] >= min_region_size for gt in truth for x in gt)
        if gt_count[c]:
            for t, threshold in enumerate(SCANNET_THRESHOLDS):
                entries: list[tuple[float, bool]] = []  # (score, true positive)
                for gt, predictions in zip(truth, found, strict=True):
                    entries += scannet_entries(gt, predictions, threshold, min_region_size)
                ap[c, t] = area_under_curve(entries, gt_count[c])
    class_ap = {"class_ap": ap[:, :9].mean(axis=1), "class_ap50": ap[:, 0], "class_ap25": ap[:, 9]}
    mean = {key: float(np.mean(x[gt_count > 0])) if gt_count.any() else np.nan for key, x in class_ap.items()}
    return {
        "ap": mean["class_ap"],
        "ap50": mean["class_ap50"],
        "ap25": mean["class_ap25"],
        **class_ap,
        "class_ap_per_threshold": ap,
        "class_gt_count": gt_count,
    }


def scannet_overlaps(scene: Scene, class_ids: Sequence[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Instances of the ground truth, and predictions with the vertices they share with those of their class."""
    truth = []
    for i in np.unique(scene.gt):
        if i // 1000 in class_ids:
            truth.append({"id": i, "label": i // 1000, "size": np.count_nonzero(scene.gt == i)})
    void = ~np.isin(scene.gt // 1000, class_ids)
    predictions = []
    for mask, label, score in zip(scene.pred_masks, scene.pred_labels, scene.pred_scores, strict=True):
        if label in class_ids:
            shared = {x["id"]: np.count_nonzero((scene.gt == x["id"]) & mask) for x in truth if x["label"] == label}
            size, in_void = np.count_nonzero(mask), np.count_nonzero(void & mask)
            predictions.append({"label": label, "score": score, "size": size, "void": in_void, "shared": shared})
    return truth, predictions


def scannet_entries(
    truth: list[dict[str, Any]], predictions: list[dict[str, Any]], threshold: float, min_region_size: int
) -> list[tuple[float, bool]]:
    """(score, true positive) of all that enters the curve of a class, for one scene and threshold."""

    def iou(x: dict[str, Any], p: dict[str, Any]) -> float:
        return p["shared"][x["id"]] / float(x["size"] + p["size"] - p["shared"][x["id"]])

    entries = []
    taken: set[int] = set()
    for x in truth:
        score = None
        for n, p in enumerate(predictions):
            if x["size"] >= min_region_size and n not in taken and iou(x, p) > threshold:
                if score is None:
                    taken.add(n)
                    score = p["score"]
                else:
                    entries.append((min(score, p["score"]), False))
                    score = max(score, p["score"])
        if score is not None:
            entries.append((score, True))
    for p in predictions:
        if not any(iou(x, p) > threshold for x in truth):
            small = sum(p["shared"][x["id"]] for x in truth if x["size"] < min_region_size)
            if (p["void"] + small) / float(p["size"]) <= threshold:
                entries.append((p["score"], False))
    return entries


def area_under_curve(entries: list[tuple[float, bool]], gt_count: int) -> float:
    """AP of (score, true positive), one point of the curve for each distinct score and the point (1, 0)."""
    precision, recall = [], []
    for score in sorted({score for score, _ in entries}):
        hits = [hit for s, hit in entries if s >= score]
        precision.append(sum(hits) / len(hits))
        recall.append(sum(hits) / gt_count)
    precision.append(1.0)
    recall.append(0.0)
    around = [recall[0], *recall, 0.0]
    return float(sum(p * (around[i] - around[i + 2]) / 2 for i, p in enumerate(precision)))


def random_scene(seed: int, num_vertices: int, num_pred: int, num_gt: int, class_ids: Sequence[int]) -> Scene:
    """Contiguous GT between stretches of wall, predictions that are shifted GT of mostly the right class."""
    rng = np.random.default_rng(seed)
    stretch = np.arange(num_vertices) * (3 * num_gt) // num_vertices  # two of an instance, one of wall
    labels = rng.choice(class_ids, size=num_gt)
    gt = np.where(stretch % 3 < 2, labels[stretch // 3] * 1000 + stretch // 3 + 1, 1000)
    target = rng.integers(num_gt, size=num_pred)
    width = num_vertices // num_gt
    shift = rng.integers(-width // 4, width // 4 + 1, size=num_pred)
    masks = np.stack([np.roll((stretch // 3 == g) & (gt > 1000), s) for g, s in zip(target, shift, strict=True)])
    pred_labels = np.where(rng.random(num_pred) < 0.8, labels[target], rng.choice(class_ids, size=num_pred))
    return Scene(masks, pred_labels, rng.random(num_pred), gt)
