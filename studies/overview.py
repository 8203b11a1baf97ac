"""One picture of what the library does: input, instances found, and how unsure each point is of its own.

Nuclei by their checkpoint, on test images, chairs by theirs, on generated test shapes, and rooms by theirs, on
generated ones for validation. Of each kind the typical one is drawn: of the first 31, or the 20 rooms, the one with the
median share of objects found.

    python studies/overview.py --output docs/images/overview.webp --moving docs/images/gathering.webp

The second file moves: the points of the chair gather into their embeddings.
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from probemb_adapters.experiments import partnet, scannet
from probemb_adapters.experiments.images.model import Model as ImageModel
from probemb_adapters.files import replaced_file
from probemb_adapters.images.nuclei import read_nuclei, read_sides
from probemb_adapters.report.motion import gathering
from probemb_adapters.report.overlays import overlay
from probemb_adapters.report.pictures import (
    GREY,
    ShapeResult,
    draw_cloud,
    instance_colors,
    match_instances,
    unit_range,
    z_up,
)
from probemb_adapters.report.tally import typical
from probemb_adapters.training import start_fabric
from probemb_lib import GaussianEmbedding, Instances
from probemb_shapes.demo_data import PROJECT, partnet_folder, scannet_folder

COUNT = 31
MIN_POINTS = 10  # of a part that the moving picture colours
COLUMNS = ("input", "found", "uncertainty")
CHECKPOINTS = PROJECT / "checkpoints"
NUCLEI = PROJECT / "data" / "nuclei" / "nuclei.npz"


@dataclass
class Options:
    """Where to draw."""

    output: Path = Path("runs/overview.png")
    """the picture"""
    moving: Path = Path("runs/gathering.webp")
    """the one that moves"""


class Result(NamedTuple):
    """What was found in a cloud (N, 3) or in the pixels of an image (H, W), and the share of true objects found.

    ``rgb`` (N, 3), 0 … 255, is of a room, which has z up.
    """

    input: Any
    embedding: GaussianEmbedding
    found: Instances
    uncertainty: Tensor
    share: float
    rgb: Tensor | None = None


def share_found(truth: Tensor, found: Instances) -> float:
    matched = match_instances(truth, found.label)
    return int((matched >= 0).sum()) / max(1, len(truth[truth >= 0].unique()))


def of_shapes(checkpoint: Path) -> list[Result]:
    """The first test shapes of the checkpoint's own category."""
    model, results = partnet.Model.load(checkpoint), []
    model = replace(model, settings=replace(model.settings, refine=True))
    fabric = start_fabric(accelerator="cpu", devices=1, precision="32-true", log_dir=None)
    settings = model.options(points=2_048)
    test = partnet.read_split(partnet_folder(settings.category, settings.generated_shapes, fabric), settings, "test")
    for i in tqdm(range(COUNT), desc=checkpoint.stem, unit="shape"):
        data = test[i]
        embedding, probabilities = model.predict(data, fabric)
        found = model.cluster(embedding, probabilities)
        results.append(
            Result(data.pos, embedding, found, found.uncertainty(embedding), share_found(data.instance, found))
        )
    return results


@torch.no_grad()
def of_rooms(checkpoint: Path) -> list[Result]:
    """The validation rooms of the example."""
    model, results = scannet.Model.load(checkpoint), []
    fabric = start_fabric(accelerator="cpu", devices=1, precision="32-true", log_dir=None)
    options = scannet.resolve(scannet.Options(submission=False))
    scenes = scannet.evaluation_scenes(scannet_folder(options.rooms, fabric), options)
    for i in tqdm(range(len(scenes)), desc=checkpoint.stem, unit="room"):  # type: ignore[arg-type]
        scene = model.labelled(scenes[i])
        embedding, probabilities = model.predict(scene, fabric)
        found = model.cluster((embedding, probabilities))
        share = share_found(scene.instance, found)
        results.append(Result(scene.pos, embedding, found, found.uncertainty(embedding), share, scene.rgb))
    return results


