"""Learnable margins against the authors' numbers and against float64 loops; head, properties, robustness, errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from paths import TEST_DATA
from torch import Tensor
from torch._dynamo.utils import counters
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from probemb_lib import (
    GaussianEmbedding,
    Instances,
    LearnableMarginHead,
    LearnableMarginLoss,
    MarginInstances,
    MarginOutput,
    index_instances,
    margin_cluster,
)
from probemb_lib.functional import learnable_margin
from probemb_lib.margin import cluster, lovasz
from probemb_lib.margin.lovasz import lovasz_hinge

DATA = TEST_DATA / "learnable_margin"
KEYS = ["instance", "loss", "seed", "variance"]
CASES = pytest.mark.parametrize("case", range(4))
quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**20)


def close(got: Tensor, expected: Any, tolerance: float = 1e-10) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).detach()
    torch.testing.assert_close(got.detach().double(), expected, rtol=tolerance, atol=tolerance)


# --- the authors' numbers


def embedding_of(columns: Tensor, positions: Tensor, n_sigma: int) -> GaussianEmbedding:
    """Raw channels of the authors' network: two offsets, then 10·σ = ln s = −ln(2 σ²)."""
    return GaussianEmbedding(columns[:, :2].tanh() + positions, -5 * columns[:, 2 : 2 + n_sigma] - 0.5 * math.log(2))


@dataclass
class Images:
    """Images of a known answer as a packed batch of clouds."""

    prediction: Tensor
    output: MarginOutput
    instance: Tensor
    semantic: Tensor
    batch: Tensor
    positions: Tensor | None
    foreground_weight: float

    def losses(self) -> dict[str, Tensor]:
        return learnable_margin(
            self.output,
            self.instance,
            self.semantic,
            self.batch,
            positions=self.positions,
            foreground_weight=self.foreground_weight,
        )


def images(known: dict[str, NDArray[Any]], dtype: torch.dtype, only: int | None = None) -> Images:
    take = slice(None) if only is None else slice(only, only + 1)
    prediction = torch.tensor(known["prediction"][take], dtype=dtype, requires_grad=True)
    count, channels, height, width = prediction.shape
    columns = prediction.permute(0, 2, 3, 1).reshape(-1, channels)
    positions = torch.tensor(known["coordinates"], dtype=dtype).permute(1, 2, 0).reshape(-1, 2).repeat(count, 1)
    embedding = embedding_of(columns, positions, int(known["n_sigma"]))
    logits = torch.stack([torch.zeros_like(columns[:, -1]), columns[:, -1]], dim=1)
    ids = torch.tensor(known["instances"][take].reshape(-1).astype(np.int64))
    labels = torch.tensor(known["labels"][take].reshape(-1).astype(np.int64))
    crowd = torch.where(ids == 0, -100, 1)  # a class but no instance: outside of all, its seed is not asked
    return Images(
        prediction,
        MarginOutput(embedding, logits),
        torch.where(ids == 0, -1, ids),
        torch.where(labels == 0, 0, crowd),
        torch.arange(count).repeat_interleave(height * width),
        positions if known["to_center"] else None,
        float(known["foreground_weight"]),
    )


def load(kind: str, case: int) -> dict[str, NDArray[Any]]:
    with np.load(DATA / f"{kind}_{case:02}.npz") as arrays:
        return dict(arrays)


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


@CASES
def test_known_hinges(case: int) -> None:
    known = load("loss", case)
    data = images(known, torch.float64)
    i = index_instances(data.instance, data.batch)
    votes = data.output.embedding.mean if data.positions is None else data.positions
    center = torch.stack([votes[i.index == k].mean(0) for k in range(i.num_instances)])
    log_std = torch.stack([data.output.embedding.log_std[i.index == k].mean(0) for k in range(i.num_instances)])
    hinges = []
    for k in range(i.num_instances):  # each alone against all the others as background
        alone = index_instances(torch.where(i.index == k, 0, -1)[data.batch == i.batch[k]])
        votes_of_cloud = data.output.embedding.mean[data.batch == i.batch[k]]
        hinges.append(lovasz_hinge(votes_of_cloud, center[[k]], log_std[[k]].expand(1, 2), alone))
    close(torch.cat(hinges), known["expected_instance_lovasz"], 1e-12)


