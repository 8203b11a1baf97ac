"""Loss of learnable margins against the authors' numbers and float64 loops: properties, robustness, errors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from margin_cases import CASES, KEYS, Problem, close, draw, images, load, quick, same, seeds
from torch import Tensor
from torch._dynamo.utils import counters
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from probemb_lib import (
    GaussianEmbedding,
    LearnableMarginHead,
    LearnableMarginLoss,
    MarginOutput,
    index_instances,
    margin_cluster,
)
from probemb_lib.functional import learnable_margin
from probemb_lib.margin import lovasz

# --- The authors' numbers


@CASES
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_known_losses(case: int, dtype: torch.dtype, tolerance: float) -> None:
    known = load("loss", case)
    data = images(known, dtype)
    losses = data.losses()
    assert sorted(losses) == KEYS
    assert known["weights"].tolist() == [1, 10, 1]  # the defaults
    close(losses["loss"], known["expected_total"], tolerance)
    terms = ("instance", "variance", "seed")
    for name, value in zip(terms, known["expected_terms"], strict=True):
        close(losses[name], value, tolerance)
    names = ("instance_term", "var_term", "seed_term")
    for name, key in zip(("loss", *terms), ("expected_grad", *(f"expected_grad_{n}" for n in names)), strict=True):
        (grad,) = torch.autograd.grad(losses[name], data.prediction, retain_graph=True)
        close(grad, known[key], tolerance * 10)
    for image, values in enumerate(known["expected_terms_per_image"]):
        alone = images(known, dtype, image).losses()
        for name, value in zip(terms, values, strict=True):
            close(alone[name], value, tolerance)


def test_known_losses_reject() -> None:
    known = load("loss", 2)
    data = images({**known, "prediction": known["prediction"] * 1.01}, torch.float64)
    for name, value in zip(("instance", "variance", "seed"), known["expected_terms"], strict=True):
        with pytest.raises(AssertionError):
            close(data.losses()[name], value, 1e-6)
    (grad,) = torch.autograd.grad(data.losses()["loss"], data.prediction)
    with pytest.raises(AssertionError):
        close(grad, known["expected_grad"], 1e-5)


# --- Float64 loops


def hinge_by_loops(phi: Tensor, inside: list[bool]) -> Tensor:
    """Lovász extension of the Jaccard loss of sets: errors in descending order, times the growth of the loss."""
    errors = [1 - (2 * p - 1) * (1 if own else -1) for p, own in zip(phi, inside, strict=True)]
    order = sorted(range(len(errors)), key=lambda i: -errors[i].item())
    total, before = phi.new_zeros(()), 0.0
    for place in range(len(order)):
        wrong = order[: place + 1]
        missed = sum(inside[i] for i in wrong)
        jaccard = 1 - (sum(inside) - missed) / (sum(inside) + len(wrong) - missed)
        total = total + errors[order[place]].clamp_min(0) * (jaccard - before)
        before = jaccard
    return total


def losses_by_loops(
    p: Problem, *, positions: Tensor | None = None, background: int | None = 0, foreground_weight: float = 10.0
) -> dict[str, Tensor]:
    batch = torch.zeros_like(p.instance) if p.batch is None else p.batch
    rows_of = [
        [i for i in range(len(batch)) if batch[i] == b and p.instance[i] != -100] for b in sorted(set(batch.tolist()))
    ]
    terms: dict[str, list[Tensor]] = {"instance": [], "variance": [], "seed": []}
    for rows in filter(None, rows_of):
        hinge, variance, seed = [], [], p.mean.new_zeros(())
        asked = {i: (0.0, -1) for i in rows if p.semantic[i] != -100}  # target, and its column
        for k in sorted({int(p.instance[i]) for i in rows} - {-1}):
            members = [i for i in rows if p.instance[i] == k]
            center = (p.mean if positions is None else positions)[members].mean(0)
            log_std = p.log_std[members].mean(0)
            phi = torch.exp(-0.5 * ((p.mean[rows] - center) / log_std.exp()).square().sum(1))
            hinge.append(hinge_by_loops(phi, [i in members for i in rows]))
            variance.append(((p.log_std[members] - log_std.detach()) / 5).square().mean())
            votes = [int(p.semantic[i]) for i in members if p.semantic[i] != -100]
            for i, value in zip(rows, phi.tolist(), strict=True):
                if i in members and i in asked:
                    asked[i] = (value, max(sorted(set(votes)), key=votes.count))
        for i, (target, column) in asked.items():
            for c, s in enumerate(torch.sigmoid(p.logits[i])):
                if c == column:
                    seed = seed + foreground_weight * (s - target) ** 2
                elif c != background:
                    seed = seed + s**2
        terms["instance"].append(torch.stack(hinge).mean() if hinge else seed * 0)
        terms["variance"].append(torch.stack(variance).mean() if variance else seed * 0)
        terms["seed"].append(seed / len(rows))
    mean = {name: torch.stack(values).mean() if values else p.mean.new_zeros(()) for name, values in terms.items()}
    return {"loss": mean["instance"] + 10 * mean["variance"] + mean["seed"], **mean}


PROBLEMS = {
    "ragged": draw(0),
    "one cloud": draw(1, clouds=1),
    "isotropic": draw(2, isotropic=True),
    "plane": draw(3, dim=2),
    "line": draw(4, dim=1),
    "many instances": draw(5, clouds=2, instances=25),
    "two columns": draw(6, classes=2),
}


EVERY = pytest.mark.parametrize("name", PROBLEMS)


@EVERY
@pytest.mark.parametrize("centers", ["votes", "positions"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_against_loops(name: str, centers: str, dtype: torch.dtype, tolerance: float) -> None:
    truth = PROBLEMS[name]
    positions = None
    if centers == "positions":
        positions = torch.rand(truth.mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = losses_by_loops(truth, positions=positions)
    p = truth.to(dtype)
    before = [t.clone() for t in (*p.leaves(), p.instance, p.semantic)]
    got = p.losses(positions=positions)
    assert sorted(got) == KEYS
    for key in KEYS:
        assert got[key].dtype == dtype
        assert got[key].shape == ()
        close(got[key], right[key], tolerance)
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        expected = torch.autograd.grad(right[key], truth.leaves(), **options)
        for g, e in zip(torch.autograd.grad(got[key], p.leaves(), **options), expected, strict=True):
            close(g, e, tolerance * 10)
    for t, b in zip((*p.leaves(), p.instance, p.semantic), before, strict=True):
        torch.testing.assert_close(t, b, rtol=0, atol=0)


def test_options_against_loops() -> None:
    p = PROBLEMS["ragged"]
    moved = replace(p, semantic=torch.where(p.instance < 0, 3, (p.semantic - 1)).where(p.semantic != -100, p.semantic))
    for options in ({"background": 3}, {"background": None}, {"background": 3, "foreground_weight": 2.5}):
        right = losses_by_loops(moved, **options)
        for key, value in moved.losses(**options).items():
            close(value, right[key])
    got = p.losses(instance_weight=0.3, variance_weight=0.2, seed_weight=7.0)
    close(got["loss"], 0.3 * got["instance"] + 0.2 * got["variance"] + 7 * got["seed"])


def test_the_loops_reject() -> None:
    p = PROBLEMS["ragged"]
    got = p.losses()
    mean, log_std, logits = (t * 1.001 for t in p.leaves())
    wrong = losses_by_loops(replace(p, mean=mean, log_std=log_std, logits=logits))
    for key in KEYS:
        with pytest.raises(AssertionError):
            close(got[key], wrong[key])
    with pytest.raises(AssertionError):
        close(got["seed"], losses_by_loops(p, foreground_weight=9.0)["seed"])


def test_gradients_by_finite_differences() -> None:
    """All but the target of the seeds, which is a constant."""
    p = draw(7, n=14, dim=2, clouds=2, instances=2, classes=2)
    index = index_instances(p.instance, p.batch)

    def of_embedding(mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        output = MarginOutput(GaussianEmbedding(mean, log_std), p.logits.detach())
        losses = learnable_margin(output, index, p.semantic)
        return losses["instance"], losses["variance"]

    def of_logits(logits: Tensor) -> Tensor:
        output = MarginOutput(GaussianEmbedding(p.mean.detach(), p.log_std.detach()), logits)
        return learnable_margin(output, index, p.semantic)["seed"]

    assert gradcheck(of_embedding, (p.mean, p.log_std))
    assert gradcheck(of_logits, (p.logits,))


def test_a_second_differentiation_is_an_error() -> None:
    p = draw(8)
    (grad,) = torch.autograd.grad(p.losses()["instance"].square(), p.mean, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


# --- Properties


@quick
@given(seeds)
def test_relabelling_and_permutation(seed: int) -> None:
    p = draw(seed)
    g = torch.Generator().manual_seed(seed)
    names = torch.randperm(5000, generator=g)
    same(p.losses(), replace(p, instance=torch.where(p.instance >= 0, names[p.instance], p.instance)).losses())
    order = torch.randperm(len(p.mean), generator=g)
    assert p.batch is not None
    same(p.losses(), Problem(*(t[order] for t in (*p.leaves(), p.instance, p.semantic, p.batch))).losses())


@quick
@given(seeds, st.floats(-5, 5), st.floats(-4, 4))
def test_translation_and_scale(seed: int, shift: float, log_scale: float) -> None:
    p = draw(seed)
    moved = replace(p, mean=(p.mean + shift) * math.exp(log_scale), log_std=p.log_std + log_scale)
    same(p.losses(), moved.losses())


@quick
@given(seeds)
def test_a_batch_is_the_mean_of_its_clouds(seed: int) -> None:
    """Also of a cloud without an instance, whose first two terms are 0."""
    p = draw(seed, clouds=2)
    assert p.batch is not None
    p = replace(p, instance=torch.where((p.batch == 1) & (p.instance >= 0) & (seed % 2 == 0), -1, p.instance))
    parts = [
        Problem(*(t[p.batch == b] for t in (*p.leaves(), p.instance, p.semantic)), None).losses() for b in range(2)
    ]
    same(p.losses(), {key: (parts[0][key] + parts[1][key]) / 2 for key in KEYS})


@quick
@given(seeds)
def test_index_isotropic_and_module(seed: int) -> None:
    p = draw(seed, isotropic=True)
    expected = p.losses()
    same(expected, learnable_margin(p.output(), index_instances(p.instance, p.batch), p.semantic))
    expanded = replace(p, log_std=p.log_std.expand(-1, 3)).losses()
    same(expected, expanded)
    same(expected, LearnableMarginLoss()(p.output(), p.instance, p.semantic, p.batch))
    positions = p.mean.detach()[:, :2]
    options = {"foreground_weight": 3.0, "instance_weight": 2.0, "variance_weight": 1.0, "seed_weight": 0.5}
    loss = LearnableMarginLoss(background=1, **options)
    moved = replace(p, semantic=torch.where(p.semantic == 1, 0, p.semantic))
    same(
        loss(moved.output(), p.instance, moved.semantic, p.batch, positions=positions),
        moved.losses(positions=positions, background=1, **options),
    )


def test_ignored_points_count_nowhere() -> None:
    p = PROBLEMS["ragged"]
    assert p.batch is not None
    keep = p.instance != -100
    assert not keep.all()
    same(p.losses(), Problem(*(t[keep] for t in (*p.leaves(), p.instance, p.semantic, p.batch))).losses())


def test_perfect_instances_have_no_loss() -> None:
    instance = torch.arange(5).repeat(4)
    x = GaussianEmbedding(instance[:, None] * torch.full((1, 3), 100.0), torch.zeros(20, 3))
    logits = 200.0 * (2 * torch.nn.functional.one_hot(instance % 2 + 1, 3) - 1.0)
    for value in learnable_margin(MarginOutput(x, logits), instance, instance % 2 + 1).values():
        assert value == 0


def test_positions_of_fewer_dimensions_are_padded() -> None:
    p = PROBLEMS["ragged"]
    positions = torch.rand(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    padded = torch.cat([positions, torch.zeros(60, 1, dtype=torch.float64)], 1)
    same(p.losses(positions=positions), p.losses(positions=padded))


# --- Robustness


def check_finite(p: Problem) -> dict[str, Tensor]:
    got = p.losses()
    assert sorted(got) == KEYS
    for key in KEYS:
        assert torch.isfinite(got[key])
        assert got[key].requires_grad
    for grad in torch.autograd.grad(got["loss"], p.leaves(), retain_graph=True):  # each is in the graph
        assert torch.isfinite(grad).all()
    return got


@pytest.mark.parametrize("kind", ["no point", "no point, one cloud", "all ignored", "no instance"])
@pytest.mark.parametrize("centers", ["votes", "positions"])
def test_empty(kind: str, centers: str) -> None:
    p = draw(9)
    if kind.startswith("no point"):
        p = draw(9, n=0, clouds=1 if "one" in kind else 3)
    else:
        p = replace(p, instance=torch.full_like(p.instance, -1 if kind == "no instance" else -100))
    got = check_finite(p)
    same(got, p.losses(positions=torch.zeros_like(p.mean)) if centers == "positions" else got)
    assert got["instance"] == got["variance"] == 0
    assert (got["seed"] > 0) == (kind == "no instance")
    for grad in torch.autograd.grad(got["instance"] + got["variance"], [p.mean, p.log_std]):
        assert not grad.any()


def test_one_point() -> None:
    p = draw(10, n=1, clouds=1)
    got = check_finite(replace(p, instance=torch.tensor([7]), semantic=torch.tensor([1])))
    assert got["instance"] == got["variance"] == 0  # its vote is the centre


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_margins_and_distances(dtype: torch.dtype) -> None:
    p = draw(11, n=200, clouds=2, instances=12).to(dtype)
    log_std = torch.tensor([-12.0, -3.0, 0.0, 12.0], dtype=dtype)[torch.arange(600) % 4].view(200, 3)
    for change in (
        {"log_std": log_std.requires_grad_()},
        {"mean": (1e4 * p.mean.detach()).requires_grad_()},
        {"mean": torch.ones_like(p.mean, requires_grad=True)},
    ):
        changed = replace(p, **change)
        got = check_finite(changed)
        right = losses_by_loops(changed.to(torch.float64))
        for key in KEYS:
            close(got[key], right[key], 1e-9 if dtype == torch.float64 else 1e-4)


def test_nan_is_not_hidden() -> None:
    p = draw(12)
    mean = p.mean.detach().clone()
    mean[p.instance == 0] = math.nan
    assert torch.isnan(replace(p, mean=mean).losses()["loss"])


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(name: str, dtype: torch.dtype) -> None:
    p = PROBLEMS[name].to(dtype)
    got = check_finite(p)
    right = p.to(torch.float64).losses()
    for key in KEYS:
        assert got[key].dtype == torch.float32
        close(got[key], right[key], 1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        same(got, p.losses())


class Largest(TorchDispatchMode):
    """The largest tensor that any operator returned."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, list | tuple) else [result]:
            if isinstance(t, Tensor):
                self.numel = max(self.numel, t.numel())
        return result


