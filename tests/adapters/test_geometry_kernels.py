"""The kernels of PointNet++'s geometry without a GPU: their cases in Triton's interpreter, and compiled for GPUs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from paths import PROJECT

# Elsewhere Triton has no wheels. Where it has, the extra "dev" installs it, and without it these tests fail.
pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="Triton is for Linux on x86-64"
)


def test_in_the_interpreter() -> None:
    """tests/gpu/geometry_kernel_cases.py on the CPU; none of them may be skipped."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "geometry_kernel_cases.py",
    ]
    result = subprocess.run(
        command, cwd=PROJECT / "tests" / "gpu", env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    closing = result.stdout.strip().splitlines()[-1]
    passed = re.match(r"(\d+) passed", closing)
    assert passed is not None, closing
    assert int(passed.group(1)) > 60
    assert "skipped" not in closing


def compiled(kernel: Any, capability: int, warps: int, dtype: str, **constants: float) -> tuple[str, str]:
    """PTX and instructions of a kernel as a launch would make them, which needs no GPU."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = dict.fromkeys(["planes", "distance", "centers", "limit", "queries", "squares"], f"*{dtype}")
    pointers |= dict.fromkeys(["first", "samples", "index"], "*i64")
    types = {key: "constexpr" if key in constants else pointers.get(key, "i32") for key in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(kernel.arg_names) if key in pointers}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    made = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
    return made.asm["ptx"], made.asm["sass"]


def check(ptx: str, sass: str, capability: int) -> None:
    """Every product but dx² is in a fused multiply-add, subnormal numbers are kept, and registers suffice."""
    assert f".target sm_{capability}" in ptx
    assert len(re.findall(r"\bfma\.rn\.f", ptx)) == 2 * len(re.findall(r"\bmul(?:\.rn)?\.f", ptx)) > 0
    assert "ftz" not in ptx
    assert re.search(r"\b(STL|LDL)\b", sass) is None  # no number of a lane is moved to memory


CAPABILITIES = pytest.mark.parametrize("capability", [80, 90])


@CAPABILITIES
@pytest.mark.parametrize(
    ("dtype", "points"),
    [("fp32", 1_000), ("fp32", 4_096), ("fp32", 10_000), ("fp32", 65_536), ("fp64", 4_000)],
)
def test_farthest_points_compiled(capability: int, dtype: str, points: int) -> None:
    from probemb_adapters.networks._triton import farthest_points as module

    warps, chunk, chunks = module.shape(points, 4 if dtype == "fp32" else 8)
    if chunks > 0:
        made = compiled(module.in_registers_kernel, capability, warps, dtype, CHUNK=chunk, CHUNKS=chunks)
    else:
        made = compiled(module.in_memory_kernel, capability, warps, dtype, CHUNK=chunk)
    check(*made, capability)


@CAPABILITIES
@pytest.mark.parametrize("dtype", ["fp32", "fp64"])
def test_neighbors_compiled(capability: int, dtype: str) -> None:
    from probemb_adapters.networks._triton import balls, nearest

    made = compiled(balls.balls_kernel, capability, 1, dtype, LANES=balls.LANES, GROUP=8)
    check(*made, capability)
    largest = torch.finfo(torch.float32 if dtype == "fp32" else torch.float64).max
    sizes = {"K": 3, "LARGEST": largest, "LANES": nearest.LANES, "GROUP": 4}
    check(*compiled(nearest.nearest_kernel, capability, 4, dtype, **sizes), capability)
