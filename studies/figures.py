"""The figures of docs/gallery.md from the checkpoints that come with the project, on furniture that they have not seen.

python studies/figures.py                                              into runs/figures
python studies/figures.py --shapes 3 8 --checkpoint MODEL              other shapes, another model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

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
from probemb_lib import greedy_cluster
from probemb_shapes.demo_data import PROJECT, partnet_folder

CHECKPOINTS = PROJECT / "checkpoints"


@dataclass
class Options:
    """What to draw, and where to."""

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="PATH")] = CHECKPOINTS / "furniture.safetensors"
    """class-agnostic model of examples/partnet_pointnet2.py"""
    deterministic: Annotated[Path, tyro.conf.arg(metavar="PATH")] = CHECKPOINTS / "furniture-deterministic.safetensors"
    """the model that it is compared with"""
    shapes: tuple[int, ...] = (4, 0, 9)
    """test shapes to draw"""
    points: int = 10_000
    """points of a shape"""
    output: Path = Path("runs/figures")
    """folder of the pictures"""


def read(split: str, options: Options, fabric: Fabric) -> Dataset[Data]:
    settings = partnet.resolve(partnet.Options(category="Furniture", points=options.points))
    return partnet.read_split(partnet_folder(settings.category, settings.generated_shapes, fabric), settings, split)


def results(path: Path, options: Options, fabric: Fabric) -> tuple[list[ShapeResult], list[Tensor]]:
    """What a model finds in the test shapes, and its probabilities."""
    model, test = partnet.Model.load(path), read("test", options, fabric)
    shapes, scores = [], []
    for i in tqdm(options.shapes, desc=path.stem, unit="shape"):
        data = test[i]
        embedding, probabilities = model.predict(data, fabric)
        found = greedy_cluster(embedding, probabilities, threshold=model.threshold, background=None).to("cpu")
        embedding = embedding.to("cpu")
        classes = evaluation_targets(data).gt_classes
        shapes.append(
            ShapeResult(data.anno_id, data.pos, data.instance, found, embedding.log_std, embedding.mean, None, classes)
        )
        scores.append(probabilities.cpu())
    return shapes, scores


def picked_clusterer(options: Options, fabric: Fabric) -> Clusterer:
    """HDBSCAN on the positions, its parameters picked on validation."""
    val = [shape for shape, _ in zip(read("val", options, fabric), range(10), strict=False)]
    targets = [evaluation_targets(shape) for shape in val]

    def mean_ap(found: Sequence[Clusters], targets: Sequence[EvaluationTargets]) -> float:
        return float(partnet.score(found, targets, 1, 0, fabric).part_map()[1])

    bar = partial(tqdm, desc="HDBSCAN, validation", unit="setting")
    return fit_baseline(BASELINES["HDBSCAN"], [s.pos for s in val], targets, mean_ap, progress=bar).clusterer


def clustered(shape: ShapeResult, clusterer: Clusterer) -> ShapeResult:
    """The same shape as a clustering of the positions sees it."""
    clusters = clusterer(shape.pos)
    rows = clusters.semantic.new_zeros(len(clusters.semantic))
    found = replace(shape.found, label=clusters.label, semantic=rows, score=clusters.score, seed=rows, batch=rows)
    return shape._replace(found=found)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    fabric = start_fabric(accelerator="auto", devices=1, precision="32-true", log_dir=None)
    shapes, scores = results(options.checkpoint, options, fabric)
    deterministic, _ = results(options.deterministic, options, fabric)
    clusterer = picked_clusterer(options, fabric)
    methods = {
        "probabilistic": shapes,
        "deterministic": deterministic,
        "HDBSCAN on positions": [clustered(shape, clusterer) for shape in shapes],
    }
    drawn: dict[str, Figure] = {
        "similarity": figures.similarity_contours(),
        "uncertainty": figures.uncertainty(shapes[0]),
        "morph": figures.input_to_embedding({"probabilistic": shapes[0], "deterministic": deterministic[0]}),
        "score_maps": figures.score_maps(shapes[0], scores[0], ["part"]),
        "detections": figures.detections(methods),
    }
    for name, figure in drawn.items():
        path = options.output / f"{name}.png"
        with replaced_file(path) as temporary:
            figure.savefig(temporary, dpi=90, format="png")
        print(path)


if __name__ == "__main__":
    main()
