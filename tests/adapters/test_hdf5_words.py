"""Words of HDF5 files that its library would read for ever, or into all memory."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from probemb_adapters.clouds import read_clouds


def write(path: Path, words: list[str], **how: str) -> None:
    with h5py.File(path, "w", **how) as file:
        file["pos"] = np.random.default_rng(0).random((len(words), 3))
        file["organ"] = words


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_whole_files(tmp_path: Path, libver: str) -> None:
    """Of one heap and of many, and with what only looks like one at the end."""
    words = [f"leaf {'x' * (i % 50)}" for i in range(2_000)]
    for count in (3, 2_000):
        path = tmp_path / f"{count}.h5"
        write(path, words[:count], libver=libver)
        with path.open("ab") as file:
            file.write(b"GCOL\1\0\0\0\7")
        (cloud,) = read_clouds(path, semantic="organ")
        assert len(cloud.pos) == count


def test_free_space_of_no_size(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write(path, ["stem", "leaf"])
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL") + 16
    while (index := struct.unpack_from("<H", content, place)[0]) != 0:
        place += 16 + -(-struct.unpack_from("<Q", content, place + 8)[0] // 8) * 8
        assert index <= 2
    struct.pack_into("<Q", content, place + 8, 0)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.h5: damaged, free space of 0 bytes among its words"):
        read_clouds(path)


def test_a_word_of_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write(path, ["stem", "leaf"])
    with h5py.File(path) as file:
        place = file["organ"].id.get_offset()
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, place + 16, 2**32 - 1)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.h5: damaged, a word of 4294967295 bytes in a file of {len(content)}"):
        read_clouds(path)
