"""Our operators for torch.compile: what they tell the compiler of shapes and strides must be what they return."""

import pytest
import torch

from probemb_lib import (
    CenterAwareLoss,
    GaussianEmbedding,
    HeadOutput,
    ProbabilisticEmbeddingLoss,
    aggregate_instances,
    index_instances,
    segments,
    similarity_sums,
)
from probemb_lib.margin import lovasz

CHECKS = ("test_schema", "test_faketensor")


def problem(clouds: int) -> tuple[GaussianEmbedding, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(clouds)
    instance = torch.randint(-1, 5, (60,), generator=generator)
    instance[::13] = -100
    batch = torch.randint(0, clouds, (60,), generator=generator)
    return GaussianEmbedding(*torch.randn(2, 60, 3, generator=generator)), instance, batch


@pytest.mark.parametrize("clouds", [1, 3])
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(("gradients", "weighted"), [(False, False), (True, False), (True, True)])
def test_similarity_sums(clouds: int, outside: bool, gradients: bool, weighted: bool) -> None:
    x, instance, batch = problem(clouds)
    i = index_instances(instance, batch)
    c = aggregate_instances(x, i)
    weights = torch.rand(2, i.num_instances) if weighted else None
    args = (*x, *c, i.index, i.order, i.ptr, i.instance_ptr, i.batch, weights, outside, gradients, False)
    torch.library.opcheck(torch.ops.probemb_lib.similarity_sums.default, args, test_utils=CHECKS)


@pytest.mark.parametrize("clouds", [1, 3])
def test_the_others(clouds: int) -> None:
    x, instance, batch = problem(clouds)
    i = index_instances(instance, batch)
    ops = torch.ops.probemb_lib
    for rows in (x.mean[:, 0], x.mean.T, torch.stack([x.mean.T, x.log_std.T])):
        torch.library.opcheck(ops.take.default, (rows, i.member), test_utils=CHECKS)
        torch.library.opcheck(ops.put.default, (rows[..., : len(i.member)], i.member, 60), test_utils=CHECKS)
        for largest in (False, True)[: 3 - rows.ndim]:  # the largest of a row alone
            args = (rows[..., : len(i.member)].contiguous(), i.member_ptr, largest)
            torch.library.opcheck(ops.reduce_segments.default, args, test_utils=CHECKS)
    grad, scale = torch.randn(2, 2, 3, 60), torch.randn(2, i.num_clouds)
    torch.library.opcheck(ops.scale_by_cloud.default, (grad, scale, i.point_batch), test_utils=CHECKS)


def test_the_whole_loss_through_inductor() -> None:
    """The other tests compile with a backend that does not look at strides; Inductor does."""
    loss = ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True))
    compiled = torch.compile(loss, fullgraph=True)
    x, instance, batch = problem(3)
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    classes = torch.where(instance < 0, instance.clamp_max(-1), 1 + instance % 2)
    classes[classes == -1] = 0
    results = []
    for function in (loss, compiled):
        leaves = [t.clone().requires_grad_() for t in (*x, logits)]
        output = HeadOutput(GaussianEmbedding(leaves[0], leaves[1]), leaves[2])
        losses = function(output, index_instances(instance, batch), classes, batch)
        results.append((losses, torch.autograd.grad(losses["loss"], leaves)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "operator",
    [
        segments._take_opaque,
        segments._put_opaque,
        segments._reduce_opaque,
        similarity_sums._scale_by_cloud_opaque,
        similarity_sums._all_clouds,
        lovasz._all_instances,
    ],
    ids=lambda operator: operator._name,
)
def test_schema_is_the_signature(operator: torch.library.CustomOpDef) -> None:
    """It is written out, as torch before 2.7 does not read annotations that are strings."""
    if not hasattr(torch.library, "infer_schema"):  # since 2.5
        assert tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 5)
        return
    name, _, written = str(operator._opoverload._schema).partition("(")
    assert name == f"probemb_lib::{operator._name}"
    try:
        inferred = torch.library.infer_schema(operator._init_fn, mutates_args=())
    except ValueError:  # this torch does not read them
        assert tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 7)
        return
    assert f"({written}" == inferred
