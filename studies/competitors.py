"""Competing methods and ours on the generated families: the same PointNet++, data, order and steps, one table.

Trains and evaluates each method for each category and seed, appends a line a run to one CSV, and shows the differences
to ours with paired bootstrap intervals, and minutes. Interrupted, the same command goes on, in the middle of a training
too:

    python studies/competitors.py                              level 3, one seed
    python studies/competitors.py --level 1 --seeds 3
    python studies/competitors.py --methods SGPN PointGroup    only these, and ours
    python studies/competitors.py --without-classes            the same networks, as if all parts were of one class
    python studies/competitors.py --show                       only the table of what is there
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from probemb_adapters.experiments import partnet
from probemb_adapters.experiments.bootstrap import paired_bootstrap, part_map
from probemb_adapters.experiments.competitors import (
    COMPETITORS,
    OURS,
    evaluate_competitor,
    new_competitor,
    train_competitor,
)
from probemb_adapters.experiments.records import (
    FAMILIES,
    IOU,
    IOUS,
    Budget,
    append_line,
    load_metric,
    peak_memory,
    read_lines,
    save_metric,
)
from probemb_adapters.experiments.run import versions
from probemb_adapters.files import commit_of
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_adapters.training import LAST, start_fabric
from probemb_shapes.demo_data import PROJECT, partnet_folder

BUDGET = ("level", "shapes", "epochs", "epoch_shapes", "batch_size", "train_points", "points", "width", "learning_rate")


@dataclass
class Options(Budget):
    """Which methods on which data, with which budget."""

    methods: tuple[Literal[tuple(COMPETITORS)], ...] = tuple(COMPETITORS)  # type: ignore[valid-type]
    """by name"""
    categories: tuple[str, ...] = FAMILIES
    """generated families, a network each"""
    level: int = 3
    """of the part hierarchy"""
    seeds: int = 1
    """trainings of each method and category"""
    without_classes: bool = False
    """evaluate the same networks as if all parts were of one class: how they group, apart from how they name"""
    # --- machine and output
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""
    show: bool = False
    """train nothing, only show what is there"""
    resamples: int = 300
    """of shapes and seeds, for the intervals"""
    output: Path = Path("runs/competitors")
    """folder of the runs, the CSV and the table"""

    @property
    def budget(self) -> dict[str, Any]:
        """Only runs of one budget are compared."""
        return {name: getattr(self, name) for name in BUDGET}

    @property
    def csv(self) -> Path:
        return self.output / ("grouping.csv" if self.without_classes else "runs.csv")

    @property
    def table(self) -> Path:
        name = f"level-{self.level}-{self.steps}-steps{'-without-classes' if self.without_classes else ''}"
        return self.output / f"{name}.csv"


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    category: str
    seed: int

    def folder(self, options: Options) -> Path:
        study = f"level-{options.level}-{options.steps}-steps"
        return (
            options.output / study / self.method.replace(", ", "-").replace(" ", "-") / f"{self.category}-{self.seed}"
        )

    def metric(self, options: Options) -> Path:
        """What was found in each test shape."""
        return self.folder(options) / ("grouping.npz" if options.without_classes else "shapes.npz")


def finished(options: Options) -> dict[Run, dict[str, str]]:
    """The lines of this budget, by run."""
    asked = {name: str(value) for name, value in options.budget.items()}
    return {
        Run(line["method"], line["category"], int(line["seed"])): line
        for line in read_lines(options.csv)
        if asked.items() <= line.items()
    }


def measure(run: Run, options: Options) -> dict[str, Any]:
    """What a line of the CSV holds; numbers are None if the training diverged."""
    folder = run.folder(options)
    folder.mkdir(parents=True, exist_ok=True)
    fabric = start_fabric(accelerator=options.accelerator, devices=1, precision="32-true", log_dir=None)
    chosen = partnet.resolve(
        partnet.Options(
            category=run.category,
            level=options.level,
            seed=run.seed,
            generated_shapes=options.shapes,
            epochs=options.epochs,
            epoch_shapes=options.epoch_shapes,
            batch_size=options.batch_size,
            train_points=options.train_points,
            points=options.points,
            width=options.width,
            learning_rate=options.learning_rate,
            max_norm=5.0,
            accelerator=options.accelerator,
            output=folder,
            resume=(folder / LAST).exists(),
        )
    )
    root = partnet_folder(chosen.category, chosen.generated_shapes, fabric)
    classes = len(partnet.read_classes_of(root, chosen))
    method, network = new_competitor(run.method, classes, chosen, fabric)
    data, _ = partnet.training_data(root, chosen)
    numbers: dict[str, Any] = dict.fromkeys(("settings", "validation", *(f"part mAP {iou}" for iou in IOUS)))
    start = time.perf_counter()
    trained = start
    try:
        train_competitor(run.method, method, network, data, classes, chosen, fabric)
        trained = time.perf_counter()
        val, test = (partnet.Split(root, chosen, split, fabric) for split in ("val", "test"))
        result = evaluate_competitor(
            run.method, method, network, val, test, classes, fabric, without_classes=options.without_classes
        )
    except FloatingPointError as error:  # the loss was not finite
        print(error)
    else:
        save_metric(run.metric(options), result.metric)
        numbers |= {"settings": str(result.settings), "validation": round(result.validation, 3)}
        numbers |= {f"part mAP {iou}": round(part_map(result.metric, iou), 3) for iou in IOUS}
    return {
        **options.budget,
        **run.__dict__,
        **numbers,
        "training minutes": round((trained - start) / 60, 2),
        "grouping minutes": round((time.perf_counter() - trained) / 60, 2),
        "peak MB": round(peak_memory(fabric.device)),
        "torch": versions()["torch"],
        "commit": commit_of(PROJECT) or "unknown",
    }


def summary(methods: Sequence[str], options: Options) -> Table:
    """Means over the categories of the seeds that are complete; differences to ours over the seeds of both."""
    done = finished(replace(options, without_classes=False))  # has what the training took

    def seeds_of(method: str) -> list[int]:
        runs = ([Run(method, c, s) for c in options.categories] for s in range(options.seeds))
        return [s for s, own in enumerate(runs) if all(r.metric(options).exists() for r in own)]

    def metrics(method: str, seeds: Sequence[int]) -> dict[tuple[str, int], Any]:
        pairs = product(options.categories, seeds)
        return {(c, s): load_metric(Run(method, c, s).metric(options)) for c, s in pairs}

    rows = []
    for method in methods:
        seeds = seeds_of(method)
        own = metrics(method, seeds)
        means = [sum(part_map(m, iou) for m in own.values()) / len(own) if own else None for iou in IOUS]
        common = [s for s in seeds if s in seeds_of(OURS)]
        difference: list[Any] = [None, None]
        if common and method != OURS:
            low, middle, high = paired_bootstrap(
                metrics(method, common), metrics(OURS, common), resamples=options.resamples
            )
            difference = [middle, f"{low:+.1f} … {high:+.1f}"]
        lines = [line for run, line in done.items() if run.method == method]
        costs = [
            sum(float(line[name]) for line in lines) / len(lines) if lines else None
            for name in ("training minutes", "grouping minutes")
        ]
        rows.append(Row(method, [len(seeds), *means, *difference, *costs]))
    heads = [
        "seeds",
        *(f"mAP @{iou}" for iou in IOUS),
        f"less ours @{IOU}",
        "95 % interval",
        "training, min",
        "grouping",
    ]
    title = f"generated shapes, level {options.level}, {options.steps} steps of {options.batch_size} shapes"
    what = "AP of parts without classes" if options.without_classes else "Part mAP"
    return Table(title, heads, rows, text=f"{what} in per cent, mean of {', '.join(options.categories)}")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    methods = [OURS, *(m for m in options.methods if m != OURS)]
    # Seeds first: a table of all methods with one seed is there as early as can be.
    runs = [Run(m, c, s) for s in range(options.seeds) for m in methods for c in options.categories]
    done = finished(options)
    for run in tqdm([r for r in runs if r not in done and not options.show], desc="runs", unit="run"):
        line = measure(run, options)
        append_line(options.csv, line)
        tqdm.write(f"{run.method}, {run.category}, seed {run.seed}: part mAP {line[f'part mAP {IOU}']} at {IOU}")
    table = summary(methods, options)
    print(f"\n{table_text(table)}\n")
    write_table(table, options.table)
    print(f"runs     {options.csv}\ntable    {options.table}")


if __name__ == "__main__":
    main()
