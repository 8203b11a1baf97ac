"""Sphinx: `sphinx-build -W -b html docs docs/_build/html`. Reads the source tree, so nothing has to be installed."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "shapes")]
sys.path.append(str(ROOT / "tests/helpers/hosts"))  # interfaces of hosts, whose decorators a mock would spoil

import probemb_lib  # noqa: E402

project = "probemb_lib"
author = "The probemb_lib authors"
release = version = probemb_lib.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"probemb_lib {release}"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # links such as decisions.md#the-background-column, as GitHub makes them

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "extra_repr"}
autodoc_typehints = "signature"
EXTRAS = [
    "MinkowskiEngine",
    "MinkowskiEngineBackend",
    "h5py",
    "huggingface_hub",
    "lightning",
    "lightning_fabric",
    "matplotlib",
    "plotly",
    "plyfile",
    "safetensors",
    "sklearn",
    "torch_geometric",
    "tqdm",
    "tyro",
]
autodoc_mock_imports = [name for name in EXTRAS if find_spec(name) is None]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def _skip_field(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """Fields of named tuples stand in the docstring already; their own is "Alias for field number 0"."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def _escape_bars(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """|x| is an absolute value in the docstrings, but a substitution in reStructuredText."""
    lines[:] = [
        line if line.lstrip().startswith((">>>", "...")) else re.sub(r"(``.*?``)|\|", lambda m: m[1] or r"\|", line)
        for line in lines
    ]


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _escape_bars)
    app.connect("autodoc-skip-member", _skip_field)
