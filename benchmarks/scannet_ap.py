"""ScanNet's AP against a straightforward implementation: time a scene from masks, packed bits and a label map.

One thread. All take the same scenes in turn, a few at a time, and must agree within 1e-9. Predictions do not overlap,
so that each of the three forms can hold them. The straightforward implementation takes masks; from a label map it has
to make them first, and that is counted. It compares each prediction with all instances of its class,
so its time depends on how many classes the instances of a scene are spread over: all 18 is the best case for it, a
room rather holds a few.

    python benchmarks/scannet_ap.py              50 scenes of 150,000 vertices
    python benchmarks/scannet_ap.py --quick      small scenes, for CI
"""

from __future__ import annotations

import pickle
from typing import Any

from harness import Results, Table, Times, clocked, run_alone, summary

# isort: split
import numpy as np
from straightforward import Scene, random_scene, scannet_ap

from probemb_lib.metrics import ScanNetAP

CLASS_IDS = ScanNetAP().class_ids
INSTANCES, GROUP = 40, 5  # in a scene; scenes taken at a time

Labelled = tuple[Scene, np.ndarray]  # a scene, and its predictions as a label map


def draw(seed: int, vertices: int, predictions: int, classes: int) -> Labelled:
    """A scene whose masks do not overlap, and its label map."""
    of_scene = np.random.default_rng(seed).permutation(CLASS_IDS)[:classes].tolist()
    scene = random_scene(seed, vertices, predictions, INSTANCES, of_scene)
    label = np.where(scene.pred_masks.any(axis=0), scene.pred_masks.argmax(axis=0), -1)
    return scene._replace(pred_masks=masks_of(label, predictions)), label


def masks_of(label: np.ndarray, predictions: int) -> np.ndarray:
    return np.stack([label == p for p in range(predictions)])


def measure(scenes: int, vertices: int, predictions: int, classes: int) -> dict[str, Any]:
    """Rows of a table, for a scene, and other numbers. The scenes are made outside the time."""
    metric = ScanNetAP()
    times: dict[str, list[Times]] = {}
    size = min(GROUP, scenes)
    for first in range(0, scenes - size + 1, size):
        group = [draw(seed, vertices, predictions, classes) for seed in range(first, first + size)]
        bits = [np.packbits(x.pred_masks, axis=1) for x, _ in group]

        def straightforward(group: list[Labelled] = group) -> dict[str, Any]:
            return scannet_ap([x for x, _ in group], CLASS_IDS)

        def straightforward_from_labels(group: list[Labelled] = group) -> dict[str, Any]:
            scenes = [x._replace(pred_masks=masks_of(label, predictions)) for x, label in group]
            return scannet_ap(scenes, CLASS_IDS)

        def from_masks(group: list[Labelled] = group) -> dict[str, Any]:
            own = ScanNetAP()
            for x, _ in group:
                own.update(*x)
            return own.compute()

        def from_bits(group: list[Labelled] = group, bits: list[np.ndarray] = bits) -> dict[str, Any]:
            own = ScanNetAP()
            for packed, (x, _) in zip(bits, group, strict=True):
                own.update_packed(packed, *x[1:])
            return own.compute()

        def from_labels(group: list[Labelled] = group) -> dict[str, Any]:
            own = ScanNetAP()
            for x, label in group:
                own.update_labels(label, *x[1:])
            return own.compute()

        calls = {
            "straightforward, masks": straightforward,
            "straightforward, label map": straightforward_from_labels,
            "ScanNetAP, masks": from_masks,
            "ScanNetAP, packed bits": from_bits,
            "ScanNetAP, label map": from_labels,
        }
        if first == 0:
            for call in calls.values():
                call()  # code is loaded
        expected: dict[str, Any] = {}
        for name, call in calls.items():
            result, elapsed = clocked(call)
            times.setdefault(name, []).append(elapsed)
            expected = expected or result
            for key, value in expected.items():
                np.testing.assert_allclose(result[key], value, rtol=0, atol=1e-9, err_msg=f"{call.__name__}: {key}")
        for x, label in group:
            metric.update_labels(label, *x[1:])
    rows = {name: summary(each, size) for name, each in times.items()}

    def times_faster(form: str, ours: str) -> float:
        return rows[f"straightforward, {form}"]["min_s"] / rows[f"ScanNetAP, {ours}"]["min_s"]

    return {
        "rows": rows,
        "times_faster_masks": times_faster("masks", "masks"),
        "times_faster_bits": times_faster("masks", "packed bits"),
        "times_faster_labels": times_faster("label map", "label map"),
        "compute_all_ms": 1e3 * clocked(metric.compute)[1].wall,
        "state_bytes_a_scene": len(pickle.dumps(metric)) / (len(times["ScanNetAP, masks"]) * size),
    }


def benchmark(quick: bool) -> Results:
    scenes, vertices, predictions = (5, 10_000, 20) if quick else (50, 150_000, 60)
    results = Results()
    for classes in [8] if quick else [18, 8]:
        numbers = measure(scenes, vertices, predictions, classes)
        title = (
            f"ScanNetAP: a scene of {vertices:,} vertices, {predictions} predictions, instances of {classes} classes"
        )
        results.add(Table(title, numbers.pop("rows"), "straightforward, masks", "ScanNetAP, masks"))
        print(f"compute() over {scenes} scenes {numbers['compute_all_ms']:.2f} ms", end="")
        print(f", state {numbers['state_bytes_a_scene']:.0f} bytes a scene")
        results.numbers[f"{classes} classes"] = {"scenes": scenes, **numbers}
    return results


if __name__ == "__main__":
    run_alone("scannet_ap", __doc__, benchmark)
