"""Average precision on the test split: the threshold picked on validation, the test split taken once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch_geometric.data import Data
from tqdm import tqdm

from probemb_adapters.experiments.partnet.data import Split
from probemb_adapters.experiments.partnet.model import Model, threshold_grid
from probemb_adapters.experiments.partnet.options import Options
from probemb_adapters.experiments.run import merged
from probemb_adapters.partnet import EvaluationTargets
from probemb_adapters.partnet.predictions import shape_predictions, write_ground_truth, write_predictions
from probemb_adapters.report.pictures import ShapeResult
from probemb_adapters.report.tally import score_floor
from probemb_adapters.training import gather_in_order
from probemb_lib import GaussianEmbedding, Instances, ThresholdFit, fit_threshold
from probemb_lib.metrics import PartNetAP

if TYPE_CHECKING:
    from probemb_adapters.experiments.baselines import Clusters


@dataclass
class Evaluation:
    """What one method finds on the test split."""

    name: str
    metric: PartNetAP
    parameters: dict[str, Any]
    validation: dict[str, float]  # mAP at IoU 0.5 on validation, for each value that was tried
    fit: ThresholdFit | None = None
    shapes: Sequence[ShapeResult] = ()

    def values(self) -> dict[str, Any]:
        """Part mAP and shape mAP at each IoU threshold, in per cent."""
        result = self.metric.compute()
        return {"part mAP": 100 * result["part_map"], "shape mAP": 100 * result["shape_map"]}


def score(
    found: Sequence[Instances | Clusters],
    targets: Sequence[EvaluationTargets],
    classes: int,
    first: int,
    fabric: Fabric,
) -> PartNetAP:
    """The metric over the shapes of all processes, in the order of the split; ``first``: number of the first class."""
    metric = PartNetAP(classes)
    for instances, target in zip(found, targets, strict=True):
        metric.update_labels(instances.label, instances.semantic - first, instances.score, *target)
    return merged(metric, fabric)


def score_grouping(found: Sequence[Instances], targets: Sequence[EvaluationTargets], fabric: Fabric) -> PartNetAP:
    """As :func:`score`, as if all parts were of one class: how a method groups, apart from how it names."""
    nameless = [replace(instances, semantic=torch.zeros_like(instances.semantic)) for instances in found]
    truth = [target._replace(gt_classes=torch.zeros_like(target.gt_classes)) for target in targets]
    return score(nameless, truth, 1, 0, fabric)


def write_official_files(
    root: Path, test: Split, found: Sequence[Instances], first: int, options: Options, fabric: Fabric
) -> None:
    """`ins_seg_h5_gt` and `predictions` in the output folder, as PartNet's own evaluator reads them."""
    some = [Data(point=shape.point, shape_id=shape.shape_id) for shape in test.shapes]
    pairs = chain(*gather_in_order(fabric, list(zip(some, found, strict=True))))
    if fabric.is_global_zero:
        write_ground_truth(root, options.category, options.level, output=options.output)
        truth = options.output / "ins_seg_h5_gt" / f"{options.category}-{options.level}"
        shapes = (shape_predictions(data, f.masks(), f.semantic - first, f.score) for data, f in pairs)
        write_predictions(options.output / "predictions", truth, shapes)


class Tested(NamedTuple):
    """What a model gives for the test split, by what was given or fitted on validation."""

    threshold: float
    shown_score: float | None
    fit: ThresholdFit | None
    outputs: list[tuple[GaussianEmbedding, Tensor]]
    found: list[Instances]
    metric: PartNetAP


