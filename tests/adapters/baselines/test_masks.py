"""Methods with masks and proposals: PartNet's columns, SGPN's groups, PointGroup's clusters; suppression."""

from __future__ import annotations

import baseline_oracles as oracles
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probemb_adapters.baselines import SGPN, PartNetMasks, PointGroup
from probemb_adapters.baselines.partnet_masks import MaskOutput, mask_losses, matching
from probemb_adapters.baselines.pointgroup import OffsetOutput, components, offset_losses
from probemb_adapters.baselines.proposals import labels_of, mask_iou, suppress
from probemb_adapters.baselines.sgpn import SimilarityOutput, merge_groups, similarity_losses

IDS = np.array([4, 4, 4, 9, 9, -1, 2, 9, 2, -1, 4, 4])
BATCH = torch.arange(len(IDS)) % 2


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blobs(each: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three blobs far apart in mixed order, in two clouds at the same places: positions, truth over both, batch."""
    truth = torch.arange(6 * each) % 6
    generator = torch.Generator().manual_seed(3)
    positions = 4 * torch.eye(3)[truth % 3] + 0.1 * torch.randn(6 * each, 3, generator=generator)
    return positions, truth, truth // 3


def certain(truth: torch.Tensor) -> torch.Tensor:
    """Logits that say class 1 + (truth mod 3)."""
    return 9 * torch.eye(4)[1 + truth % 3]


def same(label: torch.Tensor, truth: torch.Tensor) -> bool:
    return torch.equal((label[:, None] == label) & (label >= 0), (truth[:, None] == truth) & (truth >= 0))


def close(losses: dict[str, torch.Tensor], expected: dict[str, float]) -> None:
    for term, value in expected.items():
        assert losses[term].item() == pytest.approx(value, rel=1e-9), term


# --- proposals


@given(st.integers(1, 12), st.integers(0, 8), st.integers(0, 5))
def test_suppression(points: int, count: int, seed: int) -> None:
    """Those that stay overlap little; each that goes overlaps a better one that stays."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, points, generator=generator) < 0.5
    score = torch.rand(count, generator=generator)
    kept = suppress(masks, score, 0.4)
    iou = mask_iou(masks, masks)
    for i in range(count):
        for j in range(count):
            a, b = {*masks[i].nonzero()[:, 0].tolist()}, {*masks[j].nonzero()[:, 0].tolist()}
            assert iou[i, j].item() == pytest.approx(len(a & b) / max(1, len(a | b)))
    assert score[kept].tolist() == sorted(score[kept].tolist(), reverse=True)
    for i in range(count):
        better = [j for j in kept.tolist() if score[j] > score[i]]
        assert (i in kept.tolist()) == all(iou[i, j] <= 0.4 for j in better)


def test_no_masks() -> None:
    assert labels_of(torch.zeros((0, 3), dtype=torch.bool)).tolist() == [-1, -1, -1]
    assert suppress(torch.zeros((0, 3), dtype=torch.bool), torch.zeros(0), 0.5).tolist() == []


# --- PartNet's masks


def test_mask_losses() -> None:
    masks, confidence, ids = 2 * drawn(len(IDS), 6), drawn(1, 5, seed=1), torch.from_numpy(IDS)
    losses = mask_losses(masks, confidence, ids)
    close(losses, oracles.partnet(masks.numpy(), confidence[0].numpy(), IDS))
    wrong = oracles.partnet(masks.numpy(), confidence[0].numpy(), np.roll(IDS, 1))
    assert losses["ins"].item() != pytest.approx(wrong["ins"], rel=1e-3)


def test_mask_gradients() -> None:
    masks, confidence, ids = drawn(len(IDS), 6), drawn(2, 5, seed=1), torch.from_numpy(IDS)

    def total(masks: torch.Tensor) -> torch.Tensor:
        losses = mask_losses(masks, confidence, ids, BATCH)
        return losses["ins"] + losses["other"] + losses["reg"]  # the target of confidences is a constant

    assert torch.autograd.gradcheck(total, [masks.requires_grad_()])
    confidence.requires_grad_()
    assert torch.autograd.gradcheck(lambda c: mask_losses(masks.detach(), c, ids, BATCH)["conf"], [confidence])
    assert not mask_losses(masks, confidence.detach(), ids, BATCH)["conf"].requires_grad


def test_ideal_masks_cost_nothing() -> None:
    """rIoU 1 for instances and others; three of four columns are full: (2 + √2 + 0 + 1)/7 of 4 + 2 + 1 points."""
    columns = torch.tensor([2, 2, 2, 2, 0, 0, 3])
    masks = 200 * torch.eye(4, dtype=torch.float64)[columns]
    confidence = torch.tensor([[50.0, -50.0, 50.0]], dtype=torch.float64)
    losses = mask_losses(masks, confidence, torch.tensor([8, 8, 8, 8, 1, 1, -1]))
    close(losses, {"ins": -1.0, "other": -1.0, "reg": (2 + 2**0.5 + 1) / 7})
    assert losses["conf"].item() < 1e-12


def test_matching_takes_the_best_sum_not_the_best_pair() -> None:
    rows, columns = matching(torch.tensor([[0.9, 0.8], [0.85, 0.1]]))
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


def test_more_instances_than_columns() -> None:
    losses = mask_losses(drawn(6, 3), drawn(1, 2), torch.arange(6))
    assert all(bool(value.isfinite()) for value in losses.values())


def test_columns_become_instances() -> None:
    _, truth, batch = blobs()
    method = PartNetMasks(4, 4, num_masks=5)
    masks = 50 * torch.eye(6)[4 - truth % 3]
    masks[::11] = 50 * torch.eye(6)[5]  # of no instance, whatever the class
    confidence = torch.linspace(-1, 1, 10).view(2, 5)
    found = method.group(MaskOutput(masks, certain(truth), confidence, torch.zeros(len(truth), 3)), batch)
    truth[::11] = -1
    assert same(found.label, truth)
    assert found.semantic.tolist() == [3, 2, 1, 3, 2, 1]  # in the order of the columns
    torch.testing.assert_close(found.score, confidence[:, 2:].sigmoid().flatten())


# --- SGPN


@pytest.mark.parametrize("tile", [1 << 22, 20])
def test_similarity_losses(tile: int) -> None:
    features, confidence = drawn(len(IDS), 4), drawn(len(IDS), seed=1)
    classes = np.array([1, 1, 1, 2, 2, 0, 1, 2, 1, 0, 1, 1])
    options = {"alpha": 1.7, "margin": 2.6, "class_margin": 3.3, "radius": 1.8}
    losses = similarity_losses(
        features, confidence, torch.from_numpy(IDS), torch.from_numpy(classes), num_classes=3, tile=tile, **options
    )
    expected = oracles.similarity(features.numpy(), confidence.numpy(), IDS, classes, *options.values())
    close(losses, expected)
    other = oracles.similarity(features.numpy(), confidence.numpy(), IDS, classes, 1.8, 2.6, 3.3, 2.5)
    assert losses["similarity"].item() != pytest.approx(other["similarity"], rel=1e-6)
    assert losses["confidence"].item() != pytest.approx(other["confidence"], rel=1e-6)


def test_similarity_gradients() -> None:
    ids, classes = torch.from_numpy(IDS), torch.from_numpy(np.maximum(IDS, 0) % 3)

    def total(features: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        losses = similarity_losses(
            features, confidence, ids, classes, BATCH, margin=1.5, class_margin=3.0, radius=1.5, num_classes=3, tile=9
        )
        return losses["similarity"] + losses["confidence"]

    assert torch.autograd.gradcheck(total, [drawn(len(IDS), 4).requires_grad_(), drawn(len(IDS)).requires_grad_()])


def test_groups_merge_by_overlap() -> None:
    """On a line with radius 1.5: the proposal of 1 (0, 1, 2) is first, that of 2 (1, 2, 3, 3.2) overlaps it by 2/5."""
    x, confidence = torch.tensor([[0.0], [1.0], [2.0], [3.0], [3.2]]), torch.tensor([0.5, 0.9, 0.8, 0.05, 0.6])
    options = {"radius": 1.5, "min_confidence": 0.1, "min_points": 1}
    masks, score = merge_groups(x, confidence, overlap=0.6, **options)
    assert masks.int().tolist() == [[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]
    torch.testing.assert_close(score, torch.tensor([0.9, 0.8]))  # 4 and 0 are merged, 3 is not asked
    masks, score = merge_groups(x, confidence, overlap=0.3, **options)
    assert masks.int().tolist() == [[0, 1, 1, 1, 1], [1, 1, 0, 0, 0]]  # the larger stays; 0 is no part of it
    masks, score = merge_groups(x, confidence, overlap=0.6, **{**options, "min_points": 4})
    torch.testing.assert_close(score, torch.tensor([0.8]))
    assert merge_groups(x[:0], confidence[:0], overlap=0.6, **options)[0].shape == (0, 0)


def test_similar_points_become_instances() -> None:
    positions, truth, batch = blobs()
    output = SimilarityOutput(50 * positions, torch.linspace(2, 1, len(truth)), certain(truth), positions)
    method = SGPN(4, 4, radius=60.0)
    found = method.group(output, batch)
    assert same(found.label, truth)
    assert sorted(found.semantic.tolist()) == [1, 1, 2, 2, 3, 3]
    torch.testing.assert_close(found.score, output.confidence[found.seed].sigmoid())
    assert len(method.group(output._replace(confidence=torch.full((len(truth),), -9.0)), batch)) == 0


# --- PointGroup


def test_offset_losses() -> None:
    offset, positions, ids = drawn(len(IDS), 3), drawn(len(IDS), 3, seed=1), torch.from_numpy(IDS)
    losses = offset_losses(offset, positions, ids)
    close(losses, oracles.offsets(offset.numpy(), positions.numpy(), IDS))
    both = offset_losses(offset, positions, ids, BATCH)
    each = [oracles.offsets(*(t[b::2].numpy() for t in (offset, positions)), IDS[b::2]) for b in range(2)]
    close(both, {term: (each[0][term] + each[1][term]) / 2 for term in both})
    for term in losses:
        assert torch.autograd.gradcheck(
            lambda o, term=term: offset_losses(o, positions, ids, BATCH)[term], [offset.clone().requires_grad_()]
        )


@given(st.integers(1, 40), st.integers(0, 20), st.floats(0.05, 0.6))
def test_components(points: int, seed: int, radius: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(points, 2, generator=generator, dtype=torch.float64)
    group = torch.randint(0, 2, (points,), generator=generator)
    label = components(x, group, radius)
    expected = torch.empty_like(label)
    for number, component in enumerate(oracles.flood(x.numpy(), group.numpy(), radius)):
        expected[list(component)] = number
    assert same(label, expected)


def test_clusters_of_both_sets() -> None:
    """Two pieces of one instance that touches another: positions join too much and too little, offsets do right."""
    x = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.9, 1.0])[:, None].repeat(1, 3)
    truth = torch.tensor([0, 0, 1, 1, 0, 0])
    center = torch.tensor([-9.0, 9.0])[truth][:, None].expand(-1, 3)
    method = PointGroup(2, 2, radius=0.2, min_cluster=2)
    output = OffsetOutput(center - x, 5 * torch.eye(2)[torch.ones(6, dtype=torch.int64)], torch.zeros(6, 2), x)
    masks = method.clusters(output, torch.arange(6))
    assert masks.int().tolist() == [
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 1],
        [0, 0, 1, 1, 0, 0],
    ]
    method.head.scores = lambda output, rows, masks: torch.tensor([0.0, 0.1, 2.0, 1.0])
    found = method.group(output)
    assert same(found.label, truth)
    torch.testing.assert_close(found.score.sort().values, torch.tensor([1.0, 2.0]).sigmoid())


def test_clusters_are_of_one_class_and_large() -> None:
    x = torch.zeros(7, 3)
    logits = 5 * torch.eye(4)[torch.tensor([1, 1, 2, 2, 2, 3, 0])]
    method = PointGroup(2, 4, min_cluster=2)
    found = method.group(OffsetOutput(x, logits, torch.zeros(7, 2), x))
    assert found.label.tolist()[5:] == [-1, -1]
    assert same(found.label[:5], torch.tensor([0, 0, 1, 1, 1]))
    assert sorted(found.semantic.tolist()) == [1, 2]


def test_score_network() -> None:
    """A maximum over the members, about their centre: it looks at neither the place nor the order nor other points."""
    torch.manual_seed(0)
    head = PointGroup(5, 3).head
    features, x = torch.randn(2, 10, 5)[0], torch.randn(10, 3)
    output = OffsetOutput(x, x, features, x)
    masks = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    rows = torch.arange(10)
    score = head.scores(output, rows, masks)
    moved = output._replace(positions=x + 3)
    torch.testing.assert_close(head.scores(moved, rows, masks), score)
    torch.testing.assert_close(head.scores(output, rows.flip(0), masks.flip(1)), score)
    torch.testing.assert_close(head.scores(output, rows[:3], masks[:1, :3]), score[:1])
    own = torch.cat([features[:3], x[:3] - x[:3].mean(0)], dim=1)
    torch.testing.assert_close(head.clusters(head.points(own).amax(0, keepdim=True))[0], score[:1])


def test_score_loss() -> None:
    """Two clusters: one is an instance exactly, one half of an instance that goes on outside the foreground."""
    x = torch.tensor([0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0])[:, None].repeat(1, 3)
    logits = 5 * torch.eye(2)[torch.tensor([1, 1, 1, 1, 1, 0, 0])]
    method = PointGroup(2, 2, min_cluster=2)
    method.head.scores = lambda output, rows, masks: torch.tensor([0.3, -0.2, 0.3, -0.2])
    output = OffsetOutput(0 * x, logits, torch.zeros(7, 2), x)
    losses = method.loss(output, torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.ones(7, dtype=torch.int64))
    p = torch.tensor([0.3, -0.2]).sigmoid()
    expected = (-p[0].log() - 0.5 * p[1].log() - 0.5 * (1 - p[1]).log()) / 2  # targets 1 and (½ − ¼)/(¾ − ¼)
    torch.testing.assert_close(losses["score"], expected)


def test_blobs_are_found() -> None:
    positions, truth, batch = blobs()
    method = PointGroup(4, 4, radius=1.0, min_cluster=5)
    output = OffsetOutput(torch.zeros_like(positions), certain(truth), torch.zeros(len(truth), 4), positions)
    found = method.group(output, batch)
    assert same(found.label, truth)
    assert found.batch.tolist() == [0, 0, 0, 1, 1, 1]
