"""The example of images as one runs it: a few steps, then the model on other files."""

from __future__ import annotations

import csv
from pathlib import Path

import example_runs
import numpy as np
import pytest
import tifffile
from paths import PROJECT

from probemb_adapters.images import LabelledImage, read_nuclei, read_sides, write_nuclei

SCRIPT = PROJECT / "examples" / "nuclei_unet.py"
DATA = PROJECT / "data" / "nuclei" / "nuclei.npz"
TINY = ("--epochs", 1, "--epoch-crops", 4, "--batch-size", 2, "--crop", 32, "--width", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images a side, quartered."""
    folder = tmp_path_factory.mktemp("data")
    sides = read_sides(read_nuclei(DATA), DATA)
    some = [(image, side) for side, images in sides.items() for image in images[:2]]
    write_nuclei(
        folder / "nuclei.npz",
        [LabelledImage(i.name, i.image[:64, :64], i.label[:64, :64]) for i, _ in some if i.label is not None],
    )
    with (folder / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "split"), *((image.name, side) for image, side in some)])
    return folder / "nuclei.npz"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    done = example_runs.run(SCRIPT, "--data", data, "--output", folder, "--baselines", *TINY)
    assert done.returncode == 0, done.stderr
    assert "peaks of the distance" in done.stdout
    return folder


def test_training_leaves_everything(trained: Path) -> None:
    files = {path.name for path in trained.iterdir()}
    assert {
        "model.safetensors",
        "last.safetensors",
        "metrics.json",
        "metrics.csv",
        "report.html",
        "images.png",
    } <= files
    metrics = example_runs.read_metrics(trained)
    assert {f"AP{t}" for t in range(50, 95, 5)} | {"AP"} < set(metrics)
    assert len(metrics["methods"]) == 3
    assert len(metrics["history"]) == 1


def test_evaluation_of_another_file(trained: Path, tmp_path: Path) -> None:
    """A file without a split counts as a whole."""
    write_nuclei(tmp_path / "held_out.npz", read_nuclei(DATA)[5:8])
    done = example_runs.run(
        SCRIPT,
        *("--evaluate", trained / "model.safetensors", "--data", tmp_path / "held_out.npz"),
        *("--output", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    metrics = example_runs.read_metrics(tmp_path / "run")
    assert metrics["methods"]["probabilistic"]["images"] == 3
    assert 0 <= metrics["AP90"] <= metrics["AP50"] <= 1


def test_prediction(trained: Path, tmp_path: Path) -> None:
    image = read_nuclei(DATA)[5].image
    tifffile.imwrite(tmp_path / "plate.ome.tif", image.astype(np.uint16) * 16)
    output = tmp_path / "run"
    model = ("--evaluate", trained / "model.safetensors", "--output", output)
    done = example_runs.run(SCRIPT, *model, "--predict", tmp_path / "plate.ome.tif")
    assert done.returncode == 0, done.stderr
    assert tifffile.imread(output / "plate_labels.tif").shape == image.shape
    assert (output / "plate.png").is_file()
    assert (output / "plate_objects.csv").read_text().startswith("image,label,class,score,sigma,pixels,area")


def test_what_is_missing(data: Path, tmp_path: Path) -> None:
    write_nuclei(tmp_path / "images.npz", read_nuclei(data))
    done = example_runs.run(SCRIPT, "--data", tmp_path / "images.npz", "--output", tmp_path / "run")
    assert done.returncode != 0
    assert "expected images of the sides train, val; name them by --split" in done.stderr
