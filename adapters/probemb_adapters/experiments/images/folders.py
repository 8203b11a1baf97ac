"""What the command `probemb` does with folders of images and label images, from files to what it prints.

    labelled/images/a.tif    labelled/labels/a.png    or both folders inside of train, val and test

The two folders hold files of equal names, whatever their endings; `masks` may stand for `labels`. Or both lie in one
folder, `a.tif` or `a_raw.tif` with `a_labels.tif`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from scipy import ndimage

from probemb_adapters.experiments.images.evaluation import evaluate, fit, least_sizes
from probemb_adapters.experiments.images.model import Model, magnification, usual_diameter
from probemb_adapters.experiments.images.options import Options, resolve
from probemb_adapters.experiments.images.results import fields_of, results_table, run_prediction, write_results
from probemb_adapters.experiments.images.training import PixelObjective, new_model, train_model
from probemb_adapters.experiments.run import check_output
from probemb_adapters.images import LabelledImage
from probemb_adapters.images.check import SPLITS, files_of, findings_in, read_folder
from probemb_adapters.images.files import ENDINGS
from probemb_adapters.report import table_text

FILE = "model.safetensors"
STEPS = {"quick": 1500, "full": 6000}
_LINES = 10  # of findings that a training prints
_HELD_OUT = 0.15  # of the images, for validation and for test
_EPOCHS = 20


@dataclass(frozen=True)
class Request:
    """What a training is asked for; None: as the preset has it."""

    output: Path
    preset: str = "quick"
    steps: int | None = None
    batch_size: int | None = None
    channel: int | None = None
    resume: bool = False
    finish: bool = False
    seed: int = 0
    refine: bool = True


def are_images(files: Sequence[Path]) -> bool:
    """Whether all of these are images by their endings, or folders of such files."""
    return all(files_of(path) if path.is_dir() else path.suffix.lower() in ENDINGS for path in files)


def split_images(folder: Path, found: dict[str, list[LabelledImage]], seed: int) -> dict[str, list[LabelledImage]]:
    """By the subfolders, else at random by image.

    Raises:
        ValueError: fewer than three images.
    """
    if "" not in found:
        return found
    images = found[""]
    if len(images) < len(SPLITS):
        raise ValueError(
            f"{folder}: expected at least three images, one each to train on, to fit on and to test on, "
            f"got {len(images)}"
        )
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    held = max(1, round(_HELD_OUT * len(images)))
    rows = {"test": order[:held], "val": order[held : 2 * held], "train": order[2 * held :]}
    return {name: [images[i] for i in sorted(rows[name])] for name in SPLITS}


def fingerprint(image: LabelledImage) -> int:
    """Of the grey values, by which an image is known again whatever its file is called."""
    return zlib.crc32(np.ascontiguousarray(image.image, dtype=np.float32).tobytes())


def with_lengths(options: Options, images: Sequence[LabelledImage]) -> Options:
    """The farthest offset, and half the usual radius for the first sigma, of the objects as the network sees them."""
    radii, usual = [], []
    for image in images:
        label = np.zeros((1, 1), np.int64) if image.label is None else image.label
        diameter = usual_diameter(label)
        factors = [magnification(diameter, d) for d in options.diameters]
        sizes = [max(s.stop - s.start for s in box) for box in ndimage.find_objects(label) if box]
        radii += [0.5 * math.sqrt(factors[0] * factors[1]) * size for size in sizes]
        usual += [] if math.isnan(diameter) else [diameter * math.sqrt(factors[0] * factors[1])]
    if not radii:
        raise ValueError("expected objects in the images to train on, got none")
    return replace(
        options,
        offset_scale=float(round(max(8.0, 1.5 * float(np.percentile(radii, 99))))),
        initial_std=float(f"{max(1.0, float(np.median(usual)) / 4):.2g}"),
    )


def usable_images(
    folder: Path, channel: int | None, fabric: Fabric, *, axes: int = 2
) -> dict[str, list[LabelledImage]]:
    """:func:`read_folder`, where what has no match is left out and named.

    Raises:
        FileNotFoundError, ValueError: also files that cannot be used, all in one message.
    """
    found, findings = read_folder(folder, channel, axes=axes)
    if wrong := [finding.message for finding in findings if finding.wrong]:
        lines = [f"{folder}: mend what cannot be used, or take image and labels out", *wrong[:_LINES]]
        lines += [f"and {len(wrong) - _LINES} more: probemb check {folder}"] if len(wrong) > _LINES else []
        raise ValueError("\n".join(lines))
    for finding in findings:
        fabric.print(f"left out: {finding.message}")
    return found


def run_training(folder: Path, request: Request, fabric: Fabric) -> str:
    """Train on the images of a folder, fit, test; model, numbers and page are in the output folder.

    Raises:
        FileNotFoundError, ValueError: the message says what was expected of the folder, what came and what to do.
    """
    check_output(request.output, request.resume)
    sides = split_images(folder, usable_images(folder, request.channel, fabric), request.seed)
    fabric.print(", ".join(f"{name} {len(sides[name])}" for name in SPLITS) + " images")
    for name, images in sides.items():
        if not any(image.label is not None and image.label.any() for image in images):
            raise ValueError(
                f"{folder}: expected objects in the images of {name}, got none in "
                f"{', '.join(image.name for image in images[:5])}; label more, or sort the images into subfolders "
                "train, val and test"
            )
    found = findings_in(sides["train"])
    fabric.print(*(f"{f.name}: {f.message}" for f in found[:_LINES]), sep="\n", end="\n" if found else "")
    if wrong := next((f for f in found if f.wrong), None):
        raise ValueError(f"{wrong.name}: {wrong.message}")
    options = asked_options(folder, request)
    seen = tuple(fingerprint(image) for name in ("train", "val") for image in sides[name])
    options = replace(with_lengths(options, sides["train"]), seen=seen)
    options.output.mkdir(parents=True, exist_ok=True)
    model = new_model(options, fabric)
    history = train_model(model, sides["train"], PixelObjective(model.settings), options, fabric)
    model.save(options.output / FILE)  # before an evaluation that may fail
    least = least_sizes([*sides["train"], *sides["val"]])
    model, value = fit(model, sides["val"], None if request.refine else ((False, None),), min_pixels=least)
    model.save(options.output / FILE)
    fabric.print(f"AP50 {100 * value:.1f} % on validation with {model.fitted}")
    if value == 0:
        fabric.print("no object of validation was found: train longer (--steps), and look at the page")
    evaluations = [evaluate(model.settings.embedding, model, sides["test"])]
    printed = write_results("Objects found in images", evaluations, sides["test"], options, history)
    return f"{printed}\nmodel    {options.output / FILE}"


def asked_options(folder: Path, request: Request) -> Options:
    """With the steps of the request as epochs of equal length.

    Raises:
        ValueError: no step, or an empty batch.
    """
    batch = 8 if request.batch_size is None else request.batch_size
    steps = STEPS[request.preset] if request.steps is None else request.steps
    if batch < 1 or steps < 1:
        raise ValueError(f"expected at least a step and a batch of 1, got {steps} and {batch}")
    per_epoch = -(-steps // _EPOCHS)
    epochs = round(steps / per_epoch)  # whole ones: of 1,003 steps 20 of 51, which are 1,020
    return resolve(
        Options(
            data=folder,
            output=request.output,
            resume=request.resume,
            finish=request.finish,
            seed=request.seed,
            batch_size=batch,
            epochs=epochs,
            epoch_crops=batch * per_epoch,
            channel=request.channel,
        )
    )


def run_evaluation(path: Path, folder: Path, output: Path | None, channel: int | None, fabric: Fabric) -> str:
    """Test a model on the labelled images of a folder, those of its subfolder test where it has one, without those that
    it was trained or fitted on."""
    model = load(path).to(fabric.device)
    found = usable_images(folder, channel, fabric)
    given = found.get("test", found.get("", []))
    unseen = [image for image in given if fingerprint(image) not in set(model.settings.seen)]
    if unseen and len(unseen) < len(given):
        fabric.print(f"{len(given) - len(unseen)} of {len(given)} images left out: the model has seen them")
    elif not unseen:
        fabric.print("the model was trained or fitted on all of these images: expect less on others")
    images = unseen or given
    evaluation = evaluate(model.settings.embedding, model, images)
    own = {"data": folder, "output": output or Path("runs"), "channel": channel}
    options = Options(**{**model.settings.__dict__, **own})
    if output is None:
        return "\n" + table_text(results_table([evaluation], images, fields_of(images, options)))
    output.mkdir(parents=True, exist_ok=True)
    return write_results(f"Model: {path}", [evaluation], images, options, [])


def run_files(path: Path, files: Sequence[Path], output: Path, channel: int | None, fabric: Fabric) -> str:
    """Label image, table of objects and picture of each image; folders stand for the images in them."""
    if not are_images(files):
        raise ValueError(f"{path} is a model of images: expected {', '.join(ENDINGS)} files or folders of them")
    output.mkdir(parents=True, exist_ok=True)
    images = [image for file in files for image in (files_of(file) if file.is_dir() else [file])]
    options = Options(predict=tuple(images), output=output, channel=channel)
    return run_prediction(load(path).to(fabric.device), options)


def load(path: Path) -> Model:
    """The model of a file or of the folder of a training."""
    return Model.load(path / FILE if path.is_dir() else path)
