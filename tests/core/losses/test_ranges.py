"""Within the range that `GaussianEmbedding` documents, no loss and no gradient is infinite or NaN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from probemb_lib import (
    CenterAwareLoss,
    EntropyRegularizer,
    GaussianEmbedding,
    HeadOutput,
    InstanceBCELoss,
    LogDiceLoss,
    ProbabilisticEmbeddingLoss,
    ScoreCrossEntropyLoss,
    SeedMSELoss,
)

LOSSES = {
    "bce": lambda o, i, c: InstanceBCELoss()(o.embedding, i),
    "bce, independent": lambda o, i, c: InstanceBCELoss(covariance="independent")(o.embedding, i),
    "dice": lambda o, i, c: LogDiceLoss()(o.embedding, i),
    "dice, independent": lambda o, i, c: LogDiceLoss(covariance="independent")(o.embedding, i),
    "dice per instance": lambda o, i, c: LogDiceLoss(per_instance=True)(o.embedding, i),
    "entropy": lambda o, i, c: EntropyRegularizer()(o.embedding, i),
    "combined": lambda o, i, c: ProbabilisticEmbeddingLoss()(o, i, c)["loss"],
}
SCORE_LOSSES = {
    "center-aware": CenterAwareLoss(),
    "complement": CenterAwareLoss(complement=True),
    "cross entropy": ScoreCrossEntropyLoss(),
    "squared error": SeedMSELoss(),
}
LIMITS = {torch.float32: (35.0, 1e3), torch.float64: (300.0, 1e9)}
"""|ln σ| and |μ| at most, as the docstring of `GaussianEmbedding` has them."""


@st.composite
def at_the_ends(draw: st.DrawFn) -> tuple[HeadOutput, Tensor, Tensor]:
    """Points of any σ in the range, most of them at its ends, and centres together, near, or as far as allowed."""
    dtype = draw(st.sampled_from(sorted(LIMITS, key=str)))
    most_log_std, most_mean = LIMITS[dtype]
    n, dim = draw(st.sampled_from([1, 2, 7, 60])), draw(st.sampled_from([1, 2, 3, 6]))
    instances = draw(st.sampled_from([1, 2, 5, n]))
    columns = draw(st.sampled_from([1, dim]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    drawn = 2 * torch.rand(n, columns, generator=generator, dtype=dtype) - 1
    log_std = most_log_std * draw(
        st.sampled_from([drawn, drawn.sign(), torch.ones_like(drawn), -torch.ones_like(drawn), drawn[:1].expand(n, -1)])
    )
    mean = torch.randn(n, dim, generator=generator, dtype=dtype).clamp(-1, 1)
    scale = draw(st.sampled_from([0.0, 1e-6, 1.0, most_mean, "σ"]))
    mean = mean * (log_std.exp() if scale == "σ" else scale)
    logits = draw(st.sampled_from([0.0, 1.0, 80.0])) * torch.randn(n, 4, generator=generator, dtype=dtype)
    instance = torch.randint(0, instances, (n,), generator=generator)
    leaves = [t.clone().requires_grad_() for t in (mean.clamp(-most_mean, most_mean), log_std, logits)]
    return HeadOutput(GaussianEmbedding(*leaves[:2]), leaves[2]), instance, instance % 3 + 1


@pytest.mark.parametrize("name", [*LOSSES, *SCORE_LOSSES])
@settings(max_examples=60, deadline=None)
@given(problem=at_the_ends())
def test_everything_is_finite_at_the_ends_of_the_range(name: str, problem: tuple[HeadOutput, Tensor, Tensor]) -> None:
    output, instance, semantic = problem
    loss = LOSSES[name] if name in LOSSES else SCORE_LOSSES[name]
    value = loss(output, instance, semantic)
    slopes = torch.autograd.grad(value, [*output.embedding, output.logits], allow_unused=True, materialize_grads=True)
    assert value.isfinite()
    for slope in slopes:
        assert slope.isfinite().all()


@pytest.mark.parametrize("spoilt", ["logits", "mean", "log_std"])
@pytest.mark.parametrize("name", [*LOSSES, *SCORE_LOSSES])
def test_nan_of_ignored_points_reaches_no_gradient(name: str, spoilt: str) -> None:
    generator = torch.Generator().manual_seed(0)
    n, ignored = 40, 5
    instance = torch.arange(n) % 4
    semantic = instance % 3 + 1
    instance[:ignored] = semantic[:ignored] = -100
    parts = {"mean": torch.randn(n, 3, generator=generator), "log_std": torch.randn(n, 3, generator=generator)}
    parts["logits"] = torch.randn(n, 4, generator=generator)
    loss = LOSSES[name] if name in LOSSES else SCORE_LOSSES[name]

    def run() -> tuple[Tensor, ...]:
        leaves = {key: t.clone().requires_grad_() for key, t in parts.items()}
        output = HeadOutput(GaussianEmbedding(leaves["mean"], leaves["log_std"]), leaves["logits"])
        value = loss(output, instance, semantic)
        slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return value.detach(), *slopes

    whole = run()
    parts[spoilt][:ignored] = torch.nan
    for before, after in zip(whole, run(), strict=True):
        assert torch.equal(before, after)
