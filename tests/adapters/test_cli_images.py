"""The command `probemb` on folders of images, from drawn disks to a model, results and messages."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monai")
pytest.importorskip("torch_geometric")

import imageio.v3 as imageio
import tifffile
import torch
from lightning_fabric import Fabric
from paths import PROJECT

from probemb_adapters.cli.main import main
from probemb_adapters.experiments.images import folders
from probemb_adapters.experiments.images.evaluation import Evaluation, average_precision
from probemb_adapters.experiments.images.folders import (
    Request,
    asked_options,
    fingerprint,
    load,
    split_images,
    with_lengths,
)
from probemb_adapters.experiments.images.options import Options
from probemb_adapters.experiments.images.results import results_table
from probemb_adapters.images import LabelledImage
from probemb_adapters.images.check import findings_in, findings_of, read_folder
from probemb_adapters.training import LAST, Training
from probemb_adapters.training.checkpoint import load_checkpoint

SMALL = ("--steps", "2", "--batch-size", "2", "--accelerator", "cpu")


def disks(seed: int, shape: tuple[int, int] = (48, 64)) -> LabelledImage:
    """Disks of radius 6, none of which touch."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint16)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for i, (cy, cx) in enumerate([(12, 12), (12, 40), (34, 26)], 1):
        shift = rng.integers(-2, 3, 2)
        label[(y - cy - shift[0]) ** 2 + (x - cx - shift[1]) ** 2 <= 36] = i
    return LabelledImage(f"disks_{seed}", (100 + 900 * (label > 0) + rng.normal(0, 20, shape)).astype(np.uint16), label)


def write(folder: Path, image: LabelledImage, labels: str = "labels") -> None:
    for name, array in (("images", image.image), (labels, image.label)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / name / f"{image.name}.tif", array)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    for seed in range(4):
        write(folder, disks(seed))
    return folder


