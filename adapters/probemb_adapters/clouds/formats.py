"""What the readers of all formats share."""

from __future__ import annotations

from pathlib import Path

from probemb_adapters.files import missing_extra


def missing(path: Path, library: str, extra: str, error: ImportError) -> ImportError:
    """The error of a format whose optional library is not installed."""
    return missing_extra(f"{path}: reading {path.suffix} files needs {library}", extra, error)
