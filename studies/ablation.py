"""Table 2 of the paper on data anyone can have: every variant of the method with the same data, steps and seeds.

Trains and evaluates one network for each row, category and seed, appends its numbers to one CSV as it ends, and shows
the differences to a reference row with bootstrap intervals, beside the paper's. Interrupted, the same
command goes on; more seeds are added to those that are there:

    python studies/ablation.py                             generated families at level 3, three seeds
    python studies/ablation.py --study decisions           what the paper leaves open, against the full method
    python studies/ablation.py --data furniture            real furniture, level 1
    python studies/ablation.py --without-classes           how the trained models group, apart from naming
    python studies/ablation.py --jobs 0                    only the table and the plot of what is there
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import contextlib
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from lightning_fabric import Fabric
from tqdm import tqdm

from probemb_adapters.experiments import partnet
from probemb_adapters.experiments.bootstrap import paired_bootstrap, part_map
from probemb_adapters.experiments.paper import read_paper
from probemb_adapters.experiments.records import (
    FAMILIES,
    IOU,
    IOUS,
    Budget,
    append_line,
    lines_of,
    load_metric,
    save_metric,
)
from probemb_adapters.experiments.run import versions
from probemb_adapters.files import commit_of, replaced_file
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_adapters.report.differences import Differences, write_differences
from probemb_adapters.training import start_fabric
from probemb_lib.metrics import PartNetAP
from probemb_shapes.demo_data import PROJECT, partnet_folder

REFERENCE, FULL = "deterministic", "full"

# Row → options of examples/partnet_pointnet2.py, and the row of the paper's table.
TABLE_2: dict[str, tuple[dict[str, Any], str]] = {
    "mse": ({"score_loss": "mse"}, "loss_mse"),
    REFERENCE: ({"embedding": "deterministic"}, "reference_deterministic3d"),
    "deterministic-6d": ({"embedding": "deterministic-6d"}, "deterministic6d"),
    "isotropic-homoscedastic": ({"embedding": "isotropic-homoscedastic"}, "iso_homo"),
    "isotropic": ({"embedding": "isotropic"}, "iso_hetero"),
    "homoscedastic": ({"embedding": "homoscedastic"}, "aniso_homo"),
    FULL: ({}, "full"),
}
# Changes of the full method: of its training …
TRAININGS: dict[str, tuple[dict[str, Any], str]] = {
    "complement": ({"score_loss": "complement"}, ""),
    "cross-entropy": ({"score_loss": "cross-entropy"}, ""),
    "covariance-independent": ({"covariance": "independent"}, ""),
    "entropy-sum": ({"entropy": "sum"}, ""),
    "dice-alone": ({"bce_weight": 0.0}, ""),
    "dice-per-instance": ({"per_instance_dice": True}, ""),
    "cosine-6d": ({"embedding": "cosine-6d"}, ""),
    "classes-weighed": ({"score_weight": 30.0}, ""),  # about the number of columns at level 3
    "std-from-0.1": ({"initial_std": 0.1}, ""),
    "std-from-0.1-6d": ({"embedding": "probabilistic-6d", "initial_std": 0.1}, ""),
}
# … and of the clustering alone, which takes its networks as they are.
CLUSTERINGS: dict[str, tuple[dict[str, Any], str]] = {
    "threshold-0.35": ({"threshold": 0.35}, ""),
    "class-aware": ({"class_aware": True}, ""),
    "refined": ({"refine": True}, ""),
}
DECISIONS = {**TRAININGS, **CLUSTERINGS}
ROWS = {**TABLE_2, **DECISIONS}
NUMBERS = (
    "threshold",
    "validation part mAP",
    *(f"{kind} mAP {iou}" for kind, iou in product(("part", "shape"), IOUS)),
)
SHAPES, GROUPING = "shapes.npz", "grouping.npz"  # what was found in each test shape, with and without classes


@dataclass
class Options(Budget):
    """Which rows to measure on which data, with which budget."""

    study: Literal["table-2", "decisions", "all"] = "table-2"
    """rows: the seven of the paper's table, those that decide open questions, or both"""
    rows: tuple[Literal[tuple(ROWS)], ...] = ()  # type: ignore[valid-type]
    """only these rows"""
    data: Literal["generated", "furniture"] = "generated"
    """four generated families, a network each, or real furniture without classes"""
    level: int | None = None
    """of the part hierarchy; by default 3 for generated families, 1 for furniture"""
    seeds: int = 3
    """trainings of each row and category"""
    without_classes: bool = False
    """evaluate the same models as if all parts were of one class: how they group, apart from how they name"""
    # --- machine and output
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""
    jobs: int | None = None
    """trainings at a time; by default one a CPU core, or one on a GPU; 0: none, only show what is there"""
    resamples: int = 300
    """of shapes and seeds, for the intervals"""
    csv: Path = Path("runs/ablation_partnet/runs.csv")
    """one line a training; appended to"""
    output: Path = Path("runs/ablation_partnet")
    """folder of the runs, the table and the plot"""


