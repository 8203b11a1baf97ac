r"""Learnable margins (Neven et al., CVPR 2019): the head of the method that Table 6 of the paper compares with.

A point votes for a place e = x + s·tanh(o), and its instance k accepts votes by a Gaussian that the network widens and
narrows,

    φ_k(e) = exp(−½ Σ_d (e_d − c_kd)² / σ_kd²),

so that φ_k > ½ is an ellipsoid with the semi-axes, or margins, σ_k √(2 ln 2). The pair of vote and σ is a
:class:`~probemb_lib.GaussianEmbedding`. Neven et al. write φ = exp(−s_k ‖e − c_k‖²) with s = exp(10 o) of the network's
output o: s = 1/(2σ²), hence ln σ = −5 o − ½ ln 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.head import HIDDEN, Head, branch, check_scale

LOG_STD_RATE = 5.0
"""−∂ ln σ / ∂ output: half the 10 of s = exp(10 o). It sets how fast margins are learned."""

MARGIN_PER_STD = math.sqrt(2 * math.log(2))
"""Along an axis φ is one half at this many σ."""


class MarginOutput(NamedTuple):
    """What a :class:`LearnableMarginHead` predicts for N points.

    Attributes:
        embedding: votes e (mean) and ln σ of the margins, float32 or better.
        logits: (N, L) of the seed maps, before the sigmoid; float32 or better.
    """

    embedding: GaussianEmbedding
    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """The seed maps, (N, L): each column a sigmoid of its own, φ of the point in its instance once trained."""
        return self.logits.sigmoid()

    @property
    def margin(self) -> Tensor:
        """Distance at which φ is one half, in the unit of the positions; the shape of ``embedding.log_std``."""
        return MARGIN_PER_STD * self.embedding.std


class LearnableMarginHead(Head):
    """Features to votes, margins and seed maps, by the branches of :class:`~probemb_lib.ProbabilisticHead`.

    With o the output of a branch, x the position, s = ``offset_scale`` and r = ``initial_margin``: e = x + s·tanh(o),
    ln σ = ln(r / √(2 ln 2)) − 5 o, seeds = sigmoid(o). The last layer of the margins starts at zero, so every margin
    starts at r. Scaling positions, s and r together changes no loss and no cluster.

    Args:
        in_channels: channels of the features.
        num_classes: L, columns of the seed maps. The background counts, although nothing trains its column, so that
            classes are numbered as with the other heads.
        dim: D; positions with fewer dimensions are padded with zeros.
        anisotropic: one margin a dimension, or (False, as Neven et al. do by default) one for all.
        offset_scale: s, the farthest that a vote can lie from its point, in the unit of the positions; see
            :class:`~probemb_lib.ProbabilisticHead`.
        initial_margin: r, the distance at which φ is one half before training, in the unit of the positions: about the
            radius of a small instance. None is a quarter of ``offset_scale``. (The 2-D networks of Neven et al. start
            at 0.0056 of an image's height, which in a cloud often holds no other point.)
        hidden: widths of each branch's hidden layers; see :class:`~probemb_lib.ProbabilisticHead`.

    >>> import torch
    >>> head = LearnableMarginHead(16, num_classes=3, initial_margin=0.2).eval()
    >>> output = head(torch.randn(10, 16), torch.rand(10, 3))
    >>> output.embedding.mean.shape, output.logits.shape, output.margin[0]
    (torch.Size([10, 3]), torch.Size([10, 3]), tensor([0.2000], grad_fn=<SelectBackward0>))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dim: int = 3,
        *,
        anisotropic: bool = False,
        offset_scale: float = 1.0,
        initial_margin: float | None = None,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__(in_channels, num_classes, dim, offset_scale, hidden)
        self.anisotropic = anisotropic
        self.initial_margin = check_scale(
            0.25 * offset_scale if initial_margin is None else initial_margin, "initial_margin"
        )
        self.margins = branch(in_channels, self._std_width(), hidden)
        for parameter in self.margins[-1].parameters():
            nn.init.zeros_(parameter)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, anisotropic={self.anisotropic}, initial_margin={self.initial_margin}"

    def _std_width(self) -> int:
        return self.dim if self.anisotropic else 1

    def _scales(self) -> dict[str, float]:
        return {**super()._scales(), "initial_margin": self.initial_margin}

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> MarginOutput:
        """As :meth:`ProbabilisticHead.forward`; ``batch`` is accepted so that the heads exchange, and not needed."""
        features, positions = self._check(features, positions)
        centers, margins, logits = self._predict(features, self.centers, self.margins, self.scores)
        log_std = math.log(self.initial_margin / MARGIN_PER_STD) - LOG_STD_RATE * margins
        mean = self._mean(centers, positions)
        return MarginOutput(GaussianEmbedding(mean, log_std.to(mean.dtype)), logits.to(mean.dtype))
