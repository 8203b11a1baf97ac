"""Real hosts, from the folders that `make hosts` is given: POINTCEPT=…, MMDET3D=…, EMBEDSEG=… and so on.

A host whose folder is not named is skipped with a message that says how to name it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def folder_of(variable: str, repository: str) -> Path:
    """The clone that a variable names, in front of everything else that is imported."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(
            f"{variable} is not set: make hosts {variable}=<a clone of github.com/{repository}>",
            allow_module_level=True,
        )
    folder = Path(value).resolve()
    if not folder.is_dir():
        raise NotADirectoryError(f"{variable}: expected a clone of github.com/{repository}, got {value}")
    sys.path.insert(0, str(folder))
    return folder
