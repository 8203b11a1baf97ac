r"""Embeddings by a head, Euclidean or Gaussian, and the distances that losses and groupings of embeddings measure.

With σ² = 1/8 for all, κ = exp(−‖Δ‖²). So

    d(x, y) = √(−ln κ(x, y))

is the Euclidean distance of deterministic embeddings, and what takes its place where embeddings are Gaussians: margins
and bandwidths keep their meaning, and one code serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from probemb_adapters.baselines.method import Branches
from probemb_lib import GaussianEmbedding, HeadOutput, log_bhattacharyya_paired
from probemb_lib.head import EUCLIDEAN_LOG_STD, HIDDEN

SQUARED_ZERO = 1e-12
"""Under it d² is constant, as a root has no slope at 0."""

Distance: TypeAlias = Callable[[GaussianEmbedding, GaussianEmbedding], Tensor]
"""From (…, D) and (…, D) to (…): :func:`kernel_distance` or :func:`manhattan`."""


def kernel_distance(x: GaussianEmbedding, y: GaussianEmbedding) -> Tensor:
    """√(−ln κ) of each x with the y of the same row; the Euclidean distance where σ² = 1/8.

    >>> x = GaussianEmbedding(torch.tensor([[0.0, 0.0]]), torch.full((1, 1), EUCLIDEAN_LOG_STD))
    >>> kernel_distance(x, x._replace(mean=torch.tensor([[3.0, 4.0]])))
    tensor([5.])
    """
    return (-log_bhattacharyya_paired(x, y)).clamp_min(SQUARED_ZERO).sqrt()


def manhattan(x: GaussianEmbedding, y: GaussianEmbedding) -> Tensor:
    """‖μ_x − μ_y‖₁ of each x with the y of the same row; σ is not looked at."""
    return (x.mean - y.mean).abs().sum(-1)


def all_pairs(x: GaussianEmbedding, y: GaussianEmbedding, distance: Distance) -> Tensor:
    """The distance of every pair, (N, M); memory O(N M D)."""
    n, m = x.mean.shape[0], y.mean.shape[0]
    wide = [t[:, None].expand(-1, m, -1) for t in x], [t[None].expand(n, -1, -1) for t in y]
    return distance(GaussianEmbedding(*wide[0]), GaussianEmbedding(*wide[1]))


@torch.no_grad()
def distance_matrix(x: GaussianEmbedding, y: GaussianEmbedding, distance: Distance) -> Tensor:
    """:func:`all_pairs` without a derivative, and faster: a dimension at a time, no (N, M, D) tensor."""
    if distance is manhattan:
        return torch.cdist(x.mean, y.mean, p=1)
    if distance is not kernel_distance:
        return all_pairs(x, y, distance)
    far, ratio = 0.0, 1.0  # Σ Δ²/(4 (σx² + σy²)), Π (σx² + σy²)/(2 σx σy)
    columns = (t.expand(-1, x.dim).T for t in (x.mean, x.std, y.mean, y.std))
    for a, s, b, t in zip(*columns, strict=True):
        variance = s.square()[:, None] + t.square()
        far = far + (a[:, None] - b).square() / (4 * variance)
        ratio = ratio * variance / s[:, None] / (2 * t)
    return (far + 0.5 * torch.as_tensor(ratio).log()).clamp_min(SQUARED_ZERO).sqrt()


def repeated(x: GaussianEmbedding, rows: int) -> GaussianEmbedding:
    """One Gaussian (1, D) for each of some rows, without a copy."""
    return GaussianEmbedding(x.mean.expand(rows, -1), x.log_std.expand(rows, -1))


class EmbeddingHead(nn.Module):
    """Features to a free embedding μ = s·o of any dimension, or (semi-convolutional) μ = x + s·o, and class logits.

    Args:
        in_channels: channels of the features.
        num_classes: L, the background counted.
        dim: D of the embedding.
        probabilistic: ln σ = ln(s/√8) + o a dimension; False: ln σ = ln(s/√8), a constant, so that d = ‖Δ‖/s.
        semi_convolutional: add the position; further dimensions start at 0.
        scale: s, the length that d counts in.
        hidden: widths of each branch's hidden layers.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dim: int,
        *,
        probabilistic: bool = False,
        semi_convolutional: bool = False,
        scale: float = 1.0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"expected a positive scale in the unit of the embedding, got {scale}")
        self.dim, self.scale, self.semi_convolutional = dim, scale, semi_convolutional
        self.branches = Branches(in_channels, (dim, num_classes, *([dim] if probabilistic else [])), hidden)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> HeadOutput:
        """``batch`` is accepted so that the heads exchange, and not needed."""
        mean, logits, *log_std = self.branches(features)
        return HeadOutput(self.embedding(mean, positions, *log_std), logits)

    def embedding(self, offset: Tensor, positions: Tensor, log_std: Tensor | None = None) -> GaussianEmbedding:
        """The Gaussians from the outputs of branches, (N, D) each."""
        return gaussian(offset, positions if self.semi_convolutional else None, log_std, self.scale)


def gaussian(offset: Tensor, positions: Tensor | None, log_std: Tensor | None, scale: float) -> GaussianEmbedding:
    """μ = x + s·o and ln σ = ln(s/√8) + o of :class:`EmbeddingHead`, or their shorter forms where something is None."""
    mean = scale * offset
    if positions is not None:
        if positions.shape[0] != mean.shape[0] or positions.shape[1] > mean.shape[1]:
            raise ValueError(
                f"expected positions ({mean.shape[0]}, D) with D <= {mean.shape[1]}, got {tuple(positions.shape)}"
            )
        mean = mean + nn.functional.pad(positions.to(mean.dtype), (0, mean.shape[1] - positions.shape[1]))
    base = EUCLIDEAN_LOG_STD + torch.tensor(scale).log().item()
    return GaussianEmbedding(mean, torch.full_like(mean[:, :1], base) if log_std is None else log_std + base)
