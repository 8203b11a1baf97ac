"""The command `probemb`, from generated plants to a model, results and messages."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("torch_geometric")
pytest.importorskip("plyfile")

from paths import PROJECT
from plyfile import PlyData

from probemb_adapters.cli.main import main
from probemb_adapters.clouds import Cloud, read_clouds
from probemb_adapters.clouds import check as clouds_check
from probemb_adapters.clouds.check import notes_of
from probemb_adapters.clouds.labelled import class_names_of, class_values
from probemb_adapters.clouds.split import SPLITS, fingerprint, split_clouds
from probemb_adapters.experiments.own_clouds import Model, Options, tiles
from probemb_adapters.experiments.own_clouds import run as own_run
from probemb_adapters.experiments.own_clouds.data import Frame, TestClouds, TrainingClouds, common_unit, labelled_data
from probemb_adapters.experiments.own_clouds.evaluation import evaluate_model, fit_model
from probemb_adapters.experiments.own_clouds.options import Settings, resolve
from probemb_adapters.experiments.own_clouds.training import with_lengths
from probemb_adapters.experiments.own_clouds.units import measure, times_as_large, unit_doubt
from probemb_adapters.training import LAST, start_fabric
from probemb_lib import GaussianEmbedding
from probemb_shapes.plants import LEAF, STEM, plant, write_plants
from probemb_shapes.plants import main as plants_main

SMALL = ("--steps", "5", "--points", "256", "--batch-size", "2", "--accelerator", "cpu")


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plants")
    write_plants(folder, 5, points=600)
    return folder


@pytest.fixture(scope="module")
def trained(plants: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    main(["train", str(plants), "--output", str(run), *SMALL])
    return run


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def cloud(n: int = 60, seed: int = 0, **given: Any) -> Cloud:
    pos = np.random.default_rng(seed).random((n, 3))
    usual: dict[str, Any] = {"instance": np.arange(n) // 20, "path": Path(f"cloud{seed}.npz")}
    return Cloud(f"cloud{seed}", pos, **(usual | given))


def save(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, pos=np.random.default_rng(len(path.name)).random((90, 3)), **arrays)
    return path


def fails(*arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    return str(caught.value)


# --- end to end


def test_training_leaves_model_numbers_and_page(trained: Path) -> None:
    assert {p.name for p in trained.iterdir()} >= {"model.safetensors", "metrics.json", "report.html", LAST}
    found = metrics(trained)
    assert found["iou_thresholds"] == [0.25, 0.5, 0.75]
    assert set(found["ap_percent"]) == {"mean", f"class {STEM}", f"class {LEAF}"}
    assert found["instances"]["mean"] == found["instances"]["class 1"] + found["instances"]["class 2"]
    made = Model.load(trained).settings
    assert made.class_values == (STEM, LEAF)
    assert (made.up, made.refine, made.points, len(made.seen)) == ("z", True, 256, 4)
    assert made.threshold == found["parameters"]["threshold"]
    assert made.shown_score == found["parameters"]["shown_score"]
    assert 0.1 < made.unit < 0.4


def test_evaluation_repeats_the_numbers(
    trained: Path, plants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On what the model has not seen, under any name; the model is a folder or a file."""
    model = trained / "model.safetensors"
    main(["evaluate", str(model), str(plants), "--output", str(tmp_path / "again"), "--accelerator", "cpu"])
    assert metrics(tmp_path / "again")["ap_percent"] == metrics(trained)["ap_percent"]
    assert "4 of 5 clouds left out" in capsys.readouterr().out
    held = metrics(trained)["clouds"][0]
    (tmp_path / "seen").mkdir()
    for file in plants.iterdir():
        if file.stem != held:
            shutil.copy(file, tmp_path / "seen" / f"other_{file.name}")
    own = ("--output", str(tmp_path / "own"))
    main(["evaluate", str(trained), str(tmp_path / "seen"), *own, "--accelerator", "cpu"])
    headings = [(tmp_path / name / "report.html").read_text(encoding="utf-8") for name in ("again", "own")]
    assert ["<h2>Clouds of the training</h2>" in text for text in headings] == [False, True]
    printed = capsys.readouterr().out
    assert "on all of these clouds" in printed
    assert "Average precision, per cent, 4 clouds" in printed


def test_the_checkpoint_finds_leaves(tmp_path: Path) -> None:
    """On plants that training has not seen; its numbers are in checkpoints/README.md."""
    write_plants(tmp_path / "in", 4, seed=1)
    model = PROJECT / "checkpoints" / "plants.safetensors"
    main(["evaluate", str(model), str(tmp_path / "in"), "--output", str(tmp_path / "own"), "--accelerator", "cpu"])
    assert min(metrics(tmp_path / "own")["ap_percent"][name][1] for name in ("stem", "leaf")) > 90


