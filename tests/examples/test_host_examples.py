"""The scripts that join hosts, started as a user starts them, in small."""

from __future__ import annotations

import re
from pathlib import Path

import example_runs
import pytest
from paths import PACKAGES, PROJECT

HOSTS = PROJECT / "examples" / "hosts"


def numbers(text: str, pattern: str) -> list[float]:
    return [float(value) for value in re.findall(pattern, text)]


def test_pyg_pointnet2() -> None:
    done = example_runs.run(PROJECT / "examples" / "pyg_pointnet2.py", "--shapes", 24, "--epochs", 3)
    assert done.returncode == 0, done.stderr
    losses = numbers(done.stdout, r"epoch \d+: loss (\d\.\d+)")
    assert losses == sorted(losses, reverse=True)
    assert len(numbers(done.stdout, r"AP of parts at IoU [\d.]+: (\d+\.\d) %")) == 3


@pytest.mark.parametrize("arguments", [(), ("--volumes",)])
def test_monai_windows(arguments: tuple[str, ...]) -> None:
    done = example_runs.run(HOSTS / "monai_windows.py", "--steps", 12, *arguments)
    assert done.returncode == 0, done.stderr
    assert 0 < numbers(done.stdout, r"loss (\d\.\d+) after 12 steps")[0] < 2
    assert len(numbers(done.stdout, r"AP of objects at IoU 0.5: (\d+\.\d) %")) == 1


def test_smp_unet() -> None:
    """On the interface of segmentation_models_pytorch; `make hosts` runs it on the package."""
    fakes = {"PYTHONPATH": f"{PACKAGES}:{PROJECT / 'tests/helpers/hosts'}"}
    done = example_runs.run(HOSTS / "smp_unet.py", environment=fakes)
    assert done.returncode == 0, done.stderr
    first, last = numbers(done.stdout, r"step \d+: loss (\d\.\d+)")
    assert last < 0.8 * first
    assert re.search(r"^\d+ objects in 2 images$", done.stdout, flags=re.M)


def test_lightning_hub(tmp_path: Path) -> None:
    done = example_runs.run(HOSTS / "lightning_hub.py", "--folder", tmp_path, "--epochs", 2)
    assert done.returncode == 0, done.stderr
    assert len(numbers(done.stdout, r"validation loss (\d+\.\d+)")) == 1
    assert {"config.json", "model.safetensors"} <= {file.name for file in tmp_path.iterdir()}
