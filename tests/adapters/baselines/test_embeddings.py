"""Methods with embeddings: the discriminative loss and mean shift, ASIS, the semi-convolutional embedding, MTML."""

from __future__ import annotations

import baseline_oracles as oracles
import numpy as np
import pytest
import torch

from probemb_adapters.baselines import ASIS, MTML, DiscriminativeEmbedding, SemiConvolutionalEmbedding
from probemb_adapters.baselines.asis import neighbours
from probemb_adapters.baselines.discriminative import discriminative_loss, mean_shift
from probemb_adapters.baselines.embedding import (
    EmbeddingHead,
    all_pairs,
    distance_matrix,
    gaussian,
    kernel_distance,
    manhattan,
)
from probemb_adapters.baselines.mtml import MTMLOutput, agreement, direction_loss
from probemb_adapters.baselines.semi_convolutional import mask_loss, pull_loss, seed_points
from probemb_lib import GaussianEmbedding, HeadOutput, index_instances
from probemb_lib.head import EUCLIDEAN_LOG_STD

DISTANCES = {"kernel": (kernel_distance, oracles.kernel_distance), "manhattan": (manhattan, oracles.manhattan)}
IDS = np.array([4, 4, 4, 9, 9, -1, 2, 9, 2, -1, 4, 4])


def gaussians(points: int, dim: int = 3, seed: int = 0, spread: float = 1.0) -> GaussianEmbedding:
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = torch.randn(2, points, dim, generator=generator, dtype=torch.float64)
    return GaussianEmbedding(spread * mean, 0.3 * log_std)


def plain(mean: torch.Tensor) -> GaussianEmbedding:
    return GaussianEmbedding(mean, torch.full_like(mean[:, :1], EUCLIDEAN_LOG_STD))


def arrays(x: GaussianEmbedding) -> tuple[np.ndarray, np.ndarray]:
    return x.mean.numpy(), x.log_std.expand_as(x.mean).exp().numpy()


