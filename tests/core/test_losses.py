"""The losses against float64 loops, values and gradients: properties, robustness, autocast, compiled, every error."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import Problem, draw_problem
from torch import Tensor
from torch._dynamo.utils import counters
from torch.autograd import gradcheck

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
    index_instances,
)
from probemb_lib.functional import (
    center_aware,
    entropy_regularizer,
    instance_bce,
    log_dice,
    score_cross_entropy,
    seed_mse,
)

quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**20)
KEYS = ["bce", "dice", "entropy", "loss", "score"]
COMPILER = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler on the CPU"
)

EmbeddingLoss = Callable[[GaussianEmbedding, Tensor, Tensor | None], Tensor]
ScoreLoss = Callable[[HeadOutput, Tensor, Tensor, Tensor | None], Tensor]

WEIGHT = np.array([0.5, 1.0, 2.0, 0.25])

EMBEDDING_LOSSES: dict[str, tuple[EmbeddingLoss, Callable[[Problem], float]]] = {
    "bce": (InstanceBCELoss(), oracles.instance_bce),
    "bce independent": (
        InstanceBCELoss(covariance="independent"),
        lambda p: oracles.instance_bce(p, covariance="independent"),
    ),
    "dice": (LogDiceLoss(), oracles.log_dice),
    "dice per instance": (LogDiceLoss(per_instance=True), lambda p: oracles.log_dice(p, per_instance=True)),
    "dice independent": (
        LogDiceLoss(covariance="independent"),
        lambda p: oracles.log_dice(p, covariance="independent"),
    ),
    "entropy": (EntropyRegularizer(), oracles.entropy),
    "entropy sum": (EntropyRegularizer(reduction="sum"), lambda p: oracles.entropy(p, "sum")),
}

SCORE_LOSSES: dict[str, tuple[ScoreLoss, Callable[[Problem], float]]] = {
    "center": (CenterAwareLoss(), oracles.center_aware),
    "center independent": (
        CenterAwareLoss(covariance="independent"),
        lambda p: oracles.center_aware(p, covariance="independent"),
    ),
    "center complement": (CenterAwareLoss(complement=True), lambda p: oracles.center_aware(p, complement=True)),
    "center weight": (
        CenterAwareLoss(weight=torch.tensor(WEIGHT), complement=True),
        lambda p: oracles.center_aware(p, weight=WEIGHT, complement=True),
    ),
    "center no background": (CenterAwareLoss(background=None), lambda p: oracles.center_aware(p, background=None)),
    "cross entropy": (ScoreCrossEntropyLoss(), oracles.score_cross_entropy),
    "cross entropy no background": (
        ScoreCrossEntropyLoss(background=None),
        lambda p: oracles.score_cross_entropy(p, background=None),
    ),
    "mse": (SeedMSELoss(), oracles.seed_mse),
    "mse no background": (SeedMSELoss(background=None), lambda p: oracles.seed_mse(p, background=None)),
    "mse independent": (
        SeedMSELoss(covariance="independent"),
        lambda p: oracles.seed_mse(p, covariance="independent"),
    ),
}

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


# --- each loss against the loops


@EVERY
@pytest.mark.parametrize("loss", EMBEDDING_LOSSES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-4)])
def test_embedding_losses(name: str, loss: str, dtype: torch.dtype, tolerance: float) -> None:
    ours, oracle = EMBEDDING_LOSSES[loss]
    output, instance, _, batch = tensors(PROBLEMS[name], dtype)
    got = ours(output.embedding, instance, batch)
    assert got.dtype == dtype
    assert got.shape == ()
    assert got.requires_grad
    close(got, oracle(PROBLEMS[name]), tolerance)
    finite(*slopes(got, output))


@EVERY
@pytest.mark.parametrize("loss", SCORE_LOSSES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_score_losses(name: str, loss: str, dtype: torch.dtype, tolerance: float) -> None:
    ours, oracle = SCORE_LOSSES[loss]
    output, *labels = tensors(PROBLEMS[name], dtype)
    got = ours(output, *labels)
    assert got.dtype == dtype
    assert got.shape == ()
    close(got, oracle(PROBLEMS[name]), tolerance)
    of_mean, of_log_std, of_logits = slopes(got, output)
    finite(of_logits)
    assert not of_mean.any()  # Q is a constant
    assert not of_log_std.any()


def test_the_oracles_reject() -> None:
    """Inputs changed in the third digit, the other kind of Dice, another target: each is told apart."""
    p = PROBLEMS["ragged"]
    wrong = p.change(mean=p.mean * 1.001, log_std=p.log_std + 1e-3, logits=p.logits + np.arange(4) * 1e-3)
    output, instance, semantic, batch = tensors(p)
    for ours, oracle in EMBEDDING_LOSSES.values():
        with pytest.raises(AssertionError):
            close(ours(output.embedding, instance, batch), oracle(wrong))
    for score, oracle in SCORE_LOSSES.values():
        with pytest.raises(AssertionError):
            close(score(output, instance, semantic, batch), oracle(wrong))
    with pytest.raises(AssertionError):
        close(log_dice(output.embedding, instance, batch), oracles.log_dice(p, per_instance=True))
    with pytest.raises(AssertionError):
        close(center_aware(output, instance, semantic, batch), oracles.center_aware(p, complement=True))


def test_background_in_another_column() -> None:
    p = draw_problem(12, num_classes=4)
    semantic = p.semantic.copy()
    semantic[(semantic >= 0) & (p.instance >= 0)] -= 1  # classes 0..2, background 3
    semantic[p.instance == -1] = 3
    p = p.change(semantic=semantic)
    output, *labels = tensors(p)
    close(center_aware(output, *labels, background=3), oracles.center_aware(p, background=3))
    close(
        center_aware(output, *labels, background=3, complement=True),
        oracles.center_aware(p, background=3, complement=True),
    )
    close(score_cross_entropy(output, *labels, background=3), oracles.score_cross_entropy(p, background=3))
    close(seed_mse(output, *labels, background=3), oracles.seed_mse(p, background=3))


def test_score_map_of_equations_8_and_9() -> None:
    """The oracle's explicit Q: one instance at most has a point, so that the maximum is the only entry."""
    p = PROBLEMS["ragged"]
    per_instance, per_class = oracles.score_map(p)
    assert ((per_instance > 0).sum(1) <= 1).all()
    assert (per_instance.max(1) >= per_class.max(1)).all()
    labelled = np.isin(np.arange(len(p.mean)), [i for k in oracles.instances(p.instance, p.batch) for i in k.rows])
    assert ((per_instance > 0).any(1) == labelled).all()


