"""The settings and options of the ScanNet experiment, and what the data decides of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from probemb_adapters.experiments.variants import JOIN
from probemb_adapters.networks.engines import Engine
from probemb_adapters.networks.kernel_order import KernelOrder
from probemb_adapters.training.options import RunOptions, TrainingSettings, with_defaults

Method = Literal["probabilistic", "learnable-margin"]


@dataclass(frozen=True)
class SharedSettings(TrainingSettings):
    """What all models of a run are made with."""

    # --- data
    rooms: int = 100
    """open rooms to write, each fifth one for validation"""
    class_agnostic: bool | None = None
    """find objects without naming them (ScanNet: name the 18 classes; rooms: do not, minutes are too short for it)"""
    held_out: float = 0.1
    """share of the training scenes on which nothing is trained, but each clustering's parameter picked; other scans of
    the same room are held out with it"""
    max_scenes: int | None = None
    """use only so many scenes of each split, for a quick look"""
    # --- network
    backbone: Literal["14A", "18A", "34C"] | None = None
    """MinkUNet: 34C for ScanNet (the usual choice; the paper says MinkowskiNet), 14A for the rooms"""
    width: float | None = None
    """factor of the channels of MinkUNet and of the head's branches (ScanNet: 1; rooms: 0.5)"""
    voxel_size: float | None = None
    """metres: 0.02 for ScanNet, 0.08 for the rooms"""
    offset_scale: float = 2.0
    """metres, farthest offset from a point to its centre"""
    initial_std: float | None = None
    """metres, about what sigma is before training (ScanNet: offset_scale, as in the paper; rooms: 0.3)"""
    initial_margin: float | None = None
    """metres, the learnable margin before training (by default a quarter of offset_scale)"""
    score_loss: Literal["center-aware", "complement"] | None = None
    """of the score maps; complement gives what the similarity to the centre leaves of an object's points to a column of
    its own, so that scores rank them also where there is one class (ScanNet: center-aware, as in the paper; rooms:
    complement)"""
    start_from: Annotated[Path | None, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """weights to start the backbone from: of this script, or a public semantic MinkUNet; what fits is taken"""
    kernel_order: KernelOrder | None = None
    """version of MinkowskiEngine that trained them, where they do not show how they number kernel offsets: 0.5 and
    later; 0.4 from 0.3.2 on; 0.3 before"""
    # --- training
    epochs: int | None = None
    """passes over the training scenes (ScanNet: 300, about 41,000 steps; the paper gives none)"""
    batch_size: int | None = None
    """scenes a step, over all processes (ScanNet: 8; rooms: 4)"""
    learning_rate: float | None = None
    """of Adam, highest (ScanNet: 0.001; rooms: 0.003)"""
    max_norm: float | None = 5.0
    """gradients of a larger norm are scaled down to it"""
    train_points: int | None = None
    """crop scenes to as many voxels around a random point in training, of which each gives one point to the losses
    (ScanNet: 100,000; rooms: 3,000)"""
    crop: Literal["point", "instance"] = "instance"
    """around which random point: of all, or of a random instance, so that small crops show more than walls"""
    elastic: bool | None = None
    """bend scenes in training (ScanNet: yes; rooms: no, minutes are too short for it)"""
    refine: bool | None = None
    """let the members of each found object decide which points, class and score it has (ScanNet: no, as in the paper,
    where the seed decides; rooms: yes)"""
    join: float | None = None
    """then make one of objects whose Gaussians are so similar, from 0 to 1 (rooms, where they are refined: 0.2)"""


@dataclass(frozen=True)
class Settings(SharedSettings):
    """What a model was made with, and what was picked for its clustering; in its file."""

    MADE_BY: ClassVar[str] = "examples/scannet_minkowski.py"
    REQUIRED: ClassVar[tuple[str, ...]] = ("backbone", "voxel_size", "offset_scale", "method")

    method: Method = "probabilistic"
    """head, loss and clustering"""
    setting: float | None = None
    """of the clustering, picked on held-out scenes: the threshold, or the lowest value of a seed"""
    shown_score: float | None = None
    """objects of a lower score are found, but not shown; picked on held-out scenes, too. None: all are shown"""


@dataclass(frozen=True)
class Options(SharedSettings, RunOptions):
    """Settings; what is left out is chosen for the data: a full training for ScanNet, a few minutes' for the rooms."""

    root: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """folder with ScanNet's scans, scannetv2_{train,val,test}.txt and scannetv2-labels.combined.tsv; without it open
    rooms are written and read"""
    split: Literal["val", "test"] = "val"
    """scenes to evaluate; of test only the submission is written, as nobody else has its annotation"""
    methods: tuple[Method, ...] = ("probabilistic", "learnable-margin")
    """what to train, one after the other, on the same backbone"""
    objects: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """other objects for the evaluated rooms: a file of the layout of data/scan_objects/objects.npz"""
    engine: Engine = "auto"
    """of the sparse convolutions: MinkowskiEngine where it is installed, else plain torch"""
    # --- what to do
    output: Path = Path("runs/scannet_minkowski")
    """folder for checkpoints, metrics, submissions, pictures and the report"""
    submission: bool = True
    """write the files of ScanNet's benchmark for the evaluated scenes; a vertex takes two bytes an instance"""
    tile_size: float = 8.0
    """metres: of the files to predict, what is longer or wider is predicted in tiles"""
    tile_overlap: float = 2.0
    """metres that tiles see beyond their border"""
    up: Literal["y", "z"] = "z"
    """axis of the files to predict that points up; they must be in metres"""


def resolve(options: Options) -> Options:
    """Fill in what the data decides."""
    real = options.root is not None
    defaults = {
        "backbone": "34C" if real else "14A",
        "class_agnostic": not real,
        "width": 1.0 if real else 0.5,
        "voxel_size": 0.02 if real else 0.08,
        "initial_std": options.offset_scale if real else 0.3,
        "score_loss": "center-aware" if real else "complement",
        "elastic": real,
        "refine": not real,
        "epochs": 300 if real else 60,
        "batch_size": 8 if real else 4,
        "learning_rate": 1e-3 if real else 3e-3,
        "train_points": 100_000 if real else 3_000,
        "schedule": "one-cycle",
        "workers": 4 if real else min(1, (os.cpu_count() or 1) - 1),  # one is left for the training
    }
    options = with_defaults(options, defaults)
    options = with_defaults(options, {"join": None if real or not options.refine else JOIN})
    if options.join is not None and not options.refine:
        raise SystemExit(f"--join {options.join} needs --refine True: objects are compared by all of their points")
    if not 0 < options.held_out < 1:
        raise SystemExit(f"--held-out: expected a share between 0 and 1, got {options.held_out}")
    if not options.methods or len(set(options.methods)) < len(options.methods):
        raise SystemExit(f"--methods: expected different ones, at least one, got {options.methods}")
    if options.split == "test" and not options.evaluate:
        raise SystemExit("--split test needs trained models: --evaluate CHECKPOINT --split test")
    if options.split == "test" and not options.submission:
        raise SystemExit("--split test --no-submission leaves nothing to do: the test scans have no annotation")
    if options.objects is not None and (real or not options.evaluate or options.predict):
        raise SystemExit("--objects furnishes rooms to evaluate a model on: --evaluate CHECKPOINT --objects FILE")
    if options.predict and len(options.evaluate) != 1:
        raise SystemExit("--predict needs one model: --evaluate CHECKPOINT --predict FILES")
    return options
