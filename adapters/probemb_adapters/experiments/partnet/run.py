"""From a folder of data to a trained model and its evaluation, and from models to theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lightning_fabric import Fabric

from probemb_adapters.experiments.partnet.data import Split, read_classes_of
from probemb_adapters.experiments.partnet.evaluation import Evaluation, evaluate_baselines, evaluate_model
from probemb_adapters.experiments.partnet.model import Model
from probemb_adapters.experiments.partnet.options import Options, resolve
from probemb_adapters.experiments.partnet.training import train_model


def run_training(
    root: Path, options: Options, fabric: Fabric, generated: Mapping[str, Path] = MappingProxyType({})
) -> tuple[Model, list[Evaluation], list[dict[str, float]]]:
    """Train on a folder as PartNet's, evaluate, and write the model; its evaluation, the baselines' and the losses."""
    model, history = train_model(root, options, fabric, generated)
    val, test = Split(root, options, "val", fabric), Split(root, options, "test", fabric)
    evaluations = [evaluate_model(options.embedding, model, root, val, test, options, fabric)]
    if options.baselines:
        evaluations += evaluate_baselines(val, test, fabric)
    if fabric.is_global_zero:
        model.save(options.output / "model.safetensors")
    return model, evaluations, history


def run_evaluation(root: Path, options: Options, fabric: Fabric) -> tuple[tuple[str, ...], list[Evaluation]]:
    """Evaluate the models of the options on a folder as PartNet's; the classes and one evaluation a method."""
    models = {path: Model.load(path) for path in options.evaluate}
    first = next(iter(models.values()))
    options.class_agnostic = first.class_agnostic
    resolve(options)  # checks again
    classes = read_classes_of(root, options)
    val, test = Split(root, options, "val", fabric), Split(root, options, "test", fabric)
    evaluations = []
    for path, model in models.items():
        model.about["refine"] = model.clustering["refine"] or options.refine
        if model.classes != classes:
            raise SystemExit(f"{path} knows the classes {model.classes}, but the data have {classes}")
        name = str(model.about["embedding"])
        if [m.about["embedding"] for m in models.values()].count(name) > 1:
            name = f"{name} ({path})"
        evaluations.append(evaluate_model(name, model, root, val, test, options, fabric))
    if options.baselines:
        evaluations += evaluate_baselines(val, test, fabric)
    return classes, evaluations
