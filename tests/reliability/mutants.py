"""What a mutant is: the core with one operator, number, condition, loop or decorator changed, by cosmic-ray.

One replacement a place and not cosmic-ray's eleven: the others, such as ``a + b`` to ``a << b``, mostly raise, and
would only make the score look better.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

BINARY = (
    "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_Mul Pow_Mul BitAnd_BitOr BitOr_BitAnd LShift_RShift RShift_LShift"
)
COMPARISON = "Eq_NotEq NotEq_Eq Lt_LtE LtE_Lt Gt_GtE GtE_Gt Is_IsNot IsNot_Is"
UNARY = "Delete_USub Delete_Not Delete_Invert"
OTHERS = (
    "NumberReplacer AddNot ReplaceAndWithOr ReplaceOrWithAnd ReplaceTrueWithFalse ReplaceFalseWithTrue "
    "ReplaceBreakWithContinue ReplaceContinueWithBreak ZeroIterationForLoop RemoveDecorator ExceptionReplacer"
)
OPERATORS = [
    *(f"ReplaceBinaryOperator_{name}" for name in BINARY.split()),
    *(f"ReplaceComparisonOperator_{name}" for name in COMPARISON.split()),
    *(f"ReplaceUnaryOperator_{name}" for name in UNARY.split()),
    *OTHERS.split(),
]


class Place(NamedTuple):
    """Where an operator can change a file, named from the root: the ``occurrence``-th place that it finds there."""

    file: str
    line: int
    operator: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.operator} {self.occurrence}"


class Mutant(NamedTuple):
    """``before`` and ``after`` are the changed lines: by these it is known when lines above have changed."""

    place: Place
    source: str
    before: str
    after: str


def places_of(root: Path, file: str) -> list[Place]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator

    nodes = list(ast_nodes(get_ast((root / file).read_text(encoding="utf-8"))))
    found = []
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        lines = [start[0] for node in nodes for start, _ in operator.mutation_positions(node)]
        found += [Place(file, line, name, occurrence) for occurrence, line in enumerate(lines)]
    return found


def mutant_at(root: Path, place: Place) -> Mutant | None:
    """``None`` where the change leaves no Python, or only another annotation, which is never evaluated."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = (root / place.file).read_text(encoding="utf-8")
    mutated = mutate_code(source, get_operator(f"core/{place.operator}")(), place.occurrence)
    if mutated is None or _meaning(mutated) in (None, _meaning(source)):
        return None
    return Mutant(place, mutated, *_changed_lines(source, mutated))


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node


def _meaning(source: str) -> str | None:
    try:
        return ast.dump(_WithoutAnnotations().visit(ast.parse(source)))
    except SyntaxError:
        return None


def _changed_lines(before: str, after: str) -> tuple[str, str]:
    old, new = before.splitlines(), after.splitlines()
    first = next(i for i, (x, y) in enumerate(zip(old, new, strict=False)) if x != y)
    last = next(i for i, (x, y) in enumerate(zip(old[::-1], new[::-1], strict=False)) if x != y)
    old, new = old[first : len(old) - last], new[first : len(new) - last]
    return " ".join(line.strip() for line in old), " ".join(line.strip() for line in new)
