"""The Triton twin of the fused sums, against loops and autograd in float64.

On a machine with a GPU these run there (`make gpu`), elsewhere in Triton's interpreter: tests/core/test_triton.py
starts them in a process of their own, since Triton reads TRITON_INTERPRET when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import oracles
import pytest
import torch
from oracles import Problem, draw_problem
from sum_cases import case, expected_gradients, expected_sums, leaves, weights
from torch import Tensor

from probemb_lib import GaussianEmbedding, HeadOutput, InstanceIndex, ProbabilisticEmbeddingLoss, index_instances
from probemb_lib import similarity_sums as module
from probemb_lib.similarity_sums import similarity_sums

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPS = torch.finfo(torch.float32).eps

MODES = pytest.mark.parametrize("per_instance", [False, True], ids=["cloud", "instance"])
OUTSIDE = pytest.mark.parametrize("outside", [False, True], ids=["similar", "outside"])

PROBLEMS = {
    "ragged": draw_problem(0, n=90, num_clouds=5),
    "one cloud": draw_problem(1, num_clouds=1).change(batch=None),
    "many instances": draw_problem(2, n=60, num_clouds=2, num_instances=9),
    "isotropic": draw_problem(3, isotropic=True),
    "line": draw_problem(5, dim=1),
    "plane": draw_problem(4, dim=2),
    "four": draw_problem(8, n=25, dim=4, num_clouds=1),
    "six": draw_problem(6, n=30, dim=6, num_clouds=2),
    "one point": draw_problem(9, n=1, num_clouds=1, background=False, ignored=False),
    "all ignored": draw_problem(7).change(instance=np.full(40, oracles.IGNORED)),
    "no instance": draw_problem(8).change(instance=np.full(40, -1)),
    "no point": draw_problem(10, n=0),
}


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let float32 go to the twin in the interpreter as well; what is returned grows by one with every call of it.

    The interpreter takes its time for each tensor, and tiles are as many tensors as a lane has points.
    """
    from probemb_lib._triton import similarity_sums as launches

    calls: list[int] = []
    all_clouds = launches.all_clouds

    def counted(
        mean: Tensor,
        log_std: Tensor,
        c_mean: Tensor,
        c_log_std: Tensor,
        index: Tensor,
        order: Tensor,
        ptr: Tensor,
        instance_ptr: Tensor,
        batch: Tensor,
        of_sums: Tensor | None,
        outside: bool,
        gradients: bool,
    ) -> list[Tensor]:
        calls.append(1)
        of_index = (index, order, ptr, instance_ptr, batch)
        return all_clouds(mean, log_std, c_mean, c_log_std, *of_index, of_sums, outside, gradients)

    monkeypatch.setattr(launches, "all_clouds", counted)
    if DEVICE == "cpu":
        monkeypatch.setattr(module, "_has_twin", lambda *xs: all(x.dtype == torch.float32 for x in xs))
        monkeypatch.setattr(launches, "MAX_POINTS_A_LANE", 2)
    return calls


def on_device(
    p: Problem, dtype: torch.dtype = torch.float32
) -> tuple[GaussianEmbedding, GaussianEmbedding, InstanceIndex]:
    points, centers, index = case(p, dtype)
    return points.to(DEVICE), centers.to(DEVICE), index.to(DEVICE)


