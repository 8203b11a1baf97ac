"""What every method keeps: labels of the core, clouds apart, points in any order, empty batches, gradients, devices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from probemb_adapters import baselines
from probemb_adapters.baselines import (
    ASIS,
    MTML,
    SGPN,
    DiscriminativeEmbedding,
    LearnableMargin,
    PartNetMasks,
    PointGroup,
    PositionClusters,
    ProbabilisticEmbedding,
    SemiConvolutionalEmbedding,
)
from probemb_adapters.baselines.method import Branches, best_first, clouds_of, instances_of, mean_or_nothing, nothing
from probemb_adapters.experiments.baselines import DBSCAN
from probemb_lib import GaussianEmbedding, HeadOutput, index_instances

IN, CLASSES = 6, 4
WRITTEN: dict[str, Callable[..., Any]] = {
    "discriminative": DiscriminativeEmbedding,
    "discriminative, probabilistic": partial(DiscriminativeEmbedding, probabilistic=True),
    "asis": partial(ASIS, neighbours=5),
    "asis, probabilistic": partial(ASIS, neighbours=5, probabilistic=True),
    "semi-convolutional": SemiConvolutionalEmbedding,
    "semi-convolutional, probabilistic": partial(SemiConvolutionalEmbedding, probabilistic=True),
    "mtml": MTML,
    "partnet": partial(PartNetMasks, num_masks=12),
    "sgpn": partial(SGPN, margin=1.0, class_margin=2.0),
    "pointgroup": partial(PointGroup, radius=0.3, min_cluster=3),
}
METHODS = {
    **WRITTEN,
    "margin": partial(LearnableMargin, min_points=2),
    "ours": ProbabilisticEmbedding,
    "ours, complement": partial(ProbabilisticEmbedding, complement=True),
    "ours, cross entropy": partial(ProbabilisticEmbedding, cross_entropy=True, score_weight=None),
}


def made(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    method = METHODS[name](IN, CLASSES, hidden=(12,))
    method.head.eval()
    return method


def problem(points: int = 90, clouds: int = 2, seed: int = 0, *, easy: bool = False) -> tuple[torch.Tensor, ...]:
    """Features, positions, instance, semantic, batch: three instances a cloud, some points of none, some ignored."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.arange(points) % clouds
    instance = torch.randint(0, 3, (points,), generator=generator)
    semantic = 1 + instance
    positions = 0.3 * torch.randn(points, 3, generator=generator) + 4 * torch.eye(3)[instance]
    features = torch.randn(points, IN, generator=generator)
    if easy:
        features = features * 0.1
        features[:, :3] += 3 * torch.eye(3)[instance]
        return features, positions, instance, semantic, batch
    instance[::7], semantic[::7] = -1, 0
    instance[3::11], semantic[3::11] = -100, -100
    semantic[5::13] = -100
    return features, positions, instance, semantic, batch


def partition(label: torch.Tensor) -> torch.Tensor:
    """(N, N) which points share an instance; the diagonal says whether a point is in one."""
    return (label[:, None] == label) & (label >= 0)[:, None]


def all_names() -> list[str]:
    return sorted(METHODS)


def test_all_methods_are_tested() -> None:
    classes = {getattr(make, "func", make).__name__ for make in METHODS.values()}
    assert classes == set(baselines.__all__) - {"Method", "PositionClusters"}


@pytest.mark.parametrize("name", all_names())
def test_loss_and_gradients(name: str) -> None:
    method = made(name)
    method.head.train()
    x, pos, instance, semantic, batch = problem()
    losses = method.loss(method.head(x, pos, batch), instance, semantic, batch)
    assert all(value.shape == () and bool(value.isfinite()) for value in losses.values())
    assert len(losses) > 2
    losses["loss"].backward()
    grads = [p.grad for p in method.head.parameters() if p.grad is not None]
    assert grads
    assert all(bool(g.isfinite().all()) for g in grads)
    assert sum(float(g.abs().sum()) for g in grads) > 0


