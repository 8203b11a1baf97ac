"""Where the Triton twins run, on machines that lack one thing or another."""

from __future__ import annotations

import os
import shutil
import sys
import types
import warnings
from collections.abc import Iterator

import pytest
import torch

from probemb_lib.twins import missing, run_on, warn_once

look = missing.__wrapped__  # asks again each time


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    for known in (missing, warn_once):
        known.cache_clear()
    yield
    for known in (missing, warn_once):
        known.cache_clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Looks like one with all that the twin needs, until a test takes some of it."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="3.3.1"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "gcc" else None)
    monkeypatch.setattr(os.path, "exists", lambda path: path.endswith("Python.h"))
    return monkeypatch


@pytest.mark.parametrize("version", ["3.3.0", "3.6.0+git1234", "3.10.0", "4.0.0"])
def test_triton_that_runs(version: str, machine: pytest.MonkeyPatch) -> None:
    """Without an upper bound: a version newer than any that was tested is tried."""
    machine.setitem(sys.modules, "triton", types.SimpleNamespace(__version__=version))
    machine.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert look(torch.device("cuda", 0)) is None


def test_what_is_missing(machine: pytest.MonkeyPatch) -> None:
    """Taken away from the last question to the first."""
    gpu = torch.device("cuda", 0)
    assert look(gpu) is None
    machine.setattr(os.path, "exists", lambda path: False)
    assert "expected Python.h in" in str(look(gpu))
    machine.setattr(shutil, "which", lambda name: None)
    assert "expected a C compiler" in str(look(gpu))
    machine.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="3.2.0"))
    assert "expected Triton 3.3 or newer, got 3.2.0" in str(look(gpu))
    machine.setitem(sys.modules, "triton", None)
    assert "expected Triton 3.3 or newer, found none: pip install triton" in str(look(gpu))
    machine.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "compute capability 8.0 (Ampere) or newer, got 7.5" in str(look(gpu))
    machine.setattr(torch.version, "cuda", None)
    assert "expected an NVIDIA GPU" in str(look(gpu))


def test_one_warning_says_what_is_missing(machine: pytest.MonkeyPatch) -> None:
    machine.setitem(sys.modules, "triton", None)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            assert not run_on(torch.device("cuda", 0))
    assert [str(w.message) for w in seen] == [
        "the Triton kernels do not run here, and plain torch is many times slower: expected Triton 3.3 or newer, found "
        "none: pip install triton"
    ]


def test_no_warning_where_they_run(machine: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_on(torch.device("cuda", 0))
