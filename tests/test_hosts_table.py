"""The table of docs/backbones.md: its lines of glue are those of the files, its versions those of the interfaces."""

from __future__ import annotations

import ast
import importlib.metadata
import re

from paths import PROJECT

DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef


def code_lines(source: str) -> int:
    """Lines that hold code, without imports, docstrings, comments and brackets that close."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    lines = {node.lineno for node in nodes if isinstance(node, ast.stmt | ast.expr | ast.arg | ast.keyword)}
    left_out: list[ast.stmt] = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    left_out += [node.body[0] for node in nodes if isinstance(node, DOCUMENTED) and ast.get_docstring(node)]
    for node in left_out:
        lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


SOURCE = '''"""Docs

more."""
import os
# why
def f(x: int) -> int:
    """Docs."""
    return (
        x
    )
'''


def test_lines_are_counted() -> None:
    assert code_lines(SOURCE) == 3


def rows() -> list[list[str]]:
    text = (PROJECT / "docs/backbones.md").read_text("utf-8").partition("## What was run")[2]
    lines = [line for line in text.splitlines() if line.startswith("| [")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_counts_the_glue() -> None:
    assert len(rows()) == 12
    file, said, counted = "", {}, {}
    for host, _, _, _, glue, lines in rows():
        file = glue.strip("`") if glue != "the same" else file  # as the row above
        said[host], counted[host] = lines, str(code_lines((PROJECT / file).read_text("utf-8")))
    assert said == counted


def test_the_interfaces_are_of_the_versions_in_the_table() -> None:
    versions = {re.findall(r"\[(.+)\]", row[0])[0]: row[1] for row in rows()}
    fakes = PROJECT / "tests/helpers/hosts"
    for host, package in (
        ("Pointcept", "pointcept"),
        ("mmdetection3d", "mmdet3d"),
        ("segmentation_models.pytorch", "segmentation_models_pytorch"),
    ):
        first = (fakes / package / "__init__.py").read_text("utf-8").partition("\n")[0]
        assert all(part in first for part in versions[host].split(", ")), host
    for host, package in (("Lightning", "lightning"), ("MONAI", "monai"), ("PyTorch Geometric", "torch_geometric")):
        assert importlib.metadata.version(package).split(".")[0] == versions[host].split(".")[0], host  # the major one