def test_known_losses_reject() -> None:
    known = load("loss", 2)
    data = images({**known, "prediction": known["prediction"] * 1.01}, torch.float64)
    for name, value in zip(("instance", "variance", "seed"), known["expected_terms"], strict=True):
        with pytest.raises(AssertionError):
            close(data.losses()[name], value, 1e-6)
    (grad,) = torch.autograd.grad(data.losses()["loss"], data.prediction)
    with pytest.raises(AssertionError):
        close(grad, known["expected_grad"], 1e-5)


@CASES
def test_known_clusters(case: int) -> None:
    known = load("cluster", case)
    prediction = torch.tensor(known["prediction"])
    columns = prediction.flatten(1).T
    positions = torch.tensor(known["coordinates"]).flatten(1).T
    embedding = embedding_of(columns, positions, int(known["n_sigma"]))
    found = margin_cluster(embedding, columns[:, -1:].sigmoid(), min_score=float(known["threshold"]), background=None)
    assert isinstance(found, Instances)
    np.testing.assert_array_equal(found.label + 1, known["expected_instance_map"].reshape(-1))
    masks = np.unpackbits(known["expected_masks_packed"], axis=1, count=columns.shape[0]).astype(bool)
    np.testing.assert_array_equal(found.masks(), masks)
    np.testing.assert_allclose(found.score, known["expected_scores"], rtol=1e-6)
    torch.testing.assert_close(found.score, columns[found.seed, -1].sigmoid())
    torch.testing.assert_close(found.embedding, embedding.select(found.seed))
    if case == 2:  # the first instance lost points to a later one
        assert not torch.equal(found.masks(), Instances.masks(found))


# --- float64 loops


@dataclass(frozen=True)
class Problem:
    """Random leaves (N, D), (N, D or 1), (N, L) and labels of a ragged batch."""

    mean: Tensor
    log_std: Tensor
    logits: Tensor
    instance: Tensor
    semantic: Tensor
    batch: Tensor | None

    def leaves(self) -> list[Tensor]:
        return [self.mean, self.log_std, self.logits]

    def output(self) -> MarginOutput:
        return MarginOutput(GaussianEmbedding(self.mean, self.log_std), self.logits)

    def losses(self, **options: Any) -> dict[str, Tensor]:
        return learnable_margin(self.output(), self.instance, self.semantic, self.batch, **options)

    def to(self, dtype: torch.dtype) -> Problem:
        mean, log_std, logits = (t.detach().to(dtype).requires_grad_() for t in self.leaves())
        return replace(self, mean=mean, log_std=log_std, logits=logits)


def draw(
    seed: int, n: int = 60, dim: int = 3, clouds: int = 3, instances: int = 4, classes: int = 4, isotropic: bool = False
) -> Problem:
    g = torch.Generator().manual_seed(seed)
    instance = torch.randint(-1, instances, (n,), generator=g)
    batch = torch.randint(0, clouds, (n,), generator=g)
    center = torch.rand(clouds, instances + 1, dim, generator=g, dtype=torch.float64)
    mean = center[batch, instance] + 0.3 * torch.randn(n, dim, generator=g, dtype=torch.float64)
    log_std = 0.5 * torch.randn(n, 1 if isotropic else dim, generator=g, dtype=torch.float64) - 1
    logits = torch.randn(n, classes, generator=g, dtype=torch.float64)
    semantic = torch.where(instance < 0, 0, 1 + instance % (classes - 1))
    instance[torch.rand(n, generator=g) < 0.1] = -100
    semantic[torch.rand(n, generator=g) < 0.1] = -100
    mean, log_std, logits = (t.requires_grad_() for t in (mean, log_std, logits))
    return Problem(mean, log_std, logits, instance, semantic, batch if clouds > 1 else None)


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


