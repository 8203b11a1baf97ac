"""Files that are complete or not there, and folders with a manifest.

A file is written beside its place under a temporary name, flushed to the disk and then renamed, which the system does
at once: whenever the process dies, the place holds the old file or the new one. A folder of generated data is written
beside its place, too, and its manifest says what it was made from and the files' checksums::

    report = read_manifest(root, made_from, Report)
    if report is None:
        with replaced_folder(root) as new:
            report = ...  # write into new
            write_manifest(new, made_from, report)
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

Report = TypeVar("Report")

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_NO_ROOM = re.compile(
    "|".join([r"\d requested and \d+ written", *(rf"err(no =|or) {n}\b|{os.strerror(n)}" for n in _FULL)])
)

MANIFEST = "manifest.json"
"""Tells a complete folder of written data from a half one, and what it was written from."""

SUMS = "SHA256SUMS"
"""Says which content the files beside it have; written by `sha256sum`."""

LICENCES = "data/README.md and data/ATTRIBUTION.md of probemb_lib name every author and licence"
"""Goes into the manifest of what is made from this project's models."""


class NoRoomError(OSError):
    """A file or folder was not written, as the disk, the quota or the largest size of a file was reached."""


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Says of a full disk which file it kept from being written, in whatever words a library has for it."""
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or isinstance(error, NoRoomError) or _NO_ROOM.search(str(error)):
            there = "what was there is as it was" if path.exists() else "nothing is left of it"
            raise NoRoomError(
                f"{path} was not written, and {there}: the disk or the quota is full, or a file may not be that large "
                f"({str(error).splitlines()[-1]}); make room and run it again"
            ) from error
        raise


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
        with room_for(path):
            temporary.touch()
            usual = temporary.stat().st_mode
            yield temporary
            temporary.chmod(usual)  # safetensors leaves a file that others cannot read
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(root: str | Path, parts: Sequence[str | Path] = ()) -> Iterator[Path]:
    """An empty temporary folder to write into, which takes the place of ``root`` when the block ends without an error.

    An error, also KeyboardInterrupt, leaves ``root`` as it was; so does a new folder that cannot take the old one's
    place.

    Args:
        root: the folder to replace; its parents are made.
        parts: paths in it, files or folders. Given, only they are replaced, one after the other, and the rest of
            ``root`` stays: the last should be the one with the manifest.

    Raises:
        FileExistsError: without ``parts``, ``root`` holds things for which no manifest vouches.

    >>> with TemporaryDirectory() as folder:
    ...     with replaced_folder(Path(folder) / "data") as new:
    ...         _ = (new / "a.txt").write_text("a")
    ...     [p.relative_to(folder).as_posix() for p in Path(folder).rglob("*")]
    ['data', 'data/a.txt']
    """
    root = Path(root)
    if not parts and root.exists() and not may_replace(root):
        raise FileExistsError(f"{root} holds other things than this cache (no {MANIFEST}): pass an empty or new folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder:
        new, old = Path(folder) / "new", Path(folder) / "old"
        new.mkdir()
        with room_for(root):
            yield new
        for part in parts or ("",):
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            try:
                if (root / part).is_dir():  # a folder takes no other's place
                    (old / part).parent.mkdir(parents=True, exist_ok=True)
                    (root / part).rename(old / part)
                os.replace(new / part, root / part)
            except BaseException:
                if (old / part).is_dir() and not (root / part).exists():  # else it would go with the temporary folder
                    (old / part).rename(root / part)
                raise


def write_manifest(
    root: Path, made_from: Mapping[str, Any], report: Mapping[str, Any], at: str | Path = MANIFEST
) -> None:
    """Say in ``root``, in its file ``at``, what the files were made from, their checksums, and what is reported."""
    manifest = {
        **made_from,
        "files": {p.relative_to(root).as_posix(): _checksum(p) for p in sorted(root.rglob("*")) if p.is_file()},
        "report": dict(report),
    }
    (root / at).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(
    root: Path,
    made_from: Mapping[str, Any],
    report: Callable[[dict[str, Any]], Report],
    at: str | Path = MANIFEST,
) -> Report | None:
    """What ``report`` makes of the report of a folder that is complete and was made from the same, else None."""
    try:
        manifest = json.loads((root / at).read_text(encoding="utf-8"))
        current = all(manifest[name] == value for name, value in made_from.items())
        if not current or any(_checksum(root / f) != checksum for f, checksum in manifest["files"].items()):
            return None
        return report(manifest["report"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing, cut off or of another making
        return None


def _checksum(path: Path) -> str:
    """CRC-32 of a file: a gigabyte takes about a second."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def may_replace(root: Path) -> bool:
    """The folder is empty or was written with a manifest: nothing of the user's is lost with it."""
    return root.is_dir() and ((root / MANIFEST).is_file() or not any(root.iterdir()))


