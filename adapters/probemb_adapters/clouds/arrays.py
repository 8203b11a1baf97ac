"""Arrays: npy, npz and h5. An array of a usual name has the positions; what has as many rows are their properties."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from probemb_adapters.clouds.cloud import Array, Cloud, Stored
from probemb_adapters.clouds.formats import missing
from probemb_adapters.clouds.hdf5_words import check_words
from probemb_adapters.files import check_claim

POSITION_NAMES = ("pos", "pts", "points", "xyz", "positions", "coord", "coords")
"""Names of an array of positions in npz and h5 files, the first that is there counts."""

_AXES = tuple(
    rf"(?:pos(?:ition)?|coord(?:inate)?)?[ _.:]*{axis}[ _.:]*(?:pos(?:ition)?|coord(?:inate)?|mm|cm|m)?|{word}"
    for axis, word in (("x", "east(?:ing)?"), ("y", "north(?:ing)?"), ("z", "height|elevation|altitude"))
)

_PACKING = 1_032  # of deflate


def read_npy(path: Path, columns: Sequence[str] | None) -> list[Stored]:
    """One array: (N, 3), (B, N, 3), (N, C) with ``columns``, or with fields x, y, z."""
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)  # a claim larger than the file is refused at once
    array = np.array(array)
    if array.dtype.names:
        return _clouds(path, {name: np.ascontiguousarray(array[name]) for name in array.dtype.names})
    if array.ndim == 2 and (columns or array.shape[1] > 3):
        return named_columns(path, [*array.T], columns)
    return _clouds(path, {"pos": array})


def read_npz(path: Path) -> list[Stored]:
    """All arrays but those that hold Python objects, which are never opened: they could run code."""
    with path.open("rb") as file:
        if file.read(1) == b"\x80":  # what pickle begins with
            raise ValueError(f"{path} is a pickle of Python objects, which could run code: save arrays with np.savez")
    pickled = []
    with ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, dtype = _npy_header(file)
            if dtype.hasobject:
                pickled.append(member.filename.removesuffix(".npy"))
            rows = shape[0] if shape else 0
            check_claim(path, rows, math.prod(shape) * dtype.itemsize, packing=_PACKING)
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files if name not in pickled}
    if pickled and not _has_positions(found):
        raise ValueError(
            f"{path}: expected arrays of numbers, got Python objects in {', '.join(pickled)}, which could run code: "
            "save each cloud in a file of its own, np.savez(path, pos=...)"
        )
    return _clouds(path, found)


def read_h5(path: Path) -> list[Stored]:
    """The arrays of the file; groups are not entered."""
    try:
        import h5py
    except ImportError as error:
        raise missing(path, "h5py", "clouds", error) from error
    with h5py.File(path, "r") as file:
        for name in POSITION_NAMES:
            if isinstance(file.get(name), h5py.Group):
                raise ValueError(
                    f"{path}: expected an array {name}, got a group of {', '.join(file[name]) or 'nothing'}: write "
                    "the positions (N, 3) as an array of the file itself"
                )
        arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        for item in arrays.values():
            rows = item.shape[0] if item.shape else 0
            check_claim(path, rows, math.prod(item.shape or ()) * item.dtype.itemsize, packing=_PACKING)
        groups = [f"{name} (a group)" for name in file if name not in arrays]
        text = {name: item for name, item in arrays.items() if h5py.check_string_dtype(item.dtype)}
        if text:
            check_words(path, text.values())
        found = {name: item[()] for name, item in arrays.items() if item.dtype.kind in "fiub"}
        found |= {name: np.array(item.asstr(errors="replace")[()], dtype=np.str_) for name, item in text.items()}
        return _clouds(path, found, groups)


def write_npz(path: Path, cloud: Cloud, added: Mapping[str, Array]) -> None:
    """Positions under the name that they had, else `pos`, properties, and what is added."""
    name = cloud.layout if isinstance(cloud.layout, str) else "pos"
    with path.open("wb") as file:
        np.savez_compressed(
            file, allow_pickle=False, **{name: cloud.pos.astype(cloud.stored), **cloud.properties, **added}
        )


def named_columns(path: Path, values: Sequence[Array], names: Sequence[str] | None, layout: Any = None) -> list[Stored]:
    """A table whose columns have names, of which :func:`axes_of` finds the positions.

    Without names the first three columns are, and the others are `column4`, `column5`, ….
    """
    if names is None:
        names = ["x", "y", "z", *(f"column{i + 1}" for i in range(3, len(values)))][: len(values)]
    if len(names) != len(values) or len(set(names)) < len(names):
        raise ValueError(
            f"{path}: expected {len(values)} different names, one a column, got {', '.join(names)}: name them, such as "
            'columns=["x", "y", "z", "red", "green", "blue", "instance"]'
        )
    table = dict(zip(names, values, strict=True))
    axes = axes_of(names)
    if not axes:
        raise ValueError(
            f"{path}: expected columns x, y, z, got {', '.join(names)}: name them so in the file's first line, or by "
            'columns=["x", "y", "z", "instance"]'
        )
    pos = np.stack([table.pop(axis) for axis in axes], axis=1)
    return [Stored(pos, table, layout)]


def axes_of(names: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns x, y and z, in any case; else of those that say so with a unit, or as maps do.

    >>> axes_of(["Tree", "Z", "Y", "X"]), axes_of(["X [mm]", "Y [mm]", "Z [mm]"]), axes_of(["x", "y"])
    (('X', 'Y', 'Z'), ('X [mm]', 'Y [mm]', 'Z [mm]'), ())
    >>> axes_of(["Northing", "Easting", "Height (m)"]), axes_of(["pos_x", "pos_y", "pos_z"])
    (('Easting', 'Northing', 'Height (m)'), ('pos_x', 'pos_y', 'pos_z'))
    """
    for forms in (("x", "y", "z"), _AXES):
        found = [[name for name in names if re.fullmatch(form, _bare(name))] for form in forms]
        if all(len(of_axis) == 1 for of_axis in found):
            return tuple(name for (name,) in found)
    return ()


