"""Instance indexing and aggregation against loops, label types and layouts, sampling, every error."""

from __future__ import annotations

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operations import Operations
from oracles import Problem, draw_problem
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from probemb_lib import GaussianEmbedding, InstanceIndex, aggregate_instances, index_instances
from probemb_lib.aggregate import as_index, instance_classes

quick = settings(max_examples=40, deadline=None)


@st.composite
def labels(draw: st.DrawFn) -> tuple[Tensor, Tensor | None]:
    n = draw(st.integers(0, 25))
    ids = st.sampled_from([-100, -1, 0, 1, 5, 254, 255, 70_000, 2**62, 2**63 - 1])
    instance = torch.tensor(draw(st.lists(ids, min_size=n, max_size=n)), dtype=torch.int64)
    if draw(st.booleans()):
        return instance, None
    clouds = st.lists(st.integers(0, draw(st.integers(0, 5))), min_size=n, max_size=n)
    return instance, torch.tensor(draw(clouds), dtype=torch.int64)


def check_index(got: InstanceIndex, instance: Tensor, batch: Tensor | None) -> None:
    """Every field against loops over the labels."""
    arrays = instance.long().numpy(), None if batch is None else batch.long().numpy()
    found, points = oracles.instances(*arrays), oracles.clouds(*arrays)
    if batch is None:
        points = points or [[]]
    number = {i: k for k, one in enumerate(found) for i in one.rows}
    n = len(instance)
    expected = {
        "index": [number.get(i, -1) for i in range(n)],
        "valid": [bool(instance[i] != -100) for i in range(n)],
        "size": [len(k.rows) for k in found],
        "batch": [k.cloud for k in found],
        "id": [k.id for k in found],
        "point_batch": [0] * n if batch is None else batch.tolist(),
        "order": list(itertools.chain(*points)),
        "ptr": list(itertools.accumulate(map(len, points), initial=0)),
        "instance_ptr": list(
            itertools.accumulate((sum(k.cloud == b for k in found) for b in range(len(points))), initial=0)
        ),
        "member": [i for k in found for i in k.rows],
        "member_ptr": list(itertools.accumulate((len(k.rows) for k in found), initial=0)),
    }
    for name, value in expected.items():
        dtype = torch.bool if name == "valid" else torch.int64
        torch.testing.assert_close(getattr(got, name), torch.tensor(value, dtype=dtype), rtol=0, atol=0, msg=name)
    assert got.num_instances == len(found)
    assert got.num_clouds == len(points)
    torch.testing.assert_close(got.member_instance, got.index[got.member], rtol=0, atol=0)


# --- index_instances


@settings(max_examples=150, deadline=None)
@given(labels())
def test_index_against_loops(drawn: tuple[Tensor, Tensor | None]) -> None:
    instance, batch = drawn
    before = instance.clone(), None if batch is None else batch.clone()
    check_index(index_instances(instance, batch), instance, batch)
    torch.testing.assert_close(instance, before[0], rtol=0, atol=0)
    if batch is not None:
        torch.testing.assert_close(batch, before[1], rtol=0, atol=0)


def test_the_check_rejects() -> None:
    instance, batch = torch.tensor([3, 3, -1, 0, -100]), torch.tensor([1, 0, 0, 1, 0])
    good = index_instances(instance, batch)
    check_index(good, instance, batch)
    for name in InstanceIndex._fields:
        value = getattr(good, name)
        wrong = good._replace(**{name: ~value if value.dtype == torch.bool else value + 1})
        with pytest.raises(AssertionError):
            check_index(wrong, instance, batch)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32]
)
def test_every_integer_type(dtype: torch.dtype) -> None:
    values = [7, 120, 7, 0, 120] if not dtype.is_signed else [7, 120, -1, 0, -100]
    instance, batch = torch.tensor(values, dtype=dtype), torch.tensor([1, 0, 1, 1, 0], dtype=dtype)
    check_index(index_instances(instance, batch), instance, batch)


