"""Matching and pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from probemb_adapters.report.pictures import (
    ShapeResult,
    contact_sheet,
    instance_colors,
    match_instances,
    match_shape,
    z_up,
)
from probemb_lib import GaussianEmbedding, Instances, greedy_cluster


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), max_size=30), st.sampled_from([0.5, 0.75]))
def test_match_instances_is_the_definition(points: list[tuple[int, int]], threshold: float) -> None:
    truth = torch.tensor([p[0] for p in points], dtype=torch.int64)
    label = torch.tensor([p[1] for p in points], dtype=torch.int64)
    expected = []
    for k in range(max((p[1] for p in points), default=-1) + 1):
        best = -1
        for g in range(5):
            inside = {i for i, p in enumerate(points) if p[0] == g}
            found = {i for i, p in enumerate(points) if p[1] == k and p[0] >= 0}
            if inside and len(inside & found) / len(inside | found) > threshold:
                best = g
        expected.append(best)
    assert match_instances(truth, label, threshold).tolist() == expected


def test_contact_sheet_draws_every_shape(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = []
    for count in (1, 3):
        truth = torch.arange(60) % count
        pos = torch.rand(60, 3, generator=generator) + 3 * truth[:, None]
        x = GaussianEmbedding(3.0 * truth[:, None].repeat(1, 3), torch.zeros(60, 1))
        found = greedy_cluster(x, torch.ones(60, 1), background=None)
        shapes.append(ShapeResult(f"shape {count}", pos, truth, found, x.log_std))
    image = imread(contact_sheet(shapes, tmp_path / "sheet.png", title="two shapes"))
    height, width = image.shape[:2]
    assert height > 500
    assert width > 1000
    rows = np.array_split(image[..., :3], 2)
    assert all((row.reshape(-1, 3) < 0.9).any(1).mean() > 0.005 for row in rows)  # both rows hold ink


def test_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="at least one shape"):
        contact_sheet([], "unused.png")


def make_shape(label: list[int], truth: list[int] | None, classes: list[int]) -> ShapeResult:
    """Points in a row, with found instances of these classes."""
    labels, count = torch.tensor(label), len(classes)
    zero = torch.zeros(count, dtype=torch.int64)
    embedding = GaussianEmbedding(torch.zeros(count, 3), torch.zeros(count, 1))
    found = Instances(labels, torch.tensor(classes), torch.ones(count), zero, zero, embedding, torch.zeros_like(labels))
    pos = torch.arange(len(label)).float()[:, None].repeat(1, 3)
    return ShapeResult("row", pos, None if truth is None else torch.tensor(truth), found, torch.zeros(len(label), 1))


def test_match_shape_looks_at_classes_where_there_are_some() -> None:
    shape = make_shape([0, 0, 1, 1, 1, -1], [3, 3, 0, 0, -1, -100], classes=[5, 6])
    matches = match_shape(shape)
    assert matches.true_of_found.tolist() == [3, 0]
    assert matches.found_of_true.tolist() == [1, -1, -1, 0]
    assert matches.present.tolist() == [True, False, False, True]  # true instances 1 and 2 have no points
    torch.testing.assert_close(matches.iou, torch.tensor([[0.0, 0, 0, 1], [1, 0, 0, 0]]))
    wrong = match_shape(shape._replace(truth_classes=torch.tensor([6, 6, 6, 6])))
    assert wrong.true_of_found.tolist() == [-1, 0]
    assert wrong.found_of_true.tolist() == [1, -1, -1, -1]
    torch.testing.assert_close(wrong.iou, matches.iou)


def test_match_shape_with_nothing_found_or_nothing_true() -> None:
    nothing = match_shape(make_shape([-1, -1], [0, 1], classes=[]))
    assert (nothing.true_of_found.tolist(), nothing.found_of_true.tolist()) == ([], [-1, -1])
    spurious = match_shape(make_shape([0, 0], [-1, -100], classes=[1]))
    assert (spurious.true_of_found.tolist(), spurious.found_of_true.tolist()) == ([-1], [])


def test_match_shape_refuses() -> None:
    shape = make_shape([0, 0], [0, 1], classes=[1])
    with pytest.raises(ValueError, match="expected ground truth"):
        match_shape(shape._replace(truth=None))
    with pytest.raises(ValueError, match=r"at least 0\.5"):
        match_shape(shape, 0.25)
    with pytest.raises(ValueError, match="truth_classes for 2 true instances, got 1"):
        match_shape(shape._replace(truth_classes=torch.tensor([1])))


def test_contact_sheet_without_truth_leaves_no_partial_file(tmp_path: Path) -> None:
    shape = make_shape([0, 0, 1, -1], None, classes=[1, 1])
    path = contact_sheet([shape, make_shape([0, 0, 0, 0], [0, 0, -100, -1], classes=[1])], tmp_path / "sheet.png")
    assert imread(path).ndim == 3
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.png"]


def test_z_up() -> None:
    front_top = np.array([[0.0, 2.0, 1.0]])  # y up, the front looks along +z
    assert z_up(front_top, "y").tolist() == [[0, -1, 2]]
    assert z_up(front_top, "z").tolist() == front_top.tolist()


def test_colors_differ() -> None:
    colors = instance_colors(21)
    assert len({tuple(c) for c in colors}) == 21
    assert instance_colors(0).shape == (0, 3)
    r, g, b = colors.T
    assert not ((r > 0.7) & (g < 0.3) & (b < 0.3)).any()  # red says "false"
    assert (colors.max(1) - colors.min(1) > 0.1).all()  # grey says "none"
