"""HDF5 files of a data set: checked before they are read, and written one row at a time, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from probemb_adapters.files import missing_extra, room_for

try:
    import h5py
except ImportError as error:
    raise missing_extra("PartNet's files need h5py", "partnet", error) from error

Array = np.ndarray[Any, np.dtype[Any]]

_KINDS = {"floats": "f", "integers": "iu", "bool": "b"}  # numpy's letters


@contextmanager
def open_h5(path: Path, reading: str = "") -> Iterator[Any]:
    """An open `h5py.File`; ``reading`` says what is read, such as "shape 3", in a file that is known to open.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file, or what is read inside the block, is truncated or corrupt.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except Exception as error:  # beside OSError, h5py has a TypeError or RuntimeError for some damages
        if str(error).startswith(str(path)):
            raise
        fault = (
            f"{path}, {reading} cannot be read" if reading else f"{path} is no readable HDF5 file, perhaps truncated"
        )
        raise OSError(f"{fault} ({error}): unpack or write the file again") from error


def check_arrays(path: Path, expected: Mapping[str, tuple[tuple[int | str, ...], str]]) -> dict[str, int]:
    """Check the shapes and types of a file's arrays; no array is read.

    Args:
        path: the file.
        expected: for each array its sizes and `floats`, `integers` or `bool`. A size is a number, or a letter
            that stands for the same number in all arrays.

    Returns:
        the number of each letter.

    Raises:
        FileNotFoundError, OSError: as :func:`open_h5`.
        ValueError: an array is missing, or of another shape or type.
    """
    sizes: dict[str, int] = {}
    with open_h5(path) as file:
        for name, (letters, kind) in expected.items():
            array = file.get(name)
            want = tuple(sizes.get(x, x) if isinstance(x, str) else x for x in letters)
            if not (isinstance(array, h5py.Dataset) and array.dtype.kind in _KINDS[kind] and _fits(array.shape, want)):
                got = f"{array.shape} {array.dtype}" if isinstance(array, h5py.Dataset) else f"no {name}"
                hint = " to fit the other arrays" if want != letters else ""
                raise ValueError(f"{path}: expected {name} ({', '.join(map(str, want))}) of {kind}{hint}, got {got}")
            sizes |= {x: int(n) for x, n in zip(letters, array.shape, strict=True) if isinstance(x, str)}
    return sizes


def _fits(shape: tuple[int, ...], want: tuple[int | str, ...]) -> bool:
    return len(shape) == len(want) and all(isinstance(w, str) or w == n for w, n in zip(want, shape, strict=True))


def write_rows(path: Path, count: int, rows: Iterable[Mapping[str, Array]]) -> None:
    """Stack ``count`` rows of arrays in a new file: gzip, a chunk a row, one row in memory at a time."""
    with h5py.File(path, "w") as file:
        for row, arrays in enumerate(rows):
            for name, array in arrays.items():
                if row == 0:
                    chunk = (1, *array.shape)
                    file.create_dataset(name, (count, *array.shape), array.dtype, chunks=chunk, compression="gzip")
                file[name][row] = array


@contextmanager
def new_files(folder: Path, pattern: str) -> Iterator[Path]:
    """A temporary folder, the files of which move into ``folder`` at the end of the block.

    An error inside the block leaves ``folder`` as it was. Readers look for the h5 files: these move last.

    Raises:
        FileExistsError: ``folder`` has files of that pattern already.
    """
    found = sorted(folder.glob(pattern))
    if found:
        raise FileExistsError(f"{found[0]} is there already: remove {folder / pattern}, or write into another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with room_for(folder / pattern), TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        yield Path(temporary)
        folder.mkdir(exist_ok=True)
        for path in sorted(Path(temporary).iterdir(), key=lambda p: (p.suffix == ".h5", p.name)):
            os.replace(path, folder / path.name)
