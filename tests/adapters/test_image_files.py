"""Images and label images from the files that microscopes and people write."""

from __future__ import annotations

import re
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from PIL import Image

from probemb_adapters.images import normalize
from probemb_adapters.images.files import read_image, read_labels, read_pairs, write_labels
from probemb_adapters.images.spacing import read_spacing

DEEP = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9000
VOLUME = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.png", "a.npy", "a.TIFF"])
def test_sixteen_bits_come_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, DEEP)
    elif name.endswith(".png"):
        imageio.imwrite(path, DEEP)
    else:
        tifffile.imwrite(path, DEEP)
    image = read_image(path)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, DEEP)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.npy"])
def test_stacks_are_volumes(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, VOLUME)
    else:
        tifffile.imwrite(path, VOLUME, photometric="minisblack", metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_image(path), VOLUME)


def test_a_channel_of_an_array(tmp_path: Path) -> None:
    """Nothing is guessed from sizes: three axes are a volume until a channel is asked for."""
    np.save(tmp_path / "a.npy", VOLUME)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", channel=3), VOLUME[..., 3])


def test_a_channel_of_a_stack_of_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    stack = np.stack([VOLUME, VOLUME + 100], axis=1)
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(read_image(path, channel=1), VOLUME + 100)
    with pytest.raises(ValueError, match="expected one channel, got 2 that differ; name one, the first by --channel 0"):
        read_image(path)
    with pytest.raises(ValueError, match="expected channel 2, got channels 0 to 1"):
        read_image(path, channel=2)


def test_colour_with_equal_channels_is_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    imageio.imwrite(path, np.stack([grey, grey, grey, np.full_like(grey, 255)], axis=-1))  # opaque
    np.testing.assert_array_equal(read_image(path), grey)
    imageio.imwrite(path, np.stack([grey, grey + 1, grey], axis=-1))
    np.testing.assert_array_equal(read_image(path, channel=1), grey + 1)
    with pytest.raises(ValueError, match="3 that differ"):
        read_image(path)


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
def test_a_channel_of_one_is_the_image(ending: str, tmp_path: Path) -> None:
    """So that a folder may hold colour and grey."""
    path = tmp_path / f"a{ending}"
    write_labels(path, DEEP)
    np.testing.assert_array_equal(read_image(path, channel=1), DEEP)


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected an image"):
        read_image(tmp_path / "a.png")
    for name in ("a.png", "a.tif", "a.npy"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ValueError, match=f"{name} is no readable"):
            read_image(tmp_path / name)
    (tmp_path / "a.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"expected one of \.tif"):
        read_image(tmp_path / "a.txt")
    np.save(tmp_path / "a.npy", np.zeros((2, 3), np.complex64))
    with pytest.raises(ValueError, match="expected integers or floating point, got complex64"):
        read_image(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(ValueError, match="save one time and position a file"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("colours", [[0, 0, 0, 9, 9, 9, 9, 9, 9], [0, 0, 0, 255, 0, 0, 0, 255, 0]])
def test_labels_of_a_palette_are_its_places(colours: list[int], tmp_path: Path) -> None:
    """Two objects of one grey, or of colours, as annotation tools write them."""
    label = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    picture = Image.fromarray(label).convert("P")
    picture.putpalette(colours)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), label)
    imageio.imwrite(tmp_path / "b.png", np.eye(3, dtype=np.uint8)[label])
    with pytest.raises(ValueError, match="got 3 that differ; export the numbers of the objects instead of colours"):
        read_labels(tmp_path / "b.png")


def test_images_are_finite(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[np.nan, 2.0]]))
    with pytest.raises(ValueError, match=r"a\.npy: expected finite numbers, got NaN or infinity; replace them"):
        read_image(tmp_path / "a.npy")


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([[0.0, 2.0]]))
    np.testing.assert_array_equal(read_labels(path), np.array([[0, 2]]))
    for wrong in (np.array([[0.5, 1.0]]), np.array([[-1, 2]]), np.array([[np.nan, 2]])):
        np.save(path, wrong)
        with pytest.raises(ValueError, match="whole numbers >= 0"):
            read_labels(path)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.npy"])
def test_written_labels_come_back(name: str, tmp_path: Path) -> None:
    label = np.array([[0, 1], [65535, 2]])
    write_labels(tmp_path / name, label)
    np.testing.assert_array_equal(read_labels(tmp_path / name), label)
    assert read_image(tmp_path / name).dtype == np.uint16