def test_complement_has_its_optimum_at_kappa() -> None:
    """With complement=True the gradient of the logits vanishes at P[:, class] = κ."""
    p = draw_problem(13, num_classes=2, num_clouds=1, background=False, ignored=False).change(batch=None)
    _, q = oracles.score_map(p)
    p = p.change(logits=np.log(np.stack([1 - q[:, 1], q[:, 1]], 1).clip(1e-30)))
    output, *labels = tensors(p)
    grads = [slopes(center_aware(output, *labels, complement=c), output)[2].abs().max() for c in (True, False)]
    assert grads[0] < 1e-12
    assert grads[1] > 1e-4


def test_class_without_votes_asks_nothing() -> None:
    """An instance whose points all have an ignored class: no term, and not in N."""
    output, *_ = tensors(draw_problem(14, n=4, num_clouds=1))
    instance, semantic = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, -100, -100])
    first = HeadOutput(GaussianEmbedding(*(t[:2] for t in output.embedding)), output.logits[:2])
    for loss in (center_aware, score_cross_entropy, seed_mse):
        close(loss(output, instance, semantic), loss(first, instance[:2], semantic[:2]))


# --- the whole objective


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


# --- properties


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


@quick
@given(seeds)
def test_modules_equal_functions(seed: int) -> None:
    output, *labels = tensors(draw_problem(seed))
    instance, _, batch = labels
    x = output.embedding
    parts = ProbabilisticEmbeddingLoss()(output, *labels)
    close(parts["bce"], instance_bce(x, instance, batch))
    close(parts["dice"], log_dice(x, instance, batch))
    close(parts["score"], center_aware(output, *labels))
    close(parts["entropy"], entropy_regularizer(x, instance, batch))
    close(CenterAwareLoss()(output, *labels), parts["score"])
    close(SeedMSELoss()(output, *labels), seed_mse(output, *labels))
    close(ScoreCrossEntropyLoss()(output, *labels), score_cross_entropy(output, *labels))


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


# --- robustness


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


# --- modules


def test_class_weights_are_a_buffer() -> None:
    loss = CenterAwareLoss(weight=torch.tensor([0.5, 1.0, 2.0]))
    assert list(loss.state_dict()) == ["weight"]
    assert not list(loss.parameters())
    assert loss.to(torch.float64).weight is not None
    assert loss.weight is not None
    assert loss.weight.dtype == torch.float64
    assert loss.to("meta").weight.device.type == "meta"
    other = CenterAwareLoss(weight=torch.zeros(3))
    other.load_state_dict({"weight": torch.tensor([1.0, 2.0, 3.0])})
    torch.testing.assert_close(other.weight, torch.tensor([1.0, 2.0, 3.0]))
    assert not CenterAwareLoss().state_dict()
    assert list(ProbabilisticEmbeddingLoss(other).state_dict()) == ["score.weight"]


def test_covariance_reaches_the_default_score_loss() -> None:
    loss = ProbabilisticEmbeddingLoss(covariance="independent")
    assert isinstance(loss.score, CenterAwareLoss)
    assert loss.score.covariance == "independent"


