"""Instances after they were found: their sizes, some of them, and on another device."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from probemb_lib import GaussianEmbedding, Instances, MarginInstances, greedy_cluster, margin_cluster

ROWS = ("semantic", "score", "seed", "batch")


def points_of() -> GaussianEmbedding:
    """Blobs in a plane, each point with a σ of its own."""
    g = torch.Generator().manual_seed(0)
    center = torch.randn(12, 2, generator=g)
    mean = center[torch.arange(600) % 12] + 0.2 * torch.randn(600, 2, generator=g)
    return GaussianEmbedding(mean, torch.rand(600, 1, generator=g) - 1.5)


def found_by(method: str) -> Instances:
    """In the blobs of two clouds, points of both mixed; the masks of "margins" share points."""
    x, p = points_of(), torch.rand(600, 3, generator=torch.Generator().manual_seed(1))
    batch = torch.arange(600) // 12 % 2
    if method == "greedy":
        return greedy_cluster(x, p, batch=batch, min_score=0.5)
    return margin_cluster(x, p, batch=batch, min_points=5, class_aware=False)


def assert_same(got: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    else:
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)


METHODS = pytest.mark.parametrize("method", ["greedy", "margins"])


@METHODS
def test_size_counts_the_masks(method: str) -> None:
    found = found_by(method)
    assert len(found) > 4
    assert found.size.dtype == torch.int64
    assert_same(found.size, found.masks().sum(1))
    # Where masks share points, the label map holds fewer.
    in_labels = (found.label == torch.arange(len(found))[:, None]).sum(1)
    assert torch.equal(found.size, in_labels) == (method == "greedy")


@METHODS
def test_classes_and_masks_by_cloud(method: str) -> None:
    found = found_by(method)
    classes = found.semantic_map(none=7)
    assert_same(classes[found.label < 0].unique(), torch.tensor([7]))
    inside = found.label >= 0
    assert_same(classes[inside], found.semantic[found.label[inside]])
    assert_same(found.semantic_map()[~inside].unique(), torch.tensor([0]))
    masks = found.cloud_masks(3)
    assert [tuple(m.shape) for m in masks][2] == (0, 0)
    for b, mask in enumerate(masks[:2]):
        assert_same(mask, found.masks()[found.batch == b][:, found.point_batch == b])


@METHODS
def test_uncertainty_in_loops(method: str) -> None:
    found, x = found_by(method), points_of()
    expected = []
    for i, k in enumerate(found.label.tolist()):
        if k < 0:
            expected.append(1.0)
            continue
        pairs = zip(x.mean[i].tolist(), found.embedding.mean[k].tolist(), strict=True)
        s, t = (math.exp(float(log_std)) for log_std in (x.log_std[i], found.embedding.log_std[k]))
        kappa = 1.0
        for a, b in pairs:
            if method == "greedy":  # of two normal densities, ∫ √(p q)
                kappa *= math.sqrt(2 * s * t / (s * s + t * t)) * math.exp(-((a - b) ** 2) / (4 * (s * s + t * t)))
            else:
                kappa *= math.exp(-((a - b) ** 2) / (2 * t * t))
        expected.append(1 - float(found.score[k]) * kappa)
    torch.testing.assert_close(found.uncertainty(x), torch.tensor(expected), rtol=0, atol=1e-5)
    kept = found.keep(found.score > found.score.median())
    assert torch.equal(kept.uncertainty(x)[kept.label < 0].unique(), torch.ones(1))
    for cloud, rows in zip(found.split(), (found.point_batch == 0, found.point_batch == 1), strict=True):
        torch.testing.assert_close(cloud.uncertainty(x.select(rows)), found.uncertainty(x)[rows], rtol=0, atol=1e-6)


def test_uncertainty_of_other_points() -> None:
    found, x = found_by("greedy"), points_of()
    with pytest.raises(ValueError, match="expected the mean of the 600 points that were clustered, in 2 dimensions"):
        found.uncertainty(x.select(torch.arange(5)))
    with pytest.raises(ValueError, match="in 2 dimensions"):
        found.uncertainty(GaussianEmbedding(torch.zeros(600, 3), torch.zeros(600, 1)))
    none = greedy_cluster(x.select(torch.arange(0)), torch.zeros(0, 3))
    assert none.uncertainty(x.select(torch.arange(0))).shape == (0,)
    double = x.to(dtype=torch.float64)
    assert found.uncertainty(double).dtype == torch.float64


@METHODS
def test_kept_instances(method: str) -> None:
    found = found_by(method)
    mask = torch.arange(len(found)) % 3 != 1
    kept = found.keep(mask)
    assert type(kept) is type(found)
    assert len(kept) == int(mask.sum()) < len(found)
    assert_same(kept.masks(), found.masks()[mask])
    assert_same(kept.size, found.size[mask])
    for name in ROWS:
        assert_same(getattr(kept, name), getattr(found, name)[mask])
    assert_same(kept.embedding, found.embedding.select(mask))
    assert_same(kept.point_batch, found.point_batch)
    # The label of a point is the last of the masks that have it.
    rank = torch.arange(len(kept))[:, None]
    assert_same(kept.label, torch.where(kept.masks(), rank, -1).amax(0))
    # Cloud by cloud the same.
    for b, (whole, part) in enumerate(zip(kept.split(2), found.split(2), strict=True)):
        own = part.keep(mask[found.batch == b])
        assert_same(whole.label, own.label)
        assert_same(whole.masks(), own.masks())


@METHODS
def test_all_or_none_kept(method: str) -> None:
    found = found_by(method)
    assert found.keep(torch.ones(len(found), dtype=torch.bool)) is found
    none = found.keep(torch.zeros(len(found), dtype=torch.bool))
    assert len(none) == 0
    assert none.label.tolist() == [-1] * 600
    assert none.masks().shape == (0, 600)
    assert none.size.shape == (0,)
    assert_same(none.point_batch, found.point_batch)


@METHODS
def test_a_point_falls_back_to_an_earlier_mask(method: str) -> None:
    """Two masks share a point. Without the later one it is the earlier's, not of none."""
    zero = torch.zeros(2, dtype=torch.int64)
    label = torch.tensor([0, 1, 1, -1])
    rows = {"semantic": zero, "score": torch.ones(2), "seed": torch.tensor([0, 2]), "batch": zero}
    x = GaussianEmbedding(torch.zeros(2, 1), torch.zeros(2, 1))
    found = Instances(label=label, embedding=x, point_batch=torch.zeros_like(label), **rows)
    if method == "margins":
        found = MarginInstances(**vars(found), member=torch.tensor([0, 1, 1, 2]), member_ptr=torch.tensor([0, 2, 4]))
    expected = [0, 0, -1, -1] if method == "margins" else [0, -1, -1, -1]
    assert found.keep(torch.tensor([True, False])).label.tolist() == expected
    assert found.keep(torch.tensor([False, True])).label.tolist() == [-1, 0, 0, -1]