@dataclass(frozen=True)
class Run:
    """One training."""

    row: str
    category: str
    seed: int


@dataclass(frozen=True)
class Study:
    """Data and budget: only runs with equal ones are compared."""

    data: str
    level: int
    shapes: int
    epochs: int
    epoch_shapes: int
    batch_size: int
    train_points: int
    points: int
    width: float
    learning_rate: float

    @classmethod
    def of(cls, options: Options) -> Study:
        level = options.level or (3 if options.data == "generated" else 1)
        names = [name for name in cls.__dataclass_fields__ if name != "level"]
        return cls(level=level, **{name: getattr(options, name) for name in names})

    @property
    def categories(self) -> tuple[str, ...]:
        return FAMILIES if self.data == "generated" else ("Furniture",)

    @property
    def title(self) -> str:
        return f"{self.data} shapes, level {self.level}, {self.steps} steps of {self.batch_size} shapes"

    @property
    def steps(self) -> int:
        return self.epochs * (self.epoch_shapes // self.batch_size)


def folder_of(run: Run, study: Study, output: Path) -> Path:
    return output / f"{study.data}-{study.level}-{study.steps}-steps" / run.row / f"{run.category}-{run.seed}"


# --- one training


def measure(run: Run, study: Study, options: Options, threads: int) -> dict[str, Any]:
    """What a line of the CSV holds; numbers are None if the training diverged."""
    torch.set_num_threads(threads)
    start, folder = time.perf_counter(), folder_of(run, study, options.output)
    folder.mkdir(parents=True, exist_ok=True)
    fabric = start_fabric(accelerator=options.accelerator, devices=1, precision="32-true", log_dir=None)
    numbers: dict[str, Any] = dict.fromkeys(NUMBERS)
    with printed_into(folder / "log.txt"):
        try:
            evaluation = train_and_evaluate(run, study, options, folder, fabric)
        except FloatingPointError as error:  # the loss was not finite
            print(error)
        else:
            save_metric(folder / SHAPES, evaluation.metric)  # which parts were found, for the intervals
            for kind, values in evaluation.values().items():
                numbers |= {f"{kind} {iou}": round(float(v), 3) for iou, v in zip(IOUS, values, strict=True)}
            numbers["threshold"] = evaluation.parameters["threshold"]
            numbers["validation part mAP"] = round(100 * max(evaluation.validation.values()), 3)
    return {
        **study.__dict__,
        **run.__dict__,
        **numbers,
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "device": device_name(fabric.device),
        "torch": versions()["torch"],
        "commit": commit_of(PROJECT) or "unknown",
        "date": date.today().isoformat(),
    }


@contextlib.contextmanager
def printed_into(path: Path) -> Iterator[None]:
    """What is printed goes to the end of a file."""
    with path.open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def train_and_evaluate(run: Run, study: Study, options: Options, folder: Path, fabric: Fabric) -> partnet.Evaluation:
    """From the run's last checkpoint if there is one; a row that differs in the clustering alone trains nothing."""
    settings, _ = ROWS[run.row]
    given = options.of_shapes(run.category, study.level, run.seed, folder, options.accelerator)
    chosen = partnet.resolve(replace(given, report_shapes=1, **settings))
    root = partnet_folder(chosen.category, chosen.generated_shapes, fabric)
    if run.row in CLUSTERINGS:
        model = partnet.Model.load(folder_of(replace(run, row=FULL), study, options.output) / "model.safetensors")
        model = replace(model, settings=replace(model.settings, **settings))
    else:
        data, _ = partnet.training_data(root, chosen)
        model = partnet.new_model(partnet.read_classes_of(root, chosen), chosen, fabric)
        partnet.train_model(model, data, partnet.objective(chosen), chosen, fabric)
    val, test = (partnet.Split(root, chosen, split, fabric) for split in ("val", "test"))
    evaluation = partnet.evaluate_model(run.row, model, root, val, test, chosen, fabric)
    model.with_threshold(**evaluation.parameters).save(folder / "model.safetensors")
    return evaluation


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " CPU"


def measure_grouping(run: Run, study: Study, options: Options, threads: int) -> None:
    """Evaluate a trained model with one class for all parts; the threshold is fitted for that."""
    torch.set_num_threads(threads)
    folder = folder_of(run, study, options.output)
    fabric = start_fabric(accelerator=options.accelerator, devices=1, precision="32-true", log_dir=None)
    model = partnet.Model.load(folder / "model.safetensors")
    settings = model.options(points=study.points)
    root = partnet_folder(settings.category, settings.generated_shapes, fabric)

    val, test = (partnet.Split(root, settings, split, fabric) for split in ("val", "test"))
    fixed = ROWS[run.row][0].get("threshold")
    with printed_into(folder / "log.txt"):
        grouping = partial(partnet.score_grouping, fabric=fabric)
        tested = partnet.fit_and_test(f"{run.row} without classes", model, val, test, grouping, fixed, fabric)
    save_metric(folder / GROUPING, tested.metric)


# --- all of them


def finished(options: Options, study: Study) -> dict[Run, dict[str, str]]:
    """The lines of this study, by run."""
    lines = lines_of(options.csv, study.__dict__)
    return {Run(line["row"], line["category"], int(line["seed"])): line for line in lines}


def run_all(runs: Sequence[Run], study: Study, options: Options) -> None:
    """What is not in the CSV yet, some at a time; a line is written as soon as a run ends."""
    done = finished(options, study)
    left = [run for run in runs if run not in done]
    with tqdm(total=len(runs), initial=len(runs) - len(left), desc=study.title, unit="run") as bar:
        networks, clusterings = ([run for run in left if (run.row in CLUSTERINGS) == x] for x in (False, True))
        for run, line in chain(*(in_parallel(measure, some, study, options) for some in (networks, clusterings))):
            append_line(options.csv, line)
            bar.update()
            value = line[f"part mAP {IOU}"]
            result = "diverged" if value is None else f"{value:.1f}"
            bar.write(f"{run.row}, {run.category}, seed {run.seed}: {result} in {line['minutes']:.1f} min")


def group_all(runs: Sequence[Run], study: Study, options: Options) -> None:
    """The trained models that were not evaluated without classes yet."""
    folders = {run: folder_of(run, study, options.output) for run in runs}
    left = [run for run, f in folders.items() if (f / SHAPES).exists() and not (f / GROUPING).exists()]
    for _ in tqdm(in_parallel(measure_grouping, left, study, options), "without classes", len(left), unit="run"):
        pass


def in_parallel(
    task: Callable[[Run, Study, Options, int], Any], runs: Sequence[Run], study: Study, options: Options
) -> Iterator[tuple[Run, Any]]:
    """Some at a time; what each gives as soon as it ends."""
    cuda = options.accelerator != "cpu" and torch.cuda.is_available()
    jobs = options.jobs if options.jobs is not None else 1 if cuda else os.cpu_count() or 1
    if not runs or jobs == 0:
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    write_data(study, options)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(task, run, study, options, threads): run for run in runs}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_data(study: Study, options: Options) -> None:
    """Once, before processes would do it at the same time."""
    fabric = start_fabric(accelerator="cpu", devices=1, precision="32-true", log_dir=None)
    for category in study.categories:
        partnet_folder(category, study.shapes, fabric)


