"""The figures of docs/gallery.md from the checkpoints that come with the project, on shapes that they have not seen.

python studies/figures.py                                              into runs/figures
python studies/figures.py --shapes 3 8 --checkpoints MODEL             other shapes, another model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import tyro
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset
from torch_geometric.data import Data
from tqdm import tqdm

from probemb_adapters.experiments import partnet
from probemb_adapters.experiments.baselines import BASELINES, Clusterer, Clusters, fit_baseline
from probemb_adapters.files import replaced_file
from probemb_adapters.partnet import EvaluationTargets, evaluation_targets
from probemb_adapters.report import figures
from probemb_adapters.report.pictures import ShapeResult
from probemb_adapters.training import start_fabric
from probemb_shapes.demo_data import PROJECT, partnet_folder

CHECKPOINTS = PROJECT / "checkpoints"


@dataclass
class Options:
    """What to draw, and where to."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH ...")] = tuple(
        CHECKPOINTS / f"{family}.safetensors" for family in ("chair", "table", "storage", "lamp")
    )
    """models of examples/partnet_pointnet2.py; all figures but the last are of the first"""
    shapes: tuple[int, ...] = (0,)
    """test shapes of each to draw"""
    points: int = 2_048
    """points of a shape"""
    output: Path = Path("runs/figures")
    """folder of the pictures"""


class Drawn(NamedTuple):
    """What a model finds in test shapes, as its `--predict` shows it; the probabilities of its classes; their names."""

    shapes: list[ShapeResult]
    probabilities: list[Tensor]
    classes: list[str]


def read(model: partnet.Model, split: str, options: Options, fabric: Fabric) -> Dataset[Data]:
    settings = model.options(points=options.points)
    return partnet.read_split(partnet_folder(settings.category, settings.generated_shapes, fabric), settings, split)


def results(model: partnet.Model, options: Options, fabric: Fabric) -> Drawn:
    test, shapes, scores = read(model, "test", options, fabric), [], []
    for i in options.shapes:
        data = test[i]
        embedding, probabilities = model.predict(data, fabric)
        found = model.shown(model.cluster(embedding, probabilities)).to("cpu")
        found = replace(found, semantic=found.semantic - model.first_class)
        embedding = embedding.to("cpu")
        classes = evaluation_targets(data).gt_classes
        shapes.append(
            ShapeResult(data.anno_id, data.pos, data.instance, found, embedding.log_std, embedding.mean, None, classes)
        )
        scores.append(probabilities[:, model.first_class :].cpu())
    return Drawn(shapes, scores, [name.rsplit("/", 1)[-1] for name in model.classes])


def picked_clusterer(model: partnet.Model, options: Options, fabric: Fabric) -> Clusterer:
    """HDBSCAN on the positions, its parameters picked on validation."""
    val = [shape for shape, _ in zip(read(model, "val", options, fabric), range(10), strict=False)]
    targets = [evaluation_targets(shape) for shape in val]
    nameless = [target._replace(gt_classes=torch.zeros_like(target.gt_classes)) for target in targets]

    def mean_ap(found: Sequence[Clusters], targets: Sequence[EvaluationTargets]) -> float:
        return float(partnet.score(found, targets, 1, 0, fabric).part_map()[1])

    return fit_baseline(BASELINES["HDBSCAN"], [s.pos for s in val], nameless, mean_ap).clusterer


def clustered(shape: ShapeResult, clusterer: Clusterer) -> ShapeResult:
    """The same shape as a clustering of the positions sees it, which knows no classes."""
    clusters = clusterer(shape.pos)
    rows = clusters.semantic.new_zeros(len(clusters.semantic))
    found = replace(shape.found, label=clusters.label, semantic=rows, score=clusters.score, seed=rows, batch=rows)
    assert shape.truth_classes is not None
    return shape._replace(found=found, truth_classes=torch.zeros_like(shape.truth_classes))


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    fabric = start_fabric(accelerator="auto", devices=1, precision="32-true", log_dir=None)
    drawn, by_positions = [], []
    for path in tqdm(options.checkpoints, unit="model"):
        model = partnet.Model.load(path)
        drawn.append(results(model, options, fabric))
        clusterer = picked_clusterer(model, options, fabric)
        by_positions += [clustered(shape, clusterer) for shape in drawn[-1].shapes]
    first = drawn[0]
    methods = {
        "probabilistic embeddings": [shape for of_model in drawn for shape in of_model.shapes],
        "HDBSCAN on positions": by_positions,
    }
    pictures: dict[str, Figure] = {
        "similarity": figures.similarity_contours(),
        "uncertainty": figures.uncertainty(first.shapes[0]),
        "morph": figures.input_to_embedding({of_model.shapes[0].name: of_model.shapes[0] for of_model in drawn[:2]}),
        "score_maps": figures.score_maps(first.shapes[0], first.probabilities[0], first.classes),
        "detections": figures.detections(methods),
    }
    for name, figure in pictures.items():
        path = options.output / f"{name}.png"
        with replaced_file(path) as temporary:
            figure.savefig(temporary, dpi=90, format="png")
        print(path)


if __name__ == "__main__":
    main()
