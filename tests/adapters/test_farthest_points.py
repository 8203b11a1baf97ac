"""Farthest points in Triton without a GPU: their cases in Triton's interpreter, and the kernels compiled for GPUs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest
from paths import PROJECT

# Elsewhere Triton has no wheels. Where it has, the extra "dev" installs it, and without it these tests fail.
pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="Triton is for Linux on x86-64"
)


def test_in_the_interpreter() -> None:
    """tests/gpu/farthest_cases.py on the CPU; none of them may be skipped."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "farthest_cases.py"]
    result = subprocess.run(
        command, cwd=PROJECT / "tests" / "gpu", env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    closing = result.stdout.strip().splitlines()[-1]
    passed = re.match(r"(\d+) passed", closing)
    assert passed is not None, closing
    assert int(passed.group(1)) > 35
    assert "skipped" not in closing


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "points"),
    [("fp32", 1_000), ("fp32", 4_096), ("fp32", 10_000), ("fp32", 65_536), ("fp64", 4_000)],
)
def test_compiled(capability: int, dtype: str, points: int) -> None:
    """Every product but dx² is in a fused multiply-add, subnormal numbers are kept, and registers suffice."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from probemb_adapters.networks._triton import farthest_points as launches

    warps, chunk, chunks = launches.shape(points, 4 if dtype == "fp32" else 8)
    kernel = launches.in_registers_kernel if chunks > 0 else launches.in_memory_kernel
    constants = {"CHUNK": chunk, **({"CHUNKS": chunks} if chunks > 0 else {})}
    pointers = {"planes": f"*{dtype}", "distance": f"*{dtype}", "first": "*i64", "samples": "*i64"}
    types = {key: "constexpr" if key in constants else pointers.get(key, "i32") for key in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(kernel.arg_names) if key in pointers}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    made = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx, sass = made.asm["ptx"], made.asm["sass"]
    assert f".target sm_{capability}" in ptx
    assert len(re.findall(r"\bfma\.rn\.f", ptx)) == 2 * len(re.findall(r"\bmul(?:\.rn)?\.f", ptx)) > 0
    assert "ftz" not in ptx
    assert re.search(r"\b(STL|LDL)\b", sass) is None  # no number of a lane is moved to memory
