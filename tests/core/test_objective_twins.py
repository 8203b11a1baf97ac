"""The Triton kernels of segments and members without a GPU: tested in Triton's interpreter, and compiled for GPUs."""

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

from probemb_lib import segments

# Elsewhere Triton has no wheels. Where it has, the extra "dev" installs it, and without it these tests fail.
pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="Triton is for Linux on x86-64"
)


def test_in_the_interpreter() -> None:
    """tests/gpu/objective_cases.py on the CPU; none of them may be skipped."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "objective_cases.py"]
    folder = PROJECT / "tests" / "gpu"
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    closing = result.stdout.strip().splitlines()[-1]
    passed = re.match(r"(\d+) passed", closing)
    assert passed is not None, closing
    assert int(passed.group(1)) > 80
    assert "skipped" not in closing


def test_when_the_twins_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCuda:
        is_cuda, device = True, torch.device("cuda", 0)

        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

    for runs in (True, False):
        monkeypatch.setattr(segments, "run_on", lambda device, runs=runs: runs)
        assert segments.has_twin(OnCuda(torch.float32)) is runs  # type: ignore[arg-type]
    assert not segments.has_twin(OnCuda(torch.float64))  # type: ignore[arg-type]
    assert not segments.has_twin(torch.zeros(1))


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_parts_of_a_segment(points: int, number: int) -> None:
    """None is smaller than asked for, and their number is bounded."""
    from probemb_lib._triton import segments as launches

    parts = launches.parts_of_segment(points, number)
    assert 1 <= parts <= launches.MAX_PARTS
    assert parts == 1 or (points // number) / parts > launches.PART / 2


TYPES = dict.fromkeys(["x", "result", "moments", "centers", "log_kappa", "slopes", "share"], "*fp32")
TYPES |= dict.fromkeys(["ptr", "size", "instance"], "*i64")


def compiled(kernel: object, capability: int, constants: dict[str, object], **types: str) -> tuple[str, list[str]]:
    """PTX and instructions of a kernel as a launch would make them, which needs no GPU."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names  # type: ignore[attr-defined]
    all_types = {key: "constexpr" if key in constants else (TYPES | types).get(key, "i32") for key in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(names) if key in TYPES}
    source = ASTSource(kernel, all_types, constexprs=constants, attrs=aligned)
    made = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": True})
    return made.asm["ptx"], made.asm["sass"].splitlines()


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize(
    ("x", "result", "block"), [("*fp32", "*fp32", 32), ("*fp32", "*fp64", 1024), ("*fp64", "*fp32", 8)]
)
def test_segments_compiled(capability: int, largest: bool, x: str, result: str, block: int) -> None:
    """One launch, and the first and the second of two: no atomics, nothing moved to memory."""
    from probemb_lib._triton.segments import reduce_kernel

    constants = {"stride": 1, "LARGEST": largest, "LAST": result == "*fp32", "BLOCK": block}
    ptx, lines = compiled(reduce_kernel, capability, constants, x=x, result=result)
    assert "atom." not in ptx
    assert not any(re.search(r"\b(STL|LDL|ATOM|RED)\b", line) for line in lines)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("dim", [1, 3, 8])
def test_members_compiled(capability: int, independent: bool, dim: int) -> None:
    from probemb_lib._triton.member_similarity import BLOCK, own_kernel

    constants = {"D": dim, "INDEPENDENT": independent, "BLOCK": BLOCK}
    ptx, lines = compiled(own_kernel, capability, constants)
    assert f".target sm_{capability}" in ptx
    assert not any(re.search(r"\b(STL|LDL|ATOM|RED)\b", line) for line in lines)
