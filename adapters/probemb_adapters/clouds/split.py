"""Which clouds of a folder are to train on, to fit on and to test on, and by what a cloud is known again."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from probemb_adapters.clouds.cloud import Cloud
from probemb_adapters.clouds.labelled import listed

SPLITS = ("train", "val", "test")
_ALSO = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_HELD_OUT = 0.15  # of the files, for validation and for test


def split_clouds(folder: Path, clouds: Sequence[Cloud], seed: int) -> dict[str, list[Cloud]]:
    """By the subfolders train, val and test; without them by file, or by cloud where one file has them all.

    Warns of clouds that are in other subfolders beside these, and of a cloud that is on two sides.

    Raises:
        ValueError: some of the subfolders without the others, or fewer than three files or clouds.
    """
    inside = [_subfolder(folder, cloud) for cloud in clouds]
    there = [name for name in SPLITS if name in inside]
    if there:
        if len(there) < len(SPLITS):
            raise ValueError(f"{folder}: expected clouds in the subfolders train, val and test, got {', '.join(there)}")
        others = [cloud.name for cloud, at in zip(clouds, inside, strict=True) if at not in SPLITS]
        if others:
            warnings.warn(
                f"{folder}: {len(others)} clouds are in none of train, val and test, and left out: {listed(others)}",
                stacklevel=2,
            )
        return _checked({name: [c for c, at in zip(clouds, inside, strict=True) if at == name] for name in SPLITS})
    files = [str(cloud.path) for cloud in clouds]
    units = files if len(set(files)) > 1 else [cloud.name for cloud in clouds]
    names = sorted(set(units))
    if len(names) < len(SPLITS):
        raise ValueError(
            f"{folder}: expected at least three files, one each to train on, to fit the threshold on and to test on, "
            f"got {len(names)}: label more clouds, or cut yours into places that do not overlap, a file each"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    held = max(1, round(_HELD_OUT * len(names)))
    of = {names[row]: "test" if i < held else "val" if i < 2 * held else "train" for i, row in enumerate(order)}
    return _checked({name: [c for c, unit in zip(clouds, units, strict=True) if of[unit] == name] for name in SPLITS})


def _checked(split: dict[str, list[Cloud]]) -> dict[str, list[Cloud]]:
    first: dict[int, tuple[str, str]] = {}
    for side, clouds in split.items():
        for cloud in clouds:
            there, name = first.setdefault(fingerprint(cloud), (side, cloud.name))
            if there != side:
                warnings.warn(
                    f"{cloud.name} of {side} is the cloud {name} of {there}: the numbers will be better than on others",
                    stacklevel=3,
                )
    return split


def _subfolder(folder: Path, cloud: Cloud) -> str | None:
    if cloud.path is None or not folder.is_dir():
        return None
    parts = cloud.path.relative_to(folder).parts
    return _ALSO.get(parts[0].lower(), parts[0].lower()) if len(parts) > 1 else None


def fingerprint(cloud: Cloud) -> int:
    """Of the positions, by which a cloud is known again whatever its file is called, and in which precision."""
    return zlib.crc32(np.ascontiguousarray(cloud.pos, dtype=np.float32).tobytes())