@pytest.mark.parametrize("name", all_names())
def test_order_of_points(name: str) -> None:
    method = made(name)
    x, pos, instance, semantic, batch = problem()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    first = method.head(x, pos, batch)
    second = method.head(*(t[order] for t in (x, pos, batch)))
    a = method.loss(first, instance, semantic, batch)
    b = method.loss(second, *(t[order] for t in (instance, semantic, batch)))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    a, b = method.group(first, batch), method.group(second, batch[order])
    assert torch.equal(partition(a.label)[order][:, order], partition(b.label))
    torch.testing.assert_close(a.score.sort().values, b.score.sort().values)
    assert torch.equal(a.label[a.seed], torch.arange(len(a)))


@pytest.mark.parametrize("name", all_names())
def test_clouds_are_apart(name: str) -> None:
    """The loss of a batch is the mean of its clouds', and each is grouped as if it were alone."""
    method = made(name)
    x, pos, instance, semantic, batch = problem()
    output = method.head(x, pos, batch)
    together, found = method.loss(output, instance, semantic, batch), method.group(output, batch).split(2)
    alone = []
    for b in range(2):
        rows = batch == b
        output = method.head(x[rows], pos[rows])
        alone.append(method.loss(output, instance[rows], semantic[rows]))
        own = method.group(output)
        assert torch.equal(own.label, found[b].label)
        for field in ("semantic", "seed"):
            assert torch.equal(getattr(own, field), getattr(found[b], field))
        torch.testing.assert_close(own.score, found[b].score)
    for term, value in together.items():
        torch.testing.assert_close(value, (alone[0][term] + alone[1][term]) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", all_names())
def test_names_of_instances_and_what_is_ignored(name: str) -> None:
    method = made(name)
    x, pos, instance, semantic, batch = problem()
    losses = method.loss(method.head(x, pos, batch), instance, semantic, batch)
    renamed = torch.where(instance >= 0, 50 - 7 * instance, instance)
    output = method.head(x, pos, batch)
    torch.testing.assert_close(method.loss(output, renamed, semantic, batch), losses, rtol=1e-4, atol=1e-5)
    index = index_instances(instance, batch)
    torch.testing.assert_close(method.loss(output, index, semantic), losses)
    every = torch.full_like(instance, -100)
    nothing_left = method.loss(method.head(x, pos, batch), every, every, batch)
    assert nothing_left["loss"].item() == 0
    nothing_left["loss"].backward()


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_mixed_precision(name: str) -> None:
    """Heads give float32; losses and groups of that do not depend on autocast, but for PointGroup's score network."""
    method = made(name)
    x, pos, instance, semantic, batch = problem()
    with torch.autocast("cpu", torch.bfloat16):
        output = method.head(x, pos, batch)
        mixed, found = method.loss(output, instance, semantic, batch), method.group(output, batch)
    assert all(value.dtype == torch.float32 for value in mixed.values())
    assert output.logits.dtype == torch.float32
    losses, again = method.loss(output, instance, semantic, batch), method.group(output, batch)
    for term in losses.keys() - ({"loss", "score"} if name == "pointgroup" else set()):
        torch.testing.assert_close(mixed[term], losses[term])
    if name != "pointgroup":
        assert torch.equal(found.label, again.label)


@pytest.mark.parametrize("name", all_names())
def test_no_points_no_instances_and_one(name: str) -> None:
    method = made(name)
    none, labels = torch.zeros(0, IN), torch.zeros(0, dtype=torch.int64)
    output = method.head(none, none[:, :3], labels)
    losses = method.loss(output, labels, labels, labels)
    assert losses["loss"].item() == 0
    losses["loss"].backward()
    assert any(p.grad is not None for p in method.head.parameters())
    assert len(method.group(output, labels)) == 0
    x, pos, _, semantic, _ = problem(9)
    background = method.loss(method.head(x, pos), torch.full_like(semantic, -1), torch.zeros_like(semantic))
    assert bool(background["loss"].isfinite())
    one = method.loss(method.head(x[:1], pos[:1]), torch.tensor([4]), torch.tensor([2]))
    one["loss"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in method.head.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", all_names())
def test_a_diverged_network_is_no_empty_result(name: str) -> None:
    """Comparisons are false of NaN: most groupings would find nothing, and a table would show 0 %."""
    method = made(name)
    x, pos, *_, batch = problem()
    x[3] = torch.nan
    with pytest.raises(ValueError, match=r"expected finite (probabilities|mean).*, got \[nan, .* at point 3"):
        method.group(method.head(x, pos, batch), batch)


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_every_parameter_learns_and_the_loss_falls(name: str) -> None:
    method = made(name)
    method.head.train()
    x, pos, instance, semantic, batch = problem(90, easy=True)
    optimizer = torch.optim.Adam(method.head.parameters(), 1e-2)
    values = []
    for _ in range(30):
        losses = method.loss(method.head(x, pos, batch), instance, semantic, batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(losses["loss"].item())
    assert values[-1] < 0.9 * values[0] or values[-1] < values[0] - 0.3
    assert [n for n, p in method.head.named_parameters() if p.grad is None] == []


def test_positions_alone() -> None:
    method = PositionClusters(DBSCAN(1.0, 2))
    x, pos, instance, semantic, batch = problem(easy=True)
    output = method.head(x, pos, batch)
    assert float(method.loss(output, instance, semantic, batch)["loss"]) == 0
    found = method.group(output, batch)
    assert torch.equal(partition(found.label), (instance[:, None] == instance) & (batch[:, None] == batch))
    torch.testing.assert_close(found.score, torch.bincount(found.label) / 45)
    assert found.batch.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(method.group(method.head(x[:0], pos[:0]))) == 0


# --- what they share


def test_instances_of_a_label_map() -> None:
    p = torch.tensor([[0.0, 0.9, 0.1], [0.0, 0.3, 0.7], [0.5, 0.1, 0.4], [0.0, 0.6, 0.4], [0.9, 0.1, 0.0]])
    found = instances_of(torch.tensor([7, 7, 2, 7, -1]), p, torch.zeros(5, 3), torch.tensor([0, 0, 1, 0, 0]))
    assert found.label.tolist() == [0, 0, 1, 0, -1]  # by cloud, then by number
    assert found.semantic.tolist() == [1, 2]  # of the mean probability, never the background
    torch.testing.assert_close(found.score, torch.tensor([0.6, 0.4]))
    assert found.seed.tolist() == [0, 2]
    assert found.batch.tolist() == [0, 1]
    large = instances_of(torch.tensor([7, 7, 2, 7, -1]), p, torch.zeros(5, 3), min_points=2)
    assert large.label.tolist() == [0, 0, -1, 0, -1]
    scored = instances_of(torch.tensor([1, 1, 0, 1, -1]), p, torch.zeros(5, 3), score=torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(scored.score, torch.tensor([0.1, 0.2]))


def test_small_things() -> None:
    assert best_first(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]), 0).tolist() == [1, 2, 0]
    rows = clouds_of(index_instances(torch.tensor([0, 1, -100, 2, -1]), torch.tensor([2, 0, 0, 2, 0])))
    assert [r.tolist() for r in rows] == [[1, 4], [0, 3]]
    x = torch.tensor([float("nan")], requires_grad=True)
    value = mean_or_nothing([], x) + nothing(x)
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert x.grad.tolist() == [0]
    with pytest.raises(ValueError, match=r"expected features \(N, 6\), got \(4, 5\)"):
        Branches(6, (2,))(torch.zeros(4, 5))


def test_outer_points_of_instances_stay_where_they_have_a_column_of_their_own() -> None:
    """Likelier background than the class, but not than both together; and a point that is background."""
    method = ProbabilisticEmbedding(IN, 2, complement=True, hidden=(8,))
    probabilities = torch.tensor([[0.01, 0.98, 0.01], [0.3, 0.2, 0.5], [0.4, 0.25, 0.35], [0.8, 0.1, 0.1]])
    embedding = GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 1))
    found = method.group(HeadOutput(embedding, probabilities.log()))
    assert found.label.tolist() == [0, 0, 0, -1]
    assert found.score.tolist() == pytest.approx([0.98])


def test_classes_weigh_as_in_the_other_methods() -> None:
    """Without a weight the divisor of Eqs. 10 and 12, the number of columns, is gone: a plain cross entropy is left."""
    *inputs, instance, semantic, batch = problem(easy=True)
    method = ProbabilisticEmbedding(IN, CLASSES, hidden=(8,), cross_entropy=True, score_weight=None)
    output = method.head(*inputs, batch)
    losses = method.loss(output, instance, semantic, batch)
    expected = torch.nn.functional.cross_entropy(output.logits, semantic)  # clouds are of one size
    instances = losses["bce"] + losses["dice"] + 0.001 * losses["entropy"]
    torch.testing.assert_close(losses["loss"] - instances, expected)
