"""Sphinx: `sphinx-build -W -b html docs docs/_build/html`. Reads the source tree, so nothing has to be installed.

The notebooks run where they changed, with the extras that they name; `-D nb_execution_mode=off` leaves them alone.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "adapters"), str(ROOT / "shapes")]
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:3], os.environ.get("PYTHONPATH", "")])  # of notebooks
sys.path.append(str(ROOT / "tests/helpers/hosts"))  # interfaces of hosts, whose decorators a mock would spoil

from docutils.nodes import SkipNode  # noqa: E402
from latex2mathml.converter import convert  # noqa: E402
from sphinx.util.logging import getLogger  # noqa: E402

import probemb_lib  # noqa: E402

project = "probemb_lib"
author = "The probemb_lib authors"
release = version = probemb_lib.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"probemb_lib {release}"
html_math_renderer = "mathml"  # below: every browser reads it, without a script and without a network

nb_execution_mode = "cache"  # notebooks are committed without outputs; run again where they changed
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_output_stderr = "remove"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # links such as decisions.md#the-background-column, as GitHub makes them

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "extra_repr"}
autodoc_typehints = "signature"
maximum_signature_line_length = 88
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
napoleon_attr_annotations = False  # the signature has the types
napoleon_use_rtype = False


def _skip_field(app: Any, what: str, name: str, obj: object, skip: bool, options: Any) -> bool | None:
    """Fields of named tuples stand in the docstring already; their own is "Alias for field number 0"."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def _tidy_docstring(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """What autodoc and napoleon would make ugly, before napoleon reads it."""
    if what == "module":  # its name, as a module has no line of its own
        lines[:0] = [f".. rubric:: {name}", ""]
    elif what in ("attribute", "data", "property"):  # "text: more" is not "type: description"
        lines[:0] = ["..", ""]
    elif lines[:1] == ["Define the computation performed at every call."]:  # torch's, of each forward without its own
        lines.clear()


ANY = r"~?(?:typing\.|numpy\.)?"
ARRAY = rf"{ANY}ndarray\[(?:tuple\[{ANY}Any, \.\.\.\]|{ANY}Any), {ANY}dtype\[{ANY}(\w+)\]\]"


def _short_signature(
    app: Any, what: str, name: str, obj: object, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """numpy's arrays by a short name, and defaults that Python can read, as otherwise lines break anywhere."""

    def short(text: str) -> str:
        return re.sub(ARRAY, r"NDArray[\1]", text.replace("<factory>", "..."))

    return signature and short(signature), returns and short(returns)


def _escape_bars(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """|x| is an absolute value in the docstrings, but a substitution in reStructuredText."""
    lines[:] = [
        line if line.lstrip().startswith((">>>", "...")) else re.sub(r"(``.*?``)|\|", lambda m: m[1] or r"\|", line)
        for line in lines
    ]


def _visit_math(translator: Any, node: Any) -> None:
    mathml = convert(node.astext(), display="block" if node.tagname == "math_block" else "inline")
    if "\\" in mathml:
        getLogger(__name__).warning("a command without MathML in: %s", node.astext(), location=node)
    translator.body.append(re.sub(FUNCTION, _spaced, mathml))
    raise SkipNode


FUNCTION = r"(<m(?:sub|sup|under|over)+>)?<mi>(ln|log|exp|max|sinh|cosh|tanh)</mi>(?!<mo[^>]*>[(&])"


def _spaced(function: re.Match[str]) -> str:
    """Thin spaces around the name of a function, as TeX has them; one before it where it carries an exponent."""
    script, name = function.groups()
    space = '<mspace width="0.17em"/>'
    return f"{script or ''}<mrow>{space}<mi>{name}</mi>{'' if script else space}</mrow>"


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math, None))
    app.connect("autodoc-process-docstring", _tidy_docstring, priority=400)
    app.connect("autodoc-process-docstring", _escape_bars)
    app.connect("autodoc-process-signature", _short_signature)
    app.connect("autodoc-skip-member", _skip_field)
