"""The whole objective against float64 loops, values and gradients: properties, robustness, autocast, compiled."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import EVERY, KEYS, PROBLEMS, close, finite, inputs, quick, seeds, slopes, tensors
from oracles import Problem, draw_problem
from torch import Tensor
from torch._dynamo.utils import counters
from torch.autograd import gradcheck

from probemb_lib import (
    CenterAwareLoss,
    GaussianEmbedding,
    HeadOutput,
    ProbabilisticEmbeddingLoss,
    ScoreCrossEntropyLoss,
    SeedMSELoss,
    index_instances,
)

COMPILER = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler on the CPU"
)


@EVERY
@pytest.mark.parametrize("per_instance", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 3e-4)])
def test_total(name: str, per_instance: bool, dtype: torch.dtype, tolerance: float) -> None:
    """Values against the loops, gradients against plain autograd over the broadcast formula."""
    p = PROBLEMS[name]
    output, *labels = tensors(p, dtype)
    before = [t.clone() for t in (*inputs(output), *labels) if t is not None]
    got = ProbabilisticEmbeddingLoss(per_instance_dice=per_instance)(output, *labels)
    assert sorted(got) == KEYS
    for key, value in oracles.total(p, per_instance).items():
        assert got[key].dtype == dtype
        assert got[key].shape == ()
        close(got[key], value, tolerance)
    assert got["loss"].requires_grad
    reference, *_ = tensors(p)
    right = oracles.broadcast_total(p, *inputs(reference), per_instance_dice=per_instance)
    for key, value in oracles.total(p, per_instance).items():
        close(right[key], value)
    for g, e in zip(slopes(got["loss"], output), slopes(right["loss"], reference), strict=True):
        close(g, e, tolerance)
    for t, b in zip((t for t in (*inputs(output), *labels) if t is not None), before, strict=True):
        torch.testing.assert_close(t, b, rtol=0, atol=0)


def test_the_gradient_oracle_rejects() -> None:
    p = PROBLEMS["ragged"]
    output, *labels = tensors(p)
    got = slopes(ProbabilisticEmbeddingLoss()(output, *labels)["loss"], output)
    reference, *_ = tensors(p)
    wrong = oracles.broadcast_total(p, *inputs(reference), per_instance_dice=True)
    for g, e in zip(got, slopes(1.001 * wrong["loss"], reference), strict=True):
        with pytest.raises(AssertionError):
            close(g, e, 1e-9)


@pytest.mark.parametrize("per_instance", [False, True])
def test_total_against_finite_differences(per_instance: bool) -> None:
    p = draw_problem(15, n=9, dim=2, num_clouds=2, num_instances=2)
    output, instance, semantic, batch = tensors(p)
    index = index_instances(instance, batch)
    loss = ProbabilisticEmbeddingLoss(per_instance_dice=per_instance)
    still = ProbabilisticEmbeddingLoss(per_instance_dice=per_instance, score_weight=0.0)

    def of_embedding(mean: Tensor, log_std: Tensor) -> Tensor:  # without the score, whose Q is a constant
        return still(HeadOutput(GaussianEmbedding(mean, log_std), output.logits), index, semantic)["loss"]

    def of_logits(logits: Tensor) -> Tensor:
        return loss(HeadOutput(output.embedding.detach(), logits), index, semantic)["loss"]

    assert gradcheck(of_embedding, tuple(output.embedding))
    assert gradcheck(of_logits, (output.logits,))


def test_weights_and_parts() -> None:
    p = PROBLEMS["ragged"]
    output, *labels = tensors(p)
    parts = oracles.total(p)
    loss = ProbabilisticEmbeddingLoss(bce_weight=0.3, dice_weight=2.0, score_weight=5.0, entropy_weight=0.7)
    expected = 0.3 * parts["bce"] + 2 * parts["dice"] + 5 * parts["score"] + 0.7 * parts["entropy"]
    close(loss(output, *labels)["loss"], expected)
    without = ProbabilisticEmbeddingLoss(bce_weight=0.0)(output, *labels)
    assert sorted(without) == KEYS
    close(without["loss"], parts["loss"] - parts["bce"])


@pytest.mark.parametrize(
    ("score", "oracle"),
    [
        (ScoreCrossEntropyLoss(), oracles.score_cross_entropy),
        (SeedMSELoss(), oracles.seed_mse),
        (CenterAwareLoss(complement=True), lambda p: oracles.center_aware(p, complement=True)),
        (CenterAwareLoss(background=None), lambda p: oracles.center_aware(p, background=None)),
    ],
)
def test_other_score_losses_and_settings(
    score: CenterAwareLoss | ScoreCrossEntropyLoss | SeedMSELoss, oracle: Callable[[Problem], float]
) -> None:
    p = PROBLEMS["ragged"]
    output, *labels = tensors(p)
    got = ProbabilisticEmbeddingLoss(score, entropy_reduction="sum")(output, *labels)
    close(got["score"], oracle(p))
    close(got["entropy"], oracles.entropy(p, "sum"))
    independent = ProbabilisticEmbeddingLoss(covariance="independent")(output, *labels)
    for key, value in oracles.total(p, covariance="independent").items():
        close(independent[key], value)


# --- Properties


def total(p: Problem, per_instance: bool = False) -> dict[str, Tensor]:
    output, *labels = tensors(p)
    return ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True), per_instance_dice=per_instance)(output, *labels)


def same(a: dict[str, Tensor], b: dict[str, Tensor], **shifts: float) -> None:
    for key in KEYS:
        close(a[key] + shifts.get(key, 0.0), b[key])


@quick
@given(seeds, st.booleans())
def test_relabelling_and_permutation(seed: int, per_instance: bool) -> None:
    p = draw_problem(seed)
    expected = total(p, per_instance)
    rng = np.random.default_rng(seed)
    names = rng.permutation(5000)
    same(expected, total(p.change(instance=np.where(p.instance >= 0, names[p.instance], p.instance)), per_instance))
    order = rng.permutation(len(p.mean))
    assert p.batch is not None
    turned = Problem(*(a[order] for a in (p.mean, p.log_std, p.logits, p.instance, p.semantic, p.batch)))
    same(expected, total(turned, per_instance))
    swapped = np.array([2, 0, 1])[p.batch]
    same(expected, total(p.change(batch=swapped), per_instance))


@quick
@given(seeds, st.booleans())
def test_a_batch_is_the_mean_of_its_clouds(seed: int, per_instance: bool) -> None:
    p = draw_problem(seed, num_clouds=2, n=30)
    assert p.batch is not None
    parts = []
    for b in range(2):
        rows = p.batch == b
        parts.append(Problem(p.mean[rows], p.log_std[rows], p.logits[rows], p.instance[rows], p.semantic[rows], None))
    if all((q.instance >= 0).any() and (q.semantic[q.instance >= 0] >= 0).any() for q in parts):
        whole, (a, b) = total(p, per_instance), (total(q, per_instance) for q in parts)
        same(whole, {key: (a[key] + b[key]) / 2 for key in KEYS})


@quick
@given(seeds, st.floats(-5, 5), st.floats(-4, 4), st.booleans())
def test_translation_and_scale(seed: int, shift: float, log_scale: float, per_instance: bool) -> None:
    """Only the entropy sees the unit: it grows by D ln s."""
    p = draw_problem(seed)
    moved = p.change(mean=(p.mean + shift) * math.exp(log_scale), log_std=p.log_std + log_scale)
    same(
        total(p, per_instance),
        total(moved, per_instance),
        entropy=3 * log_scale,
        loss=0.001 * 3 * log_scale,
    )


@quick
@given(seeds, st.booleans())
def test_an_index_equals_raw_ids(seed: int, per_instance: bool) -> None:
    output, instance, semantic, batch = tensors(draw_problem(seed))
    index = index_instances(instance, batch)
    loss = ProbabilisticEmbeddingLoss(per_instance_dice=per_instance)
    for key, value in loss(output, instance, semantic, batch).items():
        torch.testing.assert_close(loss(output, index, semantic)[key], value, rtol=0, atol=0)


def test_isotropic_equals_expanded() -> None:
    p = draw_problem(16, isotropic=True)
    same(total(p), total(p.change(log_std=np.repeat(p.log_std, 3, 1))))


def test_perfect_clusters_have_no_loss() -> None:
    """Far and narrow instances with sure scores: Dice, BCE and score are 0."""
    instance = torch.arange(5).repeat(4)
    x = GaussianEmbedding(instance[:, None] * torch.full((1, 3), 100.0), torch.zeros(20, 3))
    logits = torch.nn.functional.one_hot(instance % 2 + 1, 3) * 200.0
    got = ProbabilisticEmbeddingLoss()(HeadOutput(x, logits), instance, instance % 2 + 1)
    for key in ("bce", "dice", "score"):
        close(got[key], 0.0, 1e-6)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8])
def test_label_types(dtype: torch.dtype) -> None:
    p = draw_problem(17)
    p = p.change(instance=np.where(p.instance >= 0, p.instance % 100, p.instance))
    output, instance, semantic, batch = tensors(p)
    assert batch is not None
    loss = ProbabilisticEmbeddingLoss()
    same(loss(output, instance, semantic, batch), loss(output, instance.to(dtype), semantic.to(dtype), batch.to(dtype)))


# --- Robustness


def check_finite(output: HeadOutput, instance: Tensor, semantic: Tensor, batch: Tensor | None) -> dict[str, Tensor]:
    """Every variant: the same keys, finite values and gradients, a total with a gradient."""
    for loss in (
        ProbabilisticEmbeddingLoss(per_instance_dice=True, covariance="independent"),
        ProbabilisticEmbeddingLoss(SeedMSELoss()),
        ProbabilisticEmbeddingLoss(ScoreCrossEntropyLoss()),
        ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True)),
    ):
        got = loss(output, instance, semantic, batch)
        assert sorted(got) == KEYS
        assert got["loss"].requires_grad
        finite(*got.values(), *slopes(got["loss"], output))
    return got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [2, 3, 6])
def test_sigma_from_e_minus_12_to_e_12(dtype: torch.dtype, dim: int) -> None:
    p = draw_problem(18, n=200, dim=dim, num_clouds=2, num_instances=12)
    rng = np.random.default_rng(0)
    p = p.change(log_std=rng.choice([-12.0, -6.0, 0.0, 6.0, 12.0], (200, dim)))
    got = check_finite(*tensors(p, dtype))
    for key, value in oracles.total(p).items():
        if key not in ("score", "loss"):
            close(got[key], value, 1e-9 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize("log_std", [-12.0, 0.0, 12.0])
def test_identical_gaussians(log_std: float) -> None:
    """κ = 1 everywhere, also between instances, whose centres are the same."""
    output = HeadOutput(
        GaussianEmbedding(torch.ones(8, 3, requires_grad=True), torch.full((8, 3), log_std, requires_grad=True)),
        torch.zeros(8, 3, requires_grad=True),
    )
    instance, semantic = torch.tensor([0, 0, 1, 1, 2, 2, -1, -100]), torch.tensor([1, 1, 2, 2, 1, 1, 0, 0])
    got = check_finite(output, instance, semantic, None)
    # 21 pairs, 6 of them inside: BCE is 15/21 · −ln 1e-6, Dice −ln(2·6 / (21 + 6)).
    close(got["bce"], 15 / 21 * -math.log(1e-6), 1e-4)
    close(got["dice"], -math.log(12 / 27), 1e-4)


def test_points_so_far_apart_that_every_kappa_underflows() -> None:
    p = draw_problem(19, n=12, num_clouds=1, num_instances=2, background=False, ignored=False)
    p = p.change(mean=p.mean * 100, log_std=np.full((12, 3), -2.0))
    got = check_finite(*tensors(p, torch.float32))
    close(got["dice"], oracles.log_dice(p), 1e-4)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """Computed in float32 on the rounded inputs; gradients come back in the inputs' dtype."""
    p = PROBLEMS[name]
    output, *labels = tensors(p, dtype)
    check_finite(output, *labels)
    got = ProbabilisticEmbeddingLoss()(output, *labels)
    rounded = p.change(
        **{
            key: t.detach().double().numpy()
            for key, t in zip(("mean", "log_std", "logits"), inputs(output), strict=True)
        }
    )
    for key, value in oracles.total(rounded).items():
        assert got[key].dtype == torch.float32
        close(got[key], value, 3e-4)
    assert all(g.dtype == dtype for g in slopes(got["loss"], output))


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    output, *labels = tensors(PROBLEMS[name], dtype)
    loss = ProbabilisticEmbeddingLoss(per_instance_dice=True)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(output, *labels)
    for key, value in loss(output, *labels).items():
        torch.testing.assert_close(got[key], value, rtol=0, atol=0)
    finite(*slopes(got["loss"], output))


