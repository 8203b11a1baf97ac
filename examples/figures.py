"""The figures of docs/gallery.md from the checkpoint that comes with the project, on furniture that it has not seen.

python examples/figures.py                                              into runs/figures
python examples/figures.py --shapes 3 8 --deterministic MODEL           other shapes, Fig. 6 with a second row
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import partnet_pointnet2 as partnet
import tyro
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from probemb_adapters import figures
from probemb_adapters.baselines import HDBSCAN
from probemb_adapters.files import replaced_file
from probemb_adapters.partnet import evaluation_targets
from probemb_adapters.training import start_fabric
from probemb_adapters.viz import ShapeResult
from probemb_lib import greedy_cluster


@dataclass
class Options:
    """What to draw, and where to."""

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="PATH")] = partnet.PROJECT / "checkpoints/furniture.safetensors"
    """class-agnostic model of examples/partnet_pointnet2.py"""
    deterministic: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """a second model, for the comparison of embeddings"""
    shapes: tuple[int, ...] = (0, 4, 9)
    """test shapes to draw"""
    points: int = 10_000
    """points of a shape"""
    output: Path = Path("runs/figures")
    """folder of the pictures"""


def results(path: Path, options: Options) -> tuple[list[ShapeResult], list[Tensor]]:
    """What a model finds in the test shapes, and its probabilities."""
    model = partnet.Model.load(path)
    fabric = start_fabric(accelerator="auto", devices=1, precision="32-true", log_dir=None)
    settings = partnet.resolve(partnet.Options(category="Furniture", class_agnostic=True, points=options.points))
    test = partnet.read_split(partnet.prepare_data(settings, fabric), settings, "test")
    shapes, scores = [], []
    for i in tqdm(options.shapes, desc=path.stem, unit="shape"):
        data = test[i]
        embedding, probabilities = model.predict(data, fabric)
        found = greedy_cluster(embedding, probabilities, threshold=model.about["threshold"], background=None)
        classes = evaluation_targets(data).gt_classes
        shapes.append(
            ShapeResult(data.anno_id, data.pos, data.instance, found, embedding.log_std, embedding.mean, None, classes)
        )
        scores.append(probabilities)
    return shapes, scores


def clustered(shape: ShapeResult) -> ShapeResult:
    """The same shape as HDBSCAN on the positions sees it."""
    clusters = HDBSCAN(100, 5)(shape.pos)
    rows = clusters.semantic.new_zeros(len(clusters.semantic))
    found = replace(shape.found, label=clusters.label, semantic=rows, score=clusters.score, seed=rows, batch=rows)
    return shape._replace(found=found)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    shapes, scores = results(options.checkpoint, options)
    morphs, methods = {"probabilistic": shapes[0]}, {"probabilistic": shapes}
    if options.deterministic is not None:
        methods["deterministic"], _ = results(options.deterministic, options)
        morphs["deterministic"] = methods["deterministic"][0]
    methods["HDBSCAN on positions"] = [clustered(shape) for shape in shapes]
    drawn: dict[str, Figure] = {
        "similarity": figures.similarity_contours(),
        "uncertainty": figures.uncertainty(shapes[0]),
        "morph": figures.input_to_embedding(morphs),
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