# --- properties


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for key in KEYS:
        close(a[key], b[key])


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


# --- robustness


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


@pytest.mark.parametrize("clouds", [1, 3])
@pytest.mark.parametrize("gradients", [True, False])
def test_operator(clouds: int, gradients: bool) -> None:
    p = draw(14, clouds=clouds)
    i = index_instances(p.instance, p.batch)
    k = i.num_instances
    args = (p.mean.detach(), torch.rand(k, 3).double(), torch.zeros(k, 3).double(), i.index, i.order, i.ptr)
    torch.library.opcheck(
        torch.ops.probemb_lib.lovasz_hinge.default,
        (*args, i.instance_ptr, i.member, i.member_ptr, gradients),
        test_utils=("test_schema", "test_faketensor"),
    )


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


# --- errors of the loss


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


# --- head


@pytest.mark.parametrize(("anisotropic", "dim", "width"), [(False, 3, 1), (True, 3, 3), (True, 6, 6), (False, 2, 1)])
def test_head(anisotropic: bool, dim: int, width: int) -> None:
    torch.manual_seed(0)
    head = (
        LearnableMarginHead(16, 5, dim, anisotropic=anisotropic, offset_scale=2.0, initial_margin=0.3).double().eval()
    )
    features, positions = torch.randn(12, 16).double(), torch.rand(12, min(dim, 3)).double()
    output = head(features, positions)
    close(output.margin, torch.full((12, width), 0.3, dtype=torch.float64))
    z = output.margin[0, 0] / output.embedding.std[0, 0]
    close(torch.exp(-0.5 * z**2), 0.5)  # φ at the margin

    torch.nn.init.normal_(head.margins[-1].weight, std=0.1)
    output = head(features, positions)
    padded = torch.nn.functional.pad(positions, (0, dim - positions.shape[1]))
    close(output.embedding.mean, padded + 2 * torch.tanh(head.centers(features)))
    s = torch.log(torch.tensor(2.0).double()) / 0.3**2 * torch.exp(10 * head.margins(features))  # s = exp(10 o)
    close(output.embedding.log_std, -0.5 * torch.log(2 * s))
    close(output.logits, head.scores(features))
    close(output.probabilities, 1 / (1 + torch.exp(-head.scores(features))))
    assert f"anisotropic={anisotropic}, initial_margin=0.3" in repr(head)


def test_head_in_another_unit() -> None:
    """Positions, offsets and margins scaled together: no loss and no cluster changes. The default margin scales too."""
    g = torch.Generator().manual_seed(0)
    features, positions = torch.randn(100, 16, generator=g), torch.rand(100, 3, generator=g)
    instance, semantic = torch.arange(100) % 3, torch.arange(100) % 3 % 2 + 1
    results = []
    for unit in (1.0, 1000.0):
        torch.manual_seed(0)
        head = LearnableMarginHead(16, 3, offset_scale=unit).double().eval()
        torch.nn.init.normal_(head.margins[-1].weight, std=0.1)
        output = head(features.double(), unit * positions.double())
        results.append((learnable_margin(output, instance, semantic), output))
        assert head.initial_margin == 0.25 * unit
    same(results[0][0], results[1][0])
    labels = [
        margin_cluster(o.embedding, o.probabilities, min_points=4, foreground=0, min_score=0).label for _, o in results
    ]
    torch.testing.assert_close(*labels)
    assert labels[0].max() >= 0


