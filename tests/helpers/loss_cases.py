"""Problems for the losses, and what is checked of each of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import oracles
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from oracles import Problem, draw_problem
from torch import Tensor

from probemb_lib import EntropyRegularizer, GaussianEmbedding, HeadOutput, InstanceBCELoss, LogDiceLoss

quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**20)
KEYS = ["bce", "dice", "entropy", "loss", "score"]
EmbeddingLoss = Callable[[GaussianEmbedding, Tensor, Tensor | None], Tensor]
ScoreLoss = Callable[[HeadOutput, Tensor, Tensor, Tensor | None], Tensor]
PROBLEMS = {
    "ragged": draw_problem(0, n=60, num_clouds=5),
    "one cloud": draw_problem(1, num_clouds=1).change(batch=None),
    "isotropic": draw_problem(2, isotropic=True),
    "plane": draw_problem(3, dim=2),
    "many instances": draw_problem(4, n=50, num_clouds=2, num_instances=20),
    "wide σ": draw_problem(5, spread=2.0),
    "all instances ignored": draw_problem(6).change(instance=np.full(40, oracles.IGNORED)),
    "all classes ignored": draw_problem(7).change(semantic=np.full(40, oracles.IGNORED)),
    "no instance": draw_problem(8).change(instance=np.full(40, -1)),
    "one point": draw_problem(9, n=1, num_clouds=1, background=False, ignored=False),
    "no point": draw_problem(10, n=0),
    "no point, one cloud": draw_problem(11, n=0).change(batch=None),
}


EVERY = pytest.mark.parametrize("name", PROBLEMS)
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
SCORE_PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])


def tensors(p: Problem, dtype: torch.dtype = torch.float64) -> tuple[HeadOutput, Tensor, Tensor, Tensor | None]:
    mean, log_std, logits = (torch.tensor(a, dtype=dtype).requires_grad_() for a in (p.mean, p.log_std, p.logits))
    batch = None if p.batch is None else torch.tensor(p.batch)
    return (
        HeadOutput(GaussianEmbedding(mean, log_std), logits),
        torch.tensor(p.instance),
        torch.tensor(p.semantic),
        batch,
    )


def inputs(output: HeadOutput) -> list[Tensor]:
    return [*output.embedding, output.logits]


def slopes(value: Tensor, output: HeadOutput) -> list[Tensor]:
    return list(torch.autograd.grad(value, inputs(output), allow_unused=True, materialize_grads=True))


def close(got: Tensor, expected: float | Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        got.detach().double(), torch.as_tensor(expected, dtype=torch.float64).detach(), rtol=tolerance, atol=tolerance
    )


def finite(*values: Tensor) -> None:
    for v in values:
        assert torch.isfinite(v).all()


def check_embedding_loss(
    ours: EmbeddingLoss, oracle: Callable[[Problem], float], name: str, dtype: torch.dtype, tolerance: float
) -> None:
    output, instance, _, batch = tensors(PROBLEMS[name], dtype)
    got = ours(output.embedding, instance, batch)
    assert got.dtype == dtype
    assert got.shape == ()
    assert got.requires_grad
    close(got, oracle(PROBLEMS[name]), tolerance)
    finite(*slopes(got, output))


def check_score_loss(
    ours: ScoreLoss, oracle: Callable[[Problem], float], name: str, dtype: torch.dtype, tolerance: float
) -> None:
    output, *labels = tensors(PROBLEMS[name], dtype)
    got = ours(output, *labels)
    assert got.dtype == dtype
    assert got.shape == ()
    close(got, oracle(PROBLEMS[name]), tolerance)
    of_mean, of_log_std, of_logits = slopes(got, output)
    finite(of_logits)
    assert not of_mean.any()  # Q is a constant
    assert not of_log_std.any()


def check_rejection(losses: dict[str, tuple[Callable[..., Tensor], Callable[[Problem], float]]]) -> None:
    """Inputs changed in the third digit are told apart; the losses are of an embedding or of an output with classes."""
    p = PROBLEMS["ragged"]
    wrong = p.change(mean=p.mean * 1.001, log_std=p.log_std + 1e-3, logits=p.logits + np.arange(4) * 1e-3)
    output, instance, semantic, batch = tensors(p)
    for ours, oracle in losses.values():
        of_embedding = isinstance(ours, InstanceBCELoss | LogDiceLoss | EntropyRegularizer)
        got = ours(output.embedding, instance, batch) if of_embedding else ours(output, instance, semantic, batch)
        with pytest.raises(AssertionError):
            close(got, oracle(wrong))


def example() -> tuple[HeadOutput, Tensor, Tensor]:
    x = GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 3))
    return HeadOutput(x, torch.zeros(4, 3)), torch.tensor([5, 5, 9, -1]), torch.tensor([1, 1, 2, 0])
