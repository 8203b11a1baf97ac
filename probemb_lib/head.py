"""The heads on a backbone: centres, uncertainties and scores of points (sections 3.1 and A.2, Table 3 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from probemb_lib.gaussian import GaussianEmbedding, at_least_float32

EUCLIDEAN_LOG_STD = -0.5 * math.log(8.0)
"""With σ² = 1/8 for all, κ is exactly exp(−‖μ_i − μ_j‖²): the deterministic embedding of the paper."""


class HeadOutput(NamedTuple):
    """What a head predicts for N points.

    Attributes:
        embedding: N Gaussians, float32 or better.
        logits: (N, L) before the softmax, float32 or better.
    """

    embedding: GaussianEmbedding
    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """P = softmax(logits), (N, L): the score maps."""
        return self.logits.softmax(dim=1)


HIDDEN = (256, 128, 128)
"""Widths of a branch's hidden layers in Table 3 of the paper."""


def branch(in_channels: int, out_channels: int, hidden: Sequence[int] = HIDDEN) -> nn.Sequential:
    """One branch of Table 3: in → 256 → 128 → 128 → out, batch norm and ReLU between."""
    widths = (in_channels, *hidden)
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.BatchNorm1d(width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out_channels))


class Head(nn.Module):
    """What all heads share: the branches of centres and scores, and the checks."""

    def __init__(
        self, in_channels: int, num_classes: int, dim: int, offset_scale: float, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes), ("dim", dim)):
            if value < 1:
                raise ValueError(f"expected {name} >= 1, got {value}")
        if not (offset_scale > 0 and math.isfinite(offset_scale)):
            raise ValueError(f"expected a positive offset_scale in the unit of the positions, got {offset_scale}")
        if not all(width >= 1 for width in hidden):
            raise ValueError(f"expected hidden widths >= 1, such as (256, 128, 128), got {tuple(hidden)}")
        self.in_channels, self.num_classes, self.dim = in_channels, num_classes, dim
        self.offset_scale, self.hidden = offset_scale, tuple(hidden)
        self.centers = branch(in_channels, dim, hidden)
        self.scores = branch(in_channels, num_classes, hidden)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, dim={self.dim}, offset_scale={self.offset_scale}, hidden={self.hidden}"

    def _check(self, features: Tensor, positions: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.in_channels:
            raise ValueError(f"expected features (N, {self.in_channels}), got {tuple(features.shape)}")
        if positions.ndim != 2 or not 1 <= positions.shape[1] <= self.dim:
            raise ValueError(f"expected positions (N, D) with 1 <= D <= {self.dim}, got {tuple(positions.shape)}")
        if positions.shape[0] != features.shape[0]:
            raise ValueError(f"expected as many positions as features, got {len(positions)} and {len(features)}")
        if not (features.is_floating_point() and positions.is_floating_point()):
            raise TypeError(f"expected floating-point input, got {features.dtype} and {positions.dtype}")
        if self.training and self.hidden and features.shape[0] == 1:
            raise ValueError("expected at least 2 points in training, got 1: batch norm needs a spread; call .eval()")

    def _predict(self, features: Tensor, *branches: nn.Sequential) -> list[Tensor]:
        """What each branch makes of the features, (N, its width). Their first layers are one product, which reads the
        features once and adds up one gradient for them."""
        if features.shape[0] == 0:  # batch norm's running statistics would become NaN
            tied = sum(parameter.flatten()[:0].sum() for layers in branches for parameter in layers.parameters())
            return [at_least_float32(features.new_zeros((0, _linear(b, -1).out_features)) + tied) for b in branches]
        first = [_linear(layers, 0) for layers in branches]
        products = nn.functional.linear(
            features, torch.cat([f.weight for f in first]), torch.cat([f.bias for f in first])
        ).split([f.out_features for f in first], dim=1)
        # Batch norm of columns that lie apart takes twice as long as of a copy.
        return [at_least_float32(b[1:](part.contiguous())) for b, part in zip(branches, products, strict=True)]

    def _mean(self, predicted: Tensor, positions: Tensor) -> Tensor:
        """μ = x + s tanh(o); dimensions beyond those of the position start at 0."""
        offset = self.offset_scale * torch.tanh(predicted)
        return nn.functional.pad(positions, (0, self.dim - positions.shape[1])).to(offset.dtype) + offset


def _linear(layers: nn.Sequential, number: int) -> nn.Linear:
    layer = layers[number]
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"expected a branch that begins and ends with nn.Linear, got {type(layer).__name__}")
    return layer


