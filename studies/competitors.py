"""Competing methods and ours on the same network, data, order and steps, in one table.

On the generated families with PointNet++, or in rooms without classes with MinkUNet. Trains and evaluates each method
for each category and seed, appends a line a run to one CSV, and shows the differences to ours with paired bootstrap
intervals, beside those of the paper's tables; time and memory. Interrupted, the same command goes on, in the middle of
a training too:

    python studies/competitors.py                              families at level 3, one seed
    python studies/competitors.py --level 1 --seeds 3
    python studies/competitors.py --data rooms --epochs 40     100 open rooms
    python studies/competitors.py --trial-epochs 5             hyper-parameters of each training picked first
    python studies/competitors.py --methods SGPN PointGroup    only these, and ours
    python studies/competitors.py --without-classes            the same networks, as if all parts were of one class
    python studies/competitors.py --show                       only the table and the plot of what is there
    python studies/competitors.py --reference ASIS             differences to another method than the paper's
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import tyro
from lightning_fabric import Fabric
from tqdm import tqdm

from probemb_adapters.experiments import partnet, scannet
from probemb_adapters.experiments.bootstrap import paired_bootstrap, part_map
from probemb_adapters.experiments.competitor_runs import Options, Run, all_runs, finished, trials_of
from probemb_adapters.experiments.competitors import (
    OURS,
    CompetitorResult,
    evaluate_competitor,
    new_competitor,
    train_competitor,
)
from probemb_adapters.experiments.competitors_rooms import evaluate_in_rooms, new_in_rooms, train_in_rooms
from probemb_adapters.experiments.paper import read_paper
from probemb_adapters.experiments.records import (
    IOU,
    IOUS,
    append_line,
    load_metric,
    load_scenes,
    peak_memory,
    reset_peak_memory,
    save_metric,
)
from probemb_adapters.experiments.run import versions
from probemb_adapters.files import commit_of
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_adapters.report.differences import Differences, write_differences
from probemb_adapters.training import LAST, start_fabric
from probemb_lib.metrics import PartNetAP, ScanNetAP
from probemb_shapes.demo_data import PROJECT, partnet_folder, scannet_folder

VALUES = {"families": [f"part mAP {iou}" for iou in IOUS], "rooms": ["AP25", "AP50", "AP"]}
MAIN = 1  # of the values: what differences are taken of
# The names of the paper's tables, and ours.
PAPER = {"SGPN": "SGPN", "PartNet": "PartNet", OURS: "ProbabilisticEmbedding"}
PAPER_ROOMS = {
    "MTML": "MTML",
    "PointGroup": "PointGroup",
    "learnable margin": "LearnableMargin+MinkowskiNet",
    OURS: "Proposed+MinkowskiNet",
}


# --- one training


def measure(run: Run, options: Options) -> dict[str, Any]:
    """What a line of the CSV holds; numbers are None if the training diverged."""
    folder, names = run.folder(options), VALUES[options.data]
    folder.mkdir(parents=True, exist_ok=True)
    fabric = start_fabric(accelerator=options.accelerator, devices=1, precision="32-true", log_dir=None)
    numbers: dict[str, Any] = dict.fromkeys(("settings", "validation", *names))
    reset_peak_memory(fabric.device)
    start, side = time.perf_counter(), (measure_shapes if options.data == "families" else measure_rooms)
    trained = [start]
    try:
        result = side(run, options, folder, trained, fabric)
    except FloatingPointError as error:  # the loss was not finite
        print(error)
    else:
        save_metric(run.metric(options), result.metric)
        numbers |= {"settings": str(result.settings), "validation": round(result.validation, 3)}
        numbers |= {name: round(value_of(result.metric, name), 3) for name in names}
    return {
        **options.budget,
        **run.__dict__,
        "changes": str(dict(run.changes(options))),
        **numbers,
        "training minutes": round((trained[-1] - start) / 60, 2),
        "grouping minutes": round((time.perf_counter() - trained[-1]) / 60, 2),
        "peak MB": round(peak_memory(fabric.device), 1),
        "torch": versions()["torch"],
        "commit": commit_of(PROJECT) or "unknown",
    }


def measure_shapes(run: Run, options: Options, folder: Path, trained: list[float], fabric: Fabric) -> CompetitorResult:
    """Train and evaluate on a generated family; when the training was done is appended to ``trained``."""
    given = options.of_shapes(run.category, options.level, run.seed, folder, options.accelerator)
    chosen = partnet.resolve(given)
    root = partnet_folder(chosen.category, chosen.generated_shapes, fabric)
    classes = len(partnet.read_classes_of(root, chosen))
    method, network = new_competitor(run.method, classes, chosen, fabric, run.changes(options))
    data, _ = partnet.training_data(root, chosen)
    train_competitor(run.method, method, network, data, classes, chosen, fabric)
    trained.append(time.perf_counter())
    val, test = (partnet.Split(root, chosen, split, fabric) for split in ("val", "test"))
    return evaluate_competitor(
        run.method, method, network, val, test, classes, fabric, without_classes=options.without_classes
    )


def measure_rooms(run: Run, options: Options, folder: Path, trained: list[float], fabric: Fabric) -> CompetitorResult:
    """The same in rooms, with the crops and voxels of the ScanNet experiment's defaults."""
    chosen = scannet.resolve(
        scannet.Options(
            rooms=options.rooms,
            seed=run.seed,
            epochs=options.epochs,
            batch_size=options.batch_size,
            width=options.width,
            learning_rate=options.learning_rate,
            accelerator=options.accelerator,
            output=folder,
            resume=(folder / LAST).exists(),
        )
    )
    root = scannet_folder(chosen.rooms, fabric)
    method, network = new_in_rooms(run.method, chosen, fabric, run.changes(options))
    train_in_rooms(run.method, method, network, scannet.training_scenes(root, chosen), chosen, fabric)
    trained.append(time.perf_counter())
    held_out, scenes = scannet.fitting_scenes(root, chosen), scannet.evaluation_scenes(root, chosen)
    return evaluate_in_rooms(run.method, method, network, held_out, scenes, fabric)


