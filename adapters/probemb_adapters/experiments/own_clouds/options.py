"""The settings and options of a training on anybody's clouds."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from probemb_adapters.clouds import Up
from probemb_adapters.experiments.variants import Embedding, ScoreLossName
from probemb_adapters.training.options import RunOptions, TrainingSettings, with_defaults

Preset = Literal["quick", "full"]

PRESETS: dict[Preset, dict[str, int]] = {
    "quick": {"steps": 400, "batch_size": 4, "points": 2_048, "workers": 0},
    "full": {"steps": 30_000, "batch_size": 16, "points": 10_000, "workers": 4},
}
"""Minutes on two cores; about an hour on a GPU."""

_POINTS = 16  # at least, of a cloud


@dataclass(frozen=True)
class Settings(TrainingSettings):
    """What a model was made with, and what its clouds are like; None is chosen for the data."""

    MADE_BY: ClassVar[str] = "probemb train"
    REQUIRED: ClassVar[tuple[str, ...]] = ("unit", "up", "points", "offset_scale", "initial_std", "score_loss")

    # --- the files
    instance: str | None = None
    """property with the instance of each point; by default the first usual name"""
    semantic: str | None = None
    """property with the class of each point; by default the first usual name"""
    background: tuple[int | str, ...] = ()
    """values of the instance property that mean no instance"""
    ignored: tuple[int | str, ...] = ()
    """values of both properties on points that nobody labelled"""
    up: Up = "z"
    """axis of the files that points up"""
    # --- the data
    class_values: tuple[int, ...] = ()
    """classes as the files number them; none: instances are found without naming them"""
    class_names: tuple[str, ...] = ()
    """of each of these; none: their numbers are all that is known"""
    unit: float = 1.0
    """length in the files that is 1 for the network: all clouds share it"""
    measured: tuple[float, ...] = ()
    """smallest radius of a training cloud, least and largest distance of neighbouring points, in the files' unit"""
    seen: tuple[int, ...] = ()
    """fingerprints of the clouds of training and validation"""
    # --- training
    steps: int | None = None
    """of the optimizer"""
    points: int | None = None
    """of a cloud, drawn anew each time it is read"""
    learning_rate: float = 1e-3
    width: float = 1.0
    local_geometry: bool = False
    embedding: Embedding = "probabilistic"
    offset_scale: float = 1.0
    initial_std: float | None = None
    score_loss: ScoreLossName | None = None
    # --- clustering
    refine: bool = True
    """let the members of each found instance decide which points, class and score it has; the paper does not"""
    threshold: float | None = None
    """fitted on validation, as is the next"""
    join: float | None = None
    """κ from which instances are parts of one; None: none are"""
    min_points: int = 1
    """smaller instances are dropped"""
    shown_score: float | None = None
    """instances of a lower score are found, but not shown; fitted on validation, too. None: all are shown"""


@dataclass(frozen=True)
class Options(Settings, RunOptions):
    """Settings, where to compute and what to do."""

    named: tuple[str, ...] = ()
    """classes as NUMBER=NAME, before the names in the files"""
    preset: Preset = "quick"
    output: Path = Path("runs/own_clouds")


def resolve(options: Options, clouds: int, most_points: int) -> Options:
    """Fill in what the preset and the data decide: ``clouds`` to train on, ``most_points`` of one of them.

    >>> options = resolve(Options(), clouds=10, most_points=1_500)
    >>> options.points, options.batch_size, options.epochs
    (1500, 4, 16)
    """
    preset = PRESETS[options.preset]
    workers = min(preset["workers"], (os.cpu_count() or 1) - 1)  # one is left for the training
    options = with_defaults(options, {**preset, "workers": workers, "schedule": "one-cycle"})
    if options.steps is None or options.batch_size is None or options.points is None:
        raise TypeError("expected steps, batch_size and points in the preset")  # for the type checker
    least = (options.steps, 1), (options.batch_size, 1), (options.points, _POINTS)
    if any(value < limit for value, limit in least):
        raise ValueError(
            f"expected at least a step, a batch of 1 and {_POINTS} points, got {options.steps}, "
            f"{options.batch_size} and {options.points}"
        )
    per_epoch = steps_of_epoch(options, clouds)
    epochs = max(1, round(options.steps / per_epoch))
    return replace(options, points=min(options.points, most_points), epochs=epochs, steps=epochs * per_epoch)


def steps_of_epoch(options: Options, clouds: int) -> int:
    """Each cloud once at least, and not so few that time goes into checkpoints."""
    size, steps = options.batch_size or 1, options.steps or 1
    return min(steps, max(25, -(-clouds // size)))