# --- what came out


def summary(
    rows: Sequence[str], reference: str, paper: dict[str, float], study: Study, options: Options
) -> tuple[Table, Differences]:
    """The table; and for each row but the reference the difference with its interval, in points of mAP."""
    done = finished(options, study)
    complete = {row: complete_seeds(row, done, study, options) for row in [reference, *rows]}

    def of_seeds(row: str) -> dict[int, list[float]]:
        """The means over categories at each IoU, by seed."""
        if not options.without_classes:
            return {
                s: [_mean(c[i] for c in per.values()) for i in IOUS] for s, per in by_seed(row, done, study).items()
            }
        found = load_metrics(row, complete[row], study, options)
        return {s: [_mean(part_map(found[c, s], i) for c in study.categories) for i in IOUS] for s in complete[row]}

    shown, differences = [], {}
    of_reference = of_seeds(reference)
    for row in tqdm(rows, desc="intervals", unit="row", leave=False):
        ours = of_seeds(row)
        means = [_mean(v[i] for v in ours.values()) if ours else None for i in range(len(IOUS))]
        at = {s: v[IOUS.index(IOU)] for s, v in ours.items()}
        spread = float(np.std(list(at.values()), ddof=1)) if len(at) > 1 else None
        cells: list[Any] = [len(ours), *means, spread, None, None, None]
        if row != reference and (both := [s for s in at if s in of_reference]):
            cells[-3] = _mean(at[s] - of_reference[s][IOUS.index(IOU)] for s in both)
            cells[-1] = paper.get(ROWS[row][1])
        if row != reference and (both := [s for s in complete[row] if s in complete[reference]]):
            pair = (load_metrics(r, both, study, options) for r in (row, reference))
            low, middle, high = paired_bootstrap(*pair, resamples=options.resamples)
            differences[row] = (low, middle, high)
            cells[-3:-1] = [middle, f"{low:+.1f} … {high:+.1f}"]
        shown.append(Row(row, cells))
    heads = [
        "seeds",
        *(f"mAP @{iou}" for iou in IOUS),
        f"spread @{IOU}",
        f"difference @{IOU}",
        "95 % interval",
        "paper's difference",
    ]
    text = f"{what_is_measured(options)} in per cent, mean of {', '.join(study.categories)}; difference to {reference}"
    diverged = sorted({r.row for r, line in done.items() if r.row in rows and not line[f"part mAP {IOU}"]})
    if diverged:
        text += f"; trainings that diverged: {', '.join(diverged)}"
    return Table(study.title, heads, shown, text=text), differences


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def by_seed(row: str, done: dict[Run, dict[str, str]], study: Study) -> dict[int, dict[str, dict[float, float]]]:
    """Part mAP of the seeds that are complete, by seed, category and IoU, from the lines alone."""
    lines = {run: line for run, line in done.items() if run.row == row and line[f"part mAP {IOU}"]}
    seeds = [s for s in sorted({run.seed for run in lines}) if all(Run(row, c, s) in lines for c in study.categories)]
    return {
        s: {c: {iou: float(lines[Run(row, c, s)][f"part mAP {iou}"]) for iou in IOUS} for c in study.categories}
        for s in seeds
    }


