"""Long runs: does memory, the number of descriptors or threads, or the time of a step grow?

    make long                           a training of two hours and 10,000 predictions
    make long HOURS=0.1 PREDICTIONS=1000

The training is the loop of the experiments with a small PointNet++ and checkpoints; predictions go through what
``probemb predict`` calls, up to 100 clouds a call. Samples go to a CSV; a line is fitted to the later three quarters of
them.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from probemb_adapters.cli.main import main as probemb
from probemb_adapters.experiments.own_clouds import Model, run_prediction
from probemb_adapters.experiments.partnet import Options, new_model, objective, resolve, training_data
from probemb_adapters.experiments.run import train_network
from probemb_adapters.training import start_fabric
from probemb_shapes.demo_data import PROJECT
from probemb_shapes.furniture import write_furniture
from probemb_shapes.plants import write_plants

GROWTH = {"megabytes": 5.0, "descriptors": 0.5, "threads": 0.5, "seconds": 0.1}
"""What may be more at the end of the later three quarters than at their begin, by the fitted line: of the memory, the
descriptors and the threads this much, of the seconds a step this part. Five megabytes are the allocator's noise."""


class Sample(NamedTuple):
    """``seconds`` of the processor for a step or prediction, the median since the last sample: what else runs
    is not counted."""

    run: str
    count: int
    megabytes: float
    descriptors: int
    threads: int
    seconds: float


class Watch:
    """Takes a sample every so many counts."""

    def __init__(self, run: str, every: int) -> None:
        self.run, self.every, self.count = run, every, 0
        self.samples: list[Sample] = []
        self.took: list[float] = []
        self.last = time.process_time()

    def tick(self, counts: int = 1) -> None:
        now = time.process_time()
        self.took.append((now - self.last) / counts)
        self.last = now
        self.count += counts
        if self.count % self.every == 0:
            status = Path("/proc/self/status").read_text().splitlines()
            of = {line.split(":")[0]: line.split()[1] for line in status if ":" in line and len(line.split()) > 1}
            descriptors = len(os.listdir("/proc/self/fd"))
            seconds = float(np.median(self.took))
            self.samples.append(
                Sample(self.run, self.count, int(of["VmRSS"]) / 1024, descriptors, int(of["Threads"]), seconds)
            )
            self.took.clear()


class TimeIsUp(Exception):
    """Ends a training from within."""


def train(hours: float, folder: Path) -> Watch:
    write_furniture(PROJECT / "data" / "furniture_parts", folder / "furniture")
    options = resolve(
        Options(
            **{"root": folder / "furniture", "class_agnostic": True, "workers": 0, "accelerator": "cpu"},
            **{"epochs": 10**6, "epoch_shapes": 20, "batch_size": 2, "train_points": 256, "width": 0.25},
            **{"output": folder / "training", "max_norm": 5.0, "learning_rate": 1e-4},
        )
    )
    fabric = start_fabric(accelerator="cpu", log_dir=folder / "tensorboard")
    data, _ = training_data(options.root or folder, options)
    model, loss = new_model(("part",), options, fabric), objective(options)
    watch, end = Watch("training", 20), time.monotonic() + 3600 * hours

    def losses(network: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        watch.tick()
        if time.monotonic() > end:
            raise TimeIsUp
        terms: Mapping[str, Tensor] = loss(network(batch), batch.instance, batch.semantic, batch.batch)
        return terms

    try:
        train_network(model.network, data, losses, options, fabric, settings={}, draws=20)
    except TimeIsUp:
        return watch
    raise RuntimeError("the training ended by itself")


def predict(predictions: int, folder: Path) -> Watch:
    write_plants(folder / "plants", 5, points=400)
    steps = ("--steps", "2", "--points", "128", "--batch-size", "2", "--accelerator", "cpu")
    probemb(["train", str(folder / "plants"), "--output", str(folder / "run"), *steps])
    share = max(1, min(100, predictions // 20))
    write_plants(folder / "clouds", share, points=128)
    model, fabric = Model.load(folder / "run"), start_fabric(accelerator="cpu")
    watch = Watch("prediction", share)
    for _ in range(-(-predictions // share)):
        run_prediction(model, [folder / "clouds"], folder / "found", fabric, shown=3)
        watch.tick(share)
    return watch


def growth(samples: list[Sample]) -> dict[str, float]:
    """By how much the line through the later three quarters rises; of the seconds as a part of their median."""
    later = samples[len(samples) // 4 :]
    x = np.linspace(-0.5, 0.5, len(later))
    rise = {}
    for name in GROWTH:
        y = np.array([getattr(sample, name) for sample in later], dtype=np.float64)
        slope = float((x * (y - y.mean())).sum() / (x * x).sum())
        rise[name] = slope / float(np.median(y)) if name == "seconds" else slope
    return rise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0, help="of training")
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--output", type=Path, default=Path(".cache/long.csv"), help="the samples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Sample._fields)
        for run, much in ((predict, options.predictions), (train, options.hours)):
            watch = run(much, Path(folder))
            writer.writerows(watch.samples)
            file.flush()
            if len(watch.samples) < 8:
                raise SystemExit(f"{watch.run}: {len(watch.samples)} samples tell no growth: give it longer")
            first, last, rise = watch.samples[len(watch.samples) // 4], watch.samples[-1], growth(watch.samples)
            print(f"{watch.run}: {watch.count}, {len(watch.samples)} samples", flush=True)
            for name, allowed in GROWTH.items():
                grows = rise[name] > allowed
                wrong += grows
                print(
                    f"  {name:12} {getattr(first, name):10.4g} … {getattr(last, name):10.4g}, line {rise[name]:+.3g}, "
                    f"allowed {allowed:g}{'  GROWS' if grows else ''}"
                )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