def test_head_on_odd_batches() -> None:
    head = LearnableMarginHead(4, 2)
    empty = head(torch.zeros(0, 4), torch.zeros(0, 3))
    assert [t.shape for t in (*empty.embedding, empty.logits)] == [(0, 3), (0, 1), (0, 2)]
    half = head.bfloat16()(torch.randn(5, 4).bfloat16(), torch.rand(5, 3))
    assert {t.dtype for t in (*half.embedding, half.logits)} == {torch.float32}


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, math.nan])
def test_errors_of_head(margin: float) -> None:
    with pytest.raises(
        ValueError, match=f"expected a positive initial_margin in the unit of the positions, got {margin}"
    ):
        LearnableMarginHead(4, 2, initial_margin=margin)
    with pytest.raises(ValueError, match="expected num_classes >= 1, got 0"):
        LearnableMarginHead(4, 0)


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


# --- clustering


@dataclass(frozen=True)
class Scene:
    """Overlapping blobs with seed values that ask for rejected, overlapping and swallowed proposals."""

    embedding: GaussianEmbedding
    probabilities: Tensor
    batch: Tensor


def scene(seed: int, n: int = 300, dim: int = 2, clouds: int = 2, classes: int = 3, isotropic: bool = False) -> Scene:
    g = torch.Generator().manual_seed(seed)
    center = 3 * torch.rand(8, dim, generator=g)
    blob = torch.randint(0, 8, (n,), generator=g)
    mean = center[blob] + 0.3 * torch.randn(n, dim, generator=g)
    log_std = 0.7 * torch.randn(n, 1 if isotropic else dim, generator=g) - 1
    probabilities = torch.round(32 * torch.rand(n, classes, generator=g)) / 32  # with ties
    return Scene(GaussianEmbedding(mean, log_std), probabilities, torch.randint(0, clouds, (n,), generator=g))


def clusters_by_loops(
    s: Scene, foreground: float, min_score: float, min_points: int, background: int | None, class_aware: bool
) -> tuple[list[int], list[tuple[int, int, list[int]]]]:
    """The last instance of each point, and (seed, class, proposal) of each instance."""
    mean = s.embedding.mean.double().tolist()
    std = s.embedding.log_std.double().exp().expand(-1, len(mean[0])).tolist()
    columns = [c for c in range(s.probabilities.shape[1]) if c != background]
    best = [max(columns, key=lambda c, row=row: row[c]) for row in s.probabilities.tolist()]
    value = [row[c] for row, c in zip(s.probabilities.tolist(), best, strict=True)]
    taking_part = [i for i in range(len(mean)) if value[i] > foreground]
    group = [(int(s.batch[i]), best[i] if class_aware else 0) for i in range(len(mean))]
    found: list[tuple[int, int, list[int]]] = []
    for name in sorted({group[i] for i in taking_part}):
        points = [i for i in taking_part if group[i] == name]
        is_open = set(points)
        while len(is_open) >= min_points and is_open:
            seed = max(sorted(is_open), key=lambda i: value[i])
            if value[seed] < min_score:
                break
            is_open.remove(seed)
            proposal = []
            for i in points:
                z = [(a - b) / c for a, b, c in zip(mean[i], mean[seed], std[seed], strict=True)]
                if math.exp(-0.5 * sum(v * v for v in z)) > 0.5:  # a power would raise where this is infinite
                    proposal.append(i)
            if len(proposal) >= min_points and sum(i in is_open for i in proposal) > 0.5 * len(proposal):
                found.append((seed, best[seed], proposal))
            is_open -= set(proposal)
    label = [-1] * len(mean)
    for k, (_, _, proposal) in enumerate(found):
        for i in proposal:
            label[i] = k
    return label, found