def fit_and_test(
    name: str,
    model: Model,
    val: Split | None,
    test: Split,
    measure: Callable[[Sequence[Instances], Sequence[EvaluationTargets]], PartNetAP],
    threshold: float | None,
    fabric: Fabric,
) -> Tested:
    """Fit τ on validation, by mAP at IoU 0.5, and the least score to show, by F1; then take the test split once.

    Args:
        name: of the model, for the progress bar.
        val: None: nothing is measured there; the threshold must be given, and what is shown is the model's.
        measure: from what was found in all shapes, and their targets, to the metric.
        threshold: None: it is fitted.

    Raises:
        ValueError: neither a threshold nor a validation split.
    """

    def outputs(split: Split, what: str) -> list[tuple[GaussianEmbedding, Tensor]]:
        bar = tqdm(split.shapes, desc=f"{name}, {what}", unit="shape", disable=not fabric.is_global_zero)
        return [model.predict(shape, fabric) for shape in bar]

    def mean_ap(found: Sequence[Instances], targets: Sequence[EvaluationTargets]) -> float:
        return float(measure(found, targets).part_map()[1])

    fit, shown_score = None, model.settings.shown_score
    if val is not None:
        grid = threshold_grid(model) if threshold is None else (threshold,)
        fitted = outputs(val, "validation")
        fit = fit_threshold(fitted, val.targets, mean_ap, grid, **model.clustering)
        threshold = fit.threshold
        found = [model.cluster(*output, threshold) for output in fitted]
        judged = [shape.judged() for shape in _shape_results(model, val, found, fitted)]
        shown_score = score_floor(list(chain(*gather_in_order(fabric, judged))))
    if threshold is None:
        raise ValueError(f"{name}: expected a threshold, or a validation split to fit one on, got neither")
    tested = outputs(test, "test")
    found = [model.cluster(*output, threshold).to("cpu") for output in tested]
    return Tested(threshold, shown_score, fit, tested, found, measure(found, test.targets))


def evaluate_model(
    name: str, model: Model, root: Path, val: Split | None, test: Split, options: Options, fabric: Fabric
) -> Evaluation:
    """Average precision on the test split; the model stays as it is.

    Args:
        val: to fit the threshold on, unless the options give one; None: they do.
    """
    first = model.first_class

    def measure(found: Sequence[Instances], targets: Sequence[EvaluationTargets]) -> PartNetAP:
        return score(found, targets, len(model.classes), first, fabric)

    tested = fit_and_test(name, model, val, test, measure, options.threshold, fabric)
    if options.official_files:
        write_official_files(root, test, tested.found, first, options, fabric)

    shown_score = tested.shown_score if options.shown_score is None else options.shown_score
    found = [model.shown(instances, shown_score) for instances in tested.found]
    shapes = _shape_results(model, test, found, tested.outputs)
    shown = -(-options.report_shapes // fabric.world_size)
    shapes = shapes[:: max(1, -(-len(shapes) // shown))]  # from all over the test set
    fit = tested.fit
    return Evaluation(
        name,
        tested.metric,
        {"threshold": tested.threshold, "shown_score": shown_score},
        dict(zip(map(str, fit.grid), fit.metrics, strict=True)) if fit else {},
        fit,
        list(chain(*gather_in_order(fabric, shapes))),
    )


def _shape_results(
    model: Model, split: Split, found: Sequence[Instances], outputs: Sequence[tuple[GaussianEmbedding, Tensor]]
) -> list[ShapeResult]:
    return [
        ShapeResult(
            name=shape.anno_id,
            pos=shape.pos,
            truth=shape.instance,
            found=instances,
            log_std=embedding.log_std.cpu(),
            mean=embedding.mean.cpu(),
            truth_classes=target.gt_classes + model.first_class,
        )
        for shape, target, instances, (embedding, _) in zip(split.shapes, split.targets, found, outputs, strict=True)
    ]


def evaluate_baselines(val: Split, test: Split, fabric: Fabric) -> list[Evaluation]:
    """What one has without a network: clusters of the positions, parameters picked on validation as τ is."""
    from probemb_adapters.experiments.baselines import BASELINES, fit_baseline  # scikit-learn, not needed by a model

    def mean_ap(found: Sequence[Clusters], targets: Sequence[EvaluationTargets]) -> float:
        return float(score(found, targets, 1, 0, fabric).part_map()[1])

    evaluations = []
    for name, grid in BASELINES.items():
        bar = partial(tqdm, desc=f"{name}, validation", unit="setting", disable=not fabric.is_global_zero)
        fit = fit_baseline(grid, [shape.pos for shape in val.shapes], val.targets, mean_ap, progress=bar)
        found = [fit.clusterer(shape.pos) for shape in test.shapes]
        validation = dict(zip(map(str, fit.grid), fit.metrics, strict=True))
        metric = score(found, test.targets, 1, 0, fabric)
        parameters = asdict(fit.clusterer)  # type: ignore[call-overload]  # those of BASELINES are dataclasses
        evaluations.append(Evaluation(f"{name} on positions", metric, parameters, validation))
    return evaluations