class ProbabilisticHead(Head):
    """Features to Gaussian embeddings and class scores.

    With o the output of a branch, x the position and s = ``offset_scale``:
    μ = x + s·tanh(o), ln σ = o + ln σ₀, P = softmax(o). Scaling positions, s and σ₀ together changes no similarity.

    Args:
        in_channels: channels of the features (128 in the paper).
        num_classes: L, columns of P, the background counted.
        dim: D; positions with fewer dimensions are padded with zeros.
        anisotropic: one σ a dimension (True), or one for all.
        heteroscedastic: σ of each point (True), or one per cloud: the branch's mean over the cloud.
        offset_scale: s, the farthest that a centre can lie from its point, in the unit of the positions. The paper's
            1 suits shapes in the unit sphere; for metres take about the radius of the largest instance.
        initial_std: σ₀, about what σ is before training, in the same unit; by default s, as in the paper.
        hidden: widths of each branch's hidden layers. The paper's are for points; on images they cost many times what
            a small U-Net does, and one layer, ``hidden=(32,)``, is a good start. () is a linear layer.

    >>> head = ProbabilisticHead(128, num_classes=5).eval()
    >>> output = head(torch.randn(10, 128), torch.rand(10, 3))
    >>> output.embedding.mean.shape, output.embedding.log_std.shape, output.logits.shape
    (torch.Size([10, 3]), torch.Size([10, 3]), torch.Size([10, 5]))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dim: int = 3,
        *,
        anisotropic: bool = True,
        heteroscedastic: bool = True,
        offset_scale: float = 1.0,
        initial_std: float | None = None,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__(in_channels, num_classes, dim, offset_scale, hidden)
        self.initial_std = offset_scale if initial_std is None else initial_std
        if not (self.initial_std > 0 and math.isfinite(self.initial_std)):
            raise ValueError(f"expected a positive initial_std in the unit of the positions, got {initial_std}")
        self.anisotropic, self.heteroscedastic = anisotropic, heteroscedastic
        self.uncertainties = branch(in_channels, self._std_width(), hidden)

    def extra_repr(self) -> str:
        own = f"anisotropic={self.anisotropic}, heteroscedastic={self.heteroscedastic}, initial_std={self.initial_std}"
        return f"{super().extra_repr()}, {own}"

    def _std_width(self) -> int:
        return self.dim if self.anisotropic else 1

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> HeadOutput:
        """
        Args:
            features: (N, C), any floating dtype.
            positions: (N, D).
            batch: (N,) int64 cloud of each point; None is one cloud. Only the homoscedastic variants look at it.

        Raises:
            TypeError, ValueError: dtypes or shapes are not these, or training with a single point.
        """
        self._check(features, positions)
        centers, uncertainties, logits = self._predict(features, self.centers, self.uncertainties, self.scores)
        log_std = uncertainties + math.log(self.initial_std)
        if not self.heteroscedastic:
            log_std = _cloud_mean(log_std, batch)
        return HeadOutput(GaussianEmbedding(self._mean(centers, positions), log_std), logits)


class DeterministicHead(Head):
    """Features to points of an embedding space: every σ is the same constant, so that κ = exp(−‖Δ‖²/s²).

    ln σ = ln s − ½ ln 8. Losses, clustering and evaluation serve it unchanged; ``dim=6`` is the wider embedding of
    Table 2. Arguments as in :class:`ProbabilisticHead`.

    >>> output = DeterministicHead(16, num_classes=2, dim=6).eval()(torch.randn(4, 16), torch.rand(4, 3))
    >>> output.embedding.dim, output.embedding.log_std.shape
    (6, torch.Size([4, 1]))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dim: int = 3,
        *,
        offset_scale: float = 1.0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__(in_channels, num_classes, dim, offset_scale, hidden)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> HeadOutput:
        """As :meth:`ProbabilisticHead.forward`; ``batch`` is accepted so that the heads exchange, and not needed."""
        self._check(features, positions)
        centers, logits = self._predict(features, self.centers, self.scores)
        mean = self._mean(centers, positions)
        log_std = mean.new_full((mean.shape[0], 1), EUCLIDEAN_LOG_STD + math.log(self.offset_scale))
        return HeadOutput(GaussianEmbedding(mean, log_std), logits)


def _cloud_mean(x: Tensor, batch: Tensor | None) -> Tensor:
    """Mean over the points of a cloud, repeated for each of them: (N, C) → (N, C)."""
    if batch is None:
        return x.mean(0, keepdim=True).expand_as(x) if x.shape[0] else x
    if batch.shape != x.shape[:1]:
        raise ValueError(f"expected batch ({x.shape[0]},), got {tuple(batch.shape)}")
    clouds = int(batch.max()) + 1 if batch.numel() else 0
    count = torch.bincount(batch, minlength=clouds).clamp_min(1)[:, None]
    return (x.new_zeros((clouds, x.shape[1])).index_add(0, batch, x) / count).index_select(0, batch)
