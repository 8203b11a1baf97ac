"""Augmentation of PartNet's shapes: rigid and bounded, the cloud moved as one, each point jittered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric import seed_everything
from torch_geometric.data import Data

from probemb_adapters.partnet import RandomTranslate, paper_augmentation


def test_rotation_is_rigid_and_bounded() -> None:
    rotate = paper_augmentation(jitter=0, translation=0)
    seed_everything(0)
    for _ in range(100):
        matrix = rotate(Data(pos=torch.eye(3))).pos
        assert_close(matrix @ matrix.T, torch.eye(3), rtol=0, atol=1e-5)
        assert_close(torch.det(matrix), torch.tensor(1.0), rtol=0, atol=1e-5)
        assert torch.diagonal(matrix).min() >= np.cos(np.pi / 12) ** 2 - np.sin(np.pi / 12) ** 3 - 1e-5
    assert_close(paper_augmentation(jitter=0, translation=0, degrees=0)(Data(pos=torch.eye(3))).pos, torch.eye(3))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_turns_about_every_axis(axis: int) -> None:
    """The antisymmetric part of the matrix is the rotation vector: it must vary along each axis."""
    seed_everything(0)
    rotate = paper_augmentation(jitter=0, translation=0)
    matrices = torch.stack([rotate(Data(pos=torch.eye(3))).pos for _ in range(200)])
    vector = (matrices - matrices.mT)[:, (axis + 1) % 3, (axis + 2) % 3] / 2
    assert vector.min() < -0.2
    assert vector.max() > 0.2


def test_translation_moves_the_cloud_as_one() -> None:
    torch.manual_seed(0)
    pos = torch.rand(7, 3)
    data = Data(pos=pos.clone())
    moves = torch.stack([RandomTranslate(0.01)(data).pos - pos for _ in range(300)])
    assert_close(moves, moves[:, :1].expand_as(moves), rtol=0, atol=1e-6)
    assert moves.abs().max() <= 0.01 + 1e-6
    assert moves[:, 0].amin(0).max() < -0.009
    assert moves[:, 0].amax(0).min() > 0.009
    assert_close(data.pos, pos, rtol=0, atol=0)
    assert repr(RandomTranslate(0.01)) == "RandomTranslate(0.01)"


def test_jitter_moves_each_point() -> None:
    torch.manual_seed(0)
    moved = paper_augmentation(translation=0, degrees=0)(Data(pos=torch.zeros(500, 3))).pos
    assert moved.abs().max() <= 0.01
    assert len(moved.unique(dim=0)) == 500
    assert moved.abs().amax(0).min() > 0.009
