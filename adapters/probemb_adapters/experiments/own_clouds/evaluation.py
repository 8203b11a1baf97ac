"""Average precision on anybody's clouds, and what is fitted on validation: τ, joining, smallest size, what to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from probemb_adapters.clouds.labelled import known_classes
from probemb_adapters.experiments.own_clouds.data import TestClouds
from probemb_adapters.experiments.own_clouds.model import Model
from probemb_adapters.experiments.own_clouds.options import Options
from probemb_adapters.experiments.partnet import Evaluation, score
from probemb_adapters.experiments.run import write_metrics, write_results
from probemb_adapters.experiments.variants import JOIN
from probemb_adapters.partnet import EvaluationTargets
from probemb_adapters.report import Row, Section, Table, fit_chart, loss_chart, precision_recall_charts
from probemb_adapters.report.pictures import ShapeResult
from probemb_adapters.report.tally import score_floor
from probemb_lib import GaussianEmbedding, Instances, ThresholdFit, fit_threshold, greedy_cluster
from probemb_lib.clustering.fit import DEFAULT_GRID, best_of
from probemb_lib.metrics import PartNetAP

UNIT = "the unit of the files"
"""Of positions and σ on the page."""

_SIZES = (200, 100, 50, 20, 10, 5, 2, 1)  # in points: of equal AP, the first
_CRUMB = 0.5  # of the smallest true instance: anything larger might be one


def fit_model(model: Model, clouds: TestClouds, fabric: Fabric) -> tuple[Model, ThresholdFit]:
    """The model with τ, joining and the smallest instance that have the best mAP at IoU 0.5 on validation.

    Of their instances those from the score on that has the highest F1 are shown.
    """
    outputs = _outputs(model, clouds, "validation", fabric)

    def mean_ap(found: Sequence[Instances], targets: Sequence[EvaluationTargets]) -> float:
        return float(_score(model, found, targets, fabric).part_map()[1])

    joins = (None, JOIN) if model.settings.refine else (None,)
    models = [replace(model, settings=replace(model.settings, join=join)) for join in joins]
    fits = [fit_threshold(outputs, clouds.targets, mean_ap, DEFAULT_GRID, **m.clustering) for m in models]
    model, fit = max(zip(models, fits, strict=True), key=lambda pair: pair[1].metric)  # the first of equal ones
    found = [greedy_cluster(*output, threshold=fit.threshold, **model.clustering) for output in outputs]
    smallest = min(int(t.gt_instance[t.gt_instance >= 0].bincount().min()) for t in clouds.targets if len(t[1]))
    grid = [size for size in _SIZES if size <= max(1, _CRUMB * smallest)]
    metrics = (mean_ap([f.keep(f.size >= size) for f in found], clouds.targets) for size in grid)
    size = best_of(grid, metrics, "size")[0]
    shapes = _shapes(model, clouds, [f.keep(f.size >= size) for f in found], outputs)
    return model.fitted(fit.threshold, size, score_floor([shape.judged() for shape in shapes])), fit


def evaluate_model(model: Model, clouds: TestClouds, fabric: Fabric, fit: ThresholdFit | None = None) -> Evaluation:
    """Average precision of a fitted model, and what it found."""
    outputs = _outputs(model, clouds, "test", fabric)
    found = [model.cluster(*output) for output in outputs]
    shapes = _shapes(model, clouds, [model.shown(instances) for instances in found], outputs)
    settings = model.settings
    return Evaluation(
        "probemb",
        _score(model, found, clouds.targets, fabric),
        {name: getattr(settings, name) for name in ("threshold", "join", "min_points", "shown_score", "refine")},
        {} if fit is None else dict(zip(map(str, fit.grid), fit.metrics, strict=True)),
        fit,
        shapes,
    )


def write_evaluation(
    model: Model,
    evaluation: Evaluation,
    options: Options,
    text: str,
    history: Sequence[dict[str, float]] = (),
    *,
    seen: bool = False,
) -> str:
    """metrics.json, metrics.csv, the page and the picture into the output folder; what to print.

    ``seen``: the model was trained or fitted on these clouds, and the page says so.
    """
    ious = evaluation.metric.iou_thresholds
    numbers = {row.name: list(row.values) for row in ap_table(model, evaluation).rows}
    metrics = {
        "classes": known_classes(model.settings.class_values, model.settings.class_names),
        "clouds": [shape.name for shape in evaluation.shapes],
        "iou_thresholds": ious,
        "ap_percent": {name: values[1:] for name, values in numbers.items()},
        "instances": {name: values[0] for name, values in numbers.items()},
        "parameters": evaluation.parameters,
        "validation_ap_at_0.5": evaluation.validation,
        "training": list(history),
    }
    lines: list[Sequence[Any]] = [("class", "instances", *(f"AP@{iou:g}" for iou in ious))]
    lines += [(name, *values) for name, values in numbers.items()]
    write_metrics(options.output, metrics, options, lines)
    charts = precision_recall_charts({evaluation.name: evaluation.metric}, model.classes)
    charts += [fit_chart(evaluation.fit)] if evaluation.fit is not None else []
    charts += [loss_chart([epoch["loss"] for epoch in history])] if history else []
    every = max(1, -(-len(evaluation.shapes) // options.report_shapes))
    page = Section(
        "Clouds of the training" if seen else "Clouds that the network has not seen",
        text,
        evaluation.shapes[::every],
        [ap_table(model, evaluation)],
        charts,
        model.columns,
        noun="instance",
        item="cloud",
        unit=UNIT,
    )
    return write_results("Instances found in your clouds", [page], options)


def ap_table(model: Model, evaluation: Evaluation) -> Table:
    """Classes × IoU thresholds, the mean over them first."""
    result, ious = evaluation.metric.compute(), evaluation.metric.iou_thresholds
    counts = result["class_gt_count"].tolist()
    rows = [Row("mean", [sum(counts), *(100 * result["part_map"]).tolist()])]
    if len(model.classes) > 1:
        rows += [
            Row(name, [counts[c], *(100 * result["class_ap"][:, c]).tolist()])
            for c, name in enumerate(model.classes)
            if result["class_valid"][c]
        ]
    return Table(
        f"Average precision, per cent, {len(evaluation.shapes)} clouds",
        ["instances", *(f"AP @{iou:g}" for iou in ious)],
        rows,
    )


def _shapes(
    model: Model, clouds: TestClouds, found: Sequence[Instances], outputs: Sequence[tuple[GaussianEmbedding, Tensor]]
) -> list[ShapeResult]:
    shapes = []
    for name, cloud, target, instances, (embedding, _) in zip(
        clouds.names, clouds.clouds, clouds.targets, found, outputs, strict=True
    ):
        pos, (mean, log_std) = model.frame.lengths_of_file(cloud.pos, embedding.to("cpu"))
        classes = target.gt_classes + model.first_class
        shapes.append(
            ShapeResult(name, pos, target.gt_instance, instances.to("cpu"), log_std, mean, truth_classes=classes)
        )
    return shapes


def _outputs(model: Model, clouds: TestClouds, what: str, fabric: Fabric) -> list[tuple[GaussianEmbedding, Tensor]]:
    return [model.predict(cloud.pos, fabric) for cloud in tqdm(clouds.clouds, desc=what, unit="cloud")]


def _score(model: Model, found: Sequence[Instances], targets: Sequence[EvaluationTargets], fabric: Fabric) -> PartNetAP:
    """The metric; what lies mostly on points that nobody labelled is neither right nor false."""
    kept = []
    for instances, target in zip(found, targets, strict=True):
        of = instances.label.cpu()[~target.other]
        labelled = of[of >= 0].bincount(minlength=len(instances)).to(instances.size)
        kept.append(instances.keep(2 * labelled >= instances.size))
    return score(kept, targets, len(model.classes), model.first_class, fabric)
