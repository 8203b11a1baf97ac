"""Known answers and random problems of learnable margins."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from paths import TEST_DATA
from torch import Tensor

from probemb_lib import GaussianEmbedding, MarginOutput
from probemb_lib.functional import learnable_margin

DATA = TEST_DATA / "learnable_margin"
KEYS = ["instance", "loss", "seed", "variance"]
CASES = pytest.mark.parametrize("case", range(4))
quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**20)


def close(got: Tensor, expected: Any, tolerance: float = 1e-10) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).detach()
    torch.testing.assert_close(got.detach().double(), expected, rtol=tolerance, atol=tolerance)


def embedding_of(columns: Tensor, positions: Tensor, n_sigma: int) -> GaussianEmbedding:
    """Raw channels of the authors' network: two offsets, then 10·σ = ln s = −ln(2 σ²)."""
    return GaussianEmbedding(columns[:, :2].tanh() + positions, -5 * columns[:, 2 : 2 + n_sigma] - 0.5 * math.log(2))


@dataclass
class Images:
    """Images of a known answer as a packed batch of clouds."""

    prediction: Tensor
    output: MarginOutput
    instance: Tensor
    semantic: Tensor
    batch: Tensor
    positions: Tensor | None
    foreground_weight: float

    def losses(self) -> dict[str, Tensor]:
        return learnable_margin(
            self.output,
            self.instance,
            self.semantic,
            self.batch,
            positions=self.positions,
            foreground_weight=self.foreground_weight,
        )


def images(known: dict[str, NDArray[Any]], dtype: torch.dtype, only: int | None = None) -> Images:
    take = slice(None) if only is None else slice(only, only + 1)
    prediction = torch.tensor(known["prediction"][take], dtype=dtype, requires_grad=True)
    count, channels, height, width = prediction.shape
    columns = prediction.permute(0, 2, 3, 1).reshape(-1, channels)
    positions = torch.tensor(known["coordinates"], dtype=dtype).permute(1, 2, 0).reshape(-1, 2).repeat(count, 1)
    embedding = embedding_of(columns, positions, int(known["n_sigma"]))
    logits = torch.stack([torch.zeros_like(columns[:, -1]), columns[:, -1]], dim=1)
    ids = torch.tensor(known["instances"][take].reshape(-1).astype(np.int64))
    labels = torch.tensor(known["labels"][take].reshape(-1).astype(np.int64))
    crowd = torch.where(ids == 0, -100, 1)  # a class but no instance: outside of all, its seed is not asked
    return Images(
        prediction,
        MarginOutput(embedding, logits),
        torch.where(ids == 0, -1, ids),
        torch.where(labels == 0, 0, crowd),
        torch.arange(count).repeat_interleave(height * width),
        positions if known["to_center"] else None,
        float(known["foreground_weight"]),
    )


def load(kind: str, case: int) -> dict[str, NDArray[Any]]:
    with np.load(DATA / f"{kind}_{case:02}.npz") as arrays:
        return dict(arrays)


@dataclass(frozen=True)
class Problem:
    """Random leaves (N, D), (N, D or 1), (N, L) and labels of a ragged batch."""

    mean: Tensor
    log_std: Tensor
    logits: Tensor
    instance: Tensor
    semantic: Tensor
    batch: Tensor | None

    def leaves(self) -> list[Tensor]:
        return [self.mean, self.log_std, self.logits]

    def output(self) -> MarginOutput:
        return MarginOutput(GaussianEmbedding(self.mean, self.log_std), self.logits)

    def losses(self, **options: Any) -> dict[str, Tensor]:
        return learnable_margin(self.output(), self.instance, self.semantic, self.batch, **options)

    def to(self, dtype: torch.dtype) -> Problem:
        mean, log_std, logits = (t.detach().to(dtype).requires_grad_() for t in self.leaves())
        return replace(self, mean=mean, log_std=log_std, logits=logits)


def draw(
    seed: int, n: int = 60, dim: int = 3, clouds: int = 3, instances: int = 4, classes: int = 4, isotropic: bool = False
) -> Problem:
    g = torch.Generator().manual_seed(seed)
    instance = torch.randint(-1, instances, (n,), generator=g)
    batch = torch.randint(0, clouds, (n,), generator=g)
    center = torch.rand(clouds, instances + 1, dim, generator=g, dtype=torch.float64)
    mean = center[batch, instance] + 0.3 * torch.randn(n, dim, generator=g, dtype=torch.float64)
    log_std = 0.5 * torch.randn(n, 1 if isotropic else dim, generator=g, dtype=torch.float64) - 1
    logits = torch.randn(n, classes, generator=g, dtype=torch.float64)
    semantic = torch.where(instance < 0, 0, 1 + instance % (classes - 1))
    instance[torch.rand(n, generator=g) < 0.1] = -100
    semantic[torch.rand(n, generator=g) < 0.1] = -100
    mean, log_std, logits = (t.requires_grad_() for t in (mean, log_std, logits))
    return Problem(mean, log_std, logits, instance, semantic, batch if clouds > 1 else None)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for key in KEYS:
        close(a[key], b[key])
