"""Whether the words of an HDF5 file can be read to an end."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\1\0\0\0"
_HEADER = 16  # bytes of a heap's, and of each object's in it


def check_heaps(path: Path) -> None:
    """The global heaps, in which strings of any length lie, have objects of a size that leads to the next one.

    HDF5 (2.0.0 at least) goes from one to the next by these sizes, and stays for ever at free space that claims none.
    Layout: section III.E of its file format specification, version 3.

    Raises:
        ValueError: one has not.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[: len(_SIGNATURE)] != _SIGNATURE or content[14 if content[8] < 2 else 10] != 8:  # bytes of a length
            return
        heap = content.find(_HEAP)
        while heap >= 0:
            (size,) = struct.unpack_from("<Q", content, heap + len(_HEAP)) if heap + _HEADER <= len(content) else (0,)
            place, end = heap + _HEADER, min(heap + size, len(content))
            while place + _HEADER <= end:
                index, _, _, length = struct.unpack_from("<HHIQ", content, place)
                step = _HEADER + -(-length // 8) * 8 if index else length  # free space counts its header
                if step < _HEADER:
                    raise ValueError(f"{path}: damaged, free space of {length} bytes among its words")
                place += step
            heap = content.find(_HEAP, heap + 1)