def test_what_labels_a_file_holds(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.tif", VOLUME.astype(np.int64) + 70000)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), VOLUME.astype(np.int64) + 70000)
    for wrong in (VOLUME, np.array([[65536]])):
        with pytest.raises(ValueError, match=r"PNG holds \(H, W\) up to 65535"):
            write_labels(tmp_path / "a.png", wrong)
    with pytest.raises(ValueError, match="expected the ending"):
        write_labels(tmp_path / "a.jpg", DEEP)
    with pytest.raises(ValueError, match="expected labels of integers from 0"):
        write_labels(tmp_path / "a.tif", np.array([[-1]]))


def test_voxel_sizes(tmp_path: Path) -> None:
    """Fiji's and OME's; a resolution in dots an inch is none."""
    path, spacing = tmp_path / "a.tif", {"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(path, VOLUME, imagej=True, resolution=(10.0, 5.0), metadata=spacing)
    assert read_spacing(path) == pytest.approx((0.5, 0.2, 0.1))
    write_labels(path, VOLUME, spacing=(2.0, 0.5, 0.25))
    assert read_spacing(path) == (2.0, 0.5, 0.25)
    np.testing.assert_array_equal(read_labels(path), VOLUME)
    write_labels(path, VOLUME)
    assert read_spacing(path) is None
    tifffile.imwrite(path, VOLUME, resolution=(72, 72), resolutionunit="INCH", photometric="minisblack")
    assert read_spacing(path) is None
    axes = {"axes": "ZYX", "PhysicalSizeZ": 1.0, "PhysicalSizeY": 0.1, "PhysicalSizeX": 0.1, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", VOLUME, photometric="minisblack", metadata=axes)
    assert read_spacing(tmp_path / "a.ome.tif") is None
    np.save(tmp_path / "a.npy", VOLUME)
    assert read_spacing(tmp_path / "a.npy") is None
    with pytest.raises(FileNotFoundError, match="expected a TIFF file"):
        read_spacing(tmp_path / "b.tif")
    with pytest.raises(ValueError, match="expected a spacing for each of 3 axes, got"):
        write_labels(path, VOLUME, spacing=(2.0, 0.5))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images, labels):
        folder.mkdir()
    tifffile.imwrite(images / "b.ome.tif", DEEP)
    np.save(labels / "b.npy", np.ones((2, 3), np.int32))
    imageio.imwrite(images / "a.png", DEEP)
    imageio.imwrite(labels / "a.png", np.zeros((2, 3), np.uint8))
    (images / "notes.txt").write_text("not an image")
    return images, labels


def test_pairs(folders: tuple[Path, Path]) -> None:
    first, second = read_pairs(*folders)
    assert [first.name, second.name] == ["a", "b"]
    np.testing.assert_array_equal(second.image, DEEP)
    np.testing.assert_array_equal(second.label, np.ones((2, 3)))


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a_raw", "a_labels"),
        ("a", "a_mask"),
        ("a_img", "a_cp_masks"),
        ("A-Image", "A-Label"),
        ("a", "a_seg"),
        ("a", "a_gt"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_pairs_by_the_end_of_the_name(image: str, label: str, beside: bool, tmp_path: Path) -> None:
    images = tmp_path / "images"
    labels = images if beside else tmp_path / "labels"
    for folder in (images, labels):
        folder.mkdir(exist_ok=True)
    for number in (1, 2):
        tifffile.imwrite(images / f"{number}_{image}.tif", number * DEEP)
        np.save(labels / f"{number}_{label}.npy", number * np.ones((2, 3), np.int32))
    pairs = list(read_pairs(images, None if beside else labels))
    assert [pair.name for pair in pairs] == [f"1_{image}", f"2_{image}"]
    for number, pair in enumerate(pairs, 1):
        np.testing.assert_array_equal(pair.image, number * DEEP)
        np.testing.assert_array_equal(pair.label, number * np.ones((2, 3)))


def test_pairs_that_do_not_match(folders: tuple[Path, Path]) -> None:
    images, labels = folders
    np.save(labels / "b.npy", np.ones((3, 2), np.int32))
    with pytest.raises(ValueError, match=re.escape("of one shape, got (2, 3) in")):
        list(read_pairs(images, labels))
    np.save(labels / "c.npy", np.ones((2, 3), np.int32))
    with pytest.raises(ValueError, match=r"1 alone: .*images has no match for c\.npy"):
        read_pairs(images, labels)
    (labels / "c.npy").unlink()
    (labels / "a.png").unlink()
    with pytest.raises(ValueError, match=r"labels has no match for a\.png"):
        read_pairs(images, labels)
    np.save(images / "a.npy", DEEP)
    with pytest.raises(ValueError, match=r"each name once, got a\.npy and a\.png"):
        read_pairs(images, labels)
    with pytest.raises(FileNotFoundError, match="expected a folder of images"):
        read_pairs(images / "none", labels)
    (images / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected images .*, got none"):
        read_pairs(images / "empty", labels)


def test_normalized_by_percentiles() -> None:
    """Depth, gain and offset of the camera change nothing, and a few bright pixels little."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (50, 50)).astype(np.uint16)
    image[0, 0] = 60000
    x = normalize(image)
    np.testing.assert_allclose(normalize(image.astype(np.float64) * 3 + 100), x, atol=1e-5)
    np.testing.assert_allclose(np.percentile(x, [1, 99.8]), [0, 1], atol=1e-6)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(normalize(np.full((3, 3), 7, np.uint8)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="expected percentiles"):
        normalize(image, 99, 1)
    for wrong in (np.zeros((0, 3)), np.array([[np.nan]])):
        with pytest.raises(ValueError, match="expected an image of finite numbers"):
            normalize(wrong)