def test_ids_that_wrap_in_narrow_types_stay_apart() -> None:
    instance = torch.tensor([0, 256, 65_536, 2**32, 2**62, 0])
    assert index_instances(instance).num_instances == 5
    assert index_instances(torch.tensor([200, 255, 0], dtype=torch.uint8)).id.tolist() == [0, 200, 255]


@pytest.mark.parametrize("far", [False, True])
def test_many_instances(far: bool) -> None:
    """100,000 instances over many clouds, in random order; with ids near to each other and far apart."""
    rng = np.random.default_rng(0)
    n = 250_000
    batch = np.repeat(np.arange(50), n // 50)
    ids = np.tile(np.repeat(np.arange(2000), n // 50 // 2000 + 1)[: n // 50], 50) * (10**9 + 7 if far else 1)
    order = rng.permutation(n)
    index = index_instances(torch.tensor(ids[order]), torch.tensor(batch[order]))
    pairs, number, size = np.unique(
        np.stack([batch[order], ids[order]]), axis=1, return_inverse=True, return_counts=True
    )
    np.testing.assert_array_equal(index.index, number.reshape(-1))
    np.testing.assert_array_equal(index.size, size)
    np.testing.assert_array_equal(torch.stack([index.batch, index.id]), pairs)
    np.testing.assert_array_equal(np.sort(index.member), np.arange(n))


def test_many_clouds_with_ids_of_their_own() -> None:
    """Neither (cloud, id) nor (cloud, rank of the id) is dense."""
    rng = np.random.default_rng(0)
    batch, ids = rng.integers(400, size=1500), rng.integers(2**62, size=1500)
    instance = torch.tensor(np.concatenate([ids, ids]))
    clouds = torch.tensor(np.concatenate([batch, batch]))
    check_index(index_instances(instance, clouds), instance, clouds)


@pytest.mark.parametrize("batch", [None, torch.zeros(0, dtype=torch.int64)])
def test_no_points(batch: Tensor | None) -> None:
    index = index_instances(torch.zeros(0, dtype=torch.int64), batch)
    check_index(index, torch.zeros(0, dtype=torch.int64), batch)
    assert index.num_clouds == (batch is None)
    x = aggregate_instances(GaussianEmbedding(torch.zeros(0, 3), torch.zeros(0, 1)), index)
    assert [tuple(t.shape) for t in x] == [(0, 3), (0, 1)]


def test_to_another_device() -> None:
    index = index_instances(torch.tensor([0, 1])).to("meta")
    assert isinstance(index, InstanceIndex)
    assert {t.device.type for t in index} == {"meta"}


def test_sorted_and_unsorted_batches_agree() -> None:
    instance, batch = torch.tensor([1, 1, 0, 1, -1, 0]), torch.tensor([0, 0, 0, 1, 1, 1])
    order = torch.tensor([5, 0, 3, 2, 4, 1])
    a, b = index_instances(instance, batch), index_instances(instance[order], batch[order])
    for name in ("size", "batch", "id", "ptr", "instance_ptr", "member_ptr"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)
    torch.testing.assert_close(b.index, a.index[order], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("instance", "batch", "error", "message"),
    [
        (torch.zeros(2), None, TypeError, "instance: expected integers, got torch.float32"),
        (torch.tensor([0.0, math.nan]), None, TypeError, r"cast whole numbers with .long\(\), NaN to -100 before"),
        (np.zeros(2, np.int64), None, TypeError, "instance: expected a torch.Tensor, got ndarray: torch.from_numpy"),
        (torch.zeros(2, dtype=torch.bool), None, TypeError, "instance: expected integers, got torch.bool"),
        (torch.zeros(2, dtype=torch.complex64), None, TypeError, "instance: expected integers"),
        (torch.tensor([0, 1]), torch.zeros(2), TypeError, "batch: expected integers, got torch.float32"),
        (torch.tensor([[0, 1]]), None, ValueError, r"instance: expected shape \(N,\), got \(1, 2\)"),
        (
            torch.tensor([0, 1]),
            torch.tensor([0]),
            ValueError,
            r"expected batch like instance, \(2,\) on cpu, got \(1,\)",
        ),
        (torch.tensor([0]), torch.zeros(1, dtype=torch.int64, device="meta"), ValueError, r"got \(1,\) on meta"),
        (torch.tensor([0, 1]), torch.tensor([0, -2]), ValueError, "cloud numbers >= 0 in batch, got -2"),
        (torch.tensor([0, 1]), torch.tensor([-2, 0]), ValueError, "cloud numbers >= 0 in batch, got -2"),
        (
            torch.tensor([-1, 1]),
            torch.tensor([2**40, 0]),
            ValueError,
            "cloud numbers < 2\\^31 in batch, got 1099511627776",
        ),
        (torch.tensor([2**62, -7]), torch.tensor([0, 1]), ValueError, "got -7"),
        (
            torch.tensor([0, -7, 1]),
            None,
            ValueError,
            r"-1 \(no instance\) or -100 \(ignored\), got -7; .*LabelConvention",
        ),
    ],
)
def test_errors_of_index_instances(
    instance: Tensor, batch: Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        index_instances(instance, batch)


def test_as_index() -> None:
    instance = torch.tensor([0, 1, 1])
    index = index_instances(instance)
    assert as_index(index, None, torch.zeros(3, 2)) is index
    for a, b in zip(as_index(instance, None, torch.zeros(3, 2)), index, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for given_labels in (instance, index):
        with pytest.raises(ValueError, match="labels for 4 points, got 3"):
            as_index(given_labels, None, torch.zeros(4, 2))
        with pytest.raises(ValueError, match="labels on meta, got cpu"):
            as_index(given_labels, None, torch.zeros(3, 2, device="meta"))


# --- aggregate_instances


def tensors(p: Problem, dtype: torch.dtype = torch.float64) -> tuple[GaussianEmbedding, Tensor, Tensor | None]:
    x = GaussianEmbedding(torch.tensor(p.mean, dtype=dtype), torch.tensor(p.log_std, dtype=dtype))
    return x, torch.tensor(p.instance), None if p.batch is None else torch.tensor(p.batch)


def expected(p: Problem, covariance: str) -> tuple[Tensor, Tensor]:
    std = np.exp(p.log_std)
    rows = [k.rows for k in oracles.instances(p.instance, p.batch)]
    mean = [oracles.aggregate(p.mean, p.std, r, covariance)[0] for r in rows]
    log_std = [np.log(oracles.aggregate(p.mean[:, : std.shape[1]], std, r, covariance)[1]) for r in rows]
    return torch.tensor(np.array(mean)), torch.tensor(np.array(log_std))


@pytest.mark.parametrize("covariance", ["mean", "independent"])
@pytest.mark.parametrize("isotropic", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_aggregate_against_loops(covariance: str, isotropic: bool, dtype: torch.dtype, tolerance: float) -> None:
    p = draw_problem(0, n=60, isotropic=isotropic, spread=2.0)
    x, instance, batch = tensors(p, dtype)
    before = [t.clone() for t in (*x, instance, batch)]  # type: ignore[union-attr]
    got = aggregate_instances(x, instance, batch, covariance=covariance)  # type: ignore[arg-type]
    for g, e in zip(got, expected(p, covariance), strict=True):
        assert g.dtype == dtype
        torch.testing.assert_close(g.double(), e, rtol=tolerance, atol=tolerance)
    for t, b in zip((*x, instance, batch), before, strict=True):
        torch.testing.assert_close(t, b, rtol=0, atol=0)
    with_index = aggregate_instances(x, index_instances(instance, batch), covariance=covariance)  # type: ignore[arg-type]
    for g, e in zip(with_index, got, strict=True):
        torch.testing.assert_close(g, e, rtol=0, atol=0)


def test_the_oracle_rejects_the_other_covariance() -> None:
    p = draw_problem(0)
    got = aggregate_instances(*tensors(p))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(got.log_std, expected(p, "independent")[1], rtol=1e-12, atol=1e-12)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(got.mean, expected(p, "mean")[0] + 1e-6, rtol=1e-12, atol=1e-12)


def test_variances_of_independent_points_by_sampling() -> None:
    """The mean of n independent draws, one from each point: its mean and variance, within 5 standard errors."""
    p = draw_problem(1, n=12, num_clouds=1, num_instances=2, background=False, ignored=False)
    x, instance, batch = tensors(p)
    got = aggregate_instances(x, instance, batch, covariance="independent")
    samples = 200_000
    rng = np.random.default_rng(0)
    for k, one in enumerate(oracles.instances(p.instance, p.batch)):
        draws = np.zeros((samples, 3))
        for i in one.rows:
            draws += rng.normal(p.mean[i], p.std[i], (samples, 3)) / len(one.rows)
        std = got.std[k].numpy()
        np.testing.assert_array_less(np.abs(draws.mean(0) - got.mean[k].numpy()), 5 * std / np.sqrt(samples))
        np.testing.assert_array_less(np.abs(draws.var(0) / std**2 - 1), 5 * np.sqrt(2 / samples))
        # The mean of the variances is the variance of a draw about its own point.
        noise = np.concatenate([rng.normal(0, p.std[i], (samples, 3)) for i in one.rows])
        variance = np.exp(2 * aggregate_instances(x, instance, batch).log_std[k].numpy())
        np.testing.assert_allclose(noise.var(0), variance, rtol=0.02)
        if len(one.rows) > 1:
            with pytest.raises(AssertionError):
                np.testing.assert_allclose(noise.var(0), std**2, rtol=0.02)


def test_a_single_point_is_its_own_instance() -> None:
    x = GaussianEmbedding(torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64))
    for covariance in ("mean", "independent"):
        got = aggregate_instances(x, torch.arange(5), covariance=covariance)  # type: ignore[arg-type]
        torch.testing.assert_close(got.mean, x.mean, rtol=0, atol=0)
        torch.testing.assert_close(got.log_std, x.log_std, rtol=1e-14, atol=1e-14)


@quick
@given(st.integers(0, 200), st.sampled_from(["mean", "independent"]))
def test_relabelling_and_permutation(seed: int, covariance: str) -> None:
    p = draw_problem(seed)
    x, instance, batch = tensors(p)
    a = aggregate_instances(x, instance, batch, covariance=covariance)  # type: ignore[arg-type]
    renamed = torch.where(instance >= 0, 3 * instance + 11, instance)  # keeps the order of ids
    b = aggregate_instances(x, renamed, batch, covariance=covariance)  # type: ignore[arg-type]
    order = torch.randperm(len(instance), generator=torch.Generator().manual_seed(seed))
    assert batch is not None
    c = aggregate_instances(x.select(order), instance[order], batch[order], covariance=covariance)  # type: ignore[arg-type]
    for u, v, w in zip(a, b, c, strict=True):
        torch.testing.assert_close(v, u, rtol=0, atol=0)
        torch.testing.assert_close(w, u, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_aggregated_in_float32(dtype: torch.dtype) -> None:
    x = GaussianEmbedding(torch.full((5000, 2), 3.0, dtype=dtype), torch.full((5000, 1), 8.0, dtype=dtype))
    got = aggregate_instances(x, torch.zeros(5000, dtype=torch.int64))
    assert got.mean.dtype == torch.float32
    torch.testing.assert_close(got.mean, torch.full((1, 2), 3.0))
    torch.testing.assert_close(got.log_std, torch.full((1, 1), 8.0))  # e^16 overflows float16


@pytest.mark.parametrize("covariance", ["mean", "independent"])
@pytest.mark.parametrize("spread", [[-12.0], [12.0], [-12.0, 12.0]])
def test_sigma_from_e_minus_12_to_e_12(covariance: str, spread: list[float]) -> None:
    p = draw_problem(3)
    p = p.change(log_std=np.random.default_rng(0).choice(spread, p.log_std.shape))
    x, instance, batch = tensors(p, torch.float32)
    leaves = [t.requires_grad_() for t in x]
    got = aggregate_instances(x, instance, batch, covariance=covariance)  # type: ignore[arg-type]
    for g, e in zip(got, expected(p, covariance), strict=True):
        torch.testing.assert_close(g.double(), e, rtol=1e-5, atol=1e-5)
    for slope in torch.autograd.grad(got.mean.sum() + got.log_std.sum(), leaves):
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("covariance", ["mean", "independent"])
@pytest.mark.parametrize("isotropic", [False, True])
def test_aggregate_gradients(covariance: str, isotropic: bool) -> None:
    x, instance, batch = tensors(draw_problem(2, n=9, dim=2, num_clouds=2, num_instances=2, isotropic=isotropic))
    index = index_instances(instance, batch)

    def f(mean: Tensor, log_std: Tensor) -> tuple[Tensor, ...]:
        return aggregate_instances(GaussianEmbedding(mean, log_std), index, covariance=covariance)  # type: ignore[arg-type]

    inputs = [t.requires_grad_() for t in x]
    assert gradcheck(f, inputs)
    assert gradgradcheck(f, inputs)


def test_errors_of_aggregate_instances() -> None:
    x = GaussianEmbedding(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match='expected covariance "mean" or "independent", got \'sum\''):
        aggregate_instances(x, torch.tensor([0, 1]), covariance="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels for 2 points, got 3"):
        aggregate_instances(x, torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="expected log_std"):
        aggregate_instances(GaussianEmbedding(x.mean, x.log_std[:1]), torch.tensor([0, 1]))


# --- instance_classes


@quick
@given(st.lists(st.tuples(st.integers(-1, 4), st.sampled_from([-100, 0, 1, 2, 3])), max_size=30))
def test_majority_against_loops(points: list[tuple[int, int]]) -> None:
    instance = torch.tensor([p[0] for p in points], dtype=torch.int64)
    semantic = torch.tensor([p[1] for p in points], dtype=torch.int64)
    index = index_instances(instance)
    found = oracles.instances(instance.numpy(), None)
    right = [oracles.instance_class(semantic.numpy(), k.rows) for k in found]
    got = instance_classes(semantic, index, 4)
    torch.testing.assert_close(got, torch.tensor(right, dtype=torch.int64), rtol=0, atol=0)
    if right:
        with pytest.raises(AssertionError):
            torch.testing.assert_close(got, torch.tensor(right) + 1, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("semantic", "expected_class"),
    [
        ([2, 1, 2, 1], 1),  # a tie goes to the lowest
        ([3, 0], 0),
        ([3, 3, 0], 3),
        ([-100, -100, -100, 2], 2),  # ignored points have no vote
        ([-100, -100], -1),
    ],
)
def test_majority_ties(semantic: list[int], expected_class: int) -> None:
    index = index_instances(torch.zeros(len(semantic), dtype=torch.int64))
    assert instance_classes(torch.tensor(semantic), index, 4).tolist() == [expected_class]


def test_centers_may_be_edited_in_place() -> None:
    mean = torch.randn(4, 3, requires_grad=True)
    center = aggregate_instances(GaussianEmbedding(mean, torch.zeros(4, 3)), torch.tensor([0, 0, 1, 1]))
    center.mean.mul_(2)
    center.mean.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(4, 3))


# --- operations


@pytest.mark.parametrize("shuffled", [False, True])
def test_operations_of_an_index(shuffled: bool) -> None:
    """At most 25 launches whatever is in the batch, and no value asked for but in one read of a tensor."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.arange(4).repeat_interleave(100)
    instance = torch.randint(-1, 20, (400,), generator=generator)
    instance[::17] = -100
    if shuffled:
        order = torch.randperm(400, generator=generator)
        instance, batch = instance[order], batch[order]
    with Operations() as operations:
        index_instances(instance, batch)
    assert operations.total <= 25 + 2 * shuffled  # clouds that are not sorted are asked for their range
    assert operations.read_backs == 0
    with Operations() as operations:
        index_instances(instance)
    assert operations.total <= 22
    with Operations() as operations:
        instance.nonzero()
        instance[0].item()
    assert operations.read_backs == 2
