"""The notebooks run from top to bottom, draw what they say, and are committed without what they printed."""

from __future__ import annotations

from pathlib import Path

import example_runs
import nbformat
import pytest
from nbclient import NotebookClient
from paths import PROJECT

NOTEBOOKS = PROJECT / "docs" / "notebooks"
PICTURES = {"clouds": 6, "images": 6}


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_notebook(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", example_runs.ENVIRONMENT["PYTHONPATH"])
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own, which keeps pictures in the notebook
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == PICTURES[name]
