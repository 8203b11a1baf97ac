"""Clouds much larger than those of the training: in overlapping tiles of about the training's size."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor

from probemb_adapters.clouds import nearest
from probemb_adapters.experiments.own_clouds.data import Frame
from probemb_adapters.experiments.own_clouds.model import Model
from probemb_adapters.experiments.run import draw_order, own_points, tiles_bar
from probemb_lib import GaussianEmbedding, Instances, cluster_tiles, join_instances, refine_instances

LARGE = 1.5
"""Times the radius of the largest training cloud: from there on a cloud is cut."""

_CELL, _OVERLAP = 0.8, 0.4  # a tile's corners are then little more than one from its middle
_TALL = 3  # clouds that are higher are cut by height as well


def predict_tiles(model: Model, pos: Tensor, fabric: Fabric, seed: int) -> tuple[GaussianEmbedding, Instances]:
    """Instances of a cloud in the model's frame (N, 3), y up, with the embedding of each point.

    The network sees as many points of a tile as of a cloud in training, each tile centred as clouds are; the others
    take what their nearest neighbour has. What several tiles found is one where its Gaussians are alike
    (:func:`~probemb_lib.cluster_tiles`); refinement comes after that, over the whole cloud.
    """
    mean, log_std = torch.zeros_like(pos), torch.zeros_like(pos)
    score = pos.new_zeros(len(pos), len(model.columns))
    thinned = []

    def predict(rows: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        tile = pos[rows]
        local = Frame("y", 1.0).positions(tile.double().numpy())
        order = draw_order(len(rows), model.points, seed)
        thinned.append(len(rows) / len(order))
        embedding, probabilities = model.predict(local[order], fabric)
        row = torch.from_numpy(nearest(local.numpy(), local[order].numpy()))
        own = embedding.to("cpu").select(row)
        own, p = own._replace(mean=own.mean + (tile - local)[:1]), probabilities.cpu()[row]
        core = own_points(tile, _CELL, axes)
        mean[rows[core]], log_std[rows[core]], score[rows[core]] = own.mean[core], own.log_std[core], p[core]
        return own, p

    tall = float(pos[:, 1].max() - pos[:, 1].min()) > _TALL
    axes = (0, 1, 2) if tall else (0, 2)
    with tiles_bar() as progress:
        found = cluster_tiles(
            pos,
            predict,
            tile_size=_CELL,
            overlap=_OVERLAP,
            axes=axes,
            threshold=model.threshold,
            background=model.background,
            progress=progress,
        )
    embedding = GaussianEmbedding(mean, log_std)
    if model.settings.refine:
        found = refine_instances(embedding, score, found, background=model.background)
    if model.settings.join is not None:
        found = join_instances(found, model.settings.join)
    smallest = model.settings.min_points * sorted(thinned)[len(thinned) // 2]  # among all points of a tile
    return embedding, found.keep(found.size >= smallest)