def what_is_measured(options: Options) -> str:
    return "AP of parts without classes" if options.without_classes else "Part mAP"


def complete_seeds(row: str, done: dict[Run, Any], study: Study, options: Options) -> list[int]:
    """Those of ``options.seeds`` with a line and a file for each category."""
    measured = {run for run in done if found_file(run, study, options).exists()}
    return [s for s in range(options.seeds) if all(Run(row, c, s) in measured for c in study.categories)]


def found_file(run: Run, study: Study, options: Options) -> Path:
    return folder_of(run, study, options.output) / (GROUPING if options.without_classes else SHAPES)


def paper_differences(reference: str, study: Study) -> dict[str, float]:
    """The paper's rows, on its large categories, less its reference; empty where it has nothing to compare with."""
    if (study.data, study.level, reference) != ("generated", 3, REFERENCE):
        return {}
    large = {line["model"]: float(line["large"]) for line in read_paper("ablation_table2.csv")}
    return {model: round(v - large["reference_deterministic3d"], 1) for model, v in large.items()}


def load_metrics(row: str, seeds: Sequence[int], study: Study, options: Options) -> dict[tuple[str, int], PartNetAP]:
    """What the runs of a row found, by category and seed."""
    return {
        (c, s): load_metric(found_file(Run(row, c, s), study, options)) for c, s in product(study.categories, seeds)
    }


