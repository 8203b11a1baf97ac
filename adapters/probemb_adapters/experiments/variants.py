"""The variants of the method that the ablation compares, by name: heads, and losses of the score maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor
from torch.nn.functional import normalize

from probemb_lib import (
    CenterAwareLoss,
    DeterministicHead,
    HeadOutput,
    ProbabilisticHead,
    ScoreCrossEntropyLoss,
    SeedMSELoss,
)

Embedding = Literal[
    "probabilistic",
    "probabilistic-6d",
    "isotropic",
    "homoscedastic",
    "isotropic-homoscedastic",
    "deterministic",
    "deterministic-6d",
    "cosine-6d",
]
ScoreLossName = Literal["center-aware", "complement", "cross-entropy", "mse"]


class CosineHead(DeterministicHead):
    """Deterministic embeddings on a sphere: κ = exp(−2 (1 − cos)), the cosine similarity of Fig. 2b as a kernel."""

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> HeadOutput:
        """As :meth:`DeterministicHead.forward`, with means of length ``offset_scale``."""
        output = super().forward(features, positions, batch)
        return output._replace(
            embedding=output.embedding._replace(mean=self.offset_scale * normalize(output.embedding.mean))
        )


HEADS: dict[Embedding, Callable[..., ProbabilisticHead | DeterministicHead]] = {
    "probabilistic": ProbabilisticHead,
    "probabilistic-6d": partial(ProbabilisticHead, dim=6),
    "isotropic": partial(ProbabilisticHead, anisotropic=False),
    "homoscedastic": partial(ProbabilisticHead, heteroscedastic=False),
    "isotropic-homoscedastic": partial(ProbabilisticHead, anisotropic=False, heteroscedastic=False),
    "deterministic": DeterministicHead,
    "deterministic-6d": partial(DeterministicHead, dim=6),
    "cosine-6d": partial(CosineHead, dim=6),
}
DETERMINISTIC: tuple[Embedding, ...] = ("deterministic", "deterministic-6d", "cosine-6d")  # σ is the same constant
SCORE_LOSSES: dict[ScoreLossName, Callable[[], CenterAwareLoss | ScoreCrossEntropyLoss | SeedMSELoss]] = {
    "center-aware": CenterAwareLoss,
    "complement": partial(CenterAwareLoss, complement=True),
    "cross-entropy": ScoreCrossEntropyLoss,
    "mse": SeedMSELoss,
}
JOIN = 0.2
"""κ from which instances are taken for parts of one object, where that helps."""