@METHODS
def test_shown_in_a_line(method: str) -> None:
    """With the names of what there is, and not the numbers of all points."""
    text = repr(found_by(method))
    kind = {"greedy": "Instances", "margins": "MarginInstances"}[method]
    assert text.startswith(f"{kind}({len(found_by(method))} instances in 600 points: label, semantic, score, ")


def test_mask_errors() -> None:
    found = found_by("greedy")
    with pytest.raises(TypeError, match=r"mask: expected torch.bool, .* got torch.int64"):
        found.keep(torch.arange(len(found)))
    with pytest.raises(ValueError, match=rf"mask: expected shape \({len(found)},\), .* got \(600,\)"):
        found.keep(found.label >= 0)


@METHODS
def test_another_device(method: str) -> None:
    """Every tensor of every kind of instances goes; "meta" stands for any other device."""
    found = found_by(method)
    moved = found.to("meta")
    assert type(moved) is type(found)
    for field in fields(found):
        was, now = getattr(found, field.name), getattr(moved, field.name)
        for old, new in zip(was, now, strict=True) if isinstance(was, GaussianEmbedding) else [(was, now)]:
            assert (old.device.type, new.device.type) == ("cpu", "meta")
            assert (new.shape, new.dtype) == (old.shape, old.dtype)
    same = found.to(torch.device("cpu"))
    assert_same(same.masks(), found.masks())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@METHODS
def test_cuda(method: str) -> None:
    found = found_by(method)
    there = found.to("cuda")
    mask = found.size >= found.size.median()
    back = there.keep(mask.cuda()).to("cpu")
    assert_same(there.size.cpu(), found.size)
    assert_same(back.label, found.keep(mask).label)