def what_instead(path: Path) -> str | None:
    """What lies in a file where a download or a copy went wrong: an empty file, an HTML page, a pointer; else None."""
    with path.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, such as a server sends instead of a file: download it again and look at the address"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS: get the file itself with git lfs pull"
    return "empty" if path.stat().st_size == 0 else None


def check_sum(path: Path) -> None:
    """Where the folder of a file has a file SHA256SUMS, as `sha256sum` writes it, and that names the file: compare.

    Raises:
        ValueError: the file has another content.

    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.bin"
    ...     _ = path.write_bytes(b"")
    ...     check_sum(path)
    ...     _ = path.with_name(SUMS).write_text(f"{'0' * 64}  a.bin")
    ...     try:
    ...         check_sum(path)
    ...     except ValueError as error:
    ...         print(str(error).replace(folder, "")[1:])
    a.bin is not the file that SHA256SUMS beside it names: damaged, or another. Take another copy of both
    """
    sums = path.with_name(SUMS)
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines() if sums.is_file() else []
    for line in lines:
        expected, _, name = line.partition(" ")
        if name.lstrip(" *") == path.name and expected != sha256(path):
            raise ValueError(
                f"{path} is not the file that {SUMS} beside it names: damaged, or another. Take another copy of both"
            )


def sha256(path: Path) -> str:
    """Of a file, as `sha256sum` writes it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def missing_extra(what: str, extra: str, error: ImportError) -> ImportError:
    """The error of a module whose optional library is not installed, with the way to it.

    The package is on no index: it is installed from a clone or a wheel.

    >>> print(missing_extra("the report needs plotly", "viz", ImportError("No module named 'plotly'")))
    the report needs plotly (No module named 'plotly'): pip install -e ".[viz]" in the clone of probemb_lib, or pip
    install "FILE.whl[viz]" of its wheel
    """
    return ImportError(
        f'{what} ({error}): pip install -e ".[{extra}]" in the clone of probemb_lib, or pip install '
        f'"FILE.whl[{extra}]" of its wheel'
    )


@contextmanager
def readable(path: Path, expected: str = "") -> Iterator[None]:
    """A block that reads a file: whatever a library raises on it is a ValueError that names the file.

    Where something else lies there, it says what was ``expected``, by default a file of that ending.

    ImportError passes, and so do our own errors, which begin with the path.

    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "a.npz"
    ...     _ = path.write_bytes(b"PK")
    ...     try:
    ...         with readable(path):
    ...             raise KeyError("pos")
    ...     except ValueError as error:
    ...         print(str(error).replace(folder, "")[1:])
    a.npz is no readable npz file ('pos'): damaged or truncated?
    """
    try:
        instead = what_instead(path)
        if instead is not None:
            raise ValueError(f"{path} is {instead}: expected {expected or f'a {path.suffix} file'}")
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


def commit_of(folder: str | Path) -> str | None:
    """The commit of a clone, with "-dirty" where files changed; None outside of one, or without git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def print_any_name() -> None:
    """Let names that a terminal cannot show be printed with question marks, where they would end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # not what a notebook or a test has put there
            stream.reconfigure(errors="replace")
