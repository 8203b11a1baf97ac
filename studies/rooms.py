"""Probabilistic embeddings against learnable margins in rooms: each with its own best settings, over several trainings.

Settings of each method are tried with the first seed, those with the best AP50 on held-out rooms are trained with the
other seeds, and what each method gets wrong is measured by repairing it with the truth. A run appends its line to one
CSV as it ends; interrupted, the same command goes on, in the middle of a training too. Takes the options of
examples/scannet_minkowski.py that say what is trained:

    python studies/rooms.py                           100 open rooms, three seeds, four settings of each method
    python studies/rooms.py --trials 1                the defaults alone
    python studies/rooms.py --root /data/scannet      ScanNet
    python studies/rooms.py --show                    only the tables of what is there
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import tyro
from lightning_fabric import Fabric
from torch.utils.data import Dataset
from torch_geometric.data import Data
from tqdm import tqdm

from probemb_adapters.experiments import scannet
from probemb_adapters.experiments.bootstrap import paired_bootstrap
from probemb_adapters.experiments.records import (
    append_line,
    lines_of,
    load_scenes,
    peak_memory,
    reset_peak_memory,
    save_metric,
)
from probemb_adapters.experiments.run import versions
from probemb_adapters.experiments.scannet.data import shares
from probemb_adapters.experiments.scannet.errors import REPAIRS, Found, Truth
from probemb_adapters.experiments.variants import JOIN
from probemb_adapters.files import commit_of
from probemb_adapters.networks.engines import pick_engine
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_adapters.scannet import evaluation_target
from probemb_adapters.training import LAST, start_fabric
from probemb_lib.metrics import ScanNetAP
from probemb_shapes.demo_data import PROJECT, scannet_folder

PROBABILISTIC, MARGIN = METHODS = ("probabilistic", "learnable-margin")

# What differs from the example's defaults; lengths in metres. As many trials of each method.
TRIALS: dict[str, tuple[dict[str, Any], ...]] = {
    PROBABILISTIC: ({}, {"initial_std": 0.6}, {"score_loss": "center-aware"}, {"initial_std": 0.15}),
    MARGIN: ({}, {"initial_margin": 1.0}, {"initial_margin": 0.25}, {"initial_margin": 0.125}),
}
WAYS = ((False, None), (True, None), (True, JOIN))  # of the clustering: refine and join
# Only runs of one budget are compared.
BUDGET = (
    "rooms",
    "class_agnostic",
    "held_out",
    "max_scenes",
    "backbone",
    "width",
    "voxel_size",
    "epochs",
    "batch_size",
    "train_points",
    "learning_rate",
)
VALUES = {"AP": "ap", "AP50": "ap50", "AP25": "ap25"}
HELD_OUT = "held-out AP50"
SCENES = "scenes.npz"  # what was found in each


@dataclass(frozen=True)
class Options(scannet.Options):
    """What to train, as in the example, and how often."""

    seeds: int = 3
    """trainings of each method with its best settings"""
    trials: int = 4
    """settings of each method to try, the defaults first"""
    show: bool = False
    """train nothing, only show what is there"""
    resamples: int = 500
    """of scenes and seeds, for the intervals"""
    output: Path = Path("runs/rooms")
    """folder of the runs, the CSV and the tables"""

    @property
    def budget(self) -> dict[str, Any]:
        return {"data": "open rooms" if self.root is None else "ScanNet"} | {b: getattr(self, b) for b in BUDGET}

    @property
    def csv(self) -> Path:
        return self.output / "runs.csv"


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    trial: int
    seed: int

    @property
    def settings(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in TRIALS[self.method][self.trial].items()) or "defaults"

    def folder(self, options: Options) -> Path:
        study = f"{options.rooms}-rooms-{options.epochs}-epochs"
        return options.output / study / f"{self.method}-{self.trial}-{self.seed}"


def finished(options: Options) -> dict[Run, dict[str, str]]:
    """The lines of this budget, by run."""
    return {
        Run(line["method"], int(line["trial"]), int(line["seed"])): line
        for line in lines_of(options.csv, options.budget)
    }


def best_trial(method: str, done: Mapping[Run, dict[str, str]], options: Options) -> int:
    """Of those tried with the first seed, the one with the best AP50 on held-out rooms; the first of equal ones."""

    def held_out(trial: int) -> float:
        return float(done.get(Run(method, trial, options.seed), {}).get(HELD_OUT) or "-inf")

    return max(range(options.trials), key=held_out)


def next_run(options: Options) -> Run | None:
    """The settings of each method first, then the other seeds of the best of them."""
    done = finished(options)
    trials = [Run(method, trial, options.seed) for trial in range(options.trials) for method in METHODS]
    if left := [run for run in trials if run not in done]:
        return left[0]
    seeds = range(options.seed + 1, options.seed + options.seeds)
    runs = [Run(method, best_trial(method, done, options), seed) for seed in seeds for method in METHODS]
    return next((run for run in runs if run not in done), None)


# --- one training


def measure(run: Run, options: Options) -> dict[str, Any]:
    """What a line of the CSV holds; numbers are None if the training diverged."""
    folder = run.folder(options)
    fabric = start_fabric(
        accelerator=options.accelerator, devices=options.devices, precision=options.precision, log_dir=None
    )
    own = replace(
        options,
        **TRIALS[run.method][run.trial],
        seed=run.seed,
        output=folder,
        resume=(folder / run.method / LAST).exists(),
    )
    reset_peak_memory(fabric.device)
    root = own.root or scannet_folder(own.rooms, fabric)
    model = scannet.new_model(run.method, own, fabric)  # type: ignore[arg-type]
    start = time.perf_counter()
    numbers: dict[str, Any] = dict.fromkeys((HELD_OUT, "setting", "refine", "join", *VALUES, *REPAIRS))
    try:
        scannet.train_model(model, scannet.training_scenes(root, own), scannet.loss_of(model, own), own, fabric)
        trained = time.perf_counter()
        model, numbers[HELD_OUT] = fit_clustering(model, scannet.fitting_scenes(root, own), fabric)
        numbers["setting"] = model.setting
        if run.method == PROBABILISTIC:
            numbers |= {"refine": model.settings.refine, "join": model.settings.join}
    except FloatingPointError as error:  # the loss was not finite
        print(error)
        trained = time.perf_counter()
    else:
        model.save(folder / "model.safetensors")
        metrics = evaluate(model, scannet.evaluation_scenes(root, own), fabric)
        save_metric(folder / SCENES, metrics[""])
        values = {name: per_cent(metrics[""], key) for name, key in VALUES.items()}
        gains = {kind: per_cent(metrics[kind], "ap50") - values["AP50"] for kind in REPAIRS}
        numbers |= {name: round(value, 3) for name, value in (values | gains).items()}
    return {
        **options.budget,
        **run.__dict__,
        "settings": run.settings,
        **numbers,
        "training minutes": round((trained - start) / 60, 2),
        "evaluation minutes": round((time.perf_counter() - trained) / 60, 2),
        "peak MB": round(peak_memory(fabric.device), 1),
        "engine": pick_engine(options.engine, fabric.device.type),
        "torch": versions()["torch"],
        "commit": commit_of(PROJECT) or "unknown",
        "date": date.today().isoformat(),
    }


def fit_clustering(model: scannet.Model, data: Dataset[Data], fabric: Fabric) -> tuple[scannet.Model, float]:
    """The model with what its clustering depends on picked by AP50 on held-out rooms, and that AP50, per cent.

    Of probabilistic embeddings the threshold, and whether instances are refined and joined; of margins the least seed
    value.
    """
    ways = [{"refine": refine, "join": join} for refine, join in WAYS] if model.method == PROBABILISTIC else [{}]
    found = []
    for changes in ways:
        way = replace(model, settings=replace(model.settings, **changes))
        fit, shown_score = scannet.fit_setting(way, data, fabric)
        found.append((fit.metric, way.with_setting(fit.threshold, shown_score)))
    value, best = max(found, key=lambda pair: pair[0])
    return best, round(100 * value, 3)


def evaluate(model: scannet.Model, data: Dataset[Data], fabric: Fabric) -> dict[str, ScanNetAP]:
    """The metric of what was found under "", and once errors of each kind are repaired."""
    metrics = {kind: ScanNetAP(model.class_ids) for kind in ("", *REPAIRS)}
    ids = torch.tensor(model.class_ids)
    for scene in shares(data, fabric, f"{model.method}, evaluation"):
        target = evaluation_target(model.labelled(scene))
        instances = model.cluster(model.predict(scene, fabric)).to("cpu")
        found = Found(instances.masks(), ids[instances.semantic - 1], instances.score)
        truth = Truth.of(target, model.class_ids)
        for kind, metric in metrics.items():
            metric.update(*(REPAIRS[kind](found, truth) if kind else found), target)
    return metrics


def per_cent(metric: ScanNetAP, key: str) -> float:
    return 100 * float(metric.compute()[key])


# --- what came out


def trials_table(options: Options) -> Table:
    """AP50 on held-out rooms of each setting."""
    done, rows = finished(options), []
    for method in METHODS:
        for run in (Run(method, trial, options.seed) for trial in range(options.trials)):
            line = done.get(run, {})
            chosen = "*" if line and run.trial == best_trial(method, done, options) else ""
            values = [float(line[name]) if line.get(name) else None for name in (HELD_OUT, "AP50")]
            ways = [line.get(name) for name in ("setting", "refine", "join")]
            rows.append(Row(f"{method}, {run.settings}", [*values, *ways, chosen]))
    columns = (HELD_OUT, "AP50", "τ or least seed", "refined", "joined from", "chosen")
    return Table("Settings", columns, rows, text="With the first seed, per cent")


def methods_table(options: Options) -> Table:
    """Both methods with their best settings, mean of the seeds, and what is gained by repairing each kind of error."""
    done = finished(options)
    seeds = range(options.seed, options.seed + options.seeds)
    runs = {m: {s: Run(m, best_trial(m, done, options), s) for s in seeds} for m in METHODS}
    there = {m: [s for s, run in own.items() if (run.folder(options) / SCENES).exists()] for m, own in runs.items()}
    names = (*VALUES, *REPAIRS, "training minutes", "peak MB")
    means = {m: {n: mean_of(n, [done[runs[m][s]] for s in there[m]]) for n in names} for m in METHODS}
    rows = [Row(f"{m}, {runs[m][options.seed].settings}", [len(there[m]), *means[m].values()]) for m in METHODS]
    common = [s for s in there[PROBABILISTIC] if s in there[MARGIN]]
    if common:
        metrics = [{("rooms", s): load_scenes(runs[m][s].folder(options) / SCENES) for s in common} for m in METHODS]
        cells = []
        for key in VALUES.values():
            value = partial(per_cent, key=key)
            low, middle, high = paired_bootstrap(*metrics, value=value, resamples=options.resamples)
            cells.append(f"{middle:+.1f} ({low:+.1f} to {high:+.1f})")
        rows.append(Row("difference, 95 %", [len(common), *cells, *[None] * (len(names) - len(VALUES))]))
    columns = ["seeds", *VALUES, *(f"{kind} repaired" for kind in REPAIRS), *names[-2:]]
    text = "Validation rooms, per cent; what AP50 gains where errors of a kind are repaired"
    return Table("Probabilistic embeddings against learnable margins", columns, rows, text=text)


def mean_of(name: str, lines: Sequence[Mapping[str, str]]) -> float | None:
    return fmean(float(line[name]) for line in lines) if lines else None


def main() -> None:
    options = scannet.resolve(tyro.cli(Options, description=__doc__))
    if not 1 <= options.trials <= min(map(len, TRIALS.values())):
        raise SystemExit(f"--trials: expected 1 to {min(map(len, TRIALS.values()))}, got {options.trials}")
    total = len(METHODS) * (options.trials + options.seeds - 1)
    with tqdm(total=total, initial=len(finished(options)), desc="runs", unit="run") as bar:
        while not options.show and (run := next_run(options)) is not None:
            line = measure(run, options)
            append_line(options.csv, line)
            bar.update()
            bar.write(f"{run.method}, {run.settings}, seed {run.seed}: AP50 {line['AP50']}, held out {line[HELD_OUT]}")
    for table, name in ((trials_table(options), "trials"), (methods_table(options), "methods")):
        write_table(table, options.output / f"{name}.csv")
        print(f"\n{table_text(table)}\ntable    {options.output / f'{name}.csv'}")
    print(f"runs     {options.csv}")


if __name__ == "__main__":
    main()