def test_what_is_shown_is_no_matter_of_average_precision(trained: Path, plants: Path, tmp_path: Path) -> None:
    """A score that nothing reaches: the same numbers, and nothing in files. One of an older model: all is shown."""
    model, pos = Model.load(trained), torch.from_numpy(plant(np.random.default_rng(0), 256)[0]).float()
    found = model.cluster(*model.predict(pos, start_fabric(accelerator="cpu")))
    assert len(found)
    older = {name: value for name, value in model.settings.stored().items() if name != "shown_score"}
    assert len(Model(model.network, Settings.read(older)).shown(found)) == len(found)
    middle = float(found.score.median())
    some = model.fitted(model.threshold, 1, middle).shown(found)
    assert sorted(some.score.tolist()) == sorted(s for s in found.score.tolist() if s >= middle)

    file = model.fitted(model.threshold, model.settings.min_points, 2.0).save(tmp_path / "none.safetensors")
    main(["evaluate", str(file), str(plants), "--output", str(tmp_path / "again"), "--accelerator", "cpu"])
    assert metrics(tmp_path / "again")["ap_percent"] == metrics(trained)["ap_percent"]
    main(["predict", str(file), str(plants / "plant_000.ply"), "--output", str(tmp_path), "--accelerator", "cpu"])
    assert (PlyData.read(str(tmp_path / "plant_000.ply"))["vertex"].data["found_instance"] == -1).all()


def test_prediction_keeps_points_and_properties(trained: Path, plants: Path, tmp_path: Path) -> None:
    """Labelled files have their labels beside what was found; unlabelled ones get the usual names."""
    source = plants / "plant_000.ply"
    main(["predict", str(trained), str(source), "--output", str(tmp_path), "--accelerator", "cpu"])
    before, after = (PlyData.read(str(p))["vertex"].data for p in (source, tmp_path / "plant_000.ply"))
    for name in before.dtype.names:
        assert np.array_equal(before[name], after[name]), name
    assert after.dtype.names[len(before.dtype.names) :] == (
        *("found_instance", "found_class"),
        *("score", "sigma", "uncertainty"),
    )
    label = after["found_instance"]
    assert (after["uncertainty"][label < 0] == 1).all()
    assert (after["uncertainty"][label >= 0] >= 1 - after["score"][label >= 0] - 1e-6).all()  # 1 - score * similarity
    assert 0 <= after["uncertainty"].min() < 1
    assert set(np.unique(after["found_class"][label >= 0])) <= {STEM, LEAF}
    assert (after["found_class"][label < 0] == -1).all()
    counts = np.bincount(label[label >= 0])
    assert len(counts)
    assert counts.min() > 0
    assert (tmp_path / "report.html").is_file()

    save(tmp_path / "far" / "scan.npz", height=np.arange(90.0))
    main(["predict", str(trained), str(tmp_path / "far"), "--output", str(tmp_path), "--accelerator", "cpu"])
    with np.load(tmp_path / "scan.npz") as arrays:
        assert {"height", "instance", "class", "score", "sigma", "uncertainty", "mean"} <= set(arrays.files)


