"""The picture that moves: from grey points to their means and back in the colours of their instances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from probemb_adapters.report.motion import gathering
from probemb_adapters.report.pictures import ShapeResult
from probemb_lib import GaussianEmbedding, greedy_cluster


def make_shape(dim: int = 3) -> ShapeResult:
    """Two blobs, all points of each with one mean."""
    pos = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    true = torch.arange(200) % 2
    embedding = GaussianEmbedding(true[:, None].float().expand(-1, dim), torch.full((200, 1), -3.0))
    found = greedy_cluster(embedding, torch.ones(200, 1), background=None)
    return ShapeResult("two", pos, None, found, embedding.log_std, embedding.mean)


def ink(frame: Image.Image) -> tuple[float, float]:
    """Shares of the picture that are not white and that have a colour, its caption apart."""
    image = np.asarray(frame.convert("RGB"), np.int64)[: int(0.9 * frame.height)]
    return float((image.min(-1) < 200).mean()), float((np.ptp(image, axis=-1) > 40).mean())


def test_points_gather_and_go_back(tmp_path: Path) -> None:
    path = gathering(make_shape(), tmp_path / "moving.webp", pixels=240, steps=2)
    with Image.open(path) as picture:
        assert (picture.format, picture.n_frames, picture.size) == ("WEBP", 5, (240, 240))
        frames = []
        for number in range(5):
            picture.seek(number)
            frames.append(ink(picture))
    assert frames[0][1] == 0  # grey
    assert min(colored for _, colored in frames[2:]) > 0
    assert frames[2][0] < 0.2 * frames[0][0]  # two spots
    assert frames[4][0] > 5 * frames[2][0]  # back where they were
    assert [p.name for p in tmp_path.iterdir()] == ["moving.webp"]


def test_means_in_three_dimensions_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected means \(N, 3\), got \(N, 2\)"):
        gathering(make_shape(dim=2), tmp_path / "moving.webp")
    with pytest.raises(ValueError, match=r"expected means \(N, 3\), got none"):
        gathering(make_shape()._replace(mean=None), tmp_path / "moving.webp")