def test_many_ragged_clouds() -> None:
    """64 clouds of 0 to 40 points, some without points, some without instances, some all ignored."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 41, 64)
    lengths[[0, 7, 63]] = 0, 0, 5
    batch = np.repeat(np.arange(64), lengths)
    p = draw_problem(20, n=len(batch), num_clouds=1, num_instances=4).change(batch=batch)
    instance = np.where(batch % 9 == 2, -1, p.instance)
    p = p.change(instance=np.where(batch % 9 == 3, oracles.IGNORED, instance))
    order = rng.permutation(len(batch))
    p = Problem(*(a[order] for a in (p.mean, p.log_std, p.logits, p.instance, p.semantic, batch)))
    output, *labels = tensors(p)
    got = ProbabilisticEmbeddingLoss()(output, *labels)
    for key, value in oracles.total(p).items():
        close(got[key], value)
    check_finite(output, *labels)


def test_many_instances() -> None:
    """100,000 instances in 500 clouds."""
    n, clouds, per_cloud = 200_000, 500, 200
    g = torch.Generator().manual_seed(0)
    batch = torch.arange(clouds).repeat_interleave(n // clouds)
    instance = torch.arange(n) % per_cloud
    mean = torch.randn(n, 3, generator=g).requires_grad_()
    log_std = torch.full((n, 1), -2.0, requires_grad=True)
    output = HeadOutput(GaussianEmbedding(mean, log_std), torch.zeros(n, 2, requires_grad=True))
    index = index_instances(instance, batch)
    assert index.num_instances == 100_000
    got = ProbabilisticEmbeddingLoss()(output, index, torch.ones(n, dtype=torch.int64))
    finite(*got.values(), *slopes(got["loss"], output))
    close(got["entropy"], 1.5 * math.log(2 * math.pi * math.e) - 6, 1e-5)


def test_covariance_reaches_the_default_score_loss() -> None:
    loss = ProbabilisticEmbeddingLoss(covariance="independent")
    assert isinstance(loss.score, CenterAwareLoss)
    assert loss.score.covariance == "independent"


# --- Compiled


@COMPILER
def test_compiled_with_changing_sizes() -> None:
    """fullgraph=True on an InstanceIndex equals eager; once the sizes were seen to change nothing is compiled again.
    One cloud is a graph of its own, as torch.compile treats a size of 1.

    The operators' own loops are compiled by Inductor; the graph around them is run as traced, which is quicker.
    """
    torch._dynamo.reset()
    loss = ProbabilisticEmbeddingLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    graphs = []
    for n, num_clouds, num_instances in [(50, 2, 4), (81, 3, 6), (37, 1, 8), (93, 4, 9), (200, 5, 13), (64, 1, 5)]:
        output, instance, semantic, batch = tensors(
            draw_problem(n, n=n, num_clouds=num_clouds, num_instances=num_instances), torch.float32
        )
        index = index_instances(instance, batch)
        got, right = compiled(output, index, semantic), loss(output, index, semantic)
        assert sorted(got) == KEYS
        for key in KEYS:
            torch.testing.assert_close(got[key], right[key], rtol=1e-4, atol=1e-5)
        for g, e in zip(slopes(got["loss"], output), slopes(right["loss"], output), strict=True):
            torch.testing.assert_close(g, e, rtol=1e-3, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[2:] == [graphs[2]] * 4, graphs
