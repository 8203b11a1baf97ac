"""What the readers of all formats share: missing libraries, and headers that claim too much."""

from __future__ import annotations

from pathlib import Path


def missing(path: Path, library: str, extra: str, error: ImportError) -> ImportError:
    """The error of a format whose optional library is not installed."""
    return ImportError(
        f'{path}: reading {path.suffix} files needs {library} ({error}): pip install -e ".[{extra}]" in the clone of '
        f"probemb_lib, or pip install {library}"
    )


def check_claim(path: Path, points: int, needed: int, *, packing: int = 1, what: str = "points") -> None:
    """Refuse a header that claims more than the file can hold, before memory is taken.

    Args:
        needed: bytes of the points, at least.
        packing: how many times smaller compression may make them.

    Raises:
        ValueError: the file is too small.
    """
    size = path.stat().st_size
    if needed > size * packing:
        raise ValueError(
            f"{path}: the header claims {points} {what}, {needed} bytes, but the file has {size}: damaged or truncated?"
        )