@pytest.fixture(scope="module")
def trained(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    main(["train", str(labelled), "--output", str(run), *SMALL])
    return run


def fails(*arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return str(caught.value)


def test_a_training_leaves_model_numbers_and_page(trained: Path) -> None:
    assert {"model.safetensors", "last.safetensors", "metrics.json", "metrics.csv", "report.html"} <= {
        p.name for p in trained.iterdir()
    }
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert {"AP50", "AP90", "AP", "versions", "options"} <= metrics.keys()
    assert metrics["methods"]["probabilistic"]["images"] == 1
    assert load(trained).settings == load(trained / "model.safetensors").settings


def test_a_training_says_how_long_it_takes_and_when_nothing_was_found(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders, "fit", lambda model, *args, **kwargs: (model, 0.0))
    main(["train", str(labelled), "--output", str(tmp_path / "run"), *SMALL])
    printed = capsys.readouterr().out
    assert re.search(r"steps of 2 crops, about \d\.\d min on this cpu", printed)
    assert "no object of validation was found: train longer (--steps)" in printed


def test_a_page_says_how_many_images_it_shows(trained: Path, tmp_path: Path) -> None:
    for seed in range(10, 22):
        write(tmp_path / "in", disks(seed))
    output = tmp_path / "out"
    main(["evaluate", str(trained), str(tmp_path / "in"), "--output", str(output), "--accelerator", "cpu"])
    assert "<h2>Test images, 6 of 12</h2>" in (output / "report.html").read_text(encoding="utf-8")


def test_evaluation_and_prediction(
    trained: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model says that images come and leaves its own out; of a folder with sides the side test counts."""
    main(["evaluate", str(trained), str(labelled), "--accelerator", "cpu"])
    printed = capsys.readouterr().out
    assert "3 of 4 images left out: the model has seen them" in printed
    assert "1 images with 3 objects" in printed
    assert "no interval from 1, which takes 5 images" in printed
    for i, side in enumerate(("train", "val", "test")):
        write(tmp_path / "sides" / side, disks(i), "masks")
    output = tmp_path / "evaluated"
    main(["evaluate", str(trained), str(tmp_path / "sides"), "--output", str(output), "--accelerator", "cpu"])
    assert "1 images with 3 objects" in capsys.readouterr().out
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["options"]["offset_scale"] == load(trained).settings.offset_scale != Options().offset_scale

    main(["predict", str(trained), str(labelled / "images"), "--output", str(tmp_path / "found")])
    for seed in range(4):
        label = tifffile.imread(tmp_path / "found" / f"disks_{seed}_labels.tif")
        assert label.shape == (48, 64)
        with (tmp_path / "found" / f"disks_{seed}_objects.csv").open(newline="", encoding="utf-8") as file:
            assert len(list(csv.reader(file))) == 1 + int(label.max())
    page = (tmp_path / "found" / "report.html").read_text(encoding="utf-8")
    assert page.count(">Objects found in images<") == 2  # of the window and of the page
    assert "disks_3" in page
    assert "data:image/" in page


def test_an_interval_takes_five_images() -> None:
    images = [disks(seed) for seed in range(5)]
    labels = [np.asarray(image.label) for image in images]
    evaluation = Evaluation("truth", average_precision(labels, images), labels, {})
    assert results_table([evaluation], images, list("abcde")).rows[0].values[1] == "100.0 to 100.0"
    few = results_table([evaluation], images, list("abcda"))  # two of one field
    assert few.rows[0].values[1] is None
    assert few.text.endswith("no interval from 4, which takes 5 images that are no tiles of each other")


def test_help_says_what_is_for_clouds_and_what_for_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails("train", "--help") == "0"
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("clouds: axis", "clouds: of one, that", "clouds: of classes", "clouds: values", "images: of those"):
        assert words in text
    assert text.count("clouds: property") == 2


def test_objects_are_counted_whatever_their_numbers(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder that is named by a dot, of images that the model has seen."""
    for seed in range(4):
        image = disks(seed)
        assert image.label is not None
        write(tmp_path, image._replace(label=1_400_000_000 * image.label.astype(np.uint32)))
    for image in read_folder(tmp_path)[0][""]:
        if fingerprint(image) not in load(trained).settings.seen:
            for side in ("images", "labels"):
                (tmp_path / side / f"{image.name}.tif").unlink()
    monkeypatch.chdir(tmp_path)
    main(["evaluate", str(trained), ".", "--accelerator", "cpu"])
    printed = capsys.readouterr().out
    assert "trained or fitted on all of these images" in printed
    assert "3 images with 9 objects" in printed


def test_a_picture_does_not_replace_an_image(trained: Path, tmp_path: Path) -> None:
    imageio.imwrite(tmp_path / "a.png", disks(0).image)
    before = (tmp_path / "a.png").read_bytes()
    assert "expected another --output folder" in fails("predict", trained, tmp_path, "--output", tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before


def test_check(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(labelled)])
    assert capsys.readouterr().out.strip() == "4 images, 12 objects, 0 findings"
    image = disks(0)
    assert image.label is not None
    write(tmp_path, image._replace(label=255 * (image.label > 0).astype(np.uint8)))
    assert fails("check", tmp_path) == "1"
    assert "disks_0: one number in 3 places, a mask of the foreground" in capsys.readouterr().out
    assert "mask of the foreground" in fails("train", *three(tmp_path), "--output", tmp_path / "run", *SMALL)


def test_files_that_cannot_be_used_are_named_at_once(
    labelled: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By check a line each, by a training all in one message, by a prediction after the others."""
    for seed in range(3):
        write(tmp_path, disks(seed))
    (tmp_path / "images" / "disks_0.tif").write_bytes(b"nothing")
    tifffile.imwrite(tmp_path / "labels" / "disks_1.tif", np.eye(9, dtype=np.uint8))
    assert fails("check", tmp_path) == "1"
    printed = capsys.readouterr().out
    assert "disks_0.tif is no readable tif file" in printed
    assert "expected image and labels of one shape, got (48, 64)" in printed
    assert "1 images, 3 objects, 2 findings" in printed
    message = fails("train", tmp_path, "--output", tmp_path / "run", *SMALL)
    assert "mend what cannot be used" in message
    assert "disks_0.tif is no readable" in message
    assert "one shape" in message
    for name in "abcdefghij":
        write(tmp_path, disks(0)._replace(name=name))
        (tmp_path / "images" / f"{name}.tif").write_bytes(b"nothing")
    assert "and 2 more: probemb check" in fails("evaluate", trained, tmp_path)
    np.save(tmp_path / "images" / "volume.npy", np.ones((4, 8, 8), np.uint16))
    message = fails("predict", trained, tmp_path / "images", "--output", tmp_path / "found")
    assert "disks_1: " in message
    assert "12 of 14 files were left out" in message
    assert "got a volume (4, 8, 8); the command takes images alone" in message
    assert {p.name for p in (tmp_path / "found").glob("*_labels.tif")} == {"disks_1_labels.tif", "disks_2_labels.tif"}


def test_images_without_labels_are_left_out(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (5, 6):
        write(tmp_path, disks(seed))
    (tmp_path / "labels" / "disks_5.tif").rename(tmp_path / "labels" / "other.tif")
    main(["evaluate", str(trained), str(tmp_path), "--accelerator", "cpu"])
    printed = capsys.readouterr().out
    assert "has no match for disks_5.tif" in printed
    assert "has no match for other.tif" in printed
    assert "1 images with 3 objects" in printed
    main(["check", str(tmp_path)])
    assert "1 images, 3 objects, 2 findings" in capsys.readouterr().out
    (tmp_path / "labels" / "disks_6.tif").unlink()
    assert "got 3 alone" in fails("check", tmp_path)


def test_images_and_labels_in_one_folder(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `a_raw.tif` and `a_labels.tif`; what is predicted are the images."""
    for seed in (5, 6):
        image = disks(seed)
        tifffile.imwrite(tmp_path / f"disks_{seed}_raw.tif", image.image)
        tifffile.imwrite(tmp_path / f"disks_{seed}_labels.tif", image.label)
    main(["check", str(tmp_path)])
    assert "2 images, 6 objects, 0 findings" in capsys.readouterr().out
    main(["predict", str(trained), str(tmp_path), "--output", str(tmp_path / "found"), "--accelerator", "cpu"])
    assert sorted(path.name for path in (tmp_path / "found").glob("*.tif")) == [
        "disks_5_raw_labels.tif",
        "disks_6_raw_labels.tif",
    ]


def three(folder: Path) -> list[Path]:
    """The folder with two more images of foreground."""
    for seed in (1, 2):
        image = disks(seed)
        assert image.label is not None
        write(folder, image._replace(label=(image.label > 0).astype(np.uint8)))
    return [folder]


def test_findings() -> None:
    label = np.zeros((8, 8), np.uint16)
    assert [f.message for f in findings_of(LabelledImage("none", label, label))] == ["no object"]
    label[0, 0] = label[5, 5] = 1
    label[3, :] = 2
    messages = [f.message for f in findings_of(LabelledImage("some", label, label))]
    assert messages == ["2 objects in 3 connected pieces", "1 of 2 objects have less than 5 pixels"]


def test_one_object_in_pieces_among_others_is_no_mask() -> None:
    """Annotations lose pixels, and objects lie over each other."""
    image = disks(0)
    assert image.label is not None
    mask = image._replace(label=(image.label > 0).astype(np.uint16))
    assert [f.wrong for f in findings_in([mask, mask])] == [True, True]
    assert [f.wrong for f in findings_in([mask, image])] == [False]


def test_sides_and_lengths(labelled: Path, tmp_path: Path) -> None:
    images, _ = read_folder(labelled)
    sides = split_images(labelled, images, seed=0)
    assert {name: len(side) for name, side in sides.items()} == {"test": 1, "val": 1, "train": 2}
    assert split_images(labelled, sides, 1) is sides
    # Disks of 12 pixels are shown at 8 to 30 pixels, in the middle 15: radius 8, of which half.
    options = with_lengths(Options(), images[""])
    assert 8 <= options.offset_scale <= 14
    assert 3.5 <= options.initial_std <= 4.5
    with pytest.raises(ValueError, match="expected objects in the images"):
        with_lengths(Options(), [disks(0)._replace(label=np.zeros((48, 64), np.uint16))])
    with pytest.raises(ValueError, match="at least three images"):
        split_images(tmp_path, {"": images[""][:2]}, 0)


def test_a_model_of_a_training_that_is_not_over(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Training.save

    def interrupted(training: Training, path: Path, fabric: Fabric) -> None:
        save(training, path, fabric)
        raise KeyboardInterrupt

    arguments = ["train", labelled, "--output", tmp_path / "run", *SMALL]
    monkeypatch.setattr(Training, "save", interrupted)
    assert "--resume --finish it makes a model of it" in fails(*arguments)
    monkeypatch.undo()
    assert "give --resume with it" in fails("train", labelled, "--output", tmp_path / "other", *SMALL, "--finish")
    main([str(a) for a in (*arguments, "--resume", "--finish")])
    assert "finished after 1 of 2 epochs" in capsys.readouterr().out
    last = load_checkpoint(tmp_path / "run" / LAST)
    weights = load_checkpoint(tmp_path / "run" / "model.safetensors")["model"]
    assert last["epoch"] == 1
    assert all(torch.equal(weights[name], value) for name, value in last["model"].items() if torch.is_tensor(value))
    main([str(a) for a in (*arguments, "--resume")])  # there is time after all
    assert load_checkpoint(tmp_path / "run" / LAST)["epoch"] == 2


def test_what_does_not_fit(labelled: Path, trained: Path, tmp_path: Path) -> None:
    run = ("--output", tmp_path / "run")
    assert "--class-names and --width are for clouds" in fails("train", labelled, *run, "--width", 0.5)
    assert "at least a step and a batch of 1, got 0 and 2" in fails(
        "train", labelled, *run, "--steps", 0, "--batch-size", 2
    )
    assert "need no --instance" in fails("check", labelled, "--instance", "id")
    (tmp_path / "clouds").mkdir()
    assert "--channel is for images" in fails("check", tmp_path / "clouds", "--channel", 0)
    model = PROJECT / "checkpoints" / "chair.safetensors"
    for command in (["predict", model, tmp_path, "--output", tmp_path / "found"], ["evaluate", model, tmp_path]):
        assert "chair.safetensors is a model of clouds: --channel 0 is for images" in fails(*command, "--channel", 0)
    assert "go on with it by --resume" in fails("train", labelled, "--output", trained)
    assert "expected .tif" in fails("predict", trained, tmp_path / "scan.ply", *run)
    tifffile.imwrite(tmp_path / "clouds" / "a.tif", np.eye(9))
    said = fails("train", tmp_path / "clouds", *run)
    assert "expected images in a folder images" in said
    assert "a_raw.tif with a_labels.tif" in said
    assert "has no match for a.tif" in said
    (tmp_path / "bare" / "images").mkdir(parents=True)
    assert "a folder labels or masks" in fails("check", tmp_path / "bare")
    write(tmp_path / "part" / "train", disks(0))
    assert "subfolders train, val and test, got train" in fails("check", tmp_path / "part")
    for side in ("train", "val", "test"):
        image = disks(0)
        assert image.label is not None
        write(tmp_path / "none" / side, image._replace(label=image.label * (side != "val")))
    assert "expected objects in the images of val, got none in disks_0" in fails("train", tmp_path / "none", *run)
    for name in ("images", "labels"):
        (tmp_path / "volumes" / name).mkdir(parents=True)
        np.save(tmp_path / "volumes" / name / "v.npy", np.ones((4, 8, 8), np.uint16))
    assert "got volumes: v" in fails("check", tmp_path / "volumes")


def test_the_training_has_the_steps_that_are_asked_for() -> None:
    """In whole epochs, 20 or fewer: exactly, or within half an epoch."""
    for steps, exact in [(1, 1), (2, 1), (20, 1), (30, 1), (75, 0), (1003, 0), (1500, 1), (6000, 1)]:
        options = asked_options(Path("images"), Request(Path("run"), steps=steps, batch_size=4))
        assert options.epochs is not None
        per_epoch, rest = divmod(options.epoch_crops, 4)
        assert rest == 0
        assert 1 <= options.epochs <= 20
        assert abs(options.epochs * per_epoch - steps) <= (0 if exact else per_epoch / 2)
