"""The script for one's own z-stacks, in small, as a program but in this process."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from paths import PROJECT

from probemb_adapters.images.spacing import read_spacing
from probemb_shapes.nuclei import nuclei_volume

SCRIPT = PROJECT / "examples" / "volumes.py"
SPACING = (2.0, 0.5, 0.5)
TINY = ("--steps", 2, "--crop", 8, 32, 32)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    with torch.random.fork_rng():
        runpy.run_path(str(SCRIPT), run_name="__main__")


def fails(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *arguments)
    return str(caught.value)


def write(folder: Path, number: int, spacing: float | None = 2.0) -> None:
    """A stack as Fiji saves it, or without the size of a voxel, and its labels beside it."""
    folder.mkdir(exist_ok=True)
    image, label = nuclei_volume(np.random.default_rng(number), (8, 40, 48), spacing=(4.0, 1.0, 1.0))
    about = {"axes": "ZYX", "unit": "um"} | ({} if spacing is None else {"spacing": spacing})
    for end, stack in {"raw": 1000 * image.clip(0), "labels": label}.items():
        path = folder / f"cell_{number}_{end}.tif"
        tifffile.imwrite(path, stack.astype(np.uint16), imagej=True, resolution=(2, 2), metadata=about)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "stacks"
    for number in range(3):
        write(folder, number)
    return folder


def test_from_stacks_to_objects(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "train", stacks, "--output", tmp_path / "run", *TINY)
    printed = capsys.readouterr().out
    assert "train 1, val 1, test 1 volumes; voxels of 2 x 0.5 x 0.5" in printed
    assert "AP50" in printed
    assert "slice" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    run(monkeypatch, "predict", tmp_path / "run", stacks, "--output", tmp_path / "found")
    for number in range(3):  # and not the labels beside them
        path = tmp_path / "found" / f"cell_{number}_raw_labels.tif"
        assert read_spacing(path) == SPACING
        label = tifffile.imread(path)
        assert label.shape == (8, 40, 48)
        with (tmp_path / "found" / f"cell_{number}_raw_objects.csv").open(newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == label.max()
    assert len(list((tmp_path / "found").iterdir())) == 7

    write(tmp_path / "other", 3, spacing=1.0)
    said = fails(monkeypatch, "predict", tmp_path / "run", tmp_path / "other", "--output", tmp_path / "none")
    assert "expected voxels of (2.0, 0.5, 0.5) as in training, got (1.0, 0.5, 0.5); resample" in said
    np.save(tmp_path / "image.npy", np.zeros((9, 9)))
    said = fails(monkeypatch, "predict", tmp_path / "run", tmp_path / "image.npy", "--output", tmp_path / "none")
    assert "expected a volume (Z, Y, X), got (9, 9)" in said


def test_what_does_not_fit(stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = ("--output", tmp_path / "run")
    for number in range(3):
        write(tmp_path / "unsaid", number, spacing=None)
        write(tmp_path / "unlike", number, spacing=number + 1.0)
    assert "have no size of a voxel; say it by --spacing" in fails(monkeypatch, "train", tmp_path / "unsaid", *output)
    assert "expected voxels of one size, got (1.0, 0.5, 0.5) in cell_0_raw.tif, (2.0, 0.5, 0.5)" in fails(
        monkeypatch, "train", tmp_path / "unlike", *output
    )
    for name in ("images", "masks"):
        (tmp_path / "flat" / name).mkdir(parents=True)
        np.save(tmp_path / "flat" / name / "a.npy", np.eye(9, dtype=np.uint16))
    assert "expected volumes (Z, Y, X), got images: a" in fails(monkeypatch, "train", tmp_path / "flat", *output)
    for number in range(3):
        path = tmp_path / "unsaid" / f"cell_{number}_labels.tif"
        tifffile.imwrite(path, 0 * tifffile.imread(path), photometric="minisblack")
    spacing = ("--spacing", *SPACING)
    assert "expected objects in the volumes of train, got none" in fails(
        monkeypatch, "train", tmp_path / "unsaid", *spacing, *output
    )