def of_images(checkpoint: Path) -> list[Result]:
    """The first test images."""
    model, results = ImageModel.load(checkpoint), []
    for image in tqdm(read_sides(read_nuclei(NUCLEI), NUCLEI)["test"][:COUNT], desc=checkpoint.stem, unit="image"):
        embedding, probabilities = model.predict(image.image)
        found = model.cluster(embedding, probabilities)
        truth = torch.from_numpy(image.label.astype(np.int64).ravel()) - 1
        results.append(Result(image.image, embedding, found, found.uncertainty(embedding), share_found(truth, found)))
    return results


def typical_of(results: Sequence[Result]) -> Result:
    """The one with the median share of objects found."""
    return results[typical([result.share for result in results])]


def draw_shape(figure: Figure, row: int, rows: int, result: Result) -> None:
    colors = np.vstack([instance_colors(len(result.found)), GREY])
    label = result.found.label.numpy()
    unsure = matplotlib.colormaps["viridis"](unit_range(result.uncertainty.numpy()))[:, :3]
    unsure[label < 0] = GREY[:3]
    points, shown = z_up(result.input.numpy(), "y"), [np.tile(GREY, (len(label), 1)), colors[label], unsure]
    if result.rgb is not None:
        points, shown[0] = result.input.numpy(), result.rgb.numpy() / 255
    seen = slice(None) if result.rgb is None else opened(points)
    for column, color in enumerate(shown):
        axis = figure.add_subplot(rows, len(shown), len(shown) * row + column + 1, projection="3d")
        draw_cloud(axis, points[seen], color[seen], size=4 if result.rgb is None else 0.6, zoom=1.3)
        if result.rgb is not None:
            axis.view_init(elev=40, azim=-60)
        head(axis, row, column)


def opened(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Without the ceiling, and without the walls that are between the eye and the room, in metres."""
    low, high = points.min(0), points.max(0)
    wall = 0.2
    return np.asarray((points[:, 2] < low[2] + 2) & (points[:, 0] < high[0] - wall) & (points[:, 1] > low[1] + wall))


def draw_image(figure: Figure, row: int, rows: int, result: Result) -> None:
    image, label = result.input, result.found.label.numpy().reshape(result.input.shape) + 1
    nothing = np.zeros_like(label)
    inside = label > 0
    unsure = np.ma.masked_all(label.shape)
    unsure[inside] = unit_range(result.uncertainty.numpy().reshape(label.shape)[inside])
    for column in range(len(COLUMNS)):
        axis = figure.add_subplot(rows, len(COLUMNS), len(COLUMNS) * row + column + 1)
        if column == 1:
            axis.imshow(overlay(image, label, instance_colors(len(result.found))))
        else:
            axis.imshow(overlay(image, nothing, np.zeros((0, 3))))
        if column == 2:
            axis.imshow(unsure, cmap="viridis", vmin=0, vmax=1)
        axis.set_axis_off()
        head(axis, row, column)


def head(axis: Any, row: int, column: int) -> None:
    if row == 0:
        axis.set_title(COLUMNS[column], fontsize=11)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    shapes = [
        typical_of(of_shapes(CHECKPOINTS / "chair.safetensors")),
        typical_of(of_rooms(CHECKPOINTS / "rooms.safetensors")),
    ]
    image = typical_of(of_images(CHECKPOINTS / "nuclei.safetensors"))
    figure, rows = Figure(figsize=(7.5, 7.5)), len(shapes) + 1
    draw_image(figure, 0, rows, image)
    for row, shape in enumerate(shapes, start=1):
        draw_shape(figure, row, rows, shape)
    figure.subplots_adjust(0, 0, 1, 0.96, wspace=0.02, hspace=0.02)
    with replaced_file(options.output) as temporary:
        figure.savefig(temporary, dpi=120, format=options.output.suffix[1:], pil_kwargs={"quality": 90, "method": 6})
    chair = shapes[0]
    found = chair.found.keep(chair.found.size >= MIN_POINTS)
    moving = ShapeResult("chair", chair.input, None, found, chair.embedding.log_std, chair.embedding.mean)
    print(f"moving   {gathering(moving, options.moving)}")
    print(f"picture  {options.output}; objects found: {', '.join(f'{r.share:.0%}' for r in (image, *shapes))}")


if __name__ == "__main__":
    main()
