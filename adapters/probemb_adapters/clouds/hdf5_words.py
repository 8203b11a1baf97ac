"""Whether the words of an HDF5 file can be read, to an end and in the memory that they take.

Strings of any length lie in global heaps, and arrays of them have a length, the place of a heap and a number in it for
each. Layout: sections III.E and IV.A.2.d of the HDF5 file format specification, version 3.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\1\0\0\0"
_HEADER = 16  # bytes of a heap's, and of each object's in it
_WORD = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])


def check_words(path: Path, arrays: Iterable[Any]) -> None:
    """Refuse what HDF5 (2.0.0 at least) takes as it is.

    It goes through a heap by the sizes of its objects, and stays for ever at free space that claims none; and takes
    the memory that a word claims, 4 GB at most, before it looks for the word.

    Args:
        arrays: of the file, whose items are strings. Lengths in compressed ones, which have sums of their own, are not
            looked at.

    Raises:
        ValueError: such free space, or a word longer than the file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        superblock = content[:16]
        sizes = superblock[13:15] if superblock[8] < 2 else superblock[9:11]  # bytes of a place and of a length
        if superblock[: len(_SIGNATURE)] != _SIGNATURE or sizes != b"\x08\x08":
            return
        _check_heaps(path, content)
        for array in arrays:
            start, size = array.id.get_offset(), array.size * _WORD.itemsize
            if array.dtype.kind != "O" or start is None or not 0 < size <= len(content) - start:  # None: in chunks
                continue
            longest = np.frombuffer(content[start : start + size], _WORD)["length"].max()
            if longest > len(content):
                raise ValueError(f"{path}: damaged, a word of {longest} bytes in a file of {len(content)}")


def _check_heaps(path: Path, content: mmap.mmap) -> None:
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