def plot_families(rows: Sequence[str], done: dict[Run, dict[str, str]], study: Study, path: Path) -> None:
    """Differences to the deterministic reference by category, mean of the seeds, beside the paper's."""
    printed = {line["model"]: line for line in read_paper("ablation_table2.csv")}
    columns = ("chair", "lamp", "storage", "table")  # of the paper's table, in the order of FAMILIES
    figure, axes = plt.subplots(1, len(rows), figsize=(1 + 2.6 * len(rows), 3.2), sharey=True, squeeze=False)
    reference = by_seed(REFERENCE, done, study)
    for ax, row in zip(axes[0], rows, strict=True):
        ours = by_seed(row, done, study)
        common = [s for s in ours if s in reference]
        gain = [np.mean([ours[s][c][IOU] - reference[s][c][IOU] for s in common]) for c in study.categories]
        ax.bar(np.arange(len(gain)) - 0.2, gain, 0.4, color="tab:blue", label=f"measured, {len(common)} seed(s)")
        if of_paper := printed.get(ROWS[row][1]):
            base = printed[TABLE_2[REFERENCE][1]]
            theirs = [float(of_paper[c]) - float(base[c]) for c in columns]
            ax.bar(np.arange(len(theirs)) + 0.2, theirs, 0.4, color="tab:orange", label="paper, on PartNet")
        ax.axhline(0, color="0.6", lw=1)
        ax.set_xticks(range(len(FAMILIES)), ["Chair", "Lamp", "Storage", "Table"], fontsize=8)
        ax.set_title(f"{row}, mean {np.mean(gain):+.1f}", fontsize=9)
    axes[0, 0].set_ylabel(f"part mAP @{IOU} less deterministic", fontsize=8)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    study = Study.of(options)
    rows = options.rows or list({"table-2": TABLE_2, "decisions": {FULL: (), **DECISIONS}, "all": ROWS}[options.study])
    reference = FULL if options.study == "decisions" else REFERENCE
    needed = {FULL} if {*rows} & {*CLUSTERINGS} else set()
    trained = sorted(
        {reference, *rows, *needed}, key=lambda row: (row != reference, row != FULL, list(ROWS).index(row))
    )
    # Seeds first: a table of all rows with one seed is there as early as can be.
    runs = [
        Run(row, category, seed) for seed in range(options.seeds) for row in trained for category in study.categories
    ]
    run_all(runs, study, options)
    if options.without_classes:
        group_all(runs, study, options)
    paper = {} if options.without_classes else paper_differences(reference, study)
    table, differences = summary(rows, reference, paper, study, options)
    print(f"\n{table_text(table)}\n")
    name = f"{options.study}-{study.data}-{study.level}{'-without-classes' if options.without_classes else ''}"
    write_table(table, options.output / f"{name}.csv")
    print(f"runs     {options.csv}\ntable    {options.output / f'{name}.csv'}")
    done = finished(options, study)
    compared = [
        row for row in rows if row != REFERENCE and {*by_seed(row, done, study)} & {*by_seed(REFERENCE, done, study)}
    ]
    if compared and study.categories == FAMILIES and not options.without_classes:
        plot_families(compared, done, study, options.output / f"{name}-families.png")
        print(f"picture  {options.output / f'{name}-families.png'}")
    if differences:
        of_paper = {row: paper[ROWS[row][1]] for row in differences if ROWS[row][1] in paper}
        label = f"{what_is_measured(options)} @{IOU} less that of {reference}, points"
        picture = options.output / f"{name}.png"
        print(f"picture  {write_differences(differences, of_paper, picture, title=study.title, label=label)}")


if __name__ == "__main__":
    main()
