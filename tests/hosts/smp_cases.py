"""The example on segmentation_models_pytorch itself."""

from __future__ import annotations

import runpy
import sys

import pytest
from in_torch import torchvision_without_its_operators
from paths import PROJECT

torchvision_without_its_operators()
pytest.importorskip("segmentation_models_pytorch", reason="no segmentation-models-pytorch in HOST_SITE")


def test_the_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(PROJECT / "examples/hosts/smp_unet.py")
    monkeypatch.setattr(sys, "argv", [script])
    runpy.run_path(script, run_name="__main__")
    said = capsys.readouterr().out
    first, last = (float(line.rpartition(" ")[2]) for line in said.splitlines()[:2])
    assert last < 0.8 * first
    print(said)