def value_of(metric: PartNetAP | ScanNetAP, name: str) -> float:
    """One of the table's values, in per cent."""
    if isinstance(metric, ScanNetAP):
        return 100 * float(metric.compute()[name.lower()])
    return part_map(metric, float(name.split()[-1]))


# --- what came out


def paper_difference(method: str, options: Options) -> float | None:
    """The paper's row less its own method's; None where it has none, or not of these categories."""
    names = PAPER if options.data == "families" else PAPER_ROOMS
    if method not in names or method == OURS or options.reference != OURS or options.without_classes:
        return None
    if options.data == "rooms":
        rows = {line["method"]: float(line["val_ap50"]) for line in read_paper("scannet_table6.csv")}
        return rows[names[method]] - rows[names[OURS]]
    printed = {
        (line["method"], line["category"]): float(line["map_percent"])
        for line in read_paper("partnet_map.csv")
        if (float(line["iou_threshold"]), line["level"]) == (IOU, str(options.level))
    }
    both = [(printed.get((names[m], c)) for m in (method, OURS)) for c in options.categories]
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    return fmean(a - b for a, b in pairs) if len(pairs) == len(options.categories) else None


def known(reference: str) -> str:
    return "ours" if reference == OURS else reference


def summary(methods: Sequence[str], options: Options) -> tuple[Table, Differences]:
    """Means over the categories of the seeds that are complete; differences to the reference over the seeds of both."""
    done, names = finished(replace(options, without_classes=False)), VALUES[options.data]  # has what trainings took
    runs = {m: {s: [r for r in all_runs([m], options) if r.seed == s] for s in range(options.seeds)} for m in methods}
    load = load_metric if options.data == "families" else load_scenes

    def seeds_of(method: str) -> list[int]:
        return [s for s, own in runs[method].items() if all(run.metric(options).exists() for run in own)]

    def metrics(method: str, seeds: Sequence[int]) -> dict[tuple[str, int], Any]:
        return {(run.category, s): load(run.metric(options)) for s in seeds for run in runs[method][s]}

    rows, differences = [], {}
    for method in methods:
        seeds = seeds_of(method)
        own = metrics(method, seeds)
        means = [fmean(value_of(m, name) for m in own.values()) if own else None for name in names]
        common = [s for s in seeds if s in seeds_of(options.reference)]
        difference: list[Any] = [None, None]
        if common and method != options.reference:
            low, middle, high = paired_bootstrap(
                metrics(method, common),
                metrics(options.reference, common),
                value=partial(value_of, name=names[MAIN]),
                resamples=options.resamples,
            )
            differences[method] = (low, middle, high)
            difference = [middle, f"{low:+.1f} … {high:+.1f}"]
        lines = [done[run] for of_seed in runs[method].values() for run in of_seed if run in done]
        costs = [
            fmean(float(line[name]) for line in lines) if lines else None
            for name in ("training minutes", "grouping minutes", "peak MB")
        ]
        rows.append(Row(method, [len(seeds), *means, *difference, paper_difference(method, options), *costs]))
    heads = [
        "seeds",
        *names,
        f"{names[MAIN]} less {known(options.reference)}",
        "95 % interval",
        "paper's",
        "training, min",
        "grouping",
        "MB",
    ]
    what = "AP of parts without classes" if options.without_classes else "Average precision"
    text = f"{what} in per cent, mean of {', '.join(options.groups)}; the paper's on its own data and networks"
    return Table(options.study.replace("-", " "), heads, rows, text=text), differences


def run_all(runs: Sequence[Run], options: Options) -> None:
    """Those that have no line yet."""
    done = finished(options)
    for run in tqdm([r for r in runs if r not in done], desc=options.study, unit="run"):
        line, name = measure(run, options), VALUES[options.data][MAIN]
        append_line(options.csv, line)
        tqdm.write(f"{run.method}, {run.category}, seed {run.seed} {line['changes']}: {name} {line[name]}")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.without_classes and options.data == "rooms":
        raise SystemExit("--without-classes is for families: rooms have no classes")
    methods = [options.reference, *(m for m in options.methods if m != options.reference)]
    if not options.show:
        trials = [run for method in methods for run in trials_of(method, options)]
        run_all(trials, replace(options, epochs=options.trial_epochs, without_classes=False))
        run_all(all_runs(methods, options), options)
    table, differences = summary(methods, options)
    print(f"\n{table_text(table)}\n")
    write_table(table, options.table)
    print(f"runs     {options.csv}\ntable    {options.table}")
    if differences:
        write_differences(
            differences,
            {m: value for m in differences if (value := paper_difference(m, options)) is not None},
            options.table.with_suffix(".png"),
            title=options.study.replace("-", " "),
            label=f"{VALUES[options.data][MAIN]} less that of {known(options.reference)}, points",
        )
        print(f"picture  {options.table.with_suffix('.png')}")


if __name__ == "__main__":
    main()
