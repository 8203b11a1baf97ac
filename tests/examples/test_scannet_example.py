"""The ScanNet example as a user starts it, for a few steps on coarse rooms, on the engine that is there."""

import csv
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import example_runs
import numpy as np
import pytest
import torch
from example_runs import read_metrics, run_until
from paths import PROJECT

from probemb_adapters.experiments import partnet, scannet
from probemb_adapters.networks.engines import pick_engine
from probemb_adapters.scannet import ScanNetScenes, evaluation_target
from probemb_adapters.scannet.files import scene_paths
from probemb_adapters.scannet.submission import read_submission
from probemb_adapters.training import start_fabric
from probemb_adapters.training.checkpoint import load_checkpoint
from probemb_lib import GaussianEmbedding
from probemb_lib.metrics import ScanNetAP
from probemb_shapes.rooms import write_rooms

SCANNET = PROJECT / "examples" / "scannet_minkowski.py"
METHODS = ["probabilistic", "learnable-margin"]
NETWORK = ["--accelerator", "cpu", "--backbone", "14A", "--voxel-size", "0.15", "--train-points", "400"]
FEW_STEPS = [*NETWORK, "--workers", "0", "--epochs", "2", "--batch-size", "2", "--held-out", "0.3"]

run = partial(example_runs.run, SCANNET)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven coarse rooms: six to train on, of which two are held out, and one for validation."""
    root = tmp_path_factory.mktemp("rooms") / "root"
    write_rooms(PROJECT / "data" / "scan_objects", root, scenes=7, cameras=6, spacing=0.08)
    return root


@pytest.fixture(scope="module")
def trained(rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of a training of both methods, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(*FEW_STEPS, "--root", rooms, "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def models(folder: Path) -> list[Path]:
    return [folder / method / "model.safetensors" for method in METHODS]


def test_both_methods_are_trained_evaluated_and_reported(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    metrics = read_metrics(folder)
    assert list(metrics["methods"]) == METHODS
    for method in metrics["methods"].values():
        assert 0 <= method["AP"] <= method["AP50"] <= method["AP25"] <= 100
        assert len(method["classes"]) == 18
        assert sum(method["class_instances"].values()) > 3
        assert len(method["training"]) == 2
        assert math.isfinite(method["training"][-1]["loss"])
        assert method["setting"] == float(max(method["held_out_ap50"], key=method["held_out_ap50"].get))
    assert metrics["data"] == "ScanNet"
    assert metrics["engine"] == pick_engine("auto", "cpu")
    assert [row["val_ap50"] for row in metrics["paper"]][-2:] == ["50.1", "57.1"]
    row = next(line for line in printed.splitlines() if line.startswith("probabilistic  "))
    values = metrics["methods"]["probabilistic"]
    assert [float(v) for v in row.split()[1:]] == pytest.approx([values[m] for m in ("AP", "AP50", "AP25")], abs=0.051)
    assert "Proposed+MinkowskiNet (paper)" in printed
    assert "another data set" not in printed  # as far as a root can tell

    lines = list(csv.DictReader((folder / "metrics.csv").open()))
    assert sum(line["source"] == "measured" for line in lines) == 2 * 19 * 3
    assert (folder / "shapes.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (folder / "report.html").read_text()
    assert "Objects found: learnable-margin" in page
    assert not [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".new"))]


def test_the_submission_has_the_reported_scores(rooms: Path, trained: tuple[Path, str]) -> None:
    scenes = ScanNetScenes(rooms, "val")
    for method in METHODS:
        metric = ScanNetAP()
        folder = trained[0] / "submission" / method
        found = read_submission(folder, {scene.scene_id: scene.num_vertices for scene in scenes})
        for predictions, scene in zip(found, scenes, strict=True):
            metric.update(predictions.masks, predictions.labels, predictions.scores, evaluation_target(scene))
        assert 100 * metric.compute()["ap25"] == pytest.approx(read_metrics(trained[0])["methods"][method]["AP25"])


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluating_the_checkpoints_gives_the_same_numbers(
    rooms: Path, trained: tuple[Path, str], tmp_path: Path, processes: int
) -> None:
    arguments = ["--root", rooms, "--accelerator", "cpu", "--output", tmp_path]
    done = run("--evaluate", *models(trained[0]), *arguments, processes=processes)
    assert done.returncode == 0, done.stderr
    before, after = read_metrics(trained[0])["methods"], read_metrics(tmp_path)["methods"]
    for method in METHODS:
        for key in ("AP", "AP50", "AP25", "classes", "class_instances", "setting"):
            assert after[method][key] == before[method][key]
    one, two = (sorted(p.name for p in (f / "submission").rglob("*.txt")) for f in (trained[0], tmp_path))
    assert one == two


def test_killed_in_the_second_method_and_resumed(rooms: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    arguments = [*FEW_STEPS, "--root", rooms, "--no-submission", "--output", tmp_path]
    last = tmp_path / METHODS[1] / "last.safetensors"
    run_until(SCANNET, *arguments, written=last)
    assert 1 <= load_checkpoint(last)["epoch"] <= 2
    done = run(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path)["methods"] == read_metrics(trained[0])["methods"]
    assert not (tmp_path / "submission").exists()


def test_training_in_two_processes(rooms: Path, tmp_path: Path) -> None:
    arguments = [*FEW_STEPS, "--root", rooms, "--methods", "probabilistic", "--output", tmp_path]
    done = run(*arguments, processes=2)
    assert done.returncode == 0, done.stderr
    assert "on 2 x cpu" in done.stdout
    method = read_metrics(tmp_path)["methods"]["probabilistic"]
    assert [math.isfinite(epoch["loss"]) for epoch in method["training"]] == [True, True]
    assert len(list((tmp_path / "submission" / "probabilistic").glob("*.txt"))) == 1


def test_test_scans_need_no_annotation(rooms: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "scannet"
    (scene_id,) = ScanNetScenes(rooms, "val").scene_ids
    mesh = scene_paths(root, scene_id).mesh
    mesh.parent.mkdir(parents=True)
    shutil.copy(scene_paths(rooms, scene_id).mesh, mesh)
    (root / "scannetv2_test.txt").write_text(f"{scene_id}\n")
    model, out = models(trained[0])[0], tmp_path / "out"
    done = run("--root", root, "--evaluate", model, "--split", "test", "--accelerator", "cpu", "--output", out)
    assert done.returncode == 0, done.stderr
    count = ScanNetScenes(root, "test")[0].num_vertices
    (found,) = read_submission(out / "submission" / "probabilistic", {scene_id: count})
    assert found.masks.shape[1] == count
    assert not (out / "metrics.json").exists()
    for extra in ([], ["--evaluate", model, "--no-submission"]):
        done = run("--root", root, "--split", "test", *extra, "--output", out)
        assert done.returncode != 0
        assert "--split test" in done.stderr


def test_predicting_scans_at_once_and_in_tiles(rooms: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    data = ScanNetScenes(rooms, "val")
    mesh = scene_paths(rooms, data.scene_ids[0]).mesh
    pos, rgb = (x.numpy() for x in (data[0].pos, data[0].rgb))
    np.savez(tmp_path / "y_up.npz", pos=np.stack([pos[:, 0], pos[:, 2], -pos[:, 1]], 1), rgb=rgb)
    np.savez(tmp_path / "far.npz", pos=pos + np.array([500_000.0, 5_400_000, 300]), rgb=rgb)
    arguments = ["--accelerator", "cpu", "--evaluate", models(trained[0])[0]]
    files = {}
    for name, extra in {
        "whole": ["--predict", mesh],
        "tiled": ["--predict", mesh, "--tile-size", "1.5", "--tile-overlap", "0.5"],
        "turned": ["--predict", tmp_path / "y_up.npz", "--up", "y"],
        "far": ["--predict", tmp_path / "far.npz"],
    }.items():
        done = run(*arguments, *extra, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
        (path,) = (tmp_path / name).glob("*.npz")
        with np.load(path) as file:
            files[name] = dict(file)
        assert (tmp_path / name / "report.html").stat().st_size > 100_000
    for found in files.values():
        assert found["instance"].shape == found["class"].shape == found["score"].shape == (len(pos),)
        assert ((found["score"] > 0) == (found["instance"] >= 0)).all()
    assert np.isfinite(files["tiled"]["mean"]).all()
    # In the frame of the file, whichever axis is up.
    for name in ("turned", "far"):
        offset = files[name]["mean"] - files[name]["pos"]
        assert np.abs(offset).max() <= 2.0 + 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--held-out", "1"], "--held-out: expected a share between 0 and 1"),
        (["--methods"], "--methods"),
        (["--methods", "probabilistic", "probabilistic"], "--methods: expected different ones"),
        (["--predict", "scan.ply"], "--predict needs one model"),
        (["--root", "nowhere"], "nowhere"),
        (["--objects", "objects.npz"], "--objects furnishes rooms to evaluate a model on"),
    ],
)
def test_errors_say_what_to_do(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(*arguments, "--output", tmp_path)
    assert done.returncode != 0
    assert message in done.stderr


def test_parts_of_objects_are_joined_in_rooms_where_they_are_refined() -> None:
    """And not on ScanNet, where the paper's clustering stands."""
    assert scannet.resolve(scannet.Options()).join == 0.2
    assert scannet.resolve(scannet.Options(refine=False)).join is None
    assert scannet.resolve(scannet.Options(root=Path("scannet"))).join is None
    with pytest.raises(SystemExit, match=r"--join 0.2 needs --refine True"):
        scannet.resolve(scannet.Options(root=Path("scannet"), join=0.2))


