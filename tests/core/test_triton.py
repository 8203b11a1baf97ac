"""The Triton twins without a GPU: their tests in Triton's interpreter, and their kernels compiled for GPUs, with the
oldest version that is supported, the newest and one between."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import PACKAGES, PROJECT

from probemb_lib import similarity_sums as module
from probemb_lib import twins

# Elsewhere Triton has no wheels. Where it has, the extra "dev" installs it, and without it these tests fail.
pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="Triton is for Linux on x86-64"
)

GPU_TESTS = PROJECT / "tests" / "gpu"
# What torch 2.10 and 2.7 bring; the newest is installed. For Python 3.14 there is no Triton 3.3.
OLDER = ["3.6.0", "3.3.1"] if sys.version_info < (3, 14) else ["3.6.0"]


def packages_of(version: str) -> Path:
    """A folder with this Triton, and the numpy that its interpreter needs, downloaded once."""
    folder = PROJECT / ".cache" / f"triton-{version}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            packages = Path(made) / "packages"
            install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages)]
            subprocess.run([*install, f"triton=={version}", "numpy<2.4"], check=True)
            with contextlib.suppress(OSError):  # another process was faster
                packages.rename(folder)
    return folder


def run_cases(version: str | None, *args: str, interpret: bool) -> str:
    """Run tests of tests/gpu without a GPU, with the installed Triton or another, and return pytest's last line."""
    first = [] if version is None else [str(packages_of(version))]
    path = os.pathsep.join([*first, PACKAGES])
    environment = {
        **os.environ,
        "TRITON_INTERPRET": str(int(interpret)),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": path,
    }
    check_version = "import sys, triton, pytest; assert sys.argv[1] in ('None', triton.__version__), triton.__version__"
    command = [sys.executable, "-c", f"{check_version}; sys.exit(pytest.main(sys.argv[2:]))", str(version)]
    command += ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *args]
    result = subprocess.run(command, cwd=GPU_TESTS, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    closing = result.stdout.strip().splitlines()[-1]
    assert "skipped" not in closing
    return closing


def test_in_the_interpreter() -> None:
    """tests/gpu/twin_cases.py on the CPU; none of them may be skipped."""
    installed = importlib.metadata.version("triton")
    needs_older_numpy = [int(n) for n in installed.split(".")[:2]] < [3, 7]
    closing = run_cases(installed if needs_older_numpy else None, "twin_cases.py", interpret=True)
    passed = re.match(r"(\d+) passed", closing)
    assert passed is not None, closing
    assert int(passed.group(1)) > 80


@pytest.mark.parametrize("version", OLDER)
def test_in_an_older_interpreter(version: str) -> None:
    run_cases(version, "twin_cases.py", "-k", "test_values_and_gradients and outside and plane", interpret=True)


@pytest.mark.parametrize("version", [None, *OLDER])
def test_compiled(version: str | None) -> None:
    wanted = [] if version is None else ["-k", "not weighted"]
    run_cases(version, "compiled_cases.py", *wanted, interpret=False)


def test_the_twin_is_for_cuda() -> None:
    assert not module._has_twin(torch.zeros(1, 3))
    assert not module._has_twin(torch.zeros(1, 3, dtype=torch.float64))


class OnCuda:
    """What is asked of a CUDA tensor before the twin is chosen."""

    is_cuda, device = True, torch.device("cuda", 0)

    def __init__(self, dim: int = 3, dtype: torch.dtype = torch.float32) -> None:
        self.shape, self.dtype = (5, dim), dtype


@pytest.fixture
def warned_before() -> Iterator[None]:
    """No test has an effect on what another is told."""
    twins.warn_once.cache_clear()
    yield
    twins.warn_once.cache_clear()


def test_when_the_twin_is_taken(monkeypatch: pytest.MonkeyPatch, warned_before: None) -> None:
    monkeypatch.setattr(module, "run_on", lambda device: True)
    assert module._has_twin(*[OnCuda()] * 4)
    assert module._has_twin(*[OnCuda(module.MAX_TWIN_DIM)] * 4)
    assert not module._has_twin(*[OnCuda()] * 3, OnCuda(dtype=torch.bfloat16))
    assert not module._has_twin(*[OnCuda(dtype=torch.float64)] * 4)
    with pytest.warns(UserWarning, match="at most 8 dimensions of the embedding, got 9"):  # would take long to compile
        assert not module._has_twin(*[OnCuda(module.MAX_TWIN_DIM + 1)] * 4)


# --- launch


@given(st.integers(1, 10**7), st.integers(1, 70_000), st.integers(1, 10**6), st.integers(1, 40))
def test_partial_sums_are_bounded(tiles: int, num_clouds: int, num_centers: int, columns: int) -> None:
    from probemb_lib._triton import similarity_sums as launches

    rows = launches.partial_rows(tiles, num_clouds, num_centers * columns)
    assert 1 <= rows <= tiles
    assert rows == 1 or rows * num_centers * columns <= launches.MAX_PARTIALS
    assert rows == 1 or rows * num_clouds <= launches.MAX_PROGRAMS


@given(st.integers(1, 40), st.booleans(), st.integers(0, 2))
def test_points_of_a_lane_fit_its_registers(dim: int, outside: bool, sets: int) -> None:
    from probemb_lib._triton import similarity_sums as launches

    points = launches.points_a_lane(dim, outside, sets)
    assert points in (1, 2, 4, 8)
    assert points == 1 or points * (2 * dim + 1 + sets * (2 * dim + 1)) <= launches.MAX_REGISTERS
