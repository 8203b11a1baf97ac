"""The example as a user starts it, for a few steps."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from probemb_adapters.furniture import write_furniture

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLE = PROJECT / "examples" / "partnet_pointnet2.py"
FEW_STEPS = ["--epochs", "1", "--max-shapes", "4", "--train-points", "256", "--points", "600", "--device", "cpu"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'adapters'}"}
    command = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=environment, timeout=300)


@pytest.fixture(scope="module")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("partnet") / "root"
    write_furniture(PROJECT / "data" / "furniture_parts", root)
    return root


def test_class_agnostic_demo_trains_evaluates_and_draws(tmp_path: Path) -> None:
    done = run(*FEW_STEPS, "--batch-size", "2", "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["class_ap"]) == ["part"]
    assert len(metrics["part_map"]) == len(metrics["shape_map"]) == 3
    assert all(0 <= ap <= 1 for ap in metrics["part_map"])
    assert metrics["part_map"] == sorted(metrics["part_map"], reverse=True)  # a stricter IoU never finds more
    assert math.isfinite(metrics["training_loss"][0])
    assert metrics["options"]["class_agnostic"] is True
    picture = tmp_path / "run" / "shapes.png"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 50_000
    table = next(line for line in done.stdout.splitlines() if line.startswith("part mAP"))
    assert [float(v) for v in table.split()[2:]] == pytest.approx([100 * v for v in metrics["part_map"]], abs=0.051)


def test_partnet_root_takes_the_paper_settings_and_repeats(furniture: Path, tmp_path: Path) -> None:
    arguments = [*FEW_STEPS, "--root", furniture, "--level", "3", "--workers", "0"]
    results = []
    for name in ("first", "second"):
        done = run(*arguments, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    assert results[0]["options"]["batch_size"] == 16
    assert results[0]["options"]["halve_at"] == [0.1, 0.3]
    assert results[0]["options"]["class_agnostic"] is False
    assert len(results[0]["class_ap"]) == 13
    for key in ("training_loss", "part_map", "class_ap", "threshold", "validation"):
        assert results[0][key] == results[1][key], key


def test_a_wrong_category_says_what_there_is(furniture: Path, tmp_path: Path) -> None:
    done = run(*FEW_STEPS, "--root", furniture, "--category", "Chair", "--output", tmp_path)
    assert done.returncode != 0
    assert "holds Furniture" in done.stderr


def test_help_names_the_paper_values() -> None:
    done = run("--help")
    assert done.returncode == 0
    for text in ("--root", "--category", "--level", "paper: 500", "paper: 16", "paper: 0.001"):
        assert text in done.stdout
