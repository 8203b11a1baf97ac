"""Average precision in scenes, the clustering's parameter picked on held-out ones; the submission on the way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data

from probemb_adapters.experiments.run import merged
from probemb_adapters.experiments.scannet.data import shares
from probemb_adapters.experiments.scannet.model import GRIDS, Model
from probemb_adapters.experiments.scannet.options import Options
from probemb_adapters.report.pictures import ShapeResult
from probemb_adapters.report.tally import Judged, score_floor
from probemb_adapters.scannet import evaluation_target
from probemb_adapters.scannet.submission import scene_predictions, write_submission
from probemb_adapters.training import gather_in_order
from probemb_lib import GaussianEmbedding, Instances, ThresholdFit
from probemb_lib.clustering import best_of
from probemb_lib.metrics import ScanNetAP


@dataclass
class Evaluation:
    """What one method finds in the evaluated scenes."""

    name: str
    classes: tuple[str, ...]
    metric: ScanNetAP
    fit: ThresholdFit | None
    setting: float
    history: Sequence[Mapping[str, float]] = ()
    scenes: Sequence[ShapeResult] = ()

    def values(self) -> dict[str, float]:
        """AP, AP50 and AP25 in per cent."""
        result = self.metric.compute()
        return {name: 100 * result[key] for name, key in METRICS.items()}


METRICS = {"AP": "ap", "AP50": "ap50", "AP25": "ap25"}


def add_scene(metric: ScanNetAP, found: Instances, target: Tensor) -> None:
    """Instances by their masks: those of learnable margins may overlap."""
    metric.update(found.masks(), torch.tensor(metric.class_ids)[found.semantic.cpu() - 1], found.score, target)


def fit_setting(model: Model, data: Dataset[Data], fabric: Fabric) -> tuple[ThresholdFit, float]:
    """The clustering's parameter with the best AP50 on held-out scenes, the first of equal ones.

    Returns:
        Its choice, and the least score of objects to show: those from there on have the highest F1.
    """
    grid = GRIDS[model.method]
    metrics = [ScanNetAP(model.class_ids) for _ in grid]
    judged: list[list[Judged]] = [[] for _ in grid]
    for scene in map(model.labelled, shares(data, fabric, f"{model.method}, held-out scenes")):
        output, target = model.predict(scene, fabric), evaluation_target(scene)
        for setting, metric, of_setting in zip(grid, metrics, judged, strict=True):
            found = model.cluster(output, setting)
            add_scene(metric, found, target)
            of_setting.append(scene_result(scene, found, output[0]).judged())
    values = [merged(metric, fabric).compute()["ap50"] for metric in metrics]
    fit = ThresholdFit(*best_of(grid, values, "setting"))
    return fit, score_floor(list(chain(*gather_in_order(fabric, judged[grid.index(fit.threshold)]))))


def evaluate_model(
    name: str, model: Model, data: Dataset[Data], options: Options, fabric: Fabric
) -> tuple[ScanNetAP, list[ShapeResult]]:
    """AP of the scenes, and those to show; the submission is written on the way, a scene in memory at a time."""
    metric, shown = ScanNetAP(model.class_ids), []
    every = max(1, -(-len(data) // options.report_shapes))  # type: ignore[arg-type]  # from all over the split

    def scenes() -> Iterator[Any]:
        for i, scene in enumerate(map(model.labelled, shares(data, fabric, f"{name}, {options.split}"))):
            embedding, probabilities = model.predict(scene, fabric)
            found, embedding = model.cluster((embedding, probabilities)).to("cpu"), embedding.to("cpu")
            if "instance" in scene:
                add_scene(metric, found, evaluation_target(scene))
            if i % every == 0:
                shown.append(
                    scene_result(scene, model.shown(found), embedding)._replace(name=f"{scene.scene_id}, {name}")
                )
            yield scene_predictions(scene, found.masks(), model.columns(found.semantic), found.score)

    if options.submission:
        folder = options.output / "submission" / name
        new = folder.with_name(f".{name}.new")
        if fabric.is_global_zero:
            shutil.rmtree(new, ignore_errors=True)  # of a run that was stopped
        fabric.barrier()
        write_submission(new, scenes())
        fabric.barrier()
        if fabric.is_global_zero:
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
    else:
        for _ in scenes():
            pass
    return merged(metric, fabric), list(chain(*gather_in_order(fabric, shown)))


def scene_result(scene: Data, found: Instances, embedding: GaussianEmbedding) -> ShapeResult:
    truth = scene.instance if "instance" in scene else None
    classes = None
    if truth is not None:
        classes = torch.zeros(int(truth.max().clamp(min=-1)) + 1, dtype=torch.int64)
        classes[truth[truth >= 0]] = scene.semantic[truth >= 0]
    rgb = scene.rgb if "rgb" in scene else None  # a scan without colours
    return ShapeResult(scene.scene_id, scene.pos, truth, found, embedding.log_std, embedding.mean, rgb, classes, up="z")