def test_the_model_clusters_with_its_settings() -> None:
    """Two halves of an object, apart for their seeds and one as a whole."""
    model = scannet.new_model("probabilistic", scannet.resolve(scannet.Options()), start_fabric(accelerator="cpu"))
    place = torch.arange(400).div(200, rounding_mode="floor").float()[:, None] * torch.tensor([0.6, 0.0, 0.0])
    wide = torch.arange(400) % 10 == 9
    log_std = torch.where(wide, 0.0, -2.0)[:, None].expand(-1, 3)
    probabilities = torch.where(wide, 0.6, 0.9)[:, None] * torch.tensor([0.0, 1.0])
    output = GaussianEmbedding(place, log_std), probabilities
    apart = replace(model, settings=replace(model.settings, join=None))
    assert len(apart.cluster(output, 0.1)) == 2
    assert len(model.cluster(output, 0.1)) == 1


def test_a_new_model_has_no_parameter_of_its_clustering(tmp_path: Path) -> None:
    options = scannet.resolve(scannet.Options())
    model = scannet.new_model("learnable-margin", options, start_fabric(accelerator="cpu"))
    with pytest.raises(ValueError, match="expected a model whose clustering was fitted"):
        _ = model.setting
    again = scannet.Model.load(model.with_setting(0.7, 0.9).save(tmp_path / "model.safetensors"))
    assert (again.method, again.setting, again.settings.shown_score) == ("learnable-margin", 0.7, 0.9)
    with pytest.raises(ValueError, match="unknown settings backbone, crop"):
        partnet.Model.load(tmp_path / "model.safetensors")


