"""The user's own scans, segmented by a trained model, large ones in tiles."""

from __future__ import annotations

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch_geometric.data import Data
from tqdm import tqdm

from probemb_adapters.clouds import Array, Cloud, far_offset, write_instances
from probemb_adapters.experiments.run import clouds_to_predict, own_points, tiles_bar
from probemb_adapters.experiments.scannet.evaluation import scene_result
from probemb_adapters.experiments.scannet.model import MIN_POINTS, MIN_SCORE, Model
from probemb_adapters.experiments.scannet.options import Options
from probemb_adapters.files import print_any_name
from probemb_adapters.report import Section, write_report
from probemb_adapters.report.pictures import instance_colors, z_up
from probemb_lib import GaussianEmbedding, Instances, cluster_tiles

_AXES = (0, 1)  # horizontal


def predict_cloud(model: Model, data: Data, options: Options, fabric: Fabric) -> tuple[Instances, GaussianEmbedding]:
    """At once, or in tiles where the scene is larger than one; on the CPU."""
    extent = (data.pos.amax(0) - data.pos.amin(0))[:2].max()
    if extent <= options.tile_size + 2 * options.tile_overlap or model.method != "probabilistic":
        embedding, probabilities = model.predict(data, fabric)
        found = model.shown(model.cluster((embedding, probabilities)))
        return found.to("cpu"), embedding.to("cpu")
    seen = GaussianEmbedding(torch.zeros_like(data.pos), torch.zeros_like(data.pos))

    def predict(rows: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        embedding, probabilities = model.predict(Data(pos=data.pos[rows], x=data.x[rows]), fabric)
        core = own_points(data.pos[rows], options.tile_size, _AXES)
        for whole, part in zip(seen, embedding, strict=True):
            whole[rows[core]] = part.to(whole)[core]
        return embedding, probabilities

    with tiles_bar() as progress:
        found = cluster_tiles(
            data.pos,
            predict,
            tile_size=options.tile_size,
            overlap=options.tile_overlap,
            axes=_AXES,
            threshold=model.setting,
            min_score=MIN_SCORE,
            min_points=MIN_POINTS,
            refine=bool(model.settings.refine),
            join=model.settings.join,
            progress=progress,
        )
    return found, seen


def run_prediction(options: Options, fabric: Fabric) -> str:
    """Segment the user's own scans; results lie in the output folder under the names of the files.

    Returns what to print: where they are.
    """
    print_any_name()
    model = Model.load(options.evaluate[0]).on_engine(options.engine)
    clouds = clouds_to_predict(options.predict)
    shown = []
    for cloud in tqdm(clouds, desc="predicting", unit="cloud"):
        offset = far_offset(cloud.pos)
        data = cloud_data(cloud, options, offset)
        found, embedding = predict_cloud(model, data, options, fabric)
        colors = (255 * instance_colors(len(found))).astype("uint8")
        own = in_file_frame(embedding, options.up, offset)
        write_instances(
            options.output / cloud.name, cloud, found, own, colors, uncertainty=found.uncertainty(embedding)
        )
        shown.append(scene_result(data, found, embedding))
        classes = [model.classes[int(c) - 1] for c in found.semantic]
        counts = ", ".join(f"{classes.count(name)} {name}" for name in dict.fromkeys(classes))
        tqdm.write(f"{cloud.name}: {len(found)} objects: {counts or 'none'}")
    part = Section(
        "Predicted scans", shapes=shown, classes=("background", *model.classes), noun="object", item="scan", unit="m"
    )
    page = write_report(options.output / "report.html", "Objects found in your scans", [part])
    return f"\nresults  {options.output}/*.npz, *.ply and in the format of each file\nreport   {page}"


def cloud_data(cloud: Cloud, options: Options, offset: Array) -> Data:
    """A scan as the network takes it, ``offset`` (3,) subtracted before the cast; without colours it is grey."""
    pos = torch.from_numpy(z_up(cloud.pos - offset, options.up).astype(np.float32))
    x = torch.zeros_like(pos) if cloud.rgb is None else torch.from_numpy(cloud.rgb) / 127.5 - 1
    data = Data(pos=pos, x=x, scene_id=cloud.name)
    data.rgb = None if cloud.rgb is None else torch.from_numpy(cloud.rgb)
    return data


def in_file_frame(embedding: GaussianEmbedding, up: str, offset: Array) -> GaussianEmbedding:
    """Embeddings for positions that `z_up` has turned, in the frame of the file; float64 where it has an offset."""
    mean, log_std = embedding
    if up == "y":
        axes = [0, 2, 1]
        mean, log_std = mean[:, axes] * mean.new_tensor([1, 1, -1]), log_std[:, axes]
    return GaussianEmbedding(mean.double() + torch.from_numpy(offset) if offset.any() else mean, log_std)
