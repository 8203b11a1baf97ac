"""Losses and groupings of the competing methods in float64 loops, from the formulas alone; one cloud each.

``ids`` are numbers of instances: ≥ 0 an instance, −1 none. No point is ignored: callers leave those out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np

Array = np.ndarray


def kernel_distance(x: tuple[Array, Array], y: tuple[Array, Array]) -> float:
    """√(−ln κ) of two Gaussians (mean, std), each (D,)."""
    total = 0.0
    for a, s, b, t in zip(*x, *y, strict=True):
        total += (a - b) ** 2 / (4 * (s * s + t * t)) - 0.5 * math.log(2 * s * t / (s * s + t * t))
    return math.sqrt(max(total, 0.0))


def manhattan(x: tuple[Array, Array], y: tuple[Array, Array]) -> float:
    return sum(abs(a - b) for a, b in zip(x[0], y[0], strict=True))


def members(ids: Array) -> list[list[int]]:
    return [[i for i, own in enumerate(ids) if own == k] for k in sorted({k for k in ids if k >= 0})]


def centers(mean: Array, std: Array, ids: Array) -> list[tuple[Array, Array]]:
    return [
        (sum(mean[i] for i in own) / len(own), np.sqrt(sum(std[i] ** 2 for i in own) / len(own)))
        for own in members(ids)
    ]


def discriminative(
    mean: Array, std: Array, ids: Array, delta_v: float, delta_d: float, distance: Callable[..., float]
) -> dict[str, float]:
    groups, middle = members(ids), centers(mean, std, ids)
    var = dist = reg = 0.0
    for own, center in zip(groups, middle, strict=True):
        for i in own:
            var += max(0.0, distance(center, (mean[i], std[i])) - delta_v) ** 2 / len(own) / len(groups)
        reg += distance(center, (0 * center[0], center[1])) / len(groups)
    for a, b in permutations(middle, 2):
        dist += max(0.0, 2 * delta_d - distance(a, b)) ** 2 / (len(middle) * (len(middle) - 1))
    return {"var": var, "dist": dist, "reg": reg}


def pull(mean: Array, std: Array, ids: Array) -> float:
    groups, total = members(ids), 0.0
    for own, center in zip(groups, centers(mean, std, ids), strict=True):
        total += sum(kernel_distance((mean[i], std[i]), center) for i in own) / len(own) / len(groups)
    return total


def mask_entropy(mean: Array, std: Array, ids: Array) -> float:
    groups, total = members(ids), 0.0
    for k, (own, center) in enumerate(zip(groups, centers(mean, std, ids), strict=True)):
        seed = min(own, key=lambda i: kernel_distance((mean[i], std[i]), center))
        for i in range(len(ids)):
            d = max(kernel_distance((mean[seed], std[seed]), (mean[i], std[i])), 1e-6)
            probability = math.exp(-d)
            total -= math.log(probability if i in groups[k] else 1 - probability) / len(ids) / len(groups)
    return total


def directions(direction: Array, positions: Array, ids: Array) -> float:
    groups, total = members(ids), 0.0
    for own in groups:
        middle = sum(positions[i] for i in own) / len(own)
        for i in own:
            way = middle - positions[i]
            length = math.sqrt(float(way @ way))
            if length > 0:
                total -= float(direction[i] @ way) / length / len(own) / len(groups)
    return total


def offsets(offset: Array, positions: Array, ids: Array) -> dict[str, float]:
    far = cosine = count = 0.0
    for own in members(ids):
        middle = sum(positions[i] for i in own) / len(own)
        for i in own:
            way = middle - positions[i]
            far += sum(abs(a - b) for a, b in zip(offset[i], way, strict=True))
            lengths = math.sqrt(float(way @ way)) * math.sqrt(float(offset[i] @ offset[i]))
            cosine += float(offset[i] @ way) / lengths if lengths > 0 else 0.0
            count += 1
    return {"offset": far / count, "direction": -cosine / count}


def relaxed_iou(p: Array, q: Array) -> float:
    both = sum(a * b for a, b in zip(p, q, strict=True))
    return both / (sum(p) + sum(q) - both)


def partnet(masks: Array, confidence: Array, ids: Array) -> dict[str, float]:
    """All matchings are tried. ``masks`` (N, K + 1) and ``confidence`` (K,) before softmax and sigmoid."""
    m = np.exp(masks) / np.exp(masks).sum(1, keepdims=True)
    columns, truth = masks.shape[1] - 1, [[float(i in own) for i in range(len(ids))] for own in members(ids)]
    best = max(
        permutations(range(columns), len(truth)),
        key=lambda chosen: sum(relaxed_iou(m[:, k], y) for k, y in zip(chosen, truth, strict=True)),
    )
    ious = [relaxed_iou(m[:, k], y) for k, y in zip(best, truth, strict=True)]
    target = [0.0] * columns
    for k, value in zip(best, ious, strict=True):
        target[k] = value
    errors: dict[bool, list[float]] = {True: [], False: []}
    for logit, value in zip(confidence, target, strict=True):
        errors[value > 0.1].append((1 / (1 + math.exp(-logit)) - value) ** 2)
    return {
        "ins": -sum(ious) / len(ious),
        "other": -relaxed_iou(m[:, -1], [float(k < 0) for k in ids]),
        "conf": sum(sum(e) / len(e) for e in errors.values() if e),
        "reg": sum(math.sqrt(sum(v * v for v in m[:, k])) for k in range(columns + 1)) / len(ids),
    }


def similarity(
    features: Array, confidence: Array, ids: Array, classes: Array, alpha: float, k1: float, k2: float, radius: float
) -> dict[str, float]:
    inside = [i for i, k in enumerate(ids) if k >= 0]
    hinge = conf = 0.0
    for i in inside:
        for j in inside:
            s = math.dist(features[i], features[j])
            if ids[i] == ids[j]:
                hinge += s
            elif classes[i] == classes[j]:
                hinge += alpha * max(0.0, k1 - s)
            else:
                hinge += max(0.0, k2 - s)
    for i, k in enumerate(ids):
        proposed = {j for j in range(len(ids)) if math.dist(features[i], features[j]) < radius}
        true = {j for j, other in enumerate(ids) if other == k}
        target = len(proposed & true) / len(proposed | true) if k >= 0 else 0.0
        conf += (1 / (1 + math.exp(-confidence[i])) - target) ** 2
    return {"similarity": hinge / len(inside) ** 2, "confidence": conf / len(ids)}


def flood(points: Array, group: Array, radius: float) -> list[set[int]]:
    """Components of the graph of points of one group at most ``radius`` apart, by breadth-first search."""
    left, found = set(range(len(points))), []
    while left:
        queue = [min(left)]
        component = set(queue)
        while queue:
            i = queue.pop()
            near = {j for j in left - component if group[i] == group[j] and math.dist(points[i], points[j]) <= radius}
            component |= near
            queue += near
        left -= component
        found.append(component)
    return found


def shift(points: Array, order: list[int], bandwidth: float) -> list[int]:
    """Mean shift with a flat kernel and Euclidean distances, as the paper has it; (n,) labels."""
    label = [-1] * len(points)
    count = 0
    for start in order:
        if label[start] >= 0:
            continue
        middle, near = points[start], None
        while True:
            found = {i for i in range(len(points)) if label[i] < 0 and math.dist(points[i], middle) <= bandwidth}
            if found == near or not found:
                break
            near = found
            middle = sum(points[i] for i in near) / len(near)
        for i in {*(near or ()), start}:
            label[i] = count
        count += 1
    return label
