"""suggest_settings: the same cloud in several units gives the same settings in each; robust to stray labels; errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from probemb_lib import ProbabilisticHead, SuggestedSettings, suggest_settings
from probemb_lib.convert import grid_positions


def discs() -> tuple[Tensor, Tensor]:
    """An image of 64 x 64 pixels with four discs of radius 10 on nothing."""
    pixels = grid_positions((64, 64), batch_size=1)
    instance = torch.full((64 * 64,), -1)
    for i, center in enumerate([(15, 15), (15, 47), (47, 15), (47, 47)]):
        instance[(pixels - torch.tensor(center)).norm(dim=1) <= 10] = i
    return pixels, instance


def close(got: float, expected: float) -> None:
    """Numbers are given to three digits."""
    assert math.isclose(got, expected, rel_tol=0.01), (got, expected)


@pytest.mark.parametrize(
    ("scale", "shift", "unit"),
    [
        (1.0, 0.0, "pixels or voxels"),
        (1 / 64, 0.0, "0 to 1"),
        (1 / 45, -0.7, "unit sphere"),
        (0.25, 0.1, "unknown"),
        (2.5, 0.1, "unknown"),
        (0.25, 5e5, "unknown far from the origin, as of a map: subtract an offset"),
        (1e-3, 3.0, "unknown"),  # lengths alone do not tell metres from micrometres
    ],
)
def test_units(scale: float, shift: float, unit: str) -> None:
    pixels, instance = discs()
    got = suggest_settings(pixels.double() * scale + shift, instance)
    assert isinstance(got, SuggestedSettings)
    close(got.offset_scale, 10 * scale)
    close(got.initial_std, 5 * scale)
    close(got.spacing, scale)
    assert got.smallest == int((instance == 0).sum())
    assert got.min_points == got.smallest // 5
    assert got.unit == unit
    head = ProbabilisticHead(8, 2, dim=2, offset_scale=got.offset_scale, initial_std=got.initial_std)
    assert head.offset_scale == got.offset_scale


def test_largest_but_not_strays() -> None:
    """Four larger discs of 100, and two labels far out, do not set the scale; twenty larger discs do."""
    pixels, instance = discs()
    positions = torch.cat([pixels] * 25)
    batch = torch.arange(25).repeat_interleave(64 * 64)
    labels = torch.cat([instance] * 25)
    labels[0], labels[4095] = 0, 0
    close(suggest_settings(positions * torch.where(batch == 3, 2.0, 1.0)[:, None], labels, batch).offset_scale, 10)
    close(suggest_settings(positions * torch.where(batch < 5, 2.0, 1.0)[:, None], labels, batch).offset_scale, 20)
    few = labels.clone()
    few[2] = 99  # one label of a pixel among 100 discs
    got = suggest_settings(positions, few, batch)
    assert (got.smallest, got.min_points) == (1, int((instance == 1).sum()) // 5)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    assert suggest_settings(positions[order], labels[order], batch[order]) == suggest_settings(positions, labels, batch)


def test_instances_without_an_extent_and_nan() -> None:
    pixels, instance = discs()
    with_nan = torch.cat([pixels, torch.tensor([[math.nan, 0.0], [1.0, 1.0]])])
    got = suggest_settings(with_nan, torch.cat([instance, torch.tensor([0, 77])]))
    close(got.offset_scale, 10)
    assert (got.smallest, got.min_points) == (1, 1)


@pytest.mark.parametrize(
    ("positions", "instance", "error", "message"),
    [
        (None, torch.zeros(4).long(), TypeError, "positions: expected a torch.Tensor, got None"),
        (torch.rand(4, 2), torch.zeros(4), TypeError, "instance: expected integers"),
        (torch.rand(4), torch.zeros(4).long(), ValueError, r"expected positions \(4, D\), got \(4,\)"),
        (torch.rand(4, 2), torch.full((4,), -1), ValueError, "instances with an extent, got 0 instances in 4 points"),
        (torch.rand(4, 2), torch.arange(4), ValueError, "instances with an extent, got 4 instances in 4 points"),
        (
            torch.full((4, 2), math.nan),
            torch.zeros(4).long(),
            ValueError,
            "with an extent, got 0 instances in 0 points",
        ),
    ],
)
def test_errors(positions: Any, instance: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        suggest_settings(positions, instance)