def check_clusters(s: Scene, **options: Any) -> MarginInstances:
    options = {"foreground": 0.5, "min_score": 0.5, "min_points": 5, "background": 0, "class_aware": True, **options}
    got = margin_cluster(s.embedding, s.probabilities, batch=s.batch, **options)
    label, found = clusters_by_loops(s, **options)
    assert got.label.tolist() == label
    assert got.seed.tolist() == [seed for seed, _, _ in found]
    assert got.semantic.tolist() == [semantic for _, semantic, _ in found]
    assert got.batch.tolist() == s.batch[got.seed].tolist()
    torch.testing.assert_close(got.score, s.probabilities[got.seed, got.semantic].float())
    torch.testing.assert_close(got.embedding, s.embedding.select(got.seed))
    masks = got.masks()
    assert masks.shape == (len(found), len(label))
    for mask, (_, _, proposal) in zip(masks, found, strict=True):
        assert mask.nonzero().squeeze(1).tolist() == proposal
    return got


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "one class": {"class_aware": False},
    "no background": {"background": None},
    "other background": {"background": 2},
    "higher": {"min_score": 0.9, "foreground": 0.3},
    "all points": {"foreground": -math.inf, "min_score": -math.inf, "min_points": 1},
    "large": {"min_points": 40},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("scans", [-1, 4, 1 << 40])
@pytest.mark.parametrize(("dim", "isotropic"), [(1, False), (2, True), (3, False)])
def test_clusters_against_loops(name: str, scans: int, dim: int, isotropic: bool) -> None:
    """With the spatial index from the first seed on, from the fifth, and never."""
    s = scene(dim, dim=dim, isotropic=isotropic)
    with mock.patch.multiple(cluster, SCANS_BEFORE_INDEX=scans, MIN_POINTS_FOR_INDEX=0):
        got = check_clusters(s, **OPTIONS[name])
    if name == "all points":
        assert len(got) > 3
        assert not torch.equal(got.masks(), Instances.masks(got))


def test_the_index_is_used_when_scans_have_cost_more() -> None:
    s = scene(5, n=1500, clouds=1)
    s = replace(s, embedding=GaussianEmbedding(s.embedding.mean, s.embedding.log_std - 1.5))
    with mock.patch.object(cluster, "Grid", wraps=cluster.Grid) as grid:
        check_clusters(s, class_aware=False)
    assert grid.call_count == 1


def test_the_cluster_oracle_rejects() -> None:
    s = scene(6)
    wider = replace(s, embedding=GaussianEmbedding(s.embedding.mean, s.embedding.log_std + 0.05))
    got = margin_cluster(s.embedding, s.probabilities, batch=s.batch, min_points=5)
    label, _ = clusters_by_loops(wider, 0.5, 0.5, 5, 0, True)
    assert got.label.tolist() != label


def test_a_swallowed_instance_keeps_its_mask() -> None:
    """A later, wider proposal, more than half of it open, takes every point of an earlier one in the label map."""
    mean = torch.tensor([0.0, 0.1, -0.1, 1.0, -1.0, 1.1, -1.1, 1.2, -1.2])[:, None]
    log_std = torch.tensor([-1.0, 0, 0, 2, 0, 0, 0, 0, 0])[:, None]
    seeds_ = torch.tensor([0.9, 0.6, 0.6, 0.8, 0.6, 0.6, 0.6, 0.6, 0.6])[:, None]
    found = margin_cluster(GaussianEmbedding(mean, log_std), seeds_, background=None, min_points=3)
    assert found.label.tolist() == [1] * 9
    assert found.masks().sum(1).tolist() == [3, 9]
    assert Instances.masks(found).sum(1).tolist() == [0, 9]


def test_exactly_half_open_is_too_little() -> None:
    """Two points: the seed does not count as open, so one of two is, which is not more than half."""
    x = GaussianEmbedding(torch.zeros(2, 1), torch.zeros(2, 1))
    p = torch.tensor([[0.9], [0.8]])
    assert len(margin_cluster(x, p, background=None, min_points=1)) == 0
    x = GaussianEmbedding(torch.zeros(3, 1), torch.zeros(3, 1))
    assert len(margin_cluster(x, torch.tensor([[0.9], [0.8], [0.7]]), background=None, min_points=1)) == 1


