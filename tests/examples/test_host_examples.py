"""The scripts that join hosts, in small, each as a program but in this process: imports take longer than they do."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from paths import PROJECT

HOSTS = PROJECT / "examples" / "hosts"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a script with its arguments and gives what it printed."""

    def run(script: Path, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        with torch.random.fork_rng():
            runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(text: str, pattern: str) -> list[float]:
    return [float(value) for value in re.findall(pattern, text)]


def test_pyg_pointnet2(said: Callable[..., str]) -> None:
    out = said(PROJECT / "examples" / "pyg_pointnet2.py", "--shapes", 16, "--epochs", 3)
    losses = numbers(out, r"epoch \d+: loss (\d\.\d+)")
    assert losses == sorted(losses, reverse=True)
    assert len(numbers(out, r"AP of parts at IoU [\d.]+: (\d+\.\d) %")) == 3


@pytest.mark.parametrize(("steps", "arguments"), [(12, ()), (6, ("--volumes",))])
def test_monai_windows(said: Callable[..., str], steps: int, arguments: tuple[str, ...]) -> None:
    out = said(HOSTS / "monai_windows.py", "--steps", steps, *arguments)
    first, last = numbers(out, r"step \d+: loss (\d\.\d+)")
    assert last < 0.9 * first
    assert len(numbers(out, r"AP of objects at IoU 0.5: (\d+\.\d) %")) == 1


def test_smp_unet(said: Callable[..., str]) -> None:
    """On the interface of segmentation_models_pytorch; `make hosts` runs it on the package."""
    out = said(HOSTS / "smp_unet.py")
    first, last = numbers(out, r"step \d+: loss (\d\.\d+)")
    assert last < 0.8 * first
    assert re.search(r"^\d+ objects in 2 images$", out, flags=re.M)


@pytest.mark.filterwarnings("ignore")
def test_lightning_hub(said: Callable[..., str], tmp_path: Path) -> None:
    out = said(HOSTS / "lightning_hub.py", "--folder", tmp_path, "--epochs", 2)
    assert len(numbers(out, r"validation loss (\d+\.\d+)")) == 1
    assert {"config.json", "model.safetensors"} <= {file.name for file in tmp_path.iterdir()}
