"""What holds for several losses: the background's column, classes, modules, errors."""

from __future__ import annotations

from collections.abc import Callable

import oracles
import pytest
import torch
from hypothesis import given
from loss_cases import ScoreLoss, close, example, quick, seeds, tensors
from oracles import draw_problem
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from probemb_lib import (
    CenterAwareLoss,
    GaussianEmbedding,
    HeadOutput,
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
from probemb_lib.losses._terms import CloudTerm, mean_over_clouds, sum_over_clouds


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


def test_class_without_votes_asks_nothing() -> None:
    """An instance whose points all have an ignored class: no term, and not in N."""
    output, *_ = tensors(draw_problem(14, n=4, num_clouds=1))
    instance, semantic = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, -100, -100])
    first = HeadOutput(GaussianEmbedding(*(t[:2] for t in output.embedding)), output.logits[:2])
    for loss in (center_aware, score_cross_entropy, seed_mse):
        close(loss(output, instance, semantic), loss(first, instance[:2], semantic[:2]))


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
        (
            {"semantic": torch.tensor([1.0, 1, 2, 0]).numpy()},
            TypeError,
            "semantic: expected a torch.Tensor, got ndarray",
        ),
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


# --- terms of clouds


def test_mean_over_clouds() -> None:
    """Each term over the clouds that have it; the third has it nowhere."""
    totals = [torch.tensor(t, requires_grad=True) for t in ([2.0, 50.0, 9.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0])]
    counts = [torch.tensor([1, 0, 3]), torch.tensor([1.0, 1.0, 1.0]), torch.zeros(3, dtype=torch.int64)]
    means = mean_over_clouds(*map(CloudTerm, totals, counts))
    torch.testing.assert_close(torch.stack(means), torch.tensor([2.5, 2.0, 0.0]))
    slopes = torch.autograd.grad(sum(means), totals)
    expected = [[0.5, 0.0, 1 / 6], [1 / 3] * 3, [0.0] * 3]
    torch.testing.assert_close(torch.stack(slopes), torch.tensor(expected))


def test_mean_over_no_cloud_is_a_zero_with_a_gradient() -> None:
    x = torch.zeros(0, requires_grad=True)
    (zero,) = mean_over_clouds(CloudTerm(x, torch.zeros(0, dtype=torch.int64)))
    assert zero.item() == 0
    assert zero.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sum_over_clouds(dtype: torch.dtype) -> None:
    """Clouds in any order, one of them empty; ignored points take no part, also not in the derivatives."""
    batch = torch.tensor([3, 0, 3, 1, 0, 3])
    index = index_instances(torch.tensor([0, -100, -1, 0, 2, 0]), batch)
    x = torch.randn(2, 6, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = torch.zeros(2, 4, dtype=dtype).index_add(1, batch, x * index.valid)
    torch.testing.assert_close(sum_over_clouds(x, index), plain)
    if dtype == torch.float64:
        assert gradcheck(lambda t: sum_over_clouds(t, index), x)
        assert gradgradcheck(lambda t: sum_over_clouds(t, index), x)