# --- errors


def example() -> tuple[HeadOutput, Tensor, Tensor]:
    x = GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 3))
    return HeadOutput(x, torch.zeros(4, 3)), torch.tensor([5, 5, 9, -1]), torch.tensor([1, 1, 2, 0])


@pytest.mark.parametrize("loss", [center_aware, score_cross_entropy, seed_mse, ProbabilisticEmbeddingLoss()])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": torch.zeros(4)}, ValueError, r"floating-point logits \(N, L\), got torch.float32 \(4,\)"),
        ({"logits": torch.zeros(4, 3, dtype=torch.int64)}, ValueError, "logits .* got torch.int64"),
        ({"logits": torch.zeros(5, 3)}, ValueError, "instance labels for 5 points, got 4"),
        ({"instance": torch.tensor([0, 0, 1])}, ValueError, "instance labels for 4 points, got 3"),
        ({"instance": torch.tensor([0.0, 0, 1, 1])}, TypeError, "instance: expected integers"),
        ({"instance": torch.tensor([0, 0, 1, -2])}, ValueError, "got -2"),
        ({"semantic": torch.tensor([1.0, 1, 2, 0])}, TypeError, "semantic: expected integers, got torch.float32"),
        ({"semantic": torch.ones(4, dtype=torch.bool)}, TypeError, "semantic: expected integers, got torch.bool"),
        ({"semantic": torch.tensor([1, 1, 2])}, ValueError, r"expected semantic \(4,\) on cpu, got \(3,\) on cpu"),
        ({"semantic": torch.ones(4, dtype=torch.int64, device="meta")}, ValueError, r"got \(4,\) on meta"),
        ({"semantic": torch.tensor([1, 1, 3, 0])}, ValueError, r"classes in \[0, 3\) or -100 .* got 3; num_classes"),
        ({"semantic": torch.tensor([1, -1, 2, 0])}, ValueError, r"classes in \[0, 3\) or -100 .* got -1"),
        ({"semantic": torch.tensor([1, 1, 0, 0])}, ValueError, "instance 9 of cloud 0 has class 0, the background"),
    ],
)
def test_errors_of_score_losses(
    loss: ScoreLoss, change: dict[str, Tensor], error: type[Exception], message: str
) -> None:
    output, instance, semantic = example()
    output = HeadOutput(output.embedding, change.get("logits", output.logits))
    with pytest.raises(error, match=message):
        loss(output, change.get("instance", instance), change.get("semantic", semantic), None)


@pytest.mark.parametrize("loss", [center_aware, score_cross_entropy, seed_mse])
@pytest.mark.parametrize("background", [-1, 3])
def test_errors_of_background(loss: Callable[..., Tensor], background: int) -> None:
    with pytest.raises(ValueError, match=rf"expected background in \[0, 3\) or None, got {background}"):
        loss(*example(), background=background)


def test_errors_of_center_aware() -> None:
    message = r"complement=True .*expected background, got None"
    with pytest.raises(ValueError, match=message):
        center_aware(*example(), complement=True, background=None)
    with pytest.raises(ValueError, match=message):
        CenterAwareLoss(complement=True, background=None)
    with pytest.raises(ValueError, match=r"expected weight \(3,\), got \(4,\)"):
        center_aware(*example(), weight=torch.ones(4))
    with pytest.raises(ValueError, match=r"expected weight \(3,\), got \(3, 1\)"):
        center_aware(*example(), weight=torch.ones(3, 1))
    output, *labels = example()
    output = HeadOutput(GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4)), output.logits)
    with pytest.raises(ValueError, match="expected log_std"):
        center_aware(output, *labels)


@pytest.mark.parametrize("loss", [instance_bce, log_dice, entropy_regularizer])
def test_errors_of_embedding_losses(loss: Callable[..., Tensor]) -> None:
    output, instance, _ = example()
    with pytest.raises(ValueError, match="labels for 4 points, got 3"):
        loss(output.embedding, instance[:3])
    with pytest.raises(ValueError, match="expected mean of shape"):
        loss(GaussianEmbedding(torch.zeros(4), torch.zeros(4)), instance)
    with pytest.raises(ValueError, match="expected batch like instance"):
        loss(output.embedding, instance, torch.zeros(3, dtype=torch.int64))


def test_errors_of_options() -> None:
    output, instance, semantic = example()
    with pytest.raises(ValueError, match='expected reduction "mean" or "sum", got \'max\''):
        entropy_regularizer(output.embedding, instance, reduction="max")  # type: ignore[arg-type]
    for loss in (instance_bce, log_dice):
        with pytest.raises(ValueError, match="expected covariance"):
            loss(output.embedding, instance, covariance="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected covariance"):
        ProbabilisticEmbeddingLoss(covariance="sum")(output, instance, semantic)  # type: ignore[arg-type]


# --- compiled


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
