r"""Loss of learnable margins (Neven et al., CVPR 2019), the method that Table 6 of the paper compares with.

For a cloud of N points that are not ignored and K instances, with φ of :mod:`probemb_lib.margin.head`:

    L = w_inst/K Σ_k Lovász(2 φ_k − 1, [z = k])
      + w_var/K Σ_k mean_{i: z_i = k, d} ((ln σ_id − ln σ_kd) / 5)²
      + w_seed/N Σ_i Σ_{l ≠ background} f_il (S[i, l] − Q[i, l])²

ln σ_k is the mean of ln σ over the instance, and its centre c_k the mean of its votes or of its positions. In a seed
map S[·, l] the points of instances of class l have Q = φ(e_i, c_{z_i}), a constant, and f = ``foreground_weight``; all
others have Q = 0 and f = 1. The mean over the clouds follows, in which a cloud without an instance counts with its seed
term alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probemb_lib.aggregate import InstanceIndex, as_index, member_instance
from probemb_lib.gaussian import GaussianEmbedding, check_embedding
from probemb_lib.head import EmbeddingOutput
from probemb_lib.losses._terms import (
    CloudTerm,
    ScoreTargets,
    batch_of,
    mean_over_clouds,
    score_targets,
    sum_over_clouds,
)
from probemb_lib.margin.head import LOG_STD_RATE
from probemb_lib.margin.lovasz import lovasz_hinge
from probemb_lib.segments import expand_segments, gather_points, segment_sum


def learnable_margin(
    output: EmbeddingOutput,
    instance: Tensor | InstanceIndex,
    semantic: Tensor,
    batch: Tensor | None = None,
    *,
    positions: Tensor | None = None,
    background: int | None = 0,
    foreground_weight: float = 10.0,
    instance_weight: float = 1.0,
    variance_weight: float = 10.0,
    seed_weight: float = 1.0,
) -> dict[str, Tensor]:
    """Loss of learnable margins. Memory is O(N L + K): no (N, K) tensor.

    Args:
        output: of a :class:`~probemb_lib.LearnableMarginHead`; logits (N, L).
        instance: (N,) ids (≥ 0 an instance, −1 none, −100 ignored), or their index.
        semantic: (N,) classes in [0, L). The majority of an instance counts for all its points. Where it is −100 the
            seed maps are asked nothing.
        batch: (N,) cloud of each point; not needed with an index.
        positions: (N, D or less): the centre of an instance is the mean of its positions, a constant. None: the mean
            of its votes, through which a gradient flows.
        background: column of the seed maps that stands for no instance, and is trained on nothing; None if there is
            none.
        foreground_weight: f, of the seeds inside instances.
        instance_weight, variance_weight, seed_weight: w of the three terms.

    Returns:
        Scalars: "loss" is the weighted total, "instance", "variance" and "seed" are the terms before weighting, the
        last with its ``foreground_weight``. The keys are always the same, and the total always carries a gradient.

    Raises:
        TypeError, ValueError: shapes, dtypes and devices; a class outside [0, L); an instance whose class is the
            background.

    >>> from probemb_lib import GaussianEmbedding
    >>> x = GaussianEmbedding(torch.tensor([[0.0], [0.0], [9.0], [9.0]]), torch.full((4, 1), -1.0))
    >>> from probemb_lib import MarginOutput
    >>> output = MarginOutput(x, torch.tensor([[0.0, 9.0]] * 4))
    >>> losses = learnable_margin(output, torch.tensor([0, 0, 1, 1]), torch.ones(4, dtype=torch.int64))
    >>> {name: round(value.item(), 5) for name, value in losses.items()}
    {'loss': 0.0, 'instance': 0.0, 'variance': 0.0, 'seed': 0.0}
    """
    x = check_embedding(output.embedding)
    index = as_index(instance, batch_of(output, batch), x.mean)
    segment = member_instance(index)
    votes = x.mean if positions is None else _padded(positions, x.mean)
    members = gather_points(torch.cat([votes, x.log_std], dim=1).T, index.member)  # (2 D or D + 1, M)
    average = (segment_sum(members, index.member_ptr, segment) / index.size).T
    dim = x.mean.shape[1]
    center, log_std = average[:, :dim], average[:, dim:]  # (K, D), (K, D or 1)

    hinge = lovasz_hinge(x.mean, center, log_std.expand_as(center), index)  # (B,)

    # The derivative is the same whether the mean is a constant or not.
    spread = members[dim:] - expand_segments(log_std.detach().T, index.member_ptr, segment)
    of_points = (spread / LOG_STD_RATE).square().mean(0)
    of_instances = segment_sum(of_points, index.member_ptr, segment) / index.size
    variance = segment_sum(of_instances, index.instance_ptr, index.batch)  # (B,)

    targets = score_targets(output.logits, index, semantic, None, background)
    log_phi = _own_log_phi(x.detach(), center.detach(), log_std.detach(), index)
    phi = targets.similarity(log_phi, elsewhere=0)
    of_points = _seed_errors(targets, phi, foreground_weight)
    seed = sum_over_clouds(of_points[None], index)[0]  # (B,)

    points, instances = index.ptr.diff(), index.instance_ptr.diff().clamp_min(1)
    any_points = points.clamp_max(1)
    means = mean_over_clouds(
        CloudTerm(hinge / instances, any_points), CloudTerm(variance / instances, any_points), CloudTerm(seed, points)
    )
    parts = dict(zip(("instance", "variance", "seed"), means, strict=True))
    loss = instance_weight * parts["instance"] + variance_weight * parts["variance"] + seed_weight * parts["seed"]
    return {"loss": loss, **parts}


def _padded(positions: Tensor, mean: Tensor) -> Tensor:
    """Positions with zeros for the dimensions that they lack, as the head pads them: (N, D)."""
    n, dim = mean.shape
    if not positions.is_floating_point():
        raise TypeError(f"expected floating-point positions, got {positions.dtype}")
    if positions.ndim != 2 or positions.shape[0] != n or not 1 <= positions.shape[1] <= dim:
        raise ValueError(f"expected positions ({n}, D) with 1 <= D <= {dim}, got {tuple(positions.shape)}")
    if positions.device != mean.device:
        raise TypeError(f"expected positions on {mean.device}, got {positions.device}")
    return nn.functional.pad(positions.to(mean.dtype), (0, dim - positions.shape[1]))


def _own_log_phi(x: GaussianEmbedding, center: Tensor, log_std: Tensor, index: InstanceIndex) -> Tensor:
    """ln φ of each member point in its own instance, (M,)."""
    segment = member_instance(index)
    z = (x.mean[index.member] - center[segment]) * torch.exp(-log_std)[segment]  # (M, D)
    return -0.5 * z.square().sum(1)


def _seed_errors(targets: ScoreTargets, phi: Tensor, foreground_weight: float) -> Tensor:
    """Σ_l f (S − Q)² of each point, (N,); 0 where nothing is asked."""
    seeds = targets.logits.sigmoid()
    column = targets.target.clamp_min(0)[:, None]
    q = torch.zeros_like(seeds).scatter(1, column, phi[:, None])
    weight = torch.where(targets.foreground, foreground_weight, 1.0).to(seeds.dtype)
    factor = torch.ones_like(seeds).scatter(1, column, weight[:, None])
    if targets.background is not None:
        factor[:, targets.background] = 0
    return torch.where(targets.counted, (factor * (seeds - q).square()).sum(1), 0.0)


class LearnableMarginLoss(nn.Module):
    """:func:`learnable_margin` as a module: ``LearnableMarginLoss()(output, instance, semantic, batch)``."""

    def __init__(
        self,
        *,
        background: int | None = 0,
        foreground_weight: float = 10.0,
        instance_weight: float = 1.0,
        variance_weight: float = 10.0,
        seed_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.background, self.foreground_weight = background, foreground_weight
        self.instance_weight, self.variance_weight, self.seed_weight = instance_weight, variance_weight, seed_weight

    def forward(
        self,
        output: EmbeddingOutput,
        instance: Tensor | InstanceIndex,
        semantic: Tensor,
        batch: Tensor | None = None,
        *,
        positions: Tensor | None = None,
    ) -> dict[str, Tensor]:
        return learnable_margin(
            output,
            instance,
            semantic,
            batch,
            positions=positions,
            background=self.background,
            foreground_weight=self.foreground_weight,
            instance_weight=self.instance_weight,
            variance_weight=self.variance_weight,
            seed_weight=self.seed_weight,
        )
