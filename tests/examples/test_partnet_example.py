"""The PartNet example as a user starts it, for a few steps."""

import csv
import math
import shutil
from functools import partial
from pathlib import Path

import example_runs
import numpy as np
import pytest
import torch
from example_runs import read_metrics, run_until
from paths import PROJECT

from probemb_adapters.clouds import read_clouds
from probemb_adapters.experiments import partnet
from probemb_adapters.partnet.detection import write_detection
from probemb_adapters.partnet.predictions import evaluate_files
from probemb_adapters.training import start_fabric
from probemb_adapters.training.checkpoint import load_checkpoint
from probemb_shapes.furniture import write_furniture

PARTNET = PROJECT / "examples" / "partnet_pointnet2.py"
QUICK = ["--max-shapes", "4", "--points", "600", "--accelerator", "cpu"]
FEW_STEPS = [*QUICK, "--epochs", "1", "--train-points", "256", "--batch-size", "2", "--width", "0.25"]
run = partial(example_runs.run, PARTNET)


@pytest.fixture(scope="module")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("partnet") / "root"
    write_furniture(PROJECT / "data" / "furniture_parts", root)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder of a class-agnostic training on the furniture with the baselines, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(*FEW_STEPS, "--baselines", "--local-geometry", "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_training_evaluates_and_reports(trained: tuple[Path, str]) -> None:
    folder, printed = trained
    metrics = read_metrics(folder)
    assert list(metrics["methods"]) == [
        "probabilistic",
        "DBSCAN on positions",
        "HDBSCAN on positions",
        "mean shift on positions",
    ]
    for method in metrics["methods"].values():
        for name in ("part mAP", "shape mAP"):
            assert len(method[name]) == 3
            assert all(0 <= value <= 100 for value in method[name])
            assert method[name] == sorted(method[name], reverse=True)  # a stricter IoU never finds more
        assert list(method["class_ap"]) == ["part"]
        assert method["parameters"]
    assert math.isfinite(metrics["training"][0]["loss"])
    assert metrics["options"]["class_agnostic"] is True
    assert metrics["paper"] == {}
    row = next(line for line in printed.splitlines() if line.startswith("probabilistic"))
    values = metrics["methods"]["probabilistic"]
    assert [float(v) for v in row.split()[1:]] == pytest.approx(values["part mAP"] + values["shape mAP"], abs=0.051)

    lines = list(csv.DictReader((folder / "metrics.csv").open()))
    line = next(
        x for x in lines if (x["method"], x["metric"], x["iou_threshold"]) == ("probabilistic", "part mAP", "0.5")
    )
    assert float(line["percent"]) == pytest.approx(values["part mAP"][1], abs=1e-3)
    assert (folder / "shapes.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (folder / "report.html").read_text()
    assert "DBSCAN on positions" in page
    assert "plotly" in page.lower()
    assert any((folder / "tensorboard").rglob("events*"))
    assert not list(folder.rglob("*.tmp"))


def test_the_model_is_saved_before_it_is_evaluated(furniture: Path, tmp_path: Path) -> None:
    """Hours of training survive an evaluation that fails, here for want of a split."""
    root, folder = tmp_path / "root", tmp_path / "output"
    shutil.copytree(furniture, root)
    for file in (root / "ins_seg_h5" / "Furniture").glob("val-*"):
        file.rename(tmp_path / file.name)
    arguments = ["--root", root, "--class-agnostic", "True", "--workers", "0", "--output", folder]
    done = run(*FEW_STEPS, *arguments)
    assert done.returncode != 0
    assert "no val-*.h5" in done.stderr
    model = partnet.Model.load(folder / "model.safetensors")
    assert model.settings.threshold is None
    for file in tmp_path.glob("val-*"):
        file.rename(root / "ins_seg_h5" / "Furniture" / file.name)
    done = run(*QUICK, *arguments, "--evaluate", folder / "model.safetensors")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluating_the_checkpoint_gives_the_same_numbers(
    trained: tuple[Path, str], tmp_path: Path, processes: int
) -> None:
    model = trained[0] / "model.safetensors"
    done = run(*QUICK, "--evaluate", model, "--output", tmp_path, processes=processes)
    assert done.returncode == 0, done.stderr
    once, again = read_metrics(trained[0])["methods"]["probabilistic"], read_metrics(tmp_path)["methods"]
    assert again == {"probabilistic": once}


def test_refinement_is_an_option_of_evaluation_and_prediction(trained: tuple[Path, str], tmp_path: Path) -> None:
    """Its own threshold and numbers; the file of the model stays as it is."""
    model = trained[0] / "model.safetensors"
    before = model.read_bytes()
    done = run(*QUICK, "--evaluate", model, "--refine", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    refined = read_metrics(tmp_path)["methods"]["probabilistic"]
    assert refined["part mAP"] != read_metrics(trained[0])["methods"]["probabilistic"]["part mAP"]
    assert model.read_bytes() == before

    np.savez(tmp_path / "box.npz", pos=np.random.default_rng(0).random((600, 3)).astype(np.float32))
    scores = []
    predict = ["--points", "600", "--evaluate", model, "--predict", tmp_path / "box.npz"]
    for number, options in enumerate(([], ["--refine"], ["--refine", "--threshold", "0.9"])):
        out = tmp_path / str(number)
        done = run(*predict, *options, "--output", out)
        assert done.returncode == 0, done.stderr
        with np.load(out / "box.npz") as found:
            scores.append(found["score"].tolist())
    assert scores[0] != scores[1] != scores[2]


def test_small_parts_are_left_out(trained: tuple[Path, str], tmp_path: Path) -> None:
    """Of 600 points none has 601: nothing is found."""
    done = run(*QUICK, "--evaluate", trained[0] / "model.safetensors", "--min-points", 601, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path)["methods"]["probabilistic"]["part mAP"] == [0, 0, 0]


def test_predicting_files(trained: tuple[Path, str], tmp_path: Path) -> None:
    pos = np.random.default_rng(0).random((900, 3)).astype(np.float32)
    np.savez(tmp_path / "box.npz", pos=pos)
    model = trained[0] / "model.safetensors"
    out = tmp_path / "out"
    utm = pos + np.array([500_000, 5_400_000, 300])
    (tmp_path / "Blätter").mkdir()
    np.savetxt(tmp_path / "Blätter" / "Kürbis.csv", utm, "%.9f", ",", header="x,y,z", comments="")
    files = ["--predict", tmp_path / "box.npz", tmp_path / "Blätter"]
    terminal = {"PYTHONIOENCODING": "ascii"}  # finishes, and prints K?rbis
    done = run("--points", "600", "--evaluate", model, *files, "--up", "z", "--output", out, environment=terminal)
    assert done.returncode == 0, done.stderr
    assert "K?rbis: " in done.stderr + done.stdout
    (far,) = read_clouds(out / "Kürbis.csv")
    np.testing.assert_allclose(far.pos, utm, rtol=0, atol=1e-8)
    with np.load(out / "box.npz") as found:
        np.testing.assert_array_equal(found["pos"], pos)
        assert found["instance"].shape == found["score"].shape == (900,)
        assert found["instance"].max() >= 0
        np.testing.assert_array_equal(far.instance, found["instance"])  # in UTM coordinates as at the origin
        assert found["mean"].shape == (900, 3)
    assert (out / "box.ply").stat().st_size > 900 * 12
    assert "box" in (out / "report.html").read_text()
    twice = run("--evaluate", model, "--predict", tmp_path / "box.npz", tmp_path / "box.npz", "--output", out)
    assert twice.returncode != 0
    assert "expected different names" in twice.stderr
    alone = run("--predict", tmp_path / "box.npz", "--output", out)
    assert alone.returncode != 0
    assert "--predict needs one model" in alone.stderr


def test_killed_and_resumed_with_the_paper_settings(furniture: Path, tmp_path: Path) -> None:
    arguments = [
        *QUICK,
        "--train-points",
        "256",
        "--root",
        furniture,
        "--level",
        "3",
        "--workers",
        "0",
        "--epochs",
        "6",
    ]
    arguments += ["--batch-size", "4", "--width", "0.25", "--epoch-shapes", "12"]
    done = run(*arguments, "--output", tmp_path / "whole")
    assert done.returncode == 0, done.stderr

    last = tmp_path / "killed" / "last.safetensors"
    run_until(PARTNET, *arguments, "--output", tmp_path / "killed", written=last)
    assert 1 <= load_checkpoint(last)["epoch"] <= 6
    done = run(*arguments, "--output", tmp_path / "killed", "--resume")
    assert done.returncode == 0, done.stderr

    whole, resumed = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "killed")
    assert whole["training"] == resumed["training"]
    assert whole["methods"] == resumed["methods"]
    assert whole["options"]["schedule"] == "halved"
    assert whole["options"]["class_agnostic"] is False
    assert len(whole["methods"]["probabilistic"]["class_ap"]) == 13
    one, two = (load_checkpoint(tmp_path / name / "model.safetensors")["model"] for name in ("whole", "killed"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=0, msg=name)


def test_official_files_give_the_same_numbers_and_are_read_as_network_ready_ones(
    furniture: Path, tmp_path: Path
) -> None:
    steps = ["--train-points", "256", "--batch-size", "2", "--width", "0.25", "--epochs", "1", "--epoch-shapes", "4"]
    done = run(
        *steps, "--accelerator", "cpu", "--root", furniture, "--workers", "0", "--official-files", "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    metrics = read_metrics(tmp_path)["methods"]["probabilistic"]
    result = evaluate_files(tmp_path / "ins_seg_h5_gt" / "Furniture-1", tmp_path / "predictions", 1).compute()
    np.testing.assert_allclose(100 * result["part_map"], metrics["part mAP"], rtol=0, atol=0)
    np.testing.assert_allclose(100 * result["shape_map"], metrics["shape mAP"], rtol=1e-12)

    ready = tmp_path / "ready"
    shutil.copytree(furniture / "stats", ready / "stats")
    for split in ("val", "test"):
        write_detection(furniture, "Furniture", 1, split, output=ready)
    arguments = ["--evaluate", tmp_path / "model.safetensors", *QUICK]
    results = []
    for root in (furniture, ready):
        done = run(*arguments, "--root", root, "--output", tmp_path / root.name)
        assert done.returncode == 0, done.stderr
        results.append(read_metrics(tmp_path / root.name)["methods"])
    assert results[0] == results[1]


def test_errors_say_what_to_do(furniture: Path, tmp_path: Path) -> None:
    done = run(*FEW_STEPS, "--root", furniture, "--category", "Chair", "--output", tmp_path)
    assert done.returncode != 0
    assert "holds Furniture" in done.stderr
    (tmp_path / "model.safetensors").write_bytes(b"half")
    done = run(*QUICK, "--evaluate", tmp_path / "model.safetensors", "--output", tmp_path)
    assert done.returncode != 0
    assert "no readable safetensors file" in done.stderr
    options = partnet.resolve(partnet.Options(class_agnostic=False, width=0.25))
    model = partnet.new_model(("seat", "back"), options, start_fabric(accelerator="cpu"))
    model.save(tmp_path / "model.safetensors")
    done = run(*QUICK, "--root", furniture, "--evaluate", tmp_path / "model.safetensors", "--output", tmp_path)
    assert done.returncode != 0
    assert "probabilistic knows the classes ('seat', 'back'), but the data have" in done.stderr


def test_help_names_the_paper_values() -> None:
    done = run("--help")
    assert done.returncode == 0
    for text in (
        "--root",
        "--category",
        "--level",
        "paper: 500",
        "paper: 16",
        "paper: 0.001",
        "paper: rotated by up to 15",
    ):
        assert text in " ".join(done.stdout.replace("│", " ").split())
