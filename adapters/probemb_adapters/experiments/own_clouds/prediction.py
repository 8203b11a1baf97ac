"""Anybody's clouds, segmented by a model of a file: nothing is to be said but where they are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from probemb_adapters.clouds import write_instances
from probemb_adapters.clouds.split import fingerprint
from probemb_adapters.experiments.own_clouds.evaluation import UNIT
from probemb_adapters.experiments.own_clouds.model import Model
from probemb_adapters.experiments.own_clouds.tiles import LARGE, predict_tiles
from probemb_adapters.experiments.own_clouds.units import times_as_large, unit_doubt
from probemb_adapters.experiments.run import at_all_points, clouds_to_predict, draw_order
from probemb_adapters.report import Section, write_report
from probemb_adapters.report.pictures import ShapeResult, instance_colors
from probemb_lib import GaussianEmbedding, Instances


def run_prediction(model: Model, files: Sequence[Path], output: Path, fabric: Fabric, *, shown: int = 30) -> str:
    """Segment the clouds of files and folders; results lie in ``output`` under the names of the files.

    The network sees as many points of a cloud as in training; the others take what their nearest neighbour has. Clouds
    much larger than those of the training are cut into tiles. Warns of clouds that seem to be in another unit.

    Returns:
        What to print: where they are.
    """
    clouds = clouds_to_predict(files)
    shapes, doubts = [], []
    every = max(1, -(-len(clouds) // shown))
    for i, cloud in enumerate(tqdm(clouds, desc="predicting", unit="cloud")):
        pos = model.frame.positions(cloud.pos)
        times = times_as_large(cloud, model.frame)
        if times > LARGE:
            tqdm.write(f"{cloud.name}: {times:.1f} times as large as the clouds of the training, so in tiles")
            embedding, found = predict_tiles(model, pos, fabric, fingerprint(cloud))
        else:
            embedding, found = _predict_whole(model, pos, fabric, fingerprint(cloud))
        colors = (255 * instance_colors(len(found))).astype(np.uint8)
        own = model.frame.to_file(embedding, cloud.pos)
        named = replace(found, semantic=model.class_numbers(found))
        write_instances(output / cloud.name, cloud, named, own, colors, model.class_names, found.uncertainty(embedding))
        rgb = None if cloud.rgb is None else torch.from_numpy(cloud.rgb)
        if i % every == 0:
            pos, (mean, log_std) = model.frame.lengths_of_file(pos, embedding)
            shapes.append(ShapeResult(cloud.name, pos, None, found, log_std, mean, rgb))
        tqdm.write(f"{cloud.name}: {_counts(model, found.semantic)}")
        none = float((found.label < 0).float().mean())
        doubts.append(unit_doubt(cloud, model.frame, model.settings.measured, none))
    for doubt in filter(None, doubts):  # after the bar, where they are seen
        warnings.warn(doubt, stacklevel=2)
    part = Section("Predicted clouds", shapes=shapes, classes=model.columns, item="cloud", unit=UNIT)
    page = write_report(output / "report.html", "Instances found in your clouds", [part])
    return f"\nresults  {output}/*.npz, *.ply and in the format of each file\nreport   {page}"


def _predict_whole(model: Model, pos: Tensor, fabric: Fabric, seed: int) -> tuple[GaussianEmbedding, Instances]:
    order = draw_order(len(pos), model.points, seed)
    embedding, probabilities = model.predict(pos[order], fabric)
    found = model.shown(model.cluster(embedding, probabilities)).to("cpu")
    return at_all_points(pos.numpy(), order, embedding.to("cpu"), found)


def _counts(model: Model, semantic: Tensor) -> str:
    """Such as `7 instances: 6 of class 2, 1 of class 1`."""
    counts = semantic.bincount(minlength=len(model.columns)).tolist()
    each = [f"{n} of {name}" for n, name in sorted(zip(counts, model.columns, strict=True), reverse=True) if n]
    return f"{len(semantic)} instances" + (f": {', '.join(each)}" if len(model.classes) > 1 and each else "")
