"""Image and labels change together; ids, and what is none, stay."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage
from torch import Tensor

from probemb_adapters.images.augment import (
    random_crop,
    random_flips,
    random_intensity,
    random_quarter_turn,
    random_warp,
)


def some_pair(*shape: int) -> tuple[Tensor, Tensor]:
    """Every pixel has a number of its own; labels are that number, so that both can be compared."""
    label = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return label.float(), label


@pytest.mark.parametrize("shape", [(6, 9), (3, 6, 9)])
@pytest.mark.parametrize("seed", range(4))
def test_exact_changes_move_pixels_only(shape: tuple[int, ...], seed: int) -> None:
    torch.manual_seed(seed)
    for change in (random_flips, random_quarter_turn):
        image, label = change(*some_pair(*shape))
        torch.testing.assert_close(image, label.float(), rtol=0, atol=0)
        assert sorted(label.flatten().tolist()) == list(range(label.numel()))


@pytest.mark.parametrize(("shape", "size"), [((20, 30), 8), ((20, 30), (4, 8)), ((4, 20, 30), (4, 8, 8)), ((6, 30), 8)])
def test_crops(shape: tuple[int, ...], size: int | tuple[int, ...]) -> None:
    """Also of images that are smaller, which are mirrored; those labels have new ids."""
    torch.manual_seed(0)
    values, labels = some_pair(*shape)
    image, label = random_crop(values, labels, size)
    assert image.shape == ((size,) * len(shape) if isinstance(size, int) else size)
    first = label < labels.numel()
    torch.testing.assert_close(image[first], label[first].float(), rtol=0, atol=0)
    assert first.all() or shape == (6, 30)


def test_mirrored_objects_are_others_unless_the_border_cuts_them() -> None:
    label = torch.zeros(8, 10, dtype=torch.int64)
    label[2:4, 3:5], label[6:8, 6:8], label[0, 0] = 3, 5, -1
    image = (label > 0).float()
    torch.manual_seed(0)
    crops = [
        random_crop(image, label, (16, 20)),
        random_warp(image, label, scale=(1.0, 1.0), size=12, displacement=0.0),
        random_warp(image, label, scale=(1.0, 1.0), size=64, displacement=0.0),  # mirrored more than once
    ]
    for picture, ids in crops:
        assert (picture > 0.5).equal(ids > 0)
        assert (ids < 0).any()
        found = ids.unique()[2:]
        pieces = [ndimage.label((ids == k).numpy())[1] for k in found]
        assert pieces == [1] * len(found)
    assert crops[0][1].unique().tolist()[:4] == [-1, 0, 3, 5]
    assert int((crops[0][1] == 5).sum()) == 8  # with the half beyond the border
    assert len(crops[0][1].unique()) == 2 + 4 + 2  # four of the first, two of the second


def test_crops_show_instances() -> None:
    torch.manual_seed(0)
    label = torch.zeros(64, 64, dtype=torch.int64)
    label[50, 3] = 7
    seen = [bool((random_crop(label.float(), label, 8, on_instances=1.0)[1] == 7).any()) for _ in range(50)]
    assert all(seen)
    seen = [bool((random_crop(label.float(), label, 8, on_instances=0.0)[1] == 7).any()) for _ in range(50)]
    assert sum(seen) < 10
    empty = torch.zeros_like(label)
    assert random_crop(empty.float(), empty, 8, on_instances=1.0)[1].shape == (8, 8)


def test_a_warp_without_scale_and_displacement_changes_nothing() -> None:
    image, label = some_pair(17, 24)
    same, ids = random_warp(image, label, scale=(1.0, 1.0), displacement=0.0)
    torch.testing.assert_close(same, image, rtol=0, atol=1e-3)
    assert torch.equal(ids, label)


def test_a_warp_magnifies_and_keeps_ids() -> None:
    torch.manual_seed(0)
    label = torch.zeros(64, 64, dtype=torch.int64)
    label[28:36, 28:36] = 2**24 + 1  # no float32
    _, large = random_warp(label.float(), label, scale=(2.0, 2.0), displacement=0.0)
    assert set(large.unique().tolist()) == {0, 2**24 + 1}
    assert int((large > 0).sum()) == 16 * 16
    _, part = random_warp(label.float(), label, scale=(2.0, 2.0), size=32, displacement=0.0)
    assert torch.equal(part, large[16:48, 16:48])
    image, moved = random_warp((label > 0).float(), label, displacement=3.0)
    assert not torch.equal(moved, label)
    inside, outside = image[moved > 0].mean(), image[moved == 0].mean()
    assert inside > 0.8
    assert outside < 0.1


def test_intensity() -> None:
    torch.manual_seed(0)
    image = torch.rand(40, 40)
    assert not torch.equal(random_intensity(image), image)
    still = random_intensity(image, gain=0.0, gamma=0.0, offset=0.0, noise=0.0)
    torch.testing.assert_close(still, image)


def test_what_does_not_fit() -> None:
    image, label = some_pair(6, 9)
    with pytest.raises(ValueError, match="of one shape with two axes or more"):
        random_flips(image, label.T)
    for size in (0, (4, 4, 4)):
        with pytest.raises(ValueError, match="expected a positive size"):
            random_crop(image, label, size)
    with pytest.raises(ValueError, match="at most twice the image"):
        random_crop(image, label, 13)
    with pytest.raises(ValueError, match=r"expected an image \(H, W\)"):
        random_warp(*some_pair(2, 3, 4))
    with pytest.raises(ValueError, match="expected 0 < scale"):
        random_warp(image, label, scale=(2.0, 1.0))
