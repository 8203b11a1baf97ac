"""Pictures of images: who matches shares a colour, and what is wrong shows."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from probemb_adapters.report.overlays import ImageResult, image_panels, overlay, overlay_sheet, shown_slice
from probemb_adapters.report.pictures import WRONG

IMAGE = np.linspace(0, 1, 400).reshape(20, 20)


def some_result(*, with_truth: bool) -> ImageResult:
    truth, found = np.zeros((20, 20), np.uint16), np.zeros((20, 20), np.int32)
    truth[2:8, 2:8], truth[12:18, 12:18] = 1, 2
    found[2:8, 3:8], found[2:6, 12:16] = 5, 1  # one right, one false; the second is missed
    return ImageResult("image", IMAGE, truth if with_truth else None, found)


def test_panels_of_an_image() -> None:
    """What matches has one colour, what is missed is white, what is false red; uncertainty inside alone."""
    result = some_result(with_truth=True)
    panels = image_panels(result)
    assert list(panels) == ["input", "truth", "found"]
    np.testing.assert_allclose(panels["truth"][2, 3], panels["found"][2, 3])
    np.testing.assert_allclose(panels["truth"][12, 12], 1)
    np.testing.assert_allclose(panels["found"][2, 12], WRONG)
    assert str(result.tally()) == "1 of 2 found, 1 false"
    assert str(some_result(with_truth=False).tally()) == "2 found, no ground truth"
    unsure = image_panels(result._replace(uncertainty=IMAGE))["uncertainty"]
    inside = result.found > 0
    assert (unsure[inside] != panels["input"][inside]).any(1).all()
    np.testing.assert_array_equal(unsure[~inside], panels["input"][~inside])


def test_panels_of_a_volume() -> None:
    """The slice with the most objects; they match by all slices, whatever they are in this one."""
    flat = some_result(with_truth=True)
    assert flat.truth is not None
    empty = np.zeros((20, 20), np.int64)
    truth, found = np.stack([empty, flat.truth, empty]), np.stack([empty, flat.found, empty])
    truth[2, 2:8, 2:8] = 1  # with which what was found has half of its pixels in common
    volume = ImageResult("volume", np.stack([0 * IMAGE, IMAGE, 0 * IMAGE]), truth, found)
    assert (shown_slice(flat), shown_slice(volume)) == (None, 1)
    panels = image_panels(volume)
    np.testing.assert_array_equal(panels["input"], image_panels(flat)["input"])
    np.testing.assert_allclose(panels["found"][2, 3], image_panels(volume)["found"][2, 12])  # false, too
    assert str(volume.tally()) == "0 of 2 found, 2 false"
    right = image_panels(volume._replace(truth=np.where(np.arange(3)[:, None, None] == 1, truth, 0)))
    np.testing.assert_array_equal(right["found"], image_panels(flat)["found"])
    assert shown_slice(volume._replace(truth=None)) == 1


def test_borders_are_in_full_colour() -> None:
    label = np.zeros((20, 20), np.int64)
    label[5:10, 5:10] = 1
    picture = overlay(IMAGE, label, np.array([[1.0, 0.5, 0.0]]))
    assert picture.shape == (20, 20, 3)
    np.testing.assert_allclose(picture[5, 5], [1.0, 0.5, 0.0])
    grey = picture[15, 15]
    assert grey[0] == grey[1] == grey[2]
    assert picture[7, 7, 0] > picture[7, 7, 2] > 0
    np.testing.assert_array_equal(overlay(np.zeros((4, 4)), np.zeros((4, 4), int), np.zeros((0, 3))), 0)


@pytest.mark.parametrize("with_truth", [True, False])
def test_a_sheet(tmp_path: Path, with_truth: bool) -> None:
    path = overlay_sheet([some_result(with_truth=with_truth)] * 2, tmp_path / "sheet.png", title="Nuclei")
    picture = matplotlib.image.imread(path)
    red = (picture[..., 0] > 0.8) & (picture[..., 1] < 0.15) & (picture[..., 2] < 0.15)
    assert red.any() == with_truth  # the false one
    assert picture.shape[1] == (960 if with_truth else 640)


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        overlay_sheet([], tmp_path / "sheet.png")
    empty = ImageResult("empty", IMAGE, np.zeros((20, 20), int), np.zeros((20, 20), int))
    assert overlay_sheet([empty], tmp_path / "sheet.png").is_file()
