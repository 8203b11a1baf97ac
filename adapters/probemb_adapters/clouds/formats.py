"""What the readers of all formats share."""

from __future__ import annotations

from pathlib import Path


def missing(path: Path, library: str, extra: str, error: ImportError) -> ImportError:
    """The error of a format whose optional library is not installed."""
    return ImportError(
        f'{path}: reading {path.suffix} files needs {library} ({error}): pip install -e ".[{extra}]" in the clone of '
        f"probemb_lib, or pip install {library}"
    )
