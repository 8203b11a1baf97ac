"""Ply: ascii and binary of either byte order; all properties of the vertices, and everything else written back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from probemb_adapters.clouds.cloud import Array, Cloud, Stored
from probemb_adapters.clouds.formats import missing
from probemb_adapters.files import check_claim

_BYTES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}
_TRIANGLES = {"vertex_indices": 3, "vertex_index": 3}


def read_ply(path: Path) -> list[Stored]:
    """The vertices of a ply file."""
    plyfile = _plyfile(path)
    _check_header(path)
    try:  # triangles are read at once, other lists one by one
        ply = plyfile.PlyData.read(path, mmap="r", known_list_len={"face": _TRIANGLES})
    except plyfile.PlyParseError:
        ply = plyfile.PlyData.read(path, mmap=False)
    for element in ply.elements:
        element.data = np.array(element.data)  # the file may be replaced while the cloud is in use
    if "vertex" not in ply:
        raise ValueError(f"{path}: expected an element vertex, got {', '.join(e.name for e in ply) or 'none'}")
    vertex = ply["vertex"].data
    names = vertex.dtype.names or ()
    if not {"x", "y", "z"} <= set(names):
        raise ValueError(f"{path}: expected vertices with x, y, z, got {', '.join(names) or 'none'}")
    pos = np.stack([_native(vertex[name]) for name in "xyz"], axis=1)
    others = {name: _native(vertex[name]) for name in names if name not in "xyz" and vertex[name].dtype != object}
    return [Stored(pos, others, ply)]


def write_ply(path: Path, cloud: Cloud, added: Mapping[str, Array]) -> None:
    """The ply file that the cloud came from, with more properties of its vertices; ``path`` is what is written."""
    plyfile, ply = _plyfile(path), cloud.layout
    old = ply["vertex"]
    vertex = np.empty(len(old.data), dtype=[*old.data.dtype.descr, *((n, a.dtype.str) for n, a in added.items())])
    for name in old.data.dtype.names:
        vertex[name] = old.data[name]
    for name, values in added.items():
        vertex[name] = values
    lists = {p.name: (p.len_dtype, p.val_dtype) for p in old.properties if hasattr(p, "len_dtype")}
    new = plyfile.PlyElement.describe(
        vertex,
        "vertex",
        len_types={name: kinds[0] for name, kinds in lists.items()},
        val_types={name: kinds[1] for name, kinds in lists.items()},
        comments=old.comments,
    )
    plyfile.PlyData(
        [new if element.name == "vertex" else element for element in ply.elements],
        text=ply.text,
        byte_order=ply.byte_order,
        comments=ply.comments,
        obj_info=ply.obj_info,
    ).write(path)


def write_painted(path: Path, pos: Array, columns: Mapping[str, Array]) -> None:
    """A little-endian ply of positions and properties; float where that holds the positions exactly, else double."""
    plyfile = _plyfile(path)
    exact = np.array_equal(pos.astype(np.float32), pos)
    fields = [*((axis, "<f4" if exact else "<f8") for axis in "xyz"), *((n, a.dtype.str) for n, a in columns.items())]
    vertex = np.empty(len(pos), dtype=fields)
    for i, axis in enumerate("xyz"):
        vertex[axis] = pos[:, i]
    for name, values in columns.items():
        vertex[name] = values
    plyfile.PlyData([plyfile.PlyElement.describe(vertex, "vertex")], byte_order="<").write(path)


def _plyfile(path: Path) -> Any:
    try:
        import plyfile
    except ImportError as error:
        raise missing(path, "plyfile", "clouds", error) from error
    return plyfile


def _native(values: Array) -> Array:
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _check_header(path: Path) -> None:
    """The elements that the header claims fit into the file."""
    needed, text, element, vertices = 0, False, 0, 0
    with path.open("rb") as file:
        for line in islice(file, 10_000):
            words = line.decode("latin-1").split()
            if words[:1] == ["format"]:
                text = words[1:2] == ["ascii"]
            elif words[:1] == ["element"] and len(words) == 3:
                element = int(words[2])
                vertices = element if words[1] == "vertex" else vertices
            elif words[:1] == ["property"]:
                kind = words[2] if words[1] == "list" else words[1]
                needed += element * (2 if text else _BYTES.get(kind, 1))  # a digit and a space
            elif words[:1] == ["end_header"]:
                break
    check_claim(path, vertices, needed)
