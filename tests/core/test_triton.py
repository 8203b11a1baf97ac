"""The Triton twins without a GPU: their tests in Triton's interpreter, and their kernels compiled for GPUs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import PROJECT

from probemb_lib import similarity_sums as module

# Elsewhere Triton has no wheels. Where it has, the extra "dev" installs it, and without it these tests fail.
pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="Triton is for Linux on x86-64"
)

GPU_TESTS = PROJECT / "tests" / "gpu"


def test_in_the_interpreter() -> None:
    """tests/gpu/twin_cases.py on the CPU; none of them may be skipped."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "twin_cases.py"]
    result = subprocess.run(command, cwd=GPU_TESTS, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    closing = result.stdout.strip().splitlines()[-1]
    passed = re.match(r"(\d+) passed", closing)
    assert passed is not None, closing
    assert int(passed.group(1)) > 80
    assert "skipped" not in closing


def test_the_twin_is_for_cuda() -> None:
    assert not module._has_twin(torch.zeros(1, 3))
    assert not module._has_twin(torch.zeros(1, 3, dtype=torch.float64))


class OnCuda:
    """What is asked of a CUDA tensor before the twin is chosen."""

    is_cuda, device = True, torch.device("cuda", 0)

    def __init__(self, dim: int = 3, dtype: torch.dtype = torch.float32) -> None:
        self.shape, self.dtype = (5, dim), dtype


def test_when_the_twin_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_triton_runs_on", lambda device: True)
    assert module._has_twin(*[OnCuda()] * 4)
    assert module._has_twin(*[OnCuda(module.MAX_TWIN_DIM)] * 4)
    assert not module._has_twin(*[OnCuda(module.MAX_TWIN_DIM + 1)] * 4)  # would take long to compile
    assert not module._has_twin(*[OnCuda()] * 3, OnCuda(dtype=torch.bfloat16))
    assert not module._has_twin(*[OnCuda(dtype=torch.float64)] * 4)


@pytest.mark.parametrize(
    ("version", "capability", "runs"),
    [("3.7.1", (8, 0), True), ("3.10.0", (9, 0), True), ("3.6.0", (9, 0), False), ("3.9.0", (7, 5), False)],
)
def test_where_triton_runs(
    version: str, capability: tuple[int, int], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert module._triton_runs_on.__wrapped__(torch.device("cuda", 0)) is runs


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


# --- compiled

TYPES = dict.fromkeys(["mean", "log_std", "weights", "table", "points", "centers", "partial", "grad"], "*fp32")
TYPES |= dict.fromkeys(["similar", "negative_log"], "*fp32")
TYPES |= dict.fromkeys(["instance", "order", "ptr", "instance_ptr", "cloud_of"], "*i64")


def compiled(name: str, capability: int, dim: int, outside: bool, weighted: bool, sets: int) -> tuple[str, list[str]]:
    """PTX and instructions of a kernel as a launch would make them, which needs no GPU."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from probemb_lib._triton import similarity_kernels as kernels
    from probemb_lib._triton import similarity_sums as launches

    kernel = getattr(kernels, name)
    constants = {
        **launches.Shape.of(dim, outside, weighted, sets)._asdict(),
        "BLOCK": launches.TABLE_BLOCK,
        "ORDERED": not weighted,
    }
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    types = {key: "constexpr" if key in constants else TYPES.get(key, "i32") for key in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(kernel.arg_names) if key in TYPES}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    options = {"num_warps": 1 if name == "pairs_kernel" else 4, "enable_fp_fusion": True}
    made = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
    return made.asm["ptx"], made.asm["sass"].splitlines()


def loop_over_centers(instructions: list[str]) -> list[str]:
    """The shortest loop with a reciprocal root."""
    place = {line[:-1]: i for i, line in enumerate(instructions) if line.endswith(":")}
    loops = []
    for i, line in enumerate(instructions):
        jump = re.search(r"BRA (\w+);", line)
        if jump and place[jump.group(1)] < i:
            loops.append(instructions[place[jump.group(1)] + 1 : i + 1])
    return min((loop for loop in loops if any("MUFU.RSQ" in line for line in loop)), key=len)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dim", "outside", "weighted", "sets", "instructions", "special"),
    [(3, False, False, 1, 60, 4), (3, True, False, 2, 168, 6), (2, True, True, 1, 85, 5)],
    ids=["dice", "dice and bce", "weighted"],
)
def test_pairs_kernel_compiled(
    capability: int, dim: int, outside: bool, weighted: bool, sets: int, instructions: int, special: int
) -> None:
    """No number of a lane is moved to memory, there are no atomics, and a pair costs what was designed for."""
    ptx, lines = compiled("pairs_kernel", capability, dim, outside, weighted, sets)
    assert not any(re.search(r"\b(STL|LDL|ATOM|RED)\b", line) for line in lines)
    assert "atom." not in ptx
    from probemb_lib._triton import similarity_sums as launches

    loop, pairs = loop_over_centers(lines), launches.points_a_lane(dim, outside, sets)
    assert sum("MUFU" in line for line in loop) == special * pairs
    assert len(loop) <= instructions * pairs


@pytest.mark.parametrize("name", ["table_kernel", "centers_kernel"])
@pytest.mark.parametrize("weighted", [False, True])
def test_other_kernels_compile(name: str, weighted: bool) -> None:
    ptx, _ = compiled(name, 90, 3, True, weighted, 1 if weighted else 2)
    assert ".target sm_90" in ptx
