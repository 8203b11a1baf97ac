"""Problems for the fused sums, with the sums and gradients that are expected of them."""

from __future__ import annotations

import numpy as np
import oracles
import torch
from oracles import Problem
from torch import Tensor

from probemb_lib import GaussianEmbedding, InstanceIndex, index_instances


def case(p: Problem, dtype: torch.dtype = torch.float64) -> tuple[GaussianEmbedding, GaussianEmbedding, InstanceIndex]:
    """Points, centres near the instances but not their exact aggregate, and the index."""
    index = index_instances(torch.tensor(p.instance), None if p.batch is None else torch.tensor(p.batch))
    rng = np.random.default_rng(7)
    found = oracles.instances(p.instance, p.batch)
    mean = np.array([p.mean[k.rows].mean(0) for k in found]).reshape(len(found), p.mean.shape[1])
    mean = mean + 0.1 * rng.normal(size=mean.shape)
    log_std = rng.normal(-0.5, 0.3, mean.shape if p.log_std.shape[1] > 1 else (len(found), 1))
    points, centers = (
        GaussianEmbedding(torch.tensor(m, dtype=dtype), torch.tensor(s, dtype=dtype))
        for m, s in ((p.mean, p.log_std), (mean, log_std))
    )
    return points, centers, index


def leaves(*embeddings: GaussianEmbedding) -> list[GaussianEmbedding]:
    return [GaussianEmbedding(*(t.detach().clone().requires_grad_() for t in e)) for e in embeddings]


def std(e: GaussianEmbedding) -> np.ndarray:
    return e.log_std.expand_as(e.mean).detach().double().exp().numpy()


def expected_sums(
    p: Problem, points: GaussianEmbedding, centers: GaussianEmbedding, index: InstanceIndex, per_instance: bool
) -> list[Tensor]:
    arrays = (points.mean.detach().double().numpy(), std(points), centers.mean.detach().double().numpy(), std(centers))
    sums = [torch.tensor(s) for s in oracles.similarity_sums(*arrays, p.instance, p.batch)]
    return sums if per_instance else [per_cloud(s, index) for s in sums]


def per_cloud(x: Tensor, index: InstanceIndex) -> Tensor:
    return x.new_zeros(index.num_clouds).index_add(0, index.batch, x)


def weights(*sums: Tensor) -> list[Tensor]:
    g = torch.Generator().manual_seed(3)
    return [torch.randn(s.shape, generator=g, dtype=torch.float64).to(s.dtype) for s in sums]


def expected_gradients(
    p: Problem,
    points: GaussianEmbedding,
    centers: GaussianEmbedding,
    index: InstanceIndex,
    per_instance: bool,
    outside: bool,
) -> list[Tensor]:
    inputs = leaves(points.to(dtype=torch.float64), centers.to(dtype=torch.float64))
    x, c = (GaussianEmbedding(e.mean, e.log_std.expand_as(e.mean)) for e in inputs)
    sums = list(oracles.broadcast_sums(*x, *c, p.instance, p.batch))[: 1 + outside]
    if not per_instance:
        sums = [per_cloud(s, index) for s in sums]
    value = sum((s * w).sum() for s, w in zip(sums, weights(*sums), strict=True))
    return list(torch.autograd.grad(value, [t for e in inputs for t in e]))