def test_large_clouds_are_cut_into_tiles(
    trained: Path, plants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bed of plants: every point and property is there, and no instance is smaller than the fitted size."""
    grown = [read_clouds(plants / f"plant_00{i}.ply")[0] for i in range(4)]
    pos = np.concatenate([one.pos + np.array([0.4 * i, 0, 0]) for i, one in enumerate(grown)])
    np.savez(tmp_path / "bed.npz", pos=pos, row=np.arange(len(pos)))
    main(["predict", str(trained), str(tmp_path / "bed.npz"), "--output", str(tmp_path / "found")])
    assert "times as large as the clouds of the training, so in tiles" in capsys.readouterr().out
    with np.load(tmp_path / "found" / "bed.npz") as arrays:
        label = arrays["instance"]
        assert np.array_equal(arrays["pos"], pos)
        assert np.array_equal(arrays["row"], np.arange(len(pos)))
        assert np.abs(arrays["mean"] - pos).max() < 1
    assert np.bincount(label[label >= 0]).min() >= Model.load(trained).settings.min_points


def test_tiles_are_centred_as_clouds_are(trained: Path, plants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a tile lies the same is found in it, and the Gaussians lie there."""
    monkeypatch.setattr(tiles, "_CELL", 100.0)
    model, fabric = Model.load(trained), start_fabric(accelerator="cpu")
    pos = model.frame.positions(read_clouds(plants / "plant_001.ply")[0].pos)
    here, found = tiles.predict_tiles(model, pos + 50, fabric, seed=0)
    there, again = tiles.predict_tiles(model, pos + 250, fabric, seed=0)
    assert len(found) == len(again) > 0
    assert (found.label == again.label).float().mean() > 0.98
    torch.testing.assert_close(there.mean - 250, here.mean - 50, rtol=0, atol=0.05)
    assert (here.mean - 50 - pos).abs().max() < 2 * model.settings.offset_scale


def test_a_point_has_the_prediction_of_the_tile_that_labels_it(
    trained: Path, plants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of the last which saw it, at its rim: what refines and what is written is what was clustered."""
    model, calls = Model.load(trained), itertools.count()

    def predict(_: Model, local: torch.Tensor, fabric: Any) -> tuple[GaussianEmbedding, torch.Tensor]:
        probabilities = torch.full((len(local), len(model.columns)), 0.5)
        return GaussianEmbedding(local, torch.full_like(local, -0.1 * next(calls))), probabilities

    monkeypatch.setattr(Model, "predict", predict)
    one = model.frame.positions(read_clouds(plants / "plant_001.ply")[0].pos)
    pos = torch.cat([one + torch.tensor([0.7 * i, 0.0, 0.0]) for i in range(3)])
    embedding, _ = tiles.predict_tiles(model, pos, start_fabric(accelerator="cpu"), seed=0)
    cell = (pos[:, [0, 2]].double() / tiles._CELL).floor().unique(dim=0, return_inverse=True)[1]
    assert next(calls) == cell.max() + 1 > 3
    for number in cell.unique():
        assert len(embedding.log_std[cell == number].unique()) == 1


@pytest.mark.parametrize("cut", [True, False])
def test_parts_of_an_object_are_joined_where_validation_gains_by_it(
    trained: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """An object whose points vote for three places: a seed sees a third of it, and the thirds as a whole each other."""
    x = np.stack([np.arange(60) % 3, np.arange(60), 3 * np.arange(60) % 7], 1) / 60.0
    labels = np.arange(60) // 30
    cloud = Cloud("two", x, instance=labels, semantic=np.full(60, LEAF))
    model = Model.load(trained)
    model = replace(model, settings=replace(model.settings, join=None))
    fabric = start_fabric(accelerator="cpu")
    clouds = TestClouds([cloud], Frame("z", 1.0), model.settings.class_values, points=100)

    def predict(_: Model, pos: torch.Tensor, fabric: Any) -> tuple[GaussianEmbedding, torch.Tensor]:
        """Places 1 apart in an object; a point in ten is as wide as all. Or one place for each object."""
        place = 100.0 * clouds.clouds[0].instance
        wide = torch.arange(60) % 10 == 9
        if cut:
            place = place + torch.arange(60) % 3
        log_std = torch.where(wide & cut, 1.1, -2.3)[:, None]
        probabilities = torch.full((60, len(model.columns)), 0.1)
        probabilities[:, -1] = torch.where(wide, 0.5, 0.8)
        return GaussianEmbedding(place[:, None].float(), log_std), probabilities

    monkeypatch.setattr(Model, "predict", predict)
    fitted, fit = fit_model(model, clouds, fabric)
    assert fitted.settings.join == (0.2 if cut else None)
    assert fit.metric == 1.0
    assert len(fitted.cluster(*predict(model, clouds.clouds[0].pos, fabric))) == 2
    parameters = evaluate_model(fitted, clouds, fabric).parameters
    assert parameters["join"] == fitted.settings.join


def test_a_tile_may_have_one_point(trained: Path) -> None:
    model = Model.load(trained)
    pos = torch.tensor([[0.1, 0.0, 0.1], [0.2, 0.0, 0.1], [9.1, 5.0, 0.1]])
    embedding, found = tiles.predict_tiles(model, pos, start_fabric(accelerator="cpu"), seed=0)
    assert embedding.mean.shape == (3, 3)
    assert found.label.shape == (3,)


def test_an_interrupted_training_goes_on(
    plants: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends with a sentence; --resume gives the numbers of the whole."""
    train_network = own_run.train_model
    arguments = ["train", str(plants), "--output", str(tmp_path / "run"), *SMALL]

    def interrupted(*given: Any, **named: Any) -> Any:
        train_network(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(own_run, "train_model", interrupted)
    assert "stopped; the last epoch is in" in fails(*arguments)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.undo()
    assert "has a training already: go on with it by --resume" in fails(*arguments)
    main([*arguments, "--resume"])
    assert metrics(tmp_path / "run")["ap_percent"] == metrics(trained)["ap_percent"]
    assert "--resume goes on from the last checkpoint, one every 5 steps" in capsys.readouterr().out
    message = fails(*arguments, "--resume", "--seed", "1")
    assert "is of a training with other settings: " in message
    assert "seed was 0 and is 1" in message
    assert "clouds was '4 (" in message


def test_steps_are_whole_epochs(
    plants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(own_run, "train_model", interrupted)
    fails("train", plants, "--output", tmp_path, *SMALL, "--steps", "60")
    assert "50 steps in place of 60: whole epochs, of 25 steps each" in capsys.readouterr().out
    fails("train", plants, "--output", tmp_path, *SMALL)
    assert "in place of" not in capsys.readouterr().out


def test_an_interruption_before_the_first_epoch(plants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(own_run, "read_labelled", interrupted)
    assert "stopped; nothing is kept: the first checkpoint is written after the first epoch" in fails(
        "train", plants, "--output", tmp_path
    )


def test_other_commands_may_be_stopped(plants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(clouds_check, "read_labelled", interrupted)
    assert fails("check", plants) == "\nprobemb: stopped"


def test_a_gpu_may_be_too_small(plants: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            raise torch.OutOfMemoryError(text)

        return run

    monkeypatch.setattr(
        clouds_check, "read_labelled", fail("CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has …")
    )
    assert fails("check", plants).endswith("predict with --accelerator cpu (CUDA out of memory)")
    monkeypatch.setattr(clouds_check, "read_labelled", fail("of our making"))
    with pytest.raises(RuntimeError, match="of our making"):
        main(["check", str(plants)])


def test_warnings_are_a_line(plants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the user's files; what libraries say of themselves is left out."""
    for file in plants.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "notes.txt").write_text("-", encoding="utf-8")
    main(["check", str(tmp_path)])
    assert f"probemb: {tmp_path}: left alone beside clouds of other formats: notes.txt" in capsys.readouterr().err


def test_a_folder_without_a_checkpoint_is_not_resumed(tmp_path: Path) -> None:
    message = fails("train", tmp_path / "nowhere", "--output", tmp_path, "--resume")  # before anything is read
    assert message.endswith("has no last.safetensors to go on from: to start a training leave out --resume")
    message = fails("train", tmp_path / "nowhere", "--output", tmp_path, "--finish")
    assert message.endswith("--finish makes a model of the last checkpoint of a training: give --resume with it")


def test_instances_without_classes_on_a_background(
    plants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stems are background; nothing is named, and points of the background are left out of what is found."""
    for file in plants.iterdir():
        (one,) = read_clouds(file)
        np.savez(tmp_path / f"{file.stem}.npz", pos=one.pos + np.array([5e5, 5.4e6, 0]), tree_id=one.instance)
    run, found = tmp_path / "run", tmp_path / "found"
    main(["train", str(tmp_path), "--output", str(run), "--background", "0", "--paper", "--width", "0.25", *SMALL])
    made = Model.load(run).settings
    assert (made.class_values, made.background, made.refine, made.score_loss) == ((), (0,), False, "center-aware")
    assert made.width == 0.25
    assert (run / "model.safetensors").stat().st_size < 1.5e6
    assert "instance labels are tree_id" in capsys.readouterr().out
    main(["predict", str(run), str(tmp_path / "plant_000.npz"), "--output", str(found), "--accelerator", "cpu"])
    with np.load(found / "plant_000.npz") as arrays:
        assert arrays["pos"].max() > 5e6
        assert set(np.unique(arrays["class"])) <= {-1, 0}
        assert np.abs(arrays["mean"] - arrays["pos"]).max() < 1  # in the frame and the unit of the file
        np.testing.assert_allclose(arrays["sigma"], np.exp(arrays["log_std"].mean(1)), rtol=1e-6)


def test_classes_have_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words of the files, in the numbers, on the page and in what is predicted; a model knows other files by them."""
    words = {STEM: "stem", LEAF: "leaf"}
    for i in range(4):
        pos, instance, classes = plant(np.random.default_rng(i), 600)
        table = [f"{x},{y},{z},{n},{words[c]}\n" for (x, y, z), n, c in zip(pos, instance, classes, strict=True)]
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{i}.csv").write_text("x,y,z,leaf,organ\n" + "".join(table), encoding="utf-8")
    labels = ("--instance", "leaf", "--semantic", "organ")
    main(["check", str(tmp_path / "in"), *labels])
    assert capsys.readouterr().out.endswith("4 clouds, classes leaf, stem, 0 findings\n")
    run, found = tmp_path / "run", tmp_path / "found"
    main(["train", str(tmp_path / "in"), "--output", str(run), *labels, *SMALL, "--steps", "1"])
    assert set(metrics(run)["ap_percent"]) == {"mean", "leaf", "stem"}
    assert metrics(run)["classes"] == {"0": "leaf", "1": "stem"}
    assert '"class":"stem"' in (run / "report.html").read_text(encoding="utf-8")
    model = Model.load(run)
    assert (model.classes, model.settings.steps) == (("leaf", "stem"), 1)
    replace(model, settings=replace(model.settings, threshold=1e-9)).save(run / "model.safetensors")  # one instance
    main(["predict", str(run), str(tmp_path / "in" / "0.csv"), "--output", str(found), "--accelerator", "cpu"])
    names = (found / "0.csv").read_text(encoding="utf-8").split("\n")[0].split(",")
    assert names[:5] == ["x", "y", "z", "leaf", "organ"]
    assert names[5:] == ["instance", "class", "score", "sigma", "uncertainty", "class_name"]
    with np.load(found / "0.npz") as arrays:
        named = {(int(n), str(name)) for n, name in zip(arrays["class"], arrays["class_name"], strict=True)}
    assert named - {(-1, "")} <= {(0, "leaf"), (1, "stem")}
    assert named - {(-1, "")}
    (tmp_path / "in" / "4.csv").write_text("x,y,z,leaf,organ\n0,0,0,1,stem\n1,1,0,1,pot\n2,2,2,2,pot\n")
    assert "4: expected the classes leaf, stem, got pot as well" in fails("evaluate", run, tmp_path / "in")


def test_names_of_classes() -> None:
    one = cloud(class_names={1: "stem", 2: "leaf"})
    assert class_names_of([one], (1, 2, 3)) == ("stem", "leaf", "class 3")
    assert class_names_of([one], (1, 2), ["2=big leaf"]) == ("stem", "big leaf")
    assert class_names_of([cloud()], (1, 2)) == ()
    for named in ("stem", "1=", "a=b"):
        with pytest.raises(ValueError, match="--class-names: expected NUMBER=NAME, such as 1=stem 2=leaf, got"):
            class_names_of([one], (1, 2), [named])
    with pytest.raises(ValueError, match="expected a name of its own for each class, got leaf, leaf for 1, 2"):
        class_names_of([one], (1, 2), ["1=leaf"])
    with pytest.warns(UserWarning, match=r"no instance to train on has the class 3 \(pot\); the classes are 1, 2"):
        assert class_names_of([one], (1, 2), ["3=pot"]) == ("stem", "leaf")
    other = cloud(class_names={1: "root"})
    with pytest.raises(ValueError, match="expected one name for class 1 in all files, got stem and root"):
        class_names_of([one, other], (1, 2))
    assert class_names_of([one, other], (1, 2), ["1=trunk"]) == ("trunk", "leaf")


# --- checks


def test_check_finds_mix_ups(plants: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a finding; warnings end well, errors do not."""
    main(["check", str(plants)])
    printed = capsys.readouterr().out
    assert "instance labels are instance (5 of 5 clouds)" in printed
    assert "instance 0 is in all clouds, an object as the others are: --background 0 if it means none" in printed
    main(["check", str(plants), "--background", "0"])
    assert "instance 0" not in capsys.readouterr().out
    assert printed.endswith("5 clouds, classes 1, 2, 0 findings\n")

    (one,) = read_clouds(plants / "plant_000.ply")
    order = np.random.default_rng(0).permutation(len(one.pos))
    np.savez(tmp_path / "mixed.npz", pos=one.pos, instance=one.instance[order])  # type: ignore[index]
    main(["check", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "mixed: warning: instance: expected neighbouring points to share an instance" in printed

    np.savez(tmp_path / "bare.npz", pos=one.pos, instance=np.full(len(one.pos), -100))
    with pytest.raises(SystemExit) as caught:
        main(["check", str(tmp_path)])
    assert caught.value.code == 1
    assert "bare: error: instance: expected labels in each cloud" in capsys.readouterr().out


def test_one_finding_in_many_clouds_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "bb", "ccc"):
        save(tmp_path / f"{name}.npz", instance=np.full(90, -7))
    with pytest.raises(SystemExit):
        main(["check", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("got -7") == 1
    assert "3 clouds (a, bb, ccc): error: instance: expected ids >= 0" in printed
    assert printed.endswith("3 clouds, no classes, 6 findings\n")


def test_training_prints_findings_and_stops_at_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for i in range(16):
        instance = rng.integers(0, 3, 90)
        save(tmp_path / f"{'x' * (i + 1)}.npz", instance=instance)
    save(tmp_path / f"{'x' * 20}.npz", instance=np.where(np.arange(90) < 45, -7, 1))
    message = fails("train", tmp_path, "--output", tmp_path / "run", *SMALL)
    assert "expected ids >= 0, -1 (none) or -100 (ignored), got -7" in message
    assert "more: probemb check lists them" in capsys.readouterr().out


def test_values_of_points_that_nobody_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Are ignored in checks, in training and, as they were named there, in evaluations."""
    for i in range(3):
        instance = np.where(np.arange(90) < 30, 99, np.arange(90) // 45)
        save(tmp_path / "in" / f"{'a' * (i + 1)}.npz", **{"instance": instance, "class": np.where(instance < 9, 1, 99)})
    main(["check", str(tmp_path / "in")])
    assert "3 clouds, classes 1, 99" in capsys.readouterr().out
    main(["check", str(tmp_path / "in"), "--ignored", "99"])
    assert "3 clouds, classes 1, " in capsys.readouterr().out
    run = tmp_path / "run"
    main(["train", str(tmp_path / "in"), "--output", str(run), "--ignored", "99", *SMALL, "--steps", "1"])
    assert (Model.load(run).settings.ignored, Model.load(run).settings.class_values) == ((99,), (1,))
    before = metrics(run)["instances"]["mean"]
    main(["evaluate", str(run), str(tmp_path / "in"), "--output", str(tmp_path / "again")])
    assert metrics(tmp_path / "again")["instances"]["mean"] == before == 2


# --- messages


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": {}}, "expected a property with the instance of each point, got positions alone (1 of 1 clouds are so)"),
        ({"a": {"wood": 0}}, "got the properties wood"),
        (
            {"a": {"instance": 1}, "b": {"instance": 1}, "new": {}},
            "1 of 3 clouds have no property with the instance of each point: new; move them out of the folder",
        ),
        ({"a": {"instance": 1}}, "expected at least three files, one each to train on"),
        ({"train/a": {"instance": 1}, "val/b": {"instance": 1}}, "subfolders train, val and test, got train, val"),
        ({"a": {"instance": 1, "class": 1}, "b": {"instance": 1}}, "expected classes as in 1 of 2 clouds"),
        ({n: {"instance": -100} for n in "abc"}, "all points are unlabelled or background"),
        (
            {f"{n}/a": {"instance": 1, "class": i} for i, n in enumerate(("train", "val", "test"))},
            "expected the classes 0, got 1 as well: no cloud to train on has them",
        ),
    ],
)
def test_folders_that_cannot_be_trained_on(files: dict[str, dict[str, int]], message: str, tmp_path: Path) -> None:
    for name, labels in files.items():
        columns = {n: np.full(90, value) for n, value in labels.items()}
        if labels.get("instance") == 1:
            columns["instance"] = np.arange(90) // 45
        save(tmp_path / "in" / f"{name}.npz", **columns)
    assert message in fails("train", tmp_path / "in", "--output", tmp_path / "run", *SMALL)


def test_models_and_classes_that_do_not_fit(trained: Path, tmp_path: Path) -> None:
    assert "is missing: expected a checkpoint" in fails("evaluate", tmp_path, tmp_path)
    save(tmp_path / "a.npz", instance=np.arange(90) // 45)
    assert "expected classes 1, 2, got the properties instance" in fails("evaluate", trained, tmp_path)
    save(tmp_path / "a.npz", **{"instance": np.arange(90) // 45, "class": np.full(90, 9)})
    assert "expected the classes 1, 2, got 9 as well: the model does not know them" in fails(
        "evaluate", trained, tmp_path
    )
    model = Model.load(trained)
    replace(model, settings=replace(model.settings, threshold=None)).save(tmp_path / "model.safetensors")
    message = fails("predict", tmp_path, tmp_path / "a.npz", "--output", tmp_path / "found")
    assert "training ended before it was fitted" in message
    message = fails("predict", trained, tmp_path / "a.npz", tmp_path / "a.npz", "--output", tmp_path / "found")
    assert message.startswith("probemb: results are named after the files, expected different names, got a more than")
    other = PROJECT / "checkpoints" / "furniture.safetensors"
    assert "is no model of probemb train: unknown settings" in fails("evaluate", other, tmp_path)


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["train"], ["predict", "run"], ["fly"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "probemb" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "Find the instances in clouds" in told
    assert {"probemb train labelled/ --output run", "probemb check labelled/"} <= set(told.splitlines())


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from probemb_adapters.cli.main import main\ntry: main(['train', '--help'])\n"
    code += "finally: print(sorted({'torch', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr, "--resume" in done.stdout) == ("[]\n", True)


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert 'pip install -e ".[cli]"' in fails("check", "folder")


def run_without(packages: Sequence[str], code: str) -> str:
    hide = f"import sys; sys.modules.update(dict.fromkeys({list(packages)}))\n"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, check=True).stdout


def test_clouds_need_no_more_than_the_extra_of_the_command() -> None:
    others = ("sklearn", "torchmetrics", "tensorboard", "imageio", "monai")
    run_without(others, "import probemb_adapters.experiments.own_clouds")


def test_a_check_does_not_wait_for_what_trains(plants: Path) -> None:
    code = f"from probemb_adapters.cli.main import main; main(['check', {str(plants)!r}])"
    assert "5 clouds" in run_without(("torch_geometric", "lightning_fabric", "matplotlib"), code)


def test_the_command_is_installed() -> None:
    """As `probemb`, and as a module."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'probemb = "probemb_adapters.cli.main:main"' in text
    assert importlib.import_module("probemb_adapters.cli.__main__").main is main


# --- data


def test_splits() -> None:
    """By subfolder, by file, or by cloud of one file; the same each time."""
    many = [cloud(seed=i) for i in range(20)]
    split = split_clouds(Path(), many, seed=0)
    assert {name: len(some) for name, some in split.items()} == {"train": 14, "val": 3, "test": 3}
    assert split == split_clouds(Path(), many, seed=0) != split_clouds(Path(), many, seed=1)
    one = [replace(c, path=Path("all.npz")) for c in many[:3]]
    assert all(len(some) == 1 for some in split_clouds(Path("all.npz"), one, seed=0).values())
    pairs = [replace(c, path=Path(f"{i // 2}.npz")) for i, c in enumerate(many)]
    for some in split_clouds(Path(), pairs, seed=0).values():
        assert len(some) == 2 * len({c.path for c in some})


def test_subfolders_are_the_split(tmp_path: Path) -> None:
    for i, name in enumerate(SPLITS):
        save(tmp_path / name / f"{'a' * (i + 1)}.npz", instance=np.arange(90) // 45)
    split = split_clouds(tmp_path, read_clouds(tmp_path), seed=0)
    assert {name: [c.name for c in some] for name, some in split.items()} == {
        name: [f"{name}/{'a' * (i + 1)}"] for i, name in enumerate(SPLITS)
    }


def test_usual_names_of_the_sides_and_clouds_left_out(tmp_path: Path) -> None:
    for name in ("Training", "VAL", "testing", "old"):
        save(tmp_path / name / "a.npz", instance=np.arange(90) // 45)
    save(tmp_path / "Training" / "bb.npz", instance=np.arange(90) // 45)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        split = split_clouds(tmp_path, read_clouds(tmp_path), seed=0)
    assert [len(split[name]) for name in SPLITS] == [2, 1, 1]
    messages = [str(warning.message) for warning in caught]
    assert messages[0].endswith("1 clouds are in none of train, val and test, and left out: old/a")
    # written from one seed, and the same in any precision
    assert "VAL/a of val is the cloud Training/a of train: the numbers will be better than on others" in messages[1]
    one = cloud()
    assert fingerprint(replace(one, pos=one.pos.astype(np.float32).astype(np.float64))) == fingerprint(one)


def test_clouds_in_another_unit(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Millimetres for metres end with a sentence; what may be another unit is asked."""
    frame = Frame("z", 0.5)
    assert times_as_large(cloud(500), frame) == pytest.approx(1.5, abs=0.1)
    for scale in (1e3, 1e-3):
        with pytest.raises(
            ValueError, match="expected a cloud in the unit of the training's, the largest of which is 1"
        ):
            times_as_large(replace(cloud(500), pos=scale * cloud(500).pos), frame)
    small = save(tmp_path / "small.npz", height=np.arange(90.0))
    with np.load(small) as arrays:
        np.savez(small, pos=arrays["pos"] / 200)
    main(["predict", str(trained), str(small), "--output", str(tmp_path / "found"), "--accelerator", "cpu"])
    told = capsys.readouterr().err
    assert told.count("is it in another unit? Then multiply its positions by") == 1
    assert "probemb: small is 0.0" in told


def test_a_larger_scene_is_no_other_unit() -> None:
    """Points as many times farther apart tell, or instances that are not there; size alone does not."""
    pos = np.random.default_rng(0).random((2_000, 3))
    some = [replace(cloud(), pos=size * pos) for size in (0.7, 1.0)]
    frame, measured = Frame("z", common_unit(some)), measure(some)

    def doubt(pos: Any, none: float = 0.0, known: tuple[float, ...] = measured) -> str:
        return unit_doubt(replace(cloud(), pos=pos), frame, known, none) or ""

    assert "and its points lie 9.9 times as far apart: is it in another unit?" in doubt(9.9 * pos)
    assert "points lie 3.3 times as far apart" in doubt(pos / 0.3048)
    assert "times as close together" in doubt(0.3 * pos)
    row = np.concatenate([pos + np.array([i, 0, 0]) for i in range(6)])
    assert not any(doubt(x) for x in (row, pos, 0.7 * pos, pos[::4], np.repeat(pos, 2, 0), 0.3 * pos[:60]))
    assert "and 98% of its points are in no instance: is it in another unit?" in doubt(row, none=0.98)
    assert not doubt(9.9 * pos, known=())
    assert "is it in another unit?" in doubt(21 * pos, known=())
    assert measure([replace(cloud(), pos=np.zeros((9, 3)))]) == ()


def test_notes_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    clouds = [cloud(seed=i, notes=("classes are class", f"own {i}")) for i in range(30)]
    lines = notes_of(clouds)
    assert (len(lines), lines[0], lines[-1]) == (13, "classes are class (30 of 30 clouds)", "19 other notes")


def test_columns_of_classes() -> None:
    """Column 0 is no instance; a point of an instance without a class, or of one that is not known, is ignored."""
    n = 6
    labels = cloud(n, instance=np.array([0, 0, 1, -1, -100, 1]), semantic=np.array([7, 7, 5, 5, 7, -1]))
    assert class_values([labels]) == (5, 7)
    frame = Frame("y", 1.0)
    assert labelled_data(labels, frame, (5, 7)).semantic.tolist() == [2, 2, 1, 0, -100, -100]
    assert labelled_data(labels, frame, (7,)).semantic.tolist() == [1, 1, -100, 0, -100, -100]
    assert labelled_data(labels, frame, ()).semantic.tolist() == [1, 1, 1, 0, -100, 1]
    with pytest.raises(ValueError, match="cloud0: expected instances, got none"):
        labelled_data(replace(labels, instance=None), frame, ())


def test_targets_leave_out_what_nobody_labelled() -> None:
    labels = cloud(8, instance=np.array([4, 4, 9, 9, -1, -100, 6, 6]), semantic=np.array([2, 2, 3, 2, 0, 0, -1, -1]))
    (target,) = TestClouds([labels], Frame("z", 1.0), (2, 3), points=100).targets
    assert target.gt_classes.tolist() == [0, 0]  # ties go to the first
    assert sorted(target.gt_instance.tolist()) == [-1, -1, -1, -1, 0, 0, 1, 1]
    assert target.other.sum() == 3


def test_the_frame_keeps_digits_and_is_shared() -> None:
    """In map coordinates as at the origin; a stray point moves nothing; the largest cloud fills the unit sphere."""
    small, large = cloud(500, seed=1), cloud(500, seed=2)
    large = replace(large, pos=3 * large.pos)
    unit = common_unit([small, large])
    assert unit == common_unit([large]) > 2.5 * common_unit([small])
    frame = Frame("z", unit)
    far = large.pos + np.array([500_000.0, 5_400_000.0, 300.0])
    torch.testing.assert_close(frame.positions(far), frame.positions(large.pos), rtol=0, atol=1e-6)
    assert 0.9 < frame.positions(large.pos).norm(dim=1).max() < 1.2
    stray = np.vstack([large.pos, [[1e4, 0, 0]]])
    assert (frame.positions(stray)[:-1] - frame.positions(large.pos)).abs().max() < 0.1
    with pytest.raises(ValueError, match="got all points of each at one place"):
        common_unit([replace(small, pos=np.zeros((9, 3)))])


def test_embeddings_go_back_to_the_file() -> None:
    """Means where the points are, each σ on the axis of the file that it belongs to, in the unit of the file."""
    pos = 7 + 3 * np.random.default_rng(0).random((50, 3))
    for up, axis in (("x", 0), ("y", 1), ("z", 2)):
        frame = Frame(up, 2.0)  # type: ignore[arg-type]
        log_std = torch.zeros(50, 3)
        log_std[:, 1] = 1  # y is up
        back = frame.to_file(GaussianEmbedding(frame.positions(pos), log_std), pos)
        torch.testing.assert_close(back.mean, torch.from_numpy(pos), rtol=0, atol=1e-5)
        expected = torch.full((50, 3), float(np.log(2)), dtype=torch.float64)
        expected[:, axis] += 1
        torch.testing.assert_close(back.log_std, expected)


def test_pictures_have_the_unit_of_the_files() -> None:
    pos = 4 * np.random.default_rng(0).random((50, 3))
    frame = Frame("y", 2.0)
    shown, (mean, log_std) = frame.lengths_of_file(
        frame.positions(pos), GaussianEmbedding(frame.positions(pos), torch.zeros(50, 3))
    )
    for x in (shown, mean):
        torch.testing.assert_close(x.amax(0) - x.amin(0), torch.from_numpy(np.ptp(pos, axis=0)).float())
    torch.testing.assert_close(log_std.exp(), torch.full((50, 3), 2.0))


def test_training_clouds_have_equally_many_points() -> None:
    data = [labelled_data(cloud(n), Frame("z", 1.0), ()) for n in (40, 60)]
    for drawn in (TrainingClouds(data, 50)[i] for i in range(2)):
        assert drawn.pos.shape == (50, 3)
        assert drawn.instance.shape == drawn.semantic.shape == (50,)


def test_score_loss_suits_the_labels() -> None:
    """With one class and no background the score has nothing to tell but what is near a centre."""

    def chosen(values: tuple[int, ...], change: Callable[[np.ndarray[Any, Any]], Any] = lambda x: x) -> str | None:
        one = cloud(instance=change(np.arange(60) // 20))
        data = [labelled_data(one, Frame("z", 1.0), values)]
        return with_lengths(Options(class_values=values), data).score_loss

    assert chosen(()) == "complement"
    assert chosen((), lambda x: np.where(x == 0, -1, x)) == "center-aware"
    assert chosen((3, 4)) == "center-aware"


def test_settings_come_back() -> None:
    made = Settings(
        class_values=(3, 5), seen=(1, 2, 3), background=(), points=5, score_loss="complement", initial_std=1
    )
    assert Settings.read(json.loads(json.dumps(made.stored()))) == made
    with pytest.raises(ValueError, match="seen: expected int"):
        Settings.read({**made.stored(), "seen": [0.5]})


def test_presets_are_filled_in() -> None:
    few = resolve(Options(steps=60, points=100, batch_size=2), 200, 5_000)
    assert (few.epochs, few.steps) == (1, 60)
    assert resolve(Options(steps=60), 4, 5_000).steps == 50  # whole epochs
    with pytest.raises(ValueError, match="expected at least a step, a batch of 1 and 16 points, got 0, 4 and 2048"):
        resolve(Options(steps=0), 10, 5_000)


# --- plants


def test_plants_are_seeded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plants_main(["--output", str(tmp_path / "a"), "--plants", "2", "--points", "500", "--seed", "3"])
    assert capsys.readouterr().out.startswith("2 plants of 500 points in ")
    again = write_plants(tmp_path / "b", 2, points=500, seed=3)
    assert [file.read_bytes() for file in again] == [(tmp_path / "a" / file.name).read_bytes() for file in again]
    assert again[0].read_bytes() != again[1].read_bytes()
    pos, instance, classes = plant(np.random.default_rng(0))
    assert pos.shape == (4_000, 3)
    assert ((classes == STEM) == (instance == 0)).all()
    assert np.bincount(instance).min() >= 30
    (one,) = read_clouds(again[0])
    assert one.instance is not None
    assert one.semantic is not None
    assert fingerprint(one) != fingerprint(read_clouds(again[1])[0])