def test_scans_without_colours_are_predicted(trained: tuple[Path, str], tmp_path: Path) -> None:
    np.savez(tmp_path / "box.npz", pos=np.random.default_rng(0).random((900, 3)).astype(np.float32))
    done = run("--evaluate", models(trained[0])[0], "--predict", tmp_path / "box.npz", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "box.ply").exists()


def test_open_rooms_without_classes_and_with_other_objects(tmp_path: Path) -> None:
    arguments = [*FEW_STEPS, "--rooms", "5", "--methods", "probabilistic", "--epochs", "1", "--engine", "torch"]
    done = run(*arguments, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "another data set" in done.stdout
    assert "convolutions by plain torch" in done.stdout
    metrics = read_metrics(tmp_path)
    assert (metrics["data"], metrics["engine"]) == ("open rooms", "torch")
    assert list(metrics["methods"]["probabilistic"]["classes"]) == ["object"]
    assert metrics["methods"]["probabilistic"]["class_instances"]["object"] > 3
    assert "another data set" in (tmp_path / "report.html").read_text()
    masks = [line.split() for path in (tmp_path / "submission").rglob("scene*.txt") for line in path.open()]
    assert {label for _, label, _ in (line for line in masks if len(line) == 3)} <= {"39"}  # otherfurniture

    with np.load(PROJECT / "data" / "scan_objects" / "objects.npz") as file:
        few = {
            name: array for name, array in file.items() if name not in ("pos", "rgb", "ptr", "label", "library", "name")
        }
        chairs = np.flatnonzero(file["label"] == "chair")[:3]
        spans = [slice(*file["ptr"][row : row + 2]) for row in chairs]
        few |= {name: np.concatenate([file[name][span] for span in spans]) for name in ("pos", "rgb")}
        few |= {name: file[name][chairs] for name in ("label", "name")}
        few |= {"library": np.array(["another"] * 3), "ptr": np.append(0, np.cumsum([s.stop - s.start for s in spans]))}
    np.savez(tmp_path / "chairs.npz", **few)
    model = tmp_path / "probabilistic" / "model.safetensors"
    arguments = [
        "--rooms",
        "5",
        "--objects",
        tmp_path / "chairs.npz",
        "--evaluate",
        model,
        "--output",
        tmp_path / "new",
    ]
    done = run(*arguments, "--no-submission")
    assert done.returncode == 0, done.stderr
    metrics = read_metrics(tmp_path / "new")
    assert metrics["data"].startswith("open rooms with the objects of")
    assert {"AP", "AP50", "AP25"} <= set(metrics["methods"]["probabilistic"])


def test_the_papers_table_beside_ours(trained: tuple[Path, str], rooms: Path) -> None:
    """studies/paper_tables.py shows what a finished training of both methods found."""
    folder, _ = trained
    output = folder.parent / "tables"
    shutil.copytree(folder, output / "scannet")
    done = example_runs.run(
        PROJECT / "studies" / "paper_tables.py", "--data", "scannet", "--root", rooms, "--output", output
    )
    assert done.returncode == 0, done.stderr
    methods = read_metrics(folder)["methods"]
    rows = {line[0]: line[1:] for line in csv.reader((output / "table_6.csv").open())}
    for method in METHODS:
        expected = [methods[method][name] for name in ("AP", "AP50", "AP25")]
        assert [float(v) for v in rows[f"{method}, this run"]] == pytest.approx(expected, abs=1e-3)
    assert rows["Proposed+MinkowskiNet (paper)"] == ["33.0", "57.1", "73.8"]
    assert "1 of 1 trainings are there" in done.stdout
