"""Files that are complete or not there.

A file is written beside its place under a temporary name, flushed to the disk and then renamed, which the system does
at once: whenever the process dies, the place holds the old file or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Report = TypeVar("Report")

MANIFEST = "manifest.json"
"""Tells a complete folder of written data from a half one, and what it was written from."""


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of ``path`` when the block ends without an error.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replaced_file(Path(folder) / "metrics.json") as temporary:
    ...         _ = temporary.write_text("{}")
    ...     [p.name for p in Path(folder).iterdir()]
    ['metrics.json']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        usual = temporary.stat().st_mode
        yield temporary
        temporary.chmod(usual)  # safetensors leaves a file that others cannot read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_manifest(root: Path, made_from: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Say in ``root`` what its files were made from, their sizes, and what was reported of them."""
    manifest = {
        **made_from,
        "licences": "data/README.md and data/ATTRIBUTION.md of probemb_lib name every author and licence",
        "files": {p.relative_to(root).as_posix(): p.stat().st_size for p in sorted(root.rglob("*")) if p.is_file()},
        "report": dict(report),
    }
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(
    root: Path, made_from: Mapping[str, Any], report: Callable[[dict[str, Any]], Report]
) -> Report | None:
    """What ``report`` makes of the report of a folder that is complete and was made from the same, else None."""
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        current = all(manifest[name] == value for name, value in made_from.items())
        if not current or any((root / f).stat().st_size != size for f, size in manifest["files"].items()):
            return None
        return report(manifest["report"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing, cut off or of another making
        return None


def may_replace(root: Path) -> bool:
    """The folder is empty or was written with a manifest: nothing of the user's is lost with it."""
    return root.is_dir() and ((root / MANIFEST).is_file() or not any(root.iterdir()))
