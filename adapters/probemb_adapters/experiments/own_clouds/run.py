"""What the command `probemb` does, from folders to what it prints."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_fabric import Fabric

from probemb_adapters.clouds import Cloud
from probemb_adapters.clouds.check import WAY, classes_told, finding_lines, findings_in, label_notes
from probemb_adapters.clouds.labelled import (
    check_classes,
    class_names_of,
    class_values,
    known_classes,
    read_labelled,
)
from probemb_adapters.clouds.split import SPLITS, fingerprint, split_clouds
from probemb_adapters.experiments.own_clouds.data import Frame, TestClouds, common_unit, labelled_data
from probemb_adapters.experiments.own_clouds.evaluation import ap_table, evaluate_model, fit_model, write_evaluation
from probemb_adapters.experiments.own_clouds.model import FILE, Model
from probemb_adapters.experiments.own_clouds.options import Options, resolve
from probemb_adapters.experiments.own_clouds.training import new_model, train_model, with_lengths
from probemb_adapters.experiments.own_clouds.units import measure, times_as_large, unit_doubt
from probemb_adapters.experiments.run import check_output
from probemb_adapters.report.tables import table_text
from probemb_adapters.training.options import chosen

_LINES = 10  # of findings that a training prints


def run_training(folder: Path, options: Options, fabric: Fabric) -> str:
    """Train on the clouds of a folder, fit, test; model, numbers and page are in the output folder.

    Returns:
        What to print: the table, and where the files are.

    Raises:
        FileNotFoundError, ValueError: the message says what was expected of the folder, what came and what to do.
    """
    check_output(options.output, options.resume)
    clouds = read_labelled(folder, options.instance, options.semantic, options.background, ignored=options.ignored)
    fabric.print(*label_notes(clouds), sep="\n")
    split = split_clouds(folder, clouds, options.seed)
    fabric.print(", ".join(f"{name} {len(split[name])}" for name in SPLITS) + " clouds")
    for name in SPLITS:
        if not any((cloud.instance >= 0).any() for cloud in split[name] if cloud.instance is not None):
            raise ValueError(
                f"{folder}: expected instances in the clouds of {name}, got none in "
                f"{', '.join(c.name for c in split[name][:5])}: all points are unlabelled or background"
            )
    _print_findings(split["train"], fabric)
    known = class_values(split["train"])
    way = "no cloud to train on has them; sort the clouds into subfolders train, val and test, or label more"
    names = class_names_of(clouds, known, options.named)
    check_classes(known_classes(known, names), [*split["val"], *split["test"]], way)

    options = replace(
        options,
        class_values=known,
        class_names=names,
        unit=common_unit(split["train"]),
        measured=measure(split["train"]),
        seen=tuple(fingerprint(cloud) for name in ("train", "val") for cloud in split[name]),
    )
    asked = options.steps
    options = resolve(options, len(split["train"]), max(len(cloud.pos) for cloud in split["train"]))
    each = chosen(options.steps) // chosen(options.epochs)
    if asked not in (None, options.steps):
        fabric.print(f"{options.steps} steps in place of {asked}: whole epochs, of {each} steps each")
    frame = Frame(options.up, options.unit)
    data = [labelled_data(cloud, frame, known) for cloud in split["train"]]
    options = with_lengths(options, data)
    model = new_model(options, fabric)
    fabric.print(
        f"{classes_told(known, names)}; a length of {options.unit:g} is 1 for the network, offset_scale "
        f"{options.offset_scale:g}, initial_std {options.initial_std:g}"
    )
    history = train_model(model, data, options, fabric)
    model.save(options.output / FILE)  # before an evaluation that may fail; what is fitted comes with that

    model, fit = fit_model(model, TestClouds(split["val"], model.frame, known, model.points), fabric)
    model.save(options.output / FILE)
    test = TestClouds(split["test"], model.frame, known, model.points)
    joined = "" if model.settings.join is None else f"joining of instances from {model.settings.join:g} on, "
    text = (
        f"Trained on {len(data)} clouds for {len(history) * each} steps on {fabric.device.type}; threshold "
        f"{fit.threshold:g}, {joined}smallest instance, {model.settings.min_points} points, and least score to show, "
        f"{chosen(model.settings.shown_score):.2g}, fitted on {len(split['val'])} others."
    )
    printed = write_evaluation(model, evaluate_model(model, test, fabric, fit), options, text, history)
    return f"{printed}\nmodel    {options.output / FILE}"


def run_evaluation(path: Path, folder: Path, output: Path | None, fabric: Fabric) -> str:
    """Test a model on the labelled clouds of a folder, without those that it was trained or fitted on.

    Returns:
        What to print: the table, and where the page is if there is an output folder.
    """
    model = Model.load(path)
    made = model.settings
    clouds = read_labelled(folder, made.instance, made.semantic, made.background, model.class_names, made.ignored)
    check_classes(known_classes(made.class_values, made.class_names), clouds, "the model does not know them")
    unseen = [cloud for cloud in clouds if fingerprint(cloud) not in set(made.seen)]
    if unseen and len(unseen) < len(clouds):
        fabric.print(f"{len(clouds) - len(unseen)} of {len(clouds)} clouds left out: the model has seen them")
    elif not unseen:
        fabric.print("the model was trained or fitted on all of these clouds: expect less on others")
    for cloud in clouds:
        times_as_large(cloud, model.frame)
        if doubt := unit_doubt(cloud, model.frame, made.measured, none=0):
            warnings.warn(doubt, stacklevel=2)
    test = TestClouds(unseen or clouds, model.frame, made.class_values, model.points)
    evaluation = evaluate_model(model, test, fabric)
    if output is None:
        return "\n" + table_text(ap_table(model, evaluation))
    options = Options(**{**made.__dict__, "output": output})
    return write_evaluation(model, evaluation, options, f"Model: {path}.", seen=not unseen)


def _print_findings(clouds: Sequence[Cloud], fabric: Fabric) -> None:
    """Print the findings in the training clouds.

    Raises:
        ValueError: one is an error.
    """
    found = findings_in(clouds)
    lines = finding_lines(found)
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], f"{len(lines) - _LINES} more: probemb check lists them"]
    fabric.print(*lines, *([WAY] if lines else []), sep="\n", end="\n" if lines else "")
    wrong = [(cloud, finding) for cloud, finding in found if finding.level == "error"]
    if wrong:
        cloud, finding = wrong[0]
        raise ValueError(f"{cloud.name}: {finding.message}")