def test_many_instances_without_a_matrix() -> None:
    """400 instances in a cloud, no limit of 255; no tensor of more than a few numbers a point."""
    n, k = 2000, 400
    p = draw(13, n=n, clouds=1, instances=k, isotropic=True)
    p = replace(p, instance=torch.where(torch.arange(n) < k, torch.arange(n), p.instance))  # all of them have a point
    p = replace(p, semantic=torch.ones_like(p.instance))
    i = index_instances(p.instance)
    center = torch.zeros(k, 3, dtype=torch.float64).index_add(0, i.index[i.member], p.mean[i.member]) / i.size[:, None]
    log_std = torch.full((k, 3), -1.0, dtype=torch.float64)
    args = (p.mean.detach(), center.detach(), log_std, i.index, i.order, i.ptr, i.instance_ptr, i.member, i.member_ptr)
    with Largest() as largest:  # the operator's own function: within an operator nothing is seen
        value, *_ = lovasz._all_instances._init_fn(*args, True)
    assert n < largest.numel <= 4 * n
    for j in (0, 200, 399):
        phi = torch.exp(-0.5 * ((p.mean.detach()[i.valid] - center[j]) * math.e).square().sum(1))
        close(value[j], hinge_by_sorting(phi.detach(), i.index[i.valid] == j))
    with Largest() as largest:
        p.losses()["loss"].backward()
    assert largest.numel <= 8 * n
    check_finite(p)