def run(
    points: GaussianEmbedding, centers: GaussianEmbedding, index: InstanceIndex, per_instance: bool, outside: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Sums, and the derivatives of a weighted total of them."""
    inputs = leaves(points, centers)
    sums = [s for s in similarity_sums(*inputs, index, per_instance=per_instance, outside=outside) if s is not None]
    total = sum((s * w.to(s.device)).sum() for s, w in zip(sums, weights(*sums), strict=True))
    return [s.detach() for s in sums], list(torch.autograd.grad(total, [t for e in inputs for t in e]))


def on_torch(
    points: GaussianEmbedding, centers: GaussianEmbedding, index: InstanceIndex, per_instance: bool, outside: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """The same in eager torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_has_twin", lambda *xs: False)
        return run(points, centers, index, per_instance, outside)


def check(got: list[Tensor], of_torch: list[Tensor], expected: list[Tensor], roundings: int = 32) -> None:
    """Errors, in the norm of each result, of at most twice those of eager torch in float32.

    With a few terms torch may by luck be exact, and one pair close to 1 − κ = 0, which multiplies the roundings of σ²,
    can be all there is: some roundings are allowed besides.
    """
    for ours, theirs, right in zip(got, of_torch, expected, strict=True):
        assert ours.shape == theirs.shape == right.shape
        assert ours.dtype == torch.float32
        assert torch.isfinite(ours).all()
        right = right.detach().to(ours.device).double()
        error, of_theirs = (ours - right).norm(), (theirs - right).norm()
        assert error <= 2 * of_theirs + roundings * EPS * right.norm(), f"{error / right.norm()}, torch {of_theirs}"


# --- values and gradients


@pytest.mark.parametrize("name", PROBLEMS)
@MODES
@OUTSIDE
def test_values_and_gradients(name: str, per_instance: bool, outside: bool, twin: list[int]) -> None:
    p = PROBLEMS[name]
    points, centers, index = on_device(p)
    sums, slopes = run(points, centers, index, per_instance, outside)
    assert len(twin) == 1 + per_instance  # forward, and where the weights are not known before backward
    of_torch, slopes_of_torch = on_torch(points, centers, index, per_instance, outside)
    on_cpu = points.to("cpu"), centers.to("cpu"), index.to("cpu")
    check(sums, of_torch, expected_sums(p, *on_cpu, per_instance)[: 1 + outside])
    check(slopes, slopes_of_torch, expected_gradients(p, *on_cpu, per_instance, outside))


@MODES
@pytest.mark.parametrize("dim", [3, 6])
def test_error_is_that_of_torch(per_instance: bool, dim: int, twin: list[int]) -> None:
    """With many terms there is no luck."""
    generator = torch.Generator().manual_seed(dim)
    labels = torch.arange(200) % 4
    mean = torch.rand(4, dim, generator=generator)
    noise = torch.randn(4, 200, dim, generator=generator)
    points = GaussianEmbedding(mean[labels] + 0.1 * noise[0], 0.3 * noise[1] - 2).to(DEVICE)
    centers = GaussianEmbedding(mean + 0.05 * noise[2, :4], 0.3 * noise[3, :4] - 2).to(DEVICE)
    index = index_instances(labels.to(DEVICE))
    ours, theirs = (f(points, centers, index, per_instance, True) for f in (run, on_torch))
    double = points.to(dtype=torch.float64), centers.to(dtype=torch.float64)
    exact = on_torch(*double, index, per_instance, True)
    for got, of_torch, right in zip(ours, theirs, exact, strict=True):
        check(got, of_torch, right, roundings=2)


def test_the_measure_rejects(twin: list[int]) -> None:
    """One point too many, and a result that is off by two hundred-thousandths."""
    p = PROBLEMS["ragged"]
    points, centers, index = on_device(p)
    sums, _ = run(points, centers, index, True, True)
    of_torch, _ = on_torch(points, centers, index, True, True)
    right = expected_sums(p, points.to("cpu"), centers.to("cpu"), index.to("cpu"), True)
    check(sums, of_torch, right)
    with_ignored = p.change(instance=np.where(p.instance == oracles.IGNORED, -1, p.instance))
    wrong = expected_sums(with_ignored, points.to("cpu"), centers.to("cpu"), index.to("cpu"), True)
    for values in ([s.float().to(DEVICE) for s in wrong], [(1 + 2e-5) * s for s in sums]):
        with pytest.raises(AssertionError, match="torch"):
            check(values, of_torch, right)


@MODES
@pytest.mark.parametrize(("rows", "points_a_lane"), [(1, 1), (3, 8), (4096, 1)])
def test_programs_with_several_tiles(
    per_instance: bool, rows: int, points_a_lane: int, twin: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a program takes one tile of its cloud or all of them, and clouds that need fewer programs than others."""
    from probemb_lib._triton import similarity_sums as launches

    p = draw_problem(12, n=80, num_clouds=4, num_instances=4)
    points, centers, index = on_device(p)
    monkeypatch.setattr(launches, "MAX_ROWS", rows)
    monkeypatch.setattr(launches, "MAX_POINTS_A_LANE", points_a_lane)
    sums, slopes = run(points, centers, index, per_instance, True)
    of_torch, slopes_of_torch = on_torch(points, centers, index, per_instance, True)
    double = points.to(dtype=torch.float64), centers.to(dtype=torch.float64)
    exact, exact_slopes = on_torch(*double, index, per_instance, True)
    check(sums, of_torch, exact)
    check(slopes, slopes_of_torch, exact_slopes)


def test_more_partial_sums_than_are_added_at_a_time(twin: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from probemb_lib._triton import similarity_sums as launches

    monkeypatch.setattr(launches, "MAX_POINTS_A_LANE", 1)
    p = draw_problem(13, n=2100, dim=1, num_clouds=1, num_instances=1, ignored=False, background=False)
    points, centers, index = on_device(p)
    assert index.order.numel() > 256 * 8
    double = points.to(dtype=torch.float64), centers.to(dtype=torch.float64)
    ours, exact = similarity_sums(points, centers, index).similar, similarity_sums(*double, index).similar
    assert twin
    torch.testing.assert_close(ours.double(), exact, rtol=1e-6, atol=0)


@MODES
def test_any_strides(per_instance: bool, twin: list[int]) -> None:
    """Transposed, sliced and expanded inputs give the bits of contiguous ones."""
    points, centers, index = on_device(PROBLEMS["ragged"])
    n, k = points.mean.shape[0], centers.mean.shape[0]
    wide = torch.randn(n, 7, device=DEVICE)
    wide[:, 1:4] = points.mean
    turned = GaussianEmbedding(wide[:, 1:4], points.log_std.T.contiguous().T)
    of_centers = GaussianEmbedding(centers.mean.T.contiguous().T, centers.log_std[:, :1].expand(k, 3))
    assert not any(t.is_contiguous() for t in (*turned, *of_centers))
    plain = GaussianEmbedding(*(t.contiguous() for t in of_centers))
    sums = [similarity_sums(turned, of_centers, index, per_instance=per_instance, outside=True)]
    sums.append(similarity_sums(points, plain, index, per_instance=per_instance, outside=True))
    for a, b in zip(*sums, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@MODES
def test_two_runs_are_equal_to_the_bit(per_instance: bool, twin: list[int]) -> None:
    points, centers, index = on_device(draw_problem(16, n=100, num_clouds=3, num_instances=4))
    first, second = (run(points, centers, index, per_instance, True) for _ in range(2))
    for a, b in zip((*first[0], *first[1]), (*second[0], *second[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@MODES
def test_gradients_of_some_inputs_only(per_instance: bool, twin: list[int]) -> None:
    points, centers, index = on_device(PROBLEMS["plane"])
    (x,) = leaves(points)
    similarity_sums(x, centers, index, per_instance=per_instance, outside=True).similar.sum().backward()
    (y,) = leaves(points.to(dtype=torch.float64))
    similarity_sums(y, centers.to(dtype=torch.float64), index).similar.sum().backward()
    for a, b in zip(x, y, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert not similarity_sums(x, centers, index, per_instance=per_instance).similar.requires_grad
    value = similarity_sums(x, centers, index, per_instance=per_instance).similar.square().sum()
    (slope,) = torch.autograd.grad(value, x.mean, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@MODES
def test_under_torch_compile(per_instance: bool, twin: list[int]) -> None:
    """The operator is opaque to the compiler and calls the twin."""
    points, centers, index = on_device(draw_problem(17, n=50, num_clouds=2))
    sums, slopes = run(points, centers, index, per_instance, True)
    torch.compiler.reset()
    calls = len(twin)
    compiled = torch.compile(similarity_sums, fullgraph=True, backend="inductor" if DEVICE == "cuda" else "aot_eager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(run.__globals__, "similarity_sums", compiled)
        sums_compiled, slopes_compiled = run(points, centers, index, per_instance, True)
    assert len(twin) == 2 * calls
    for a, b in zip((*sums_compiled, *slopes_compiled), (*sums, *slopes), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_layout_of_results_is_as_announced(weighted: bool, twin: list[int]) -> None:
    points, centers, index = on_device(PROBLEMS["plane"])
    of_sums = torch.rand(2, index.num_instances, device=DEVICE) if weighted else None
    of_index = (index.index, index.order, index.ptr, index.instance_ptr, index.batch)
    args = (*points, *centers, *of_index, of_sums, True, True, False)
    torch.library.opcheck(torch.ops.probemb_lib.similarity_sums.default, args, test_utils=("test_faketensor",))
    assert twin


# --- extremes


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")  # of numpy
@pytest.mark.parametrize("dim", [1, 3, 6])
def test_sigma_from_e_minus_12_to_e_12(dim: int, twin: list[int]) -> None:
    rng = np.random.default_rng(dim)
    p = draw_problem(15, n=60, dim=dim, num_clouds=2)
    p = p.change(log_std=rng.choice([-12.0, -6.0, 0.0, 6.0, 12.0], (60, dim)))
    points, centers, index = on_device(p)
    log_std = torch.tensor(rng.choice([-12.0, 0.0, 12.0], centers.mean.shape), dtype=torch.float32, device=DEVICE)
    centers = GaussianEmbedding(centers.mean, log_std)
    sums, slopes = run(points, centers, index, True, True)
    right = expected_sums(p, points.to("cpu"), centers.to("cpu"), index.to("cpu"), True)
    for ours, expected in zip(sums, right, strict=True):
        torch.testing.assert_close(ours.cpu().double(), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.isfinite(g).all() for g in slopes)


@pytest.mark.parametrize("dim", [3, 6])
def test_equal_sigma_of_any_size(dim: int, twin: list[int]) -> None:
    """κ depends on ratios of σ alone: products over dimensions neither overflow nor vanish for |ln σ| up to 39."""
    levels = torch.tensor([-39.0, -20.0, 0.0, 20.0, 39.0], device=DEVICE)
    x = GaussianEmbedding(torch.zeros(5, dim, device=DEVICE), levels[:, None].expand(5, dim))
    index = index_instances(torch.arange(5, device=DEVICE), torch.arange(5, device=DEVICE))
    similar = similarity_sums(x, x, index, per_instance=True).similar
    torch.testing.assert_close(similar, torch.ones(5, device=DEVICE), rtol=3e-6, atol=0)


@MODES
def test_identical_gaussians_are_at_the_floor(per_instance: bool, twin: list[int]) -> None:
    x = GaussianEmbedding(torch.zeros(4, 3, device=DEVICE), torch.zeros(4, 3, device=DEVICE))
    index = index_instances(torch.tensor([0, 0, 1, -1], device=DEVICE))
    points, centers = leaves(x, x.select(torch.tensor([0, 1], device=DEVICE)))
    got = similarity_sums(points, centers, index, per_instance=per_instance, outside=True)
    assert got.outside is not None
    torch.testing.assert_close(got.similar.sum().cpu(), torch.tensor(8.0))
    torch.testing.assert_close(got.outside.sum().cpu(), torch.tensor(5 * -np.log(1e-6)).float())
    got.outside.sum().backward()
    for t in (*points, *centers):
        assert (t.grad == 0).all()


@pytest.mark.parametrize(("gap", "below"), [(1e-3, True), (1e-2, False)])
def test_gradient_ends_at_the_floor(gap: float, below: bool, twin: list[int]) -> None:
    x = GaussianEmbedding(torch.zeros(2, 3, device=DEVICE), torch.zeros(2, 3, device=DEVICE))
    points, centers = leaves(x, GaussianEmbedding(x.mean + gap, x.log_std - gap / 2))
    index = index_instances(torch.tensor([0, 1], device=DEVICE))
    outside = similarity_sums(points, centers, index, outside=True).outside
    assert outside is not None
    outside.sum().backward()
    for t in (*points, *centers):
        assert t.grad is not None
        assert bool((t.grad == 0).all()) == below


@pytest.mark.parametrize("gap", [1e-2, 1e-1, 1.0, 2.6, 3.0, 6.0])
@pytest.mark.parametrize("of_sigma", [False, True])
def test_one_minus_kappa_keeps_its_digits(gap: float, of_sigma: bool, twin: list[int]) -> None:
    """Values and weights from close to the floor to κ near 0, across the change of formula at κ = ¼. What 1 − κ loses
    near 1 by its own rounding is allowed."""
    x = GaussianEmbedding(torch.zeros(2, 2, device=DEVICE), torch.zeros(2, 2, device=DEVICE))
    moved = GaussianEmbedding(x.mean if of_sigma else x.mean + gap, x.log_std + gap if of_sigma else x.log_std)
    points, centers = leaves(x, moved)
    index = index_instances(torch.tensor([0, 1], device=DEVICE))
    got = similarity_sums(points, centers, index, outside=True).outside
    assert got is not None
    one = (x.mean[0].cpu(), x.log_std[0].cpu(), moved.mean[0].cpu(), moved.log_std[0].cpu())
    log_kappa = float(oracles.log_kappa_digits(*one))
    np.testing.assert_allclose(got.detach().cpu(), [-2 * np.log(-np.expm1(log_kappa))], rtol=1e-5, atol=1.3e-7)
    y, c = leaves(*(GaussianEmbedding(e.mean.cpu().double(), e.log_std.cpu().double()) for e in (x, moved)))
    labels = np.array([0, 1])
    oracles.broadcast_sums(*y, *c, labels, None)[1].sum().backward()
    got.sum().backward()
    for a, b in zip((*points, *centers), (*y, *c), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.cpu().double(), b.grad, rtol=1e-4, atol=1e-6)


@MODES
@pytest.mark.parametrize("distance", [1.0, 1e3])
@pytest.mark.parametrize("log_std", [-23.0, -38.0])
def test_far_apart_with_tiny_sigma_has_no_gradient(
    per_instance: bool, distance: float, log_std: float, twin: list[int]
) -> None:
    """Δ² / σ² and its products with 1/σ² leave float32 where κ is 0 already."""
    x = GaussianEmbedding(torch.zeros(4, 3, device=DEVICE), torch.full((4, 3), log_std, device=DEVICE))
    place = distance * torch.tensor([[-1.0] * 3, [1.0] * 3], device=DEVICE)
    points, centers = leaves(x, GaussianEmbedding(place, x.log_std[:2]))
    index = index_instances(torch.tensor([0, 0, 1, 1], device=DEVICE))
    got = similarity_sums(points, centers, index, per_instance=per_instance, outside=True)
    assert got.outside is not None
    assert (got.similar == 0).all()
    assert (got.outside == 0).all()
    (got.similar.sum() + got.outside.sum()).backward()
    for t in (*points, *centers):
        assert t.grad is not None
        assert (t.grad == 0).all()


def test_nan_is_not_hidden(twin: list[int]) -> None:
    """Also of a point without instance, which only the floored logarithms see."""
    points, centers, index = on_device(draw_problem(22, n=12, num_clouds=1, ignored=False))
    outsider = int((index.index < 0).nonzero()[0])
    points.mean[outsider] = torch.nan
    got = similarity_sums(points, centers, index, outside=True)
    assert got.outside is not None
    assert got.similar.isnan().all()
    assert got.outside.isnan().all()


# --- losses


@pytest.mark.parametrize("per_instance", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_whole_loss(per_instance: bool, dtype: torch.dtype, twin: list[int]) -> None:
    """Half precision is computed in float32, as in torch."""
    p = draw_problem(21, n=60, num_clouds=3)
    labels = (torch.tensor(p.instance, device=DEVICE), torch.tensor(p.semantic, device=DEVICE))
    batch = torch.tensor(p.batch, device=DEVICE)
    loss = ProbabilisticEmbeddingLoss(per_instance_dice=per_instance)

    def evaluate(wanted: Callable[[Tensor], bool] | None) -> tuple[dict[str, Tensor], list[Tensor]]:
        inputs = [torch.tensor(a, device=DEVICE).to(dtype).requires_grad_() for a in (p.mean, p.log_std, p.logits)]
        with pytest.MonkeyPatch.context() as patch:
            if wanted is not None:
                patch.setattr(module, "_has_twin", wanted)
            parts = loss(HeadOutput(GaussianEmbedding(*inputs[:2]), inputs[2]), *labels, batch)
            return parts, list(torch.autograd.grad(parts["loss"], inputs))

    (ours, slopes), (theirs, of_theirs) = evaluate(None), evaluate(lambda *xs: False)
    assert twin
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for a, b in zip(slopes, of_theirs, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def test_float64_stays_on_torch(twin: list[int]) -> None:
    points, centers, index = on_device(PROBLEMS["ragged"], torch.float64)
    run(points, centers, index, False, True)
    assert not twin


@MODES
def test_results_can_be_changed_in_place(per_instance: bool, twin: list[int]) -> None:
    points, centers, index = on_device(PROBLEMS["plane"])
    inputs = leaves(points, centers)
    sums = similarity_sums(*inputs, index, per_instance=per_instance, outside=True)
    sums.similar.add_(1)
    assert twin
