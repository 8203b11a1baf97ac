"""The Triton kernels as launches compile them, which needs no GPU: instructions of a pair, registers, no atomics.

tests/core/test_triton.py runs these with several versions of Triton, each in a process of its own.
"""

from __future__ import annotations

import re

import pytest
from triton import compile as compile_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from probemb_lib._triton import similarity_kernels as kernels
from probemb_lib._triton import similarity_sums as launches

TYPES = dict.fromkeys(["mean", "log_std", "weights", "table", "points", "centers", "partial", "grad"], "*fp32")
TYPES |= dict.fromkeys(["similar", "negative_log"], "*fp32")
TYPES |= dict.fromkeys(["instance", "order", "ptr", "instance_ptr", "cloud_of"], "*i64")


def compiled(name: str, capability: int, dim: int, outside: bool, weighted: bool, sets: int) -> tuple[str, list[str]]:
    """PTX and instructions of a kernel as a launch would make them, which needs no GPU."""
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


@pytest.mark.parametrize(
    ("capability", "dim", "outside", "weighted", "sets", "instructions", "special"),
    [
        (80, 3, False, False, 1, 60, 4),
        (90, 3, False, False, 1, 60, 4),
        (90, 3, False, False, 0, 32, 4),
        (90, 3, True, False, 2, 170, 6),
        (90, 2, True, True, 1, 85, 5),
    ],
    ids=["dice, sm_80", "dice", "values of dice", "dice and bce", "weighted"],
)
def test_pairs_kernel(
    capability: int, dim: int, outside: bool, weighted: bool, sets: int, instructions: int, special: int
) -> None:
    """No number of a lane is moved to memory, there are no atomics, and a pair costs what was designed for."""
    ptx, lines = compiled("pairs_kernel", capability, dim, outside, weighted, sets)
    assert f".target sm_{capability}" in ptx
    assert not any(re.search(r"\b(STL|LDL|ATOM|RED)\b", line) for line in lines)
    assert "atom." not in ptx
    loop, pairs = loop_over_centers(lines), launches.points_a_lane(dim, outside, sets)
    assert sum("MUFU" in line for line in loop) == special * pairs
    assert len(loop) <= instructions * pairs


@pytest.mark.parametrize("name", ["table_kernel", "centers_kernel"])
@pytest.mark.parametrize("weighted", [False, True], ids=["sums", "weighted"])
def test_other_kernels(name: str, weighted: bool) -> None:
    ptx, _ = compiled(name, 90, 3, True, weighted, 1 if weighted else 2)
    assert ".target sm_90" in ptx