def hinge_by_sorting(phi: Tensor, inside: Tensor) -> Tensor:
    error, order = torch.where(inside, 2 - 2 * phi, 2 * phi).sort(descending=True)
    own = inside[order].double()
    jaccard = 1 - (own.sum() - own.cumsum(0)) / (own.sum() + (1 - own).cumsum(0))
    return error @ torch.diff(jaccard, prepend=jaccard.new_zeros(1))


def test_compiled_with_changing_sizes() -> None:
    """fullgraph=True on an InstanceIndex equals eager; once the sizes were seen to change nothing is compiled again."""
    torch._dynamo.reset()
    loss = LearnableMarginLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    graphs = []
    for n, clouds, instances in [(50, 2, 4), (81, 3, 6), (93, 4, 9), (120, 5, 7)]:
        p = draw(n, n=n, clouds=clouds, instances=instances)
        index = index_instances(p.instance, p.batch)
        got, right = compiled(p.output(), index, p.semantic), loss(p.output(), index, p.semantic)
        same(got, right)
        got_grads, right_grads = (torch.autograd.grad(x["loss"], p.leaves()) for x in (got, right))
        for g, e in zip(got_grads, right_grads, strict=True):
            close(g, e)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[1:] == [graphs[1]] * 3, graphs


def test_without_gradients_nothing_is_stored_and_the_value_is_the_same() -> None:
    p = PROBLEMS["ragged"]
    with torch.no_grad():
        got = p.losses()
    assert not got["loss"].requires_grad
    same(got, p.losses())


