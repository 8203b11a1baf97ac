"""Which trainings a comparison of competing methods consists of, and which of them are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from probemb_adapters.experiments.competitors import COMPETITORS, OURS
from probemb_adapters.experiments.competitors_rooms import ROOMS
from probemb_adapters.experiments.records import FAMILIES, Budget, lines_of

# Only runs of one budget are compared.
BUDGET = ("level", "shapes", "epochs", "epoch_shapes", "batch_size", "train_points", "points", "width", "learning_rate")
OF_ROOMS = ("data", "rooms", "epochs", "batch_size", "width", "learning_rate")


@dataclass
class Options(Budget):
    """Which methods on which data, with which budget."""

    methods: tuple[Literal[tuple(COMPETITORS)], ...] = tuple(COMPETITORS)  # type: ignore[valid-type]
    """by name"""
    reference: Literal[tuple(COMPETITORS)] = OURS  # type: ignore[valid-type]
    """that differences are taken to"""
    data: Literal["families", "rooms"] = "families"
    """generated shapes on PointNet++, or open rooms, objects without classes, on MinkUNet"""
    categories: tuple[str, ...] = FAMILIES
    """generated families, a network each"""
    level: int = 3
    """of the part hierarchy"""
    rooms: int = 100
    """open rooms, each fifth one to evaluate; an epoch passes over the others"""
    seeds: int = 1
    """trainings of each method and category"""
    without_classes: bool = False
    """evaluate the same networks as if all parts were of one class: how they group, apart from how they name"""
    trial_epochs: int = 0
    """before all others, so many epochs of each method's other hyper-parameters on the first category; those with the
    best validation are taken; 0: the defaults"""
    # --- machine and output
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""
    show: bool = False
    """train nothing, only show what is there"""
    resamples: int = 300
    """of shapes or rooms, and seeds, for the intervals"""
    output: Path = Path("runs/competitors")
    """folder of the runs, the CSV, the table and the plot"""

    @property
    def budget(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (BUDGET if self.data == "families" else OF_ROOMS)}

    @property
    def groups(self) -> tuple[str, ...]:
        """What a network is trained on."""
        return self.categories if self.data == "families" else ("rooms",)

    @property
    def study(self) -> str:
        if self.data == "rooms":
            return f"{self.rooms}-rooms-{self.epochs}-epochs"
        return f"level-{self.level}-{self.steps}-steps"

    @property
    def csv(self) -> Path:
        return self.output / ("grouping.csv" if self.without_classes else "runs.csv")

    @property
    def table(self) -> Path:
        less = "" if self.reference == OURS else f"-less-{slug(self.reference)}"
        return self.output / f"{self.study}{'-without-classes' if self.without_classes else ''}{less}.csv"


def slug(method: str) -> str:
    """The name of a method in the names of files."""
    return method.replace(", ", "-").replace(" ", "-")


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    category: str
    seed: int
    trial: int = 0
    """0: the defaults, else one of the method's trials"""

    def folder(self, options: Options) -> Path:
        trial = f"-trial-{self.trial}" if self.trial else ""
        return options.output / options.study / slug(self.method) / f"{self.category}-{self.seed}{trial}"

    def metric(self, options: Options) -> Path:
        """What was found in each test shape or room."""
        return self.folder(options) / ("grouping.npz" if options.without_classes else "shapes.npz")

    def changes(self, options: Options) -> Mapping[str, Any]:
        """Of the method's arguments."""
        competitors = COMPETITORS if options.data == "families" else ROOMS
        return competitors[self.method].trials[self.trial - 1] if self.trial else {}


def finished(options: Options) -> dict[Run, dict[str, str]]:
    """The lines of this budget, by run."""
    return {
        Run(line["method"], line["category"], int(line["seed"]), int(line.get("trial") or 0)): line
        for line in lines_of(options.csv, options.budget)
    }


def trials_of(method: str, options: Options) -> list[Run]:
    """The defaults and each trial, on the first category."""
    competitors = COMPETITORS if options.data == "families" else ROOMS
    numbers = range(1 + len(competitors[method].trials)) if options.trial_epochs else ()
    return [Run(method, options.groups[0], 0, number) for number in numbers]


def best_trial(method: str, options: Options) -> int:
    """With the best validation; the defaults where nothing was tried."""
    lines = finished(replace(options, epochs=options.trial_epochs, without_classes=False))
    runs = [run for run in trials_of(method, options) if lines.get(run, {}).get("validation")]
    return max(runs, key=lambda run: float(lines[run]["validation"])).trial if runs else 0


def all_runs(methods: Sequence[str], options: Options) -> list[Run]:
    """Seeds first: a table of all methods with one seed is there as early as can be."""
    trials = {method: best_trial(method, options) for method in methods}
    return [Run(m, c, s, trials[m]) for s in range(options.seeds) for m in methods for c in options.groups]
