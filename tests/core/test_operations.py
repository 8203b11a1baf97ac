"""How many operations the whole objective dispatches: on a GPU each is a launch, and a small batch waits for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from operations import Operations
from torch import Tensor

from probemb_lib import (
    CenterAwareLoss,
    GaussianEmbedding,
    HeadOutput,
    ProbabilisticEmbeddingLoss,
    index_instances,
    member_similarity,
    segments,
)
from probemb_lib.losses import _terms

eager_own_similarity = member_similarity.own_similarity


@torch.library.custom_op(
    "probemb_tests::own_similarity",
    mutates_args=(),
    schema="(Tensor moments, Tensor centers, Tensor? size, Tensor instance) -> (Tensor, Tensor, Tensor)",
)
def own_similarity_at_once(
    moments: Tensor, centers: Tensor, size: Tensor | None, instance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    log_kappa, slopes, share = eager_own_similarity(moments, centers, size, instance)
    return log_kappa, slopes, share


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a Triton kernel is launched on CUDA, one operation with the same result is dispatched.

    tests/gpu/objective_cases.py counts the launches behind: one or two for the sums of segments, one for the members.
    """

    def own_similarity(*args: Any) -> member_similarity.OwnSimilarity:
        return member_similarity.OwnSimilarity(*own_similarity_at_once(*args))

    monkeypatch.setattr(segments, "_reduce", segments._reduce_opaque)
    monkeypatch.setattr(member_similarity, "own_similarity", own_similarity)


def batch_of(clouds: int, shuffled: bool) -> tuple[HeadOutput, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(clouds)
    n = 60 * clouds
    batch, instance = torch.arange(n) // 60, torch.randint(-1, 5, (n,), generator=g)
    if shuffled:
        batch = batch[torch.randperm(n, generator=g)]
        instance[::13] = -100
    semantic = torch.where(instance < 0, 0, 1 + instance % 3)
    mean, log_std = (torch.randn(n, 3, generator=g).requires_grad_() for _ in range(2))
    output = HeadOutput(GaussianEmbedding(mean, log_std), torch.randn(n, 4, generator=g).requires_grad_())
    return output, instance, semantic, batch


def count(loss: ProbabilisticEmbeddingLoss, clouds: int, shuffled: bool = False) -> tuple[int, int]:
    """Operations forward and backward, with an index; none of them reads values back."""
    output, instance, semantic, batch = batch_of(clouds, shuffled)
    index = index_instances(instance, batch)
    with Operations() as forward:
        total = loss(output, index, semantic)["loss"]
    with Operations() as backward:
        torch.autograd.grad(total, [*output.embedding, output.logits])
    assert forward.read_backs == backward.read_backs == 0
    return forward.total, backward.total


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize("shuffled", [False, True])
def test_operations_of_the_objective(shuffled: bool) -> None:
    forward, backward = count(ProbabilisticEmbeddingLoss(), 4, shuffled)
    assert forward <= 90
    assert backward <= 60


@pytest.mark.parametrize(
    "make",
    [
        ProbabilisticEmbeddingLoss,
        lambda: ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True), covariance="independent"),
        lambda: ProbabilisticEmbeddingLoss(per_instance_dice=True),
    ],
)
def test_operations_do_not_grow_with_clouds(make: Callable[[], ProbabilisticEmbeddingLoss]) -> None:
    """All but those of one cloud, which needs no gather of what is the same for all points."""
    assert count(make(), 2) == count(make(), 4) == count(make(), 11)


def test_one_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the label check. The tiles of the fused sums read besides, on the CPU, and the Triton kernels do not."""
    output, instance, semantic, batch = batch_of(3, False)
    index, loss = index_instances(instance, batch), ProbabilisticEmbeddingLoss()
    readers: list[str] = []

    def counted(method: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        def read(self: Tensor) -> Any:
            readers.append(sys._getframe(1).f_code.co_filename)
            return method(self)

        return read

    for name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(Tensor, name, counted(getattr(Tensor, name)))
    torch.autograd.grad(loss(output, index, semantic)["loss"], [*output.embedding, output.logits])
    names = [Path(reader).name for reader in readers]
    assert [name for name in names if name != "similarity_sums.py"] == ["_terms.py"]


@pytest.mark.usefixtures("as_on_cuda")
def test_one_cloud_has_as_many_at_most() -> None:
    (one, of_one), (four, of_four) = (count(ProbabilisticEmbeddingLoss(), clouds) for clouds in (1, 4))
    assert one <= four
    assert of_one <= of_four


def test_labels_are_not_checked_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCuda:
        is_cuda = True

    labels: Any = OnCuda()
    for capturing in (False, True):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda answer=capturing: answer)
        assert _terms.may_read(labels) is not capturing
        assert _terms.may_read(torch.zeros(1))
