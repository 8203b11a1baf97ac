"""The Triton twin of the greedy clustering without a GPU: its tests in Triton's interpreter, and compiled for GPUs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import warnings

import pytest
import torch
from paths import PROJECT

from probemb_lib import twins
from probemb_lib.clustering import _rounds

# Elsewhere Triton has no wheels. Where it has, the extra "dev" installs it, and without it these tests fail.
needs_triton = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="Triton is for Linux on x86-64"
)


@needs_triton
def test_in_the_interpreter() -> None:
    """tests/gpu/greedy_cases.py on the CPU; none of them may be skipped."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "greedy_cases.py"]
    result = subprocess.run(
        command, cwd=PROJECT / "tests" / "gpu", env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    closing = result.stdout.strip().splitlines()[-1]
    passed = re.match(r"(\d+) passed", closing)
    assert passed is not None, closing
    assert int(passed.group(1)) > 90
    assert "skipped" not in closing


# --- where it is taken


class OnCuda:
    """What is asked of a CUDA tensor before the twin is chosen."""

    is_cuda, device = True, torch.device("cuda", 0)

    def __init__(self, *shape: int) -> None:
        self.shape = shape


@pytest.fixture(autouse=True)
def forget() -> None:
    """What was found and warned of before."""
    twins.missing.cache_clear()
    twins.warn_once.cache_clear()


def test_when_the_twin_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _rounds._has_twin(torch.zeros(5, 3))
    monkeypatch.setattr(_rounds, "run_on", lambda device: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _rounds._has_twin(OnCuda(_rounds.MAX_TWIN_POINTS, _rounds.MAX_TWIN_DIM))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="at most 8 dimensions of the embedding, got 9"):
        assert not _rounds._has_twin(OnCuda(5, 9))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="at most 2147483645 points, got 2147483646"):
        assert not _rounds._has_twin(OnCuda(2**31 - 2, 3))  # type: ignore[arg-type]


# --- compiled

TYPES = dict.fromkeys(["order", "left", "ptr", "part", "owner", "seeds"], "*i64")
TYPES |= {"limit": "*fp64", "could_seed": "*i8", "found": "*i32", "finished": "*i8"}


def compiled(name: str, capability: int, dim: int, double: bool) -> tuple[str, list[str]]:
    """PTX and instructions of a kernel as a launch would make them, which needs no GPU."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from probemb_lib._triton import greedy as launches
    from probemb_lib._triton import greedy_kernels as kernels

    kernel = getattr(kernels, name)
    block = launches.TABLE_BLOCK if name == "table_kernel" else launches.BLOCK
    constants = {"D": dim, "DOUBLE": double, "S": launches.CANDIDATES, "BLOCK": block, "CHUNK": launches.CHUNK}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    pointers = TYPES | dict.fromkeys(["mean", "log_std", "table"], "*fp64" if double else "*fp32")
    types = {key: "constexpr" if key in constants else pointers.get(key, "i32") for key in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, key in enumerate(kernel.arg_names) if key in pointers}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    options = {"num_warps": launches.WARPS if name == "settle_kernel" else 4, "enable_fp_fusion": True}
    made = compile_kernel(source, target=GPUTarget("cuda", capability, 32), options=options)
    return made.asm["ptx"], made.asm["sass"].splitlines()


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("dim", "double"), [(3, False), (8, False), (3, True)])
@pytest.mark.parametrize("name", ["table_kernel", "settle_kernel", "assign_kernel"])
def test_kernels_compile(name: str, dim: int, double: bool, capability: int) -> None:
    ptx, _ = compiled(name, capability, dim, double)
    assert f".target sm_{capability}" in ptx
    assert "atom." not in ptx


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_cost_of_a_pair(capability: int) -> None:
    """The loop over seeds: four points a lane, three reciprocal roots and a power each, nothing moved to memory."""
    _, lines = compiled("assign_kernel", capability, 3, False)
    place = {line[:-1]: i for i, line in enumerate(lines) if line.endswith(":")}
    jumps = [(i, re.search(r"BRA (\w+);", line)) for i, line in enumerate(lines)]
    loops = [lines[place[jump.group(1)] + 1 : i + 1] for i, jump in jumps if jump and place[jump.group(1)] < i]
    loop = min((loop for loop in loops if any("MUFU" in line for line in loop)), key=len)
    assert sum("MUFU" in line for line in loop) == 4 * 4
    assert not any(re.search(r"\b(STL|LDL|ATOM|RED)\b", line) for line in loop)
    assert len(loop) <= 4 * 45