def _bare(name: str) -> str:
    """Without a unit in brackets."""
    return re.sub(r"[\[(].*", "", name).strip().lower()


def _clouds(path: Path, arrays: Mapping[str, Array], others: Sequence[str] = ()) -> list[Stored]:
    """The clouds of (N, 3) or (B, N, 3) positions with what has as many rows."""
    if not _has_positions(arrays):
        names = ", ".join([*arrays, *others]) or "none"
        raise ValueError(f"{path}: expected an array {', '.join(POSITION_NAMES)}, got {names}")
    name = next((name for name in POSITION_NAMES if name in arrays), None)
    pos = np.stack([arrays[axis] for axis in "xyz"], axis=-1) if name is None else arrays[name]
    if pos.ndim not in (2, 3) or pos.shape[-1] != 3 or pos.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected positions (N, 3) or (B, N, 3), got {pos.shape} {pos.dtype}")
    own = ("x", "y", "z") if name is None else (name,)
    rows = pos.shape[:-1]
    properties = {n: a for n, a in arrays.items() if n not in own and a.shape[: len(rows)] == rows}
    classes = arrays.get("class_names", np.zeros(0))
    class_names = tuple(map(str, classes)) if classes.ndim == 1 and classes.dtype.kind == "U" else ()
    if pos.ndim == 2:
        return [Stored(pos, properties, name, class_names)]
    return [Stored(pos[i], {n: a[i] for n, a in properties.items()}, name, class_names) for i in range(len(pos))]


def _has_positions(arrays: Mapping[str, Array]) -> bool:
    return any(name in arrays for name in POSITION_NAMES) or {"x", "y", "z"} <= set(arrays)


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
