"""What can be chosen for instance segmentation of images, and what a model keeps of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from probemb_adapters.training.options import RunOptions, TrainingSettings, with_defaults


@dataclass(frozen=True)
class Settings(TrainingSettings):
    """In the model's file."""

    MADE_BY: ClassVar[str] = "examples/nuclei_unet.py"
    REQUIRED: ClassVar[tuple[str, ...]] = ("embedding", "width", "offset_scale", "initial_std")

    embedding: Literal["probabilistic", "deterministic", "margin"] = "probabilistic"
    """what a pixel becomes: a Gaussian, a point, or a vote with the learnable margin of Neven et al."""
    width: int = 16
    """channels of the U-Net at full resolution; 8 times as many at the lowest"""
    offset_scale: float = 32.0
    """farthest that a centre lies from its pixel, in pixels: the radius of the largest object"""
    initial_std: float = 4.0
    """sigma before training, in pixels; the initial margin of learnable margins is twice that"""
    crop: int = 128
    """pixels of a side in training, a multiple of 16"""
    epoch_crops: int = 1200
    """crops that are drawn an epoch"""
    diameters: tuple[float, float] = (8.0, 48.0)
    """in training, images are magnified so that their usual object is between so many pixels across"""
    # Fitted on validation.
    threshold: float = 0.35
    """least similarity of a pixel with the seed of its object"""
    min_score: float = 0.5
    """least score of a seed"""
    min_pixels: int = 20
    """of an object"""
    refine: bool = True
    """members decide on the objects once more"""
    join: float | None = None
    """least similarity of two objects, as a whole, to become one; None: none do"""
    diameter: float | None = None
    """in prediction, images are magnified so that their usual object is so many pixels across; None: as they are"""
    flips: bool = True
    """predict the mean over the image and its mirror images: four times as long"""
    seen: Annotated[tuple[int, ...], tyro.conf.Suppress] = ()
    """fingerprints of the images of training and validation, where the command `probemb` has trained"""


@dataclass(frozen=True)
class Options(Settings, RunOptions):
    """Of the command line."""

    data: Path = Path("data/nuclei/nuclei.npz")
    """images with labels, in the layout of data/nuclei"""
    split: Path | None = None
    """CSV with the columns name and split: train, val or test; by default split.csv beside the data, where it names all
    images of the data. Without one all images are test"""
    start_from: Path | None = None
    """train on from the weights of this model, which has the same embedding and width"""
    fit: bool = False
    """with --evaluate: choose threshold, least score, least size and refinement again, on the val side of the data"""
    baselines: bool = False
    """also what one has from the foreground map alone: connected components, and peaks of the distance to its border"""
    evaluate: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="CHECKPOINT ...")] = ()
    """no training: evaluate these models, in one table"""
    predict: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILES ...")] = ()
    """no training: find the objects of images (png, tif, npy) with the model of --evaluate; needs no labels"""
    channel: int | None = None
    """of images of several channels, from 0"""


def resolve(options: Options) -> Options:
    """What was not given, as a checkpoint of this project was trained: 3,000 steps.

    Raises:
        SystemExit: crops that the U-Net cannot halve four times.
    """
    if options.crop < 16 or options.crop % 16:
        raise SystemExit(f"--crop: expected a multiple of 16, got {options.crop}")
    chosen = {"epochs": 20, "batch_size": 8, "learning_rate": 3e-3, "schedule": "one-cycle", "max_norm": 5.0}
    return with_defaults(options, chosen | {"workers": 0})
