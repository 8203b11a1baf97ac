"""The nuclei that come with the project, their layout, and the split by field."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import nuclei_split
import numpy as np
import pytest
import torch
from paths import PROJECT

from probemb_adapters.images import LabelledImage, read_nuclei, read_sides, read_split, write_nuclei

DATA = PROJECT / "data" / "nuclei"


def some_images() -> list[LabelledImage]:
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5, 2), (1, 1)]
    return [
        LabelledImage(f"image {i}", rng.integers(0, 4000, s, np.uint16), rng.integers(0, 3, s, np.int32))
        for i, s in enumerate(shapes)
    ]


def test_the_set() -> None:
    images = read_nuclei(DATA / "nuclei.npz")
    assert len(images) == 385
    assert sum(int(image.label.max()) for image in images if image.label is not None) == 10778
    sides = read_sides(images, DATA / "nuclei.npz")
    assert {side: len(own) for side, own in sides.items()} == {"train": 263, "val": 43, "test": 79}


def test_the_script_writes_the_split_again(tmp_path: Path) -> None:
    nuclei_split.main(nuclei_split.Options(data=DATA / "nuclei.npz", output=tmp_path / "split.csv"))
    assert (tmp_path / "split.csv").read_bytes() == (DATA / "split.csv").read_bytes()


def test_no_field_lies_on_two_sides() -> None:
    with (DATA / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["field"], set()).add(row["split"])
    assert {len(s) for s in sides.values()} == {1}


def test_tiles_of_a_field_are_found() -> None:
    """A field of smooth noise cut in four, beside one of its own in another exposure."""
    generator = torch.Generator().manual_seed(0)
    coarse = 100 * torch.rand(2, 1, 18, 18, generator=generator)
    fields = torch.nn.functional.interpolate(coarse, (128, 128), mode="bicubic", align_corners=True)[:, 0]
    tiles = [f[y : y + 64, x : x + 64].clamp_min(0) for f in fields for y in (0, 64) for x in (0, 64)]
    images = [LabelledImage(str(i), tile.numpy(), None) for i, tile in enumerate(tiles)]
    found = nuclei_split.fields(images)
    assert len(set(found)) == 2
    assert len(set(found[:4])) == len(set(found[4:])) == 1


def test_written_images_come_back(tmp_path: Path) -> None:
    images = some_images()
    write_nuclei(tmp_path / "images.npz", images)
    for read, written in zip(read_nuclei(tmp_path / "images.npz"), images, strict=True):
        assert read.name == written.name
        assert read.image.dtype == written.image.dtype
        np.testing.assert_array_equal(read.image, written.image)
        np.testing.assert_array_equal(read.label, written.label)


def test_only_flat_images_with_labels_are_written(tmp_path: Path) -> None:
    image = np.zeros((2, 3), np.uint8)
    for wrong in (
        LabelledImage("a", image, None),
        LabelledImage("a", image, image.T),
        LabelledImage("a", image[None], image[None]),
    ):
        with pytest.raises(ValueError, match=r"a: expected image and label \(H, W\)"):
            write_nuclei(tmp_path / "images.npz", [wrong])
    with pytest.raises(ValueError, match="at least one image"):
        write_nuclei(tmp_path / "images.npz", [])


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    with pytest.raises(FileNotFoundError, match=r"images\.npz is missing"):
        read_nuclei(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match="no readable npz file"):
        read_nuclei(path)
    write_nuclei(path, some_images())
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{name: array for name, array in arrays.items() if name not in ("label", "ptr")})
    with pytest.raises(ValueError, match="got none of label, ptr"):
        read_nuclei(path)
    np.savez(path, **arrays | {"ptr": arrays["ptr"] + 1})
    with pytest.raises(ValueError, match="expected ptr to begin with 0 and grow by the 3 products"):
        read_nuclei(path)
    np.savez(path, **arrays | {"label": arrays["label"][1:]})
    with pytest.raises(ValueError, match=re.escape("expected 23 pixels as ptr says, got (23,) and (22,)")):
        read_nuclei(path)


def test_what_is_wrong_with_a_split(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    with pytest.raises(FileNotFoundError, match=r"split\.csv is missing"):
        read_split(path)
    path.write_text("name,side\na,train\n")
    with pytest.raises(ValueError, match="columns name and split, got name, side"):
        read_split(path)
    path.write_text("name,split\n")
    with pytest.raises(ValueError, match="got no row"):
        read_split(path)
    path.write_text("name,split\na,train\na,test\n")
    with pytest.raises(ValueError, match="each name once, got 2 rows with 1 names"):
        read_split(path)


def test_sides(tmp_path: Path) -> None:
    """A split that was named must know all images; one that only lies beside the data need not be theirs."""
    images, data = some_images(), tmp_path / "images.npz"
    assert read_sides(images, data) == {"test": images}
    (tmp_path / "split.csv").write_text("name,split\nimage 0,train\nimage 1,val\n")
    assert read_sides(images, data) == {"test": images}
    with pytest.raises(ValueError, match="expected a side for each image, got none for image 2"):
        read_sides(images, data, tmp_path / "split.csv")
    with (tmp_path / "split.csv").open("a") as file:
        file.write("image 2,train\n")
    assert read_sides(images, data) == {"train": [images[0], images[2]], "val": [images[1]]}
