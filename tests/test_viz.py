"""Matching and pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from probemb_adapters.viz import ShapeResult, contact_sheet, instance_colors, match_instances
from probemb_lib import GaussianEmbedding, greedy_cluster


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


def test_colors_differ() -> None:
    assert len({tuple(c) for c in instance_colors(20)}) == 20
    assert instance_colors(0).shape == (0, 3)
