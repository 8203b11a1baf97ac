"""What the readers of all formats share: missing libraries, damaged files, and headers that claim too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probemb_adapters.files import missing_extra, what_instead


def missing(path: Path, library: str, extra: str, error: ImportError) -> ImportError:
    """The error of a format whose optional library is not installed."""
    return missing_extra(f"{path}: reading {path.suffix} files needs {library}", extra, error)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """A block that reads a file: whatever a library raises on it is a ValueError that names the file.

    ImportError passes, and so do our own errors, which begin with the path.
    """
    try:
        instead = what_instead(path)
        if instead is not None:
            raise ValueError(f"{path} is {instead}: expected a {path.suffix} file")
        yield
    except Exception as error:  # zlib.error, KeyError, OverflowError, RuntimeError …: each library has its own
        if isinstance(error, ImportError) or str(error).startswith(str(path)):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} is no readable {path.suffix.lstrip('.')} file ({reason}): damaged or truncated?"
        ) from error


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
