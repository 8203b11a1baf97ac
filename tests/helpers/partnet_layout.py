"""A small PartNet in its raw layout, for the tests of what is made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CLASSES = ["chair/seat", "chair/leg", "chair/back"]
POINTS = 60
LEVEL = 2


def entry(name: str, *leaves: int) -> dict[str, Any]:
    return {"part_name": name, "leaf_id_list": list(leaves)}


def record(anno_id: str) -> dict[str, Any]:
    """Leaves 1 and 2 are the seat, 3 … 5 legs, 6 a back without points; 7 is in no entry of the level."""
    legs = [entry("chair/leg", leaf) for leaf in (3, 4, 5)]
    parts = [entry("chair", 1, 2, 3, 4, 5, 6, 7), entry("chair/back", 6), *legs, entry("chair/seat", 1, 2)]
    return {"anno_id": anno_id, "ins_seg": parts}


def write_file(root: Path, stem: str, label: np.ndarray, records: list[Any]) -> None:
    folder = root / "ins_seg_h5" / "Chair"
    folder.mkdir(parents=True, exist_ok=True)
    pts = np.random.default_rng(len(label)).uniform(-1, 1, (*label.shape, 3)).astype(np.float32)
    with h5py.File(folder / f"{stem}.h5", "w") as file:
        file.create_dataset("pts", data=pts, compression="gzip")
        file.create_dataset("label", data=label.astype(np.int32), compression="gzip")
    (folder / f"{stem}.json").write_text(json.dumps(records))


def write_classes(root: Path, classes: list[str], level: int = LEVEL) -> None:
    folder = root / "stats" / "after_merging_label_ids"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{i} {name} leaf\n" for i, name in enumerate(classes, start=1)]
    (folder / f"Chair-level-{level}.txt").write_text("".join(lines))


def write_partnet(root: Path) -> Path:
    """Splits of 3 + 2 shapes: `train` and `test`; the last of `test` has no instance. Leaf −4 and 7 are other."""
    write_classes(root, CLASSES)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for number, count in ((0, 3), (1, 2)):
            label = np.stack([rng.permutation(np.resize([1, 2, 3, 4, 5, 7, -4], POINTS)) for _ in range(count)])
            records = [record(f"{split}{number}{row}") for row in range(count)]
            if (split, number) == ("test", 1):
                records[1]["ins_seg"] = [entry("chair", 1, 2, 3, 4, 5, 7)]
            write_file(root, f"{split}-{number:02}", label, records)
    return root


def edit(path: Path, name: str, value: Any, at: Any = ...) -> None:
    """Overwrite an array, or a part of it, in a file; ``None`` removes the array."""
    with h5py.File(path, "r+") as file:
        if at is not ... and value is not None:
            file[name][at] = value
            return
        del file[name]
        if value is not None:
            file[name] = value


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def corrupt(path: Path, name: str) -> None:
    """Zero the first compressed chunk of an array; the heads of the file stay whole."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything under a folder, hidden files included."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
