"""ScanNet's AP against a straightforward implementation: time a scene from masks, packed bits and a label map.

One thread. All take the same scenes in turn, a few at a time, and must agree within 1e-9; the table shows medians of
the time a scene. Predictions do not overlap, so that each of the three forms can hold them. The straightforward
implementation takes masks; from a label map it has to make them first, and that is counted there. It compares each
prediction with all instances of its class, so its time depends on how many classes the instances of a scene are
spread over: all 18 is the best case for it, a room rather holds a few.

    python benchmarks/scannet_ap.py [--scenes 50] [--vertices 150000] [--predictions 60] [--classes 18 8]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from run import cpu_name
from straightforward import Scene, random_scene, scannet_ap

from probemb_lib.metrics import ScanNetAP

CLASS_IDS = ScanNetAP().class_ids
INSTANCES, GROUP = 40, 5  # in a scene; scenes taken at a time


def draw(seed: int, vertices: int, predictions: int, classes: int) -> tuple[Scene, np.ndarray]:
    """A scene whose masks do not overlap, and its label map."""
    of_scene = np.random.default_rng(seed).permutation(CLASS_IDS)[:classes]
    scene = random_scene(seed, vertices, predictions, INSTANCES, of_scene)
    label = np.where(scene.pred_masks.any(axis=0), scene.pred_masks.argmax(axis=0), -1)
    return scene._replace(pred_masks=masks_of(label, predictions)), label


def masks_of(label: np.ndarray, predictions: int) -> np.ndarray:
    return np.stack([label == p for p in range(predictions)])


def timed(call: Callable[[], dict]) -> tuple[float, dict]:
    """Milliseconds, and what comes out."""
    start = time.perf_counter()
    result = call()
    return 1e3 * (time.perf_counter() - start), result


def measure(scenes: int, vertices: int, predictions: int, classes: int) -> dict[str, float]:
    """Milliseconds a scene, and how many times faster; the scenes are made outside the time."""
    metric = ScanNetAP()
    seconds: dict[str, list[float]] = {}
    for first in range(0, scenes, GROUP):
        group = [draw(seed, vertices, predictions, classes) for seed in range(first, min(first + GROUP, scenes))]
        bits = [np.packbits(x.pred_masks, axis=1) for x, _ in group]

        def make_masks(group: list = group) -> dict:
            return {"masks": [masks_of(label, predictions) for _, label in group]}

        def straightforward(group: list = group) -> dict:
            return scannet_ap([x for x, _ in group], CLASS_IDS)

        def from_masks(group: list = group) -> dict:
            own = ScanNetAP()
            for x, _ in group:
                own.update(*x)
            return own.compute()

        def from_bits(group: list = group, bits: list = bits) -> dict:
            own = ScanNetAP()
            for packed, (x, _) in zip(bits, group, strict=True):
                own.update_packed(packed, *x[1:])
            return own.compute()

        def from_labels(group: list = group) -> dict:
            own = ScanNetAP()
            for x, label in group:
                own.update_labels(label, *x[1:])
            return own.compute()

        calls = {f.__name__: f for f in (make_masks, straightforward, from_masks, from_bits, from_labels)}
        if first == 0:
            for call in calls.values():
                call()  # code is loaded
        expected: dict = {}
        for name, call in calls.items():
            elapsed, result = timed(call)
            seconds.setdefault(name, []).append(elapsed / len(group))
            if name == "straightforward":
                expected = result
            elif name != "make_masks":
                for key, value in expected.items():
                    np.testing.assert_allclose(result[key], value, rtol=0, atol=1e-9, err_msg=f"{name}: {key}")
        for x, label in group:
            metric.update_labels(label, *x[1:])
    total = [a + b for a, b in zip(seconds["make_masks"], seconds["straightforward"], strict=True)]

    def times_faster(reference: list[float], name: str) -> float:
        return statistics.median(r / own for r, own in zip(reference, seconds[name], strict=True))

    return {
        **{f"{name}_ms": statistics.median(values) for name, values in seconds.items()},
        "times_faster_masks": times_faster(seconds["straightforward"], "from_masks"),
        "times_faster_bits": times_faster(seconds["straightforward"], "from_bits"),
        "times_faster_labels": times_faster(total, "from_labels"),
        "compute_all_ms": timed(metric.compute)[0],
        "state_bytes_a_scene": len(pickle.dumps(metric)) / scenes,
    }


def show(result: dict[str, float], scenes: int) -> None:
    print(f"{'':36}{'ms a scene':>12}{'times faster':>14}")
    print(f"{'straightforward':36}{result['straightforward_ms']:12.2f}")
    print(f"{'  making masks from a label map':36}{result['make_masks_ms']:12.2f}")
    for form, name in (("masks", "masks"), ("bits", "packed bits"), ("labels", "label map")):
        row = f"{result[f'from_{form}_ms']:12.2f}{result[f'times_faster_{form}']:14.1f}"
        print(f"{f'ScanNetAP, {name}':36}{row}")
    print(f"{f'compute() over {scenes} scenes':36}{result['compute_all_ms']:12.2f} ms")
    print(f"{'state':36}{result['state_bytes_a_scene']:12.0f} bytes a scene")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--vertices", type=int, default=150_000)
    parser.add_argument("--predictions", type=int, default=60, help="in a scene")
    parser.add_argument("--classes", type=int, nargs="+", default=[18, 8], help="that the instances of a scene have")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, numpy {np.__version__}, one thread, load {load:.1f}")
    results = {}
    for classes in options.classes:
        results[str(classes)] = measure(options.scenes, options.vertices, options.predictions, classes)
        print(f"\n{options.vertices:,} vertices, {options.predictions} predictions, {INSTANCES} instances", end="")
        print(f" of {classes} classes")
        show(results[str(classes)], options.scenes)
    if options.output is not None:
        report = {"machine": cpu_name(), "threads": 1, "load": load, "numpy": np.__version__}
        report |= {"scenes": options.scenes, "vertices": options.vertices, "predictions": options.predictions}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        temporary = options.output.with_suffix(".tmp")
        temporary.write_text(json.dumps({**report, "classes": results}, indent=2) + "\n")
        os.replace(temporary, options.output)


if __name__ == "__main__":
    main()