# --- Errors


@pytest.mark.parametrize(
    ("positions", "error", "message"),
    [
        (torch.zeros(4, 3, dtype=torch.int64), TypeError, "floating-point positions, got torch.int64"),
        (torch.zeros(3, 3), ValueError, r"positions \(4, D\) with 1 <= D <= 3, got \(3, 3\)"),
        (torch.zeros(4, 4), ValueError, r"got \(4, 4\)"),
        (torch.zeros(4, 0), ValueError, r"got \(4, 0\)"),
        (torch.zeros(4), ValueError, r"got \(4,\)"),
        (torch.zeros(4, 3, device="meta"), TypeError, "expected positions on cpu, got meta"),
    ],
)
def test_errors_of_positions(positions: Tensor, error: type[Exception], message: str) -> None:
    x = GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 1))
    output = MarginOutput(x, torch.zeros(4, 2))
    with pytest.raises(error, match=message):
        learnable_margin(
            output, torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64), positions=positions
        )


def test_errors_of_labels() -> None:
    x = GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 1))
    output, instance, semantic = MarginOutput(x, torch.zeros(4, 3)), torch.tensor([5, 5, 9, -1]), torch.tensor([1] * 4)
    loss = LearnableMarginLoss()
    with pytest.raises(ValueError, match="labels for 4 points, got 3"):
        loss(output, instance[:3], semantic)
    with pytest.raises(ValueError, match=r"classes in \[0, 3\) .* got 3"):
        loss(output, instance, semantic + 2)
    with pytest.raises(ValueError, match="instance 5 of cloud 0 has class 0, the background"):
        loss(output, instance, semantic - 1)
    with pytest.raises(ValueError, match="instance labels for 2 points, got 4"):
        loss(MarginOutput(x, torch.zeros(2, 3)), instance, semantic)
    with pytest.raises(ValueError, match="expected mean of shape"):
        loss(MarginOutput(GaussianEmbedding(torch.zeros(4), torch.zeros(4)), torch.zeros(4, 3)), instance, semantic)


def test_learns_separate_instances() -> None:
    torch.manual_seed(0)
    instance = torch.arange(400) % 4
    corner = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    positions = corner[instance] + 0.1 * torch.randn(400, 3)
    backbone, head, loss = torch.nn.Linear(3, 32), LearnableMarginHead(32, 2), LearnableMarginLoss()
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], 3e-3)
    values = []
    for _ in range(40):
        output = head(backbone(positions), positions)
        losses = loss(output, instance, torch.ones_like(instance))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(losses["instance"].item())
    assert values[-1] < 0.5 * values[0]
    found = margin_cluster(output.embedding, output.probabilities, min_points=20)
    truth = instance == torch.arange(4)[:, None]
    both = (found.masks()[:, None] & truth).sum(2)
    iou = both / (found.masks()[:, None] | truth).sum(2)
    assert len(found) == 4
    assert iou.amax(0).min() > 0.9
