"""Greedy clustering of Gaussian embeddings into instances (section 3.4, Eq. 11 of the paper)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probemb_lib.clustering._index import greedy_indexed
from probemb_lib.clustering._rounds import greedy_rounds
from probemb_lib.clustering.inputs import best_foreground, check_clustering, check_join, check_limits, check_threshold
from probemb_lib.clustering.join import join_instances
from probemb_lib.clustering.refine import refine_instances
from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding, plain_tensor
from probemb_lib.instances import Instances


@torch.no_grad()
def greedy_cluster(
    embedding: GaussianEmbedding,
    probabilities: Tensor,
    *,
    batch: Tensor | None = None,
    threshold: float = 0.35,
    min_score: float = 0.0,
    min_points: int = 1,
    background: int | None = 0,
    class_aware: bool = False,
    refine: bool = False,
    join: float | None = None,
) -> Instances:
    """Group points into instances (Eq. 11).

    Seed is the unassigned point with the highest foreground probability; its members are all unassigned points with
    κ(e_i, e_seed) ≥ τ against the seed's own Gaussian; the instance takes the seed's class; and again, until no point
    is left. Ties: lowest point, then lowest class. κ ≥ τ is decided in float64 as

        ln κ = Σ_d ½ ln(2 σ_i σ_s / (σ_i² + σ_s²)) − Δ² / (4 (σ_i² + σ_s²))  ≥  ln τ − 1e-13 D (1 − ln τ),

    where the last term is above all rounding errors: points with κ = τ are members, and the labels are the same on
    every device and whichever way they are found.

    Args:
        embedding: N Gaussians.
        probabilities: (N, L) score maps in [0, 1]; rows need not sum to one.
        batch: (N,) cloud of each point, in any order; None is one cloud. Points of two clouds never join.
        threshold: τ in (0, 1], fitted on validation data (:func:`~probemb_lib.fit_threshold`); 0.35 in the paper.
        min_score: stop at seeds below this probability; the points that are left have label −1.
        min_points: drop instances with fewer points; these have label −1 and join no other.
        background: column of the background. Points that are likeliest background are not clustered. None: there is
            no such column, and every point is clustered.
        class_aware: only points whose own best foreground class is the seed's join it.
        refine: afterwards let the members decide on groups, classes and scores: :func:`refine_instances`.
        join: then make one of instances whose Gaussians have at least this κ: :func:`join_instances`; None: of none.

    Returns:
        Instances, on the device of the input.

    Raises:
        TypeError, ValueError: shapes, dtypes, devices, options out of range; probabilities outside [0, 1], such as
            logits; NaN or infinity in the input, or numbers that lead there: |ln σ| > 300, |μ| > 1e150, τ < 1e-50.

    >>> x = GaussianEmbedding(torch.tensor([[0.0], [0.1], [9.0]]), torch.zeros(3, 1))
    >>> found = greedy_cluster(x, torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]))
    >>> found.label, found.score
    (tensor([0, 0, 1]), tensor([0.9000, 0.7000]))
    """
    x = check_embedding(embedding)
    check_threshold(threshold)
    check_limits(min_score, min_points)
    check_join(join, refine)
    probabilities, batch = check_clustering(x, probabilities, background, batch)
    probabilities = at_least_float32(probabilities)
    score, semantic = best_foreground(probabilities, background)
    rows = None if background is None else _foreground(probabilities, background, score, semantic)
    cloud = None if batch is None else batch.long()

    def own(t: Tensor) -> Tensor:
        return t if rows is None else t.index_select(0, rows)

    eligible = GaussianEmbedding(own(x.mean), own(x.log_std))
    cluster = greedy_rounds if score.is_cuda else _cluster_clouds
    found, seed = cluster(
        eligible.mean,
        eligible.log_std.expand(-1, x.dim),
        own(score),
        None if cloud is None else own(cloud),
        own(semantic) if class_aware else None,
        threshold,
        min_score,
    )
    label = found
    if rows is not None:
        label = torch.full_like(semantic, -1).index_copy(0, rows, found)
        seed = rows[seed]
    point_batch = torch.zeros_like(semantic) if cloud is None else cloud
    instances = Instances(
        label=label,
        semantic=semantic[seed],
        score=score[seed],
        seed=seed,
        batch=point_batch[seed],
        embedding=GaussianEmbedding(*(plain_tensor(t, "embedding")[seed].detach() for t in embedding)),
        point_batch=point_batch,
    )
    if refine:
        instances = refine_instances(embedding, probabilities, instances, background=background)
    if join is not None:
        instances = join_instances(instances, join, class_aware=class_aware)
    return instances.keep(instances.size >= min_points) if min_points > 1 else instances


def _foreground(probabilities: Tensor, background: int, score: Tensor, semantic: Tensor) -> Tensor:
    """Rows that are not likeliest background; argmax ties go to the lowest column."""
    of_background = probabilities[:, background]
    return ((score > of_background) | ((score == of_background) & (semantic < background))).nonzero().squeeze(1)


def _cluster_clouds(
    mean: Tensor,
    log_std: Tensor,
    score: Tensor,
    cloud: Tensor | None,
    group: Tensor | None,
    tau: float,
    min_score: float,
) -> tuple[Tensor, Tensor]:
    """One cloud after the other, with a spatial index; arguments and results as of :func:`greedy_rounds`."""
    device = score.device
    tensors = [t for t in (mean, log_std, score, group) if t is not None]
    if cloud is None:
        ends = [len(score)]
    else:
        order = cloud.argsort(stable=True)
        ends = torch.unique_consecutive(cloud[order], return_counts=True)[1].cumsum(0).tolist()
        tensors = [t.index_select(0, order) for t in tensors]
    columns = [t.detach().cpu().numpy().T for t in tensors]

    none = np.zeros(0, dtype=np.int64)
    labels, seeds = [none], [none]
    first = count = 0
    for end in ends:
        x, log_sigma, s, *groups = (t[..., first:end] for t in columns)
        found, found_seeds = greedy_indexed(x, log_sigma, s, groups[0] if groups else None, tau, min_score)
        labels.append(np.where(found >= 0, found + count, -1) if count else found)
        seeds.append(found_seeds + first)
        first, count = end, count + found_seeds.size
    label, seed = (torch.from_numpy(np.concatenate(parts)).to(device) for parts in (labels, seeds))
    return (label, seed) if cloud is None else (torch.empty_like(label).index_copy(0, order, label), order[seed])


def _cluster_cloud(
    x: GaussianEmbedding, rows: Tensor, score: Tensor, group: Tensor | None, tau: float, min_score: float
) -> tuple[Tensor, Tensor]:
    """Some rows, in their order, as one cloud."""
    mean, log_std = (t.index_select(0, rows).expand(-1, x.dim) for t in x)
    return _cluster_clouds(mean, log_std, score, None, group, tau, min_score)
