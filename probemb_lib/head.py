"""The heads on a backbone: centres, uncertainties and scores of points (sections 3.1 and A.2, Table 3 of the paper)."""

from __future__ import annotations

import math
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


def branch(in_channels: int, out_channels: int) -> nn.Sequential:
    """One branch of Table 3: in → 256 → 128 → 128 → out, batch norm and ReLU between."""
    layers: list[nn.Module] = []
    for width_in, width_out in ((in_channels, 256), (256, 128), (128, 128)):
        layers += [nn.Linear(width_in, width_out), nn.BatchNorm1d(width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, out_channels))


class Head(nn.Module):
    """What all heads share: the branches of centres and scores, and the checks."""

    def __init__(self, in_channels: int, num_classes: int, dim: int, offset_scale: float) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes), ("dim", dim)):
            if value < 1:
                raise ValueError(f"expected {name} >= 1, got {value}")
        if not (offset_scale > 0 and math.isfinite(offset_scale)):
            raise ValueError(f"expected a positive offset_scale in the unit of the positions, got {offset_scale}")
        self.in_channels, self.num_classes, self.dim = in_channels, num_classes, dim
        self.offset_scale = offset_scale
        self.centers = branch(in_channels, dim)
        self.scores = branch(in_channels, num_classes)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, dim={self.dim}, offset_scale={self.offset_scale}"

    def _check(self, features: Tensor, positions: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.in_channels:
            raise ValueError(f"expected features (N, {self.in_channels}), got {tuple(features.shape)}")
        if positions.ndim != 2 or not 1 <= positions.shape[1] <= self.dim:
            raise ValueError(f"expected positions (N, D) with 1 <= D <= {self.dim}, got {tuple(positions.shape)}")
        if positions.shape[0] != features.shape[0]:
            raise ValueError(f"expected as many positions as features, got {len(positions)} and {len(features)}")
        if not (features.is_floating_point() and positions.is_floating_point()):
            raise TypeError(f"expected floating-point input, got {features.dtype} and {positions.dtype}")
        if self.training and features.shape[0] == 1:
            raise ValueError("expected at least 2 points in training, got 1: batch norm needs a spread; call .eval()")

    def _predict(self, layers: nn.Module, features: Tensor, width: int) -> Tensor:
        """What a branch makes of the features, (N, width)."""
        if features.shape[0] == 0:  # batch norm's running statistics would become NaN
            weight = next(layers.parameters())
            return at_least_float32(features.new_zeros((0, width)) + 0 * weight.sum())
        predicted: Tensor = layers(features)
        return at_least_float32(predicted)

    def _logits(self, features: Tensor) -> Tensor:
        return self._predict(self.scores, features, self.num_classes)

    def _mean(self, features: Tensor, positions: Tensor) -> Tensor:
        """μ = x + s tanh(o); dimensions beyond those of the position start at 0."""
        offset = self.offset_scale * torch.tanh(self._predict(self.centers, features, self.dim))
        return nn.functional.pad(positions, (0, self.dim - positions.shape[1])).to(offset.dtype) + offset


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
    ) -> None:
        super().__init__(in_channels, num_classes, dim, offset_scale)
        self.initial_std = offset_scale if initial_std is None else initial_std
        if not (self.initial_std > 0 and math.isfinite(self.initial_std)):
            raise ValueError(f"expected a positive initial_std in the unit of the positions, got {initial_std}")
        self.anisotropic, self.heteroscedastic = anisotropic, heteroscedastic
        self.uncertainties = branch(in_channels, self._std_width())

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
        log_std = self._predict(self.uncertainties, features, self._std_width()) + math.log(self.initial_std)
        if not self.heteroscedastic:
            log_std = _cloud_mean(log_std, batch)
        embedding = GaussianEmbedding(self._mean(features, positions), log_std)
        return HeadOutput(embedding, self._logits(features))


class DeterministicHead(Head):
    """Features to points of an embedding space: every σ is the same constant, so that κ = exp(−‖Δ‖²/s²).

    ln σ = ln s − ½ ln 8. Losses, clustering and evaluation serve it unchanged; ``dim=6`` is the wider embedding of
    Table 2. Arguments as in :class:`ProbabilisticHead`.

    >>> output = DeterministicHead(16, num_classes=2, dim=6).eval()(torch.randn(4, 16), torch.rand(4, 3))
    >>> output.embedding.dim, output.embedding.log_std.shape
    (6, torch.Size([4, 1]))
    """

    def __init__(self, in_channels: int, num_classes: int, dim: int = 3, *, offset_scale: float = 1.0) -> None:
        super().__init__(in_channels, num_classes, dim, offset_scale)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> HeadOutput:
        """As :meth:`ProbabilisticHead.forward`; ``batch`` is accepted so that the heads exchange, and not needed."""
        self._check(features, positions)
        mean = self._mean(features, positions)
        log_std = mean.new_full((mean.shape[0], 1), EUCLIDEAN_LOG_STD + math.log(self.offset_scale))
        return HeadOutput(GaussianEmbedding(mean, log_std), self._logits(features))


def _cloud_mean(x: Tensor, batch: Tensor | None) -> Tensor:
    """Mean over the points of a cloud, repeated for each of them: (N, C) → (N, C)."""
    if batch is None:
        return x.mean(0, keepdim=True).expand_as(x) if x.shape[0] else x
    if batch.shape != x.shape[:1]:
        raise ValueError(f"expected batch ({x.shape[0]},), got {tuple(batch.shape)}")
    clouds = int(batch.max()) + 1 if batch.numel() else 0
    count = torch.bincount(batch, minlength=clouds).clamp_min(1)[:, None]
    return (x.new_zeros((clouds, x.shape[1])).index_add(0, batch, x) / count).index_select(0, batch)