@pytest.mark.parametrize("num_clouds", [None, 5])
def test_split(num_clouds: int | None) -> None:
    s = scene(7, clouds=3)
    whole = margin_cluster(
        s.embedding, s.probabilities, batch=s.batch + (s.batch > 0), min_points=5
    )  # cloud 1 is empty
    clouds = whole.split(num_clouds)
    assert len(clouds) == (num_clouds or 4)
    assert len(clouds[1]) == 0
    total = 0
    for b, cloud in enumerate(clouds):
        assert isinstance(cloud, MarginInstances)
        rows = s.batch + (s.batch > 0) == b
        alone = margin_cluster(s.embedding.select(rows), s.probabilities[rows], min_points=5)
        for name in ("label", "semantic", "score", "seed", "batch", "point_batch", "member", "member_ptr"):
            torch.testing.assert_close(getattr(cloud, name), getattr(alone, name))
        total += len(cloud)
    assert total == len(whole) > 2


def test_clusters_of_nothing() -> None:
    x = GaussianEmbedding(torch.zeros(0, 3), torch.zeros(0, 1))
    found = margin_cluster(x, torch.zeros(0, 2))
    assert len(found) == 0
    assert found.masks().shape == (0, 0)
    assert found.split() == []
    for batch in (None, torch.arange(200) % 2):
        found = margin_cluster(
            GaussianEmbedding(torch.zeros(200, 3), torch.zeros(200, 1)), torch.full((200, 2), 0.5), batch=batch
        )
        assert found.label.tolist() == [-1] * 200  # no seed value above one half
        assert found.masks().shape == (0, 200)


def test_extreme_numbers_are_clustered() -> None:
    s = scene(8)
    mean = s.embedding.mean.double() * torch.tensor([1e149, 1.0], dtype=torch.float64)
    log_std = torch.tensor([-300.0, 300, 0])[torch.arange(600) % 3].view(300, 2).double()
    with np.errstate(all="raise", under="ignore"):
        check_clusters(replace(s, embedding=GaussianEmbedding(mean, log_std)), min_points=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_clusters_of_half_precision(dtype: torch.dtype) -> None:
    s = scene(9)
    s = replace(s, embedding=s.embedding.to(dtype=dtype), probabilities=s.probabilities.to(dtype))
    assert check_clusters(s).score.dtype == torch.float32


def test_no_gradient_and_inputs_as_they_were() -> None:
    s = scene(10)
    x = GaussianEmbedding(*(t.requires_grad_() for t in s.embedding))
    before = [t.clone() for t in (*x, s.probabilities, s.batch)]
    found = margin_cluster(x, s.probabilities, batch=s.batch, min_points=5)
    assert not found.embedding.mean.requires_grad
    for t, b in zip((*x, s.probabilities, s.batch), before, strict=True):
        torch.testing.assert_close(t, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"foreground": math.nan}, ValueError, "expected a number for foreground, got NaN"),
        ({"min_score": math.nan}, ValueError, "expected a number for min_score, got NaN"),
        ({"min_points": 0}, ValueError, "expected min_points >= 1, got 0"),
        ({"background": 2}, ValueError, r"expected background in \[0, 2\) or None, got 2"),
        ({"batch": torch.zeros(3, dtype=torch.int64)}, ValueError, r"expected batch \(4,\)"),
        ({"probabilities": torch.zeros(4)}, ValueError, r"expected probabilities \(4, L\)"),
        ({"probabilities": torch.full((4, 2), math.nan)}, ValueError, "expected finite probabilities"),
        ({"embedding": GaussianEmbedding(torch.zeros(4), torch.zeros(4))}, ValueError, "expected mean of shape"),
    ],
)
def test_errors_of_clustering(options: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {
        "embedding": GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 1)),
        "probabilities": torch.zeros(4, 2),
    }
    with pytest.raises(error, match=message):
        margin_cluster(**{**arguments, **options})
