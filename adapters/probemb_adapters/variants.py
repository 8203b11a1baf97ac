"""The variants of the method that the paper's Table 2 compares, by name: heads, and losses of the score maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from probemb_lib import CenterAwareLoss, DeterministicHead, ProbabilisticHead, ScoreCrossEntropyLoss, SeedMSELoss

Embedding = Literal[
    "probabilistic", "isotropic", "homoscedastic", "isotropic-homoscedastic", "deterministic", "deterministic-6d"
]
ScoreLossName = Literal["center-aware", "complement", "cross-entropy", "mse"]

HEADS: dict[Embedding, Callable[..., ProbabilisticHead | DeterministicHead]] = {
    "probabilistic": ProbabilisticHead,
    "isotropic": partial(ProbabilisticHead, anisotropic=False),
    "homoscedastic": partial(ProbabilisticHead, heteroscedastic=False),
    "isotropic-homoscedastic": partial(ProbabilisticHead, anisotropic=False, heteroscedastic=False),
    "deterministic": DeterministicHead,
    "deterministic-6d": partial(DeterministicHead, dim=6),
}
EUCLIDEAN: tuple[Embedding, ...] = ("deterministic", "deterministic-6d")  # κ = exp(−distance²)
SCORE_LOSSES: dict[ScoreLossName, Callable[[], CenterAwareLoss | ScoreCrossEntropyLoss | SeedMSELoss]] = {
    "center-aware": CenterAwareLoss,
    "complement": partial(CenterAwareLoss, complement=True),
    "cross-entropy": ScoreCrossEntropyLoss,
    "mse": SeedMSELoss,
}
