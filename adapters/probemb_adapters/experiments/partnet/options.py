"""The settings and options of the PartNet experiment, and what the data decides of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from probemb_adapters.experiments.baselines import scikit_learn
from probemb_adapters.experiments.variants import DETERMINISTIC, Embedding, ScoreLossName
from probemb_adapters.partnet import POINTS
from probemb_adapters.training.options import RunOptions, TrainingSettings, with_defaults


@dataclass(frozen=True)
class Settings(TrainingSettings):
    """What a model was made with; in its file, with the threshold that was fitted on validation."""

    MADE_BY: ClassVar[str] = "examples/partnet_pointnet2.py"
    REQUIRED: ClassVar[tuple[str, ...]] = ("class_agnostic", "width", "local_geometry", "offset_scale", "embedding")

    # --- data
    category: str = "Furniture"
    """object category, such as Chair"""
    level: int = 1
    """level of the part hierarchy: 1 coarse, 2 middle, 3 fine"""
    class_agnostic: bool | None = None
    """find parts without naming them; by default for the furniture's level 1, which has one class"""
    points: int = 10_000
    """points of a shape in validation and test (paper: 10,000)"""
    generated_shapes: int = 1_000
    """training shapes to write of a generated category; a tenth of it for validation and for test"""
    add_generated: bool = False
    """train on all generated categories as well, at level 3; class-agnostic only"""
    real_share: float = 0.5
    """share of the category's own shapes among those drawn for training, where generated ones are added"""
    max_shapes: int | None = None
    """use only so many shapes of each split, for a quick look"""
    # --- training
    epochs: int | None = None
    """passes over the training shapes (paper: 500)"""
    epoch_shapes: int | None = None
    """shapes an epoch; by default as many as there are (paper: all)"""
    batch_size: int | None = None
    """shapes a step, over all processes (paper: 16)"""
    train_points: int | None = None
    """points of a shape in training (paper: 10,000)"""
    learning_rate: float = 1e-3
    """of Adam, highest (paper: 0.001)"""
    halve_at: tuple[float, float] = (0.1, 0.3)
    """fractions of the training after which it is halved (paper: 0.1 and 0.3, epochs 50 and 150 of 500)"""
    max_norm: float | None = None
    """gradients of a larger norm are scaled down to it (paper: no limit)"""
    augmentation: Literal["paper", "upright"] | None = None
    """paper: rotated by up to 15 degrees, moved by 0.01, jittered; upright: mirrored, stretched and jittered"""
    width: float = 1.0
    """factor of the widths of PointNet++'s layers (paper: 1)"""
    local_geometry: bool = False
    """give the network the covariance of each point's neighbours as input features (paper: positions alone)"""
    offset_scale: float = 1.0
    """farthest offset from a point to its centre, in units of the shape's radius (paper: 1)"""
    start_from: Annotated[Path | None, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """trained model whose weights to start from (paper: none)"""
    # --- variants of the method, compared by studies/ablation.py
    embedding: Embedding = "probabilistic"
    """Gaussians with a sigma for each point and dimension; isotropic: one for all dimensions; homoscedastic: one for
    all points of a shape; deterministic: points with a Euclidean kernel, cosine: with one of angles; 6d: three
    dimensions more than positions have (paper, in Table 2: all but cosine-6d and probabilistic-6d)"""
    initial_std: float | None = None
    """about what sigma is before training, in units of the shape's radius (paper: 1)"""
    score_loss: ScoreLossName | None = None
    """of the score maps; by default complement where parts have no classes, else center-aware (paper: center-aware)"""
    covariance: Literal["mean", "independent"] = "mean"
    """of an instance: the mean of its points' covariances, or that over the number of points"""
    entropy: Literal["mean", "sum"] = "mean"
    """of the points' entropies (paper: sum, with which training collapses)"""
    bce_weight: float = 1.0
    """of the binary cross entropy beside log-Dice (paper: 1)"""
    score_weight: float = 1.0
    """of the loss of the score maps (paper: 1), which divides by the number of columns: with many classes, take that"""
    per_instance_dice: bool = False
    """log-Dice of each instance, averaged, instead of one over all"""
    class_aware: bool = False
    """cluster only points whose likeliest class is that of the seed"""
    threshold: float | None = None
    """similarity to the seed from which points belong to its instance; by default fitted on validation (paper: too)"""
    refine: bool = False
    """let the members of each found instance decide which points, class and score it has (paper: the seed decides)"""
    min_points: int = 1
    """of a part; smaller ones, most of them false, are left out (paper: none)"""
    shown_score: float | None = None
    """least score of the parts in pictures and predictions; average precision counts all. By default fitted on
    validation; 0: all parts"""


@dataclass(frozen=True)
class Options(Settings, RunOptions):
    """Settings; what is left out is chosen for the data: the paper's for PartNet, a few minutes' for the rest."""

    root: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """folder with PartNet's stats and ins_seg_h5 or ins_seg_h5_for_detection; without it the open furniture or
    generated shapes"""
    # --- what to do
    output: Path = Path("runs/partnet_pointnet2")
    """folder for checkpoints, metrics, pictures and the report"""
    baselines: bool = False
    """also DBSCAN, HDBSCAN and mean shift on positions, parameters picked on validation; class-agnostic only"""
    official_files: bool = False
    """also write ground truth and predictions of the test split in PartNet's h5 layout, for its own evaluator"""
    up: Literal["x", "y", "z"] = "y"
    """axis of the files to predict that points up (PartNet: y)"""


def resolve(options: Options) -> Options:
    """Fill in what the data decides."""
    real = options.root is not None
    defaults = {
        "class_agnostic": not real and options.category == "Furniture" and options.level == 1,
        "epochs": 500 if real else 20,
        "batch_size": 16 if real else 4,
        "train_points": 10_000 if real else 2_048,
        "schedule": "halved" if real else "one-cycle",
        "augmentation": "paper" if real else "upright",
        "workers": 4 if real else 0,
    }
    options = with_defaults(options, defaults)
    options = with_defaults(options, {"score_loss": "complement" if options.class_agnostic else "center-aware"})
    if options.baselines:
        scikit_learn()  # before a training, not after it
    if options.add_generated and not options.class_agnostic:
        raise SystemExit("--add-generated needs --class-agnostic: generated parts have other classes")
    if options.initial_std is not None and options.embedding in DETERMINISTIC:
        raise SystemExit(f"--initial-std needs an embedding with sigma to learn, not {options.embedding}")
    if options.official_files and len(options.evaluate) > 1:
        raise SystemExit("--official-files needs one model: --evaluate CHECKPOINT")
    if options.predict and len(options.evaluate) != 1:
        raise SystemExit("--predict needs one model: --evaluate CHECKPOINT --predict FILES")
    if options.official_files:
        if options.max_shapes is not None or options.points != POINTS:
            raise SystemExit(
                f"--official-files needs all test shapes and {POINTS} points: no --max-shapes, no --points"
            )
        if options.class_agnostic and (real or options.category != "Furniture" or options.level != 1):
            raise SystemExit(
                "--official-files needs classes, as PartNet's evaluator compares them: no --class-agnostic"
            )
        if (options.output / "predictions").exists():
            raise SystemExit(
                f"--official-files: {options.output / 'predictions'} is there already; take another --output"
            )
    return options