def blobs(dim: int = 3, each: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three blobs far apart in mixed order, in two clouds at the same places: means, truth over both, batch."""
    truth = torch.arange(6 * each) % 6
    generator = torch.Generator().manual_seed(3)
    mean = 4 * torch.eye(3, dim)[truth % 3] + 0.05 * torch.randn(6 * each, dim, generator=generator)
    return mean, truth, truth // 3


def certain(truth: torch.Tensor) -> torch.Tensor:
    """Logits that say class 1 + (truth mod 3), the more the earlier the point."""
    return torch.linspace(9, 8, len(truth))[:, None] * torch.eye(4)[1 + truth % 3]


def same(label: torch.Tensor, truth: torch.Tensor) -> bool:
    return torch.equal((label[:, None] == label) & (label >= 0), (truth[:, None] == truth) & (truth >= 0))


# --- distances and heads


def test_distances() -> None:
    x, y = gaussians(4), gaussians(5, seed=1)
    for ours, truth in DISTANCES.values():
        expected = [[truth(a, b) for b in zip(*arrays(y), strict=True)] for a in zip(*arrays(x), strict=True)]
        for matrix in (all_pairs, distance_matrix):
            torch.testing.assert_close(matrix(x, y, ours), torch.tensor(expected, dtype=torch.float64))
    a, b = torch.randn(2, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(kernel_distance(plain(a), plain(b)), (a - b).norm(dim=1))


def test_embedding_heads() -> None:
    positions, offset, log_std = torch.rand(4, 2), torch.randn(4, 3), torch.randn(4, 3)
    x = gaussian(offset, positions, log_std, 0.5)
    torch.testing.assert_close(x.mean, torch.nn.functional.pad(positions, (0, 1)) + 0.5 * offset)
    torch.testing.assert_close(x.std, 0.5 / 8**0.5 * log_std.exp())
    x, y = (gaussian(t, None, None, 0.5) for t in (offset, offset + torch.tensor([0.0, 3.0, 4.0])))
    torch.testing.assert_close(kernel_distance(x, y), torch.full((4,), 5.0))  # lengths count in the scale
    with pytest.raises(ValueError, match=r"expected positions \(4, D\) with D <= 3, got \(4, 5\)"):
        gaussian(offset, torch.rand(4, 5), None, 1.0)
    with pytest.raises(ValueError, match="expected a positive scale"):
        EmbeddingHead(3, 2, 3, scale=0.0)


# --- the discriminative loss and mean shift


@pytest.mark.parametrize("name", DISTANCES)
def test_discriminative_loss(name: str) -> None:
    ours, truth = DISTANCES[name]
    x = gaussians(len(IDS))
    losses = discriminative_loss(x, torch.from_numpy(IDS), delta_v=0.4, delta_d=1.1, distance=ours)
    expected = oracles.discriminative(*arrays(x), IDS, 0.4, 1.1, truth)
    assert all(value > 0.01 for value in expected.values())
    for term, value in expected.items():
        assert losses[term].item() == pytest.approx(value, rel=1e-9)
    wrong = oracles.discriminative(*arrays(x), IDS, 0.41, 1.1, truth)
    assert losses["var"].item() != pytest.approx(wrong["var"], rel=1e-9)


def test_discriminative_loss_by_hand() -> None:
    """Two points at 0 and 4 around 2, one at 3: (2 − ½)², (3 − 1)², (2 + 3)/2."""
    x = plain(torch.tensor([[0.0], [4.0], [3.0]]))
    losses = discriminative_loss(x, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(torch.stack([*losses.values()]), torch.tensor([2.25 / 2, 4.0, 2.5]))


@pytest.mark.parametrize("name", DISTANCES)
def test_discriminative_gradients(name: str) -> None:
    batch = torch.arange(len(IDS)) % 2

    def total(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        x = GaussianEmbedding(mean, log_std)
        losses = discriminative_loss(x, torch.from_numpy(IDS), batch, distance=DISTANCES[name][0])
        return losses["var"] + 2 * losses["dist"] + losses["reg"]

    x = gaussians(len(IDS))
    assert torch.autograd.gradcheck(total, [t.requires_grad_() for t in x])


def test_equal_points_have_gradients() -> None:
    mean = torch.zeros(4, 2, requires_grad=True)
    losses = discriminative_loss(plain(mean), torch.tensor([0, 0, 1, 1]))
    sum(losses.values()).backward()
    assert mean.grad is not None
    assert bool(mean.grad.isfinite().all())


def test_mean_shift() -> None:
    x = gaussians(60, dim=2, spread=2.0)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    label = mean_shift(plain(x.mean), order, 1.0)
    assert label.tolist() == oracles.shift(x.mean.numpy(), order.tolist(), 1.0)
    assert 5 < int(label.max()) < 30


def test_mean_shift_moves_and_leaves_its_start() -> None:
    """From 0 the mean wanders to the right; the start stays with what it found."""
    x = torch.tensor([0.0, 0.9, 1.0, 1.1, 1.5, 1.6])[:, None]
    assert mean_shift(plain(x), torch.arange(6), 1.0).tolist() == [0, 0, 0, 0, 0, 0]
    assert mean_shift(plain(x), torch.arange(6), 0.95).tolist() == oracles.shift(x.numpy(), [*range(6)], 0.95)


def test_mean_shift_asks_kappa() -> None:
    """The same means: a wide and a narrow Gaussian are no neighbours."""
    x = GaussianEmbedding(torch.zeros(4, 1), torch.tensor([[0.0], [0.0], [5.0], [5.0]]))
    assert mean_shift(x, torch.arange(4), 0.5).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("probabilistic", [False, True])
@pytest.mark.parametrize("kind", [DiscriminativeEmbedding, ASIS, SemiConvolutionalEmbedding])
def test_blobs_are_found(kind: type, probabilistic: bool) -> None:
    mean, truth, batch = blobs()
    method = kind(4, 4, probabilistic=probabilistic)
    log_std = torch.full_like(mean, EUCLIDEAN_LOG_STD) if probabilistic else plain(mean).log_std
    output = HeadOutput(GaussianEmbedding(mean, log_std), certain(truth))
    found = method.group(output, batch)
    assert same(found.label, truth)
    assert found.semantic.tolist() == [1, 2, 3, 1, 2, 3]
    losses = method.loss(output, truth % 3, 1 + truth % 3, batch)
    assert losses["loss"] < method.loss(output, truth.roll(1) % 2, 1 + truth % 3, batch)["loss"]
    background = output._replace(logits=torch.eye(4)[torch.zeros_like(truth)])
    assert len(method.group(background, batch)) == 0


# --- ASIS


@pytest.mark.parametrize("name", DISTANCES)
def test_neighbours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, truth = DISTANCES[name]
    x, batch, radius = gaussians(25), torch.arange(25) % 2, 0.7 if name == "kernel" else 1.5
    monkeypatch.setattr("probemb_adapters.baselines.asis.TILE", 30)  # some tiles
    rows, within = neighbours(x, batch, 4, radius, ours)
    mean, std = arrays(x)
    for i in range(25):
        own = [j for j in range(25) if batch[j] == batch[i]]
        d = {j: truth((mean[i], std[i]), (mean[j], std[j])) for j in own if j != i}
        near = [i, *sorted(d, key=d.__getitem__)[:3]]
        inside = [j == i or d[j] <= radius for j in near]
        assert within[i].tolist() == inside
        assert rows[i].tolist() == [j if keep else i for j, keep in zip(near, inside, strict=True)]
    assert 0 < int(within[:, 1:].sum()) < 75


def test_fewer_points_than_neighbours() -> None:
    rows, within = neighbours(plain(torch.zeros(3, 1)), torch.tensor([0, 0, 1]), 5, 1.0, manhattan)
    assert rows[2].tolist() == [2] * 5
    assert {*rows[0].tolist()} == {0, 1}
    assert within.sum(1).tolist() == [2, 2, 1]


def test_asis_branches_inform_each_other() -> None:
    """Classes reach the embedding, and the maximum over neighbours the classes."""
    torch.manual_seed(0)
    head = ASIS(3, 4, neighbours=3, hidden=(8,)).head.eval()
    features = torch.randn(12, 3)
    semantic, instance = (branch.relu() for branch in head.branches(features))
    embedding = head.embed(instance + head.adapt(semantic))
    output = head(features, features)
    torch.testing.assert_close(output.embedding.mean, embedding)
    rows, _ = neighbours(plain(embedding), torch.zeros(12, dtype=torch.int64), 3, head.radius, manhattan)
    fused = torch.stack([semantic[row].max(0).values for row in rows])
    torch.testing.assert_close(output.logits, head.classify(fused))
    assert not torch.equal(fused, semantic)


# --- the semi-convolutional embedding


def test_semi_convolutional_losses() -> None:
    x, ids = gaussians(len(IDS)), torch.from_numpy(IDS)
    assert pull_loss(x, ids).item() == pytest.approx(oracles.pull(*arrays(x), IDS), rel=1e-9)
    assert mask_loss(x, ids).item() == pytest.approx(oracles.mask_entropy(*arrays(x), IDS), rel=1e-6)
    assert mask_loss(x, ids.roll(1)).item() != pytest.approx(oracles.mask_entropy(*arrays(x), IDS), rel=1e-3)
    batch = torch.arange(len(IDS)) % 2
    for loss in (pull_loss, mask_loss):
        assert torch.autograd.gradcheck(
            lambda m, s, loss=loss: loss(GaussianEmbedding(m, s), ids, batch), [t.clone().requires_grad_() for t in x]
        )


def test_mask_loss_by_hand() -> None:
    """One instance of two points at 0 and one other at ln 2, where the kernel is one half: (0 + 0 + ln 2)/3."""
    x = plain(torch.tensor([[0.0], [0.0], [0.69314718]], dtype=torch.float64))
    assert mask_loss(x, torch.tensor([0, 0, -1])).item() == pytest.approx(0.6931472 / 3, abs=2e-6)


def test_seeds_are_members_near_the_mean() -> None:
    x = plain(torch.tensor([[0.0], [1.0], [5.0], [7.0], [7.5], [9.0]]))
    assert seed_points(x, index_instances(torch.tensor([3, 3, 3, 1, 1, 1]))).tolist() == [4, 1]


def test_greedy_at_one_half() -> None:
    method = SemiConvolutionalEmbedding(2, 2, scale=1.0)
    x = plain(torch.tensor([[0.0], [0.692], [0.6932]]))
    found = method.group(HeadOutput(x, torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 1.0]])))
    assert found.label.tolist() == [0, 0, 1]


# --- MTML


def test_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, len(IDS), 3, generator=generator, dtype=torch.float64)
    ids = torch.from_numpy(IDS)
    expected = oracles.directions(v.numpy(), x.numpy(), IDS)
    assert direction_loss(v, x, ids).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda v: direction_loss(v, x, ids), [v.requires_grad_()])
    alone = direction_loss(v, x, torch.arange(len(IDS)))  # every point is its own centre
    assert alone.item() == 0


def test_agreement() -> None:
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    v = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    masks = torch.tensor([[True, True, False], [False, False, True]])
    torch.testing.assert_close(agreement(masks, x, v), torch.tensor([1.0, 0.5]))


def test_mtml_finds_blobs_by_the_bandwidth_that_directions_like() -> None:
    mean, truth, batch = blobs()
    positions = torch.randn(len(truth), 3, generator=torch.Generator().manual_seed(0)) + 9 * torch.eye(3)[truth % 3]
    index = index_instances(truth % 3, batch)
    center = torch.zeros(6, 3).index_add(0, index.index, positions) / 20
    direction = torch.nn.functional.normalize(center[index.index] - positions)
    output = MTMLOutput(plain(mean), certain(truth), direction, positions)
    found = MTML(4, 4, bandwidths=(0.05, 1.0, 9.0)).group(output, batch)  # too many, right, one for all
    assert same(found.label, truth)
    assert bool((found.score > 0.99).all())
    assert MTML(4, 4).loss(output, truth % 3, 1 + truth % 3, batch)["direction"].item() == pytest.approx(-1)
