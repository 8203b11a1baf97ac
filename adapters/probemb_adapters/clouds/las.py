"""Las and laz through laspy: scale, offset, classification and extra dimensions are kept; positions are float64."""

from __future__ import annotations

import copy
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probemb_adapters.clouds.cloud import Array, Cloud, Stored
from probemb_adapters.clouds.formats import missing
from probemb_adapters.clouds.laz import decompressed
from probemb_adapters.files import check_claim

_PACKING = 10_000  # equal points take next to nothing in a laz file


def read_las(path: Path) -> list[Stored]:
    """The points of a las or laz file: all dimensions of its point format and its extra bytes."""
    laspy = _laspy(path)
    _check_records(path)
    with laspy.open(path) as file:
        header = file.header
        packing = _PACKING if header.are_points_compressed else 1
        start = 0 if header.are_points_compressed else header.offset_to_point_data
        check_claim(path, header.point_count, start + header.point_count * header.point_format.size, packing=packing)
        if header.are_points_compressed:
            _check_chunks(path, header.offset_to_point_data)
            las = laspy.LasData(header, _decompressed(path, header))
        else:
            las = file.read()
    names = [name for name in las.point_format.dimension_names if name not in ("X", "Y", "Z")]
    return [Stored(np.asarray(las.xyz), {name: np.asarray(las[name]) for name in names}, las)]


def _decompressed(path: Path, header: Any) -> Any:
    """The points of a laz file, which laspy would decompress in this process."""
    laspy, form = _laspy(path), header.point_format.dtype()
    records, expected = decompressed(path), header.point_count * form.itemsize
    if len(records) != expected:
        raise ValueError(
            f"{path}: expected {header.point_count} points by its header, got {len(records)} bytes of them"
        )
    points = np.frombuffer(records, form)
    return laspy.ScaleAwarePointRecord(points, header.point_format, header.scales, header.offsets)


def write_las(path: Path, cloud: Cloud, added: Mapping[str, Array]) -> None:
    """The las or laz file that the cloud came from, with more extra dimensions; ``path`` is what is written."""
    laspy = _laspy(path)
    old = cloud.layout
    new = laspy.LasData(copy.deepcopy(old.header), old.points)  # the old header stays without the new dimensions
    for records in (new.vlrs, new.evlrs or []):  # the index of a copc.laz, which laspy cannot write; the rest stays
        records[:] = [record for record in records if record.user_id != "copc"]
    new.add_extra_dims([laspy.ExtraBytesParams(name, values.dtype) for name, values in added.items()])
    for name, values in added.items():
        new[name] = values
    with path.open("wb") as file:
        new.write(file, do_compress=cloud.path is not None and cloud.path.suffix.lower() == ".laz")


def _check_records(path: Path) -> None:
    """The records of variable length that the header claims fit into the file: laspy would look for each."""
    with path.open("rb") as file:
        start = file.read(375)
    fields = [("<I", 100, 54)] + ([("<I", 243, 60)] if start[24:26] == b"\1\4" else [])  # format, place, bytes of each
    for form, place, each in fields:
        if len(start) >= place + struct.calcsize(form):
            (records,) = struct.unpack_from(form, start, place)
            check_claim(path, records, records * each, what="records")


def _check_chunks(path: Path, start: int) -> None:
    """The chunks that a laz file's table claims fit into it: the library would take memory for them, and abort."""
    with path.open("rb") as file:
        file.seek(start)
        (table,) = struct.unpack("<q", file.read(8))
        if table == -1:  # written by a stream, which could not go back: it stands at the end
            file.seek(-8, 2)
            (table,) = struct.unpack("<q", file.read(8))
        file.seek(table + 4)  # behind its version
        (chunks,) = struct.unpack("<I", file.read(4))
    check_claim(path, chunks, chunks, what="chunks")


def _laspy(path: Path) -> Any:
    try:
        import laspy
    except ImportError as error:
        raise missing(path, "laspy[lazrs]", "clouds", error) from error
    return laspy
