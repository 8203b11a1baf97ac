"""Clouds from files of many formats, or from a folder of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from probemb_adapters.clouds.arrays import POSITION_NAMES, read_h5, read_npy, read_npz
from probemb_adapters.clouds.cloud import Array, Cloud, Stored
from probemb_adapters.clouds.coordinates import check_range, warn_of_strays
from probemb_adapters.clouds.e57 import read_e57
from probemb_adapters.clouds.las import read_las
from probemb_adapters.clouds.pcd import read_pcd
from probemb_adapters.clouds.ply import read_ply
from probemb_adapters.clouds.properties import (
    INSTANCE_NAMES,
    SEMANTIC_NAMES,
    Labels,
    find_colours,
    find_labels,
    find_normals,
)
from probemb_adapters.clouds.text import read_text
from probemb_adapters.files import readable
from probemb_lib.labels import IGNORED, NO_INSTANCE
from probemb_lib.positions import check_digits

__all__ = ["ENDINGS", "POSITION_NAMES", "cloud_files", "read_clouds"]

_READERS = {
    **{".ply": read_ply, ".pcd": read_pcd, ".npz": read_npz, ".e57": read_e57},
    **dict.fromkeys((".las", ".laz"), read_las),
    **dict.fromkeys((".h5", ".hdf5"), read_h5),
}
_TABLES = {".npy": read_npy, **dict.fromkeys((".xyz", ".txt", ".csv", ".asc", ".pts"), read_text)}

_ANYTHING = (".txt", ".csv", ".npy")  # lists, tables and arrays that lie beside clouds end so, too

ENDINGS = tuple(sorted([*_READERS, *_TABLES]))
"""Of the files that are read, in lower case; files may have them in any case."""


def read_clouds(
    path: str | Path,
    *,
    instance: str | None = None,
    semantic: str | None = None,
    no_instance: Sequence[int | str] = (),
    ignored: Sequence[int | str] = (),
    columns: Sequence[str] | None = None,
    class_names: Mapping[int, str] | None = None,
) -> list[Cloud]:
    """The clouds of a file, or of all files in a folder and the folders below it, in order of their paths.

    Formats: ply; las and laz; xyz, txt, csv, asc and pts; pcd; npy, npz and h5 (an array `pos`, `pts`, `points`,
    `xyz`, …; (N, 3), or (B, N, 3) for B clouds, as PartNet's files have them); e57. What each may hold and what is
    written back is told in docs/own_scans.md. Positions are float64. Every other property of the points is kept.

    Args:
        path: file or folder.
        instance: property with the instance of each point; by default the first of `INSTANCE_NAMES` that is there.
        semantic: property with the class of each point; by default the first of `SEMANTIC_NAMES`.
        no_instance: values of the former that mean no instance, such as 0 or 255; they become −1.
        ignored: values of both that nobody labelled; they become −100. Nothing is taken for none that is not named.
        columns: names of the columns of a text file or of an npy (N, C); by default those of its header.
        class_names: of classes that are known, such as a model's: where files name classes by words, these words have
            these numbers; else those that an array `class_names` of any file gives them. Others follow, in order, one
            for each word in all files together.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the optional library of a format is not installed.
        ValueError: another kind of file, a damaged one, no positions, positions that are not finite or have lost their
            digits, or labels that are none. The message names the file.
    """
    clouds, words = [], []
    for file in cloud_files(path):
        inside = file.relative_to(path) if Path(path).is_dir() else Path(file.name)
        name = inside.with_suffix("").as_posix().encode(errors="replace").decode()  # such as any terminal can print
        with readable(file):
            stored = _read(file, columns)
            for row, one in enumerate(stored):
                what = str(file) if len(stored) == 1 else f"{file}, cloud {row}"
                _check_positions(one, what)
                title = name if len(stored) == 1 else f"{name}-{row}"
                cloud, own = _cloud(title, file, what, one, (instance, semantic), (no_instance, ignored))
                clouds.append(cloud)
                words.append(own)
    return _number_words(clouds, words, class_names or {})


def cloud_files(path: str | Path) -> list[Path]:
    """The file, or the files in the folder and below it that `read_clouds` reads, in order of their paths.

    Files .txt, .csv and .npy in a folder are clouds where it has no other; beside others they are left alone, with a
    warning, as they may be anything. So are hidden files, without.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is of another kind, or the folder has none to read.
    """
    path = Path(path)
    expected = f"expected {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: expected a file or a folder of clouds")
        if path.suffix.lower() not in ENDINGS:
            raise ValueError(f"{path}: {expected}, got {path.suffix or 'no ending'}")
        return [path]
    inside = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    candidates = [p for p in inside if p.suffix.lower() in ENDINGS]
    sure = [p for p in candidates if p.suffix.lower() not in _ANYTHING]
    files = sure or candidates
    if len(files) < len(candidates):
        left = [str(p.relative_to(path)) for p in candidates if p not in set(files)]
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        warnings.warn(
            f"{path}: left alone beside clouds of other formats: {', '.join(left[:3])}{more}; read them by their names",
            stacklevel=2,
        )
    if not files:
        got = ", ".join(sorted({p.suffix or p.name for p in inside})[:8]) or "no file"
        raise ValueError(f"{path} is a folder without clouds: {expected}, got {got}")
    return files


def _read(path: Path, columns: Sequence[str] | None) -> list[Stored]:
    ending = path.suffix.lower()
    return _READERS[ending](path) if ending in _READERS else _TABLES[ending](path, columns)


def _check_positions(stored: Stored, what: str) -> None:
    if len(stored.pos) < 2:
        raise ValueError(f"{what}: expected at least 2 points, got {len(stored.pos)}")
    if stored.pos.dtype.kind not in "fiu":
        raise ValueError(f"{what}: expected positions of numbers, got {stored.pos.dtype}")
    check_range(stored.pos.astype(np.float64), what)
    check_digits(stored.pos, what)


def _cloud(
    name: str,
    path: Path,
    what: str,
    stored: Stored,
    labels: tuple[str | None, str | None],
    none: tuple[Sequence[int | str], Sequence[int | str]],
) -> tuple[Cloud, tuple[str, ...]]:
    """The cloud of what a file has, and the words that are its classes, which are counted as in this file alone."""
    pos, properties = stored.pos.astype(np.float64), stored.properties
    warn_of_strays(pos, what)
    rgb, colour_names, colour_note = find_colours(properties)
    normals, normal_names = find_normals(properties)
    rest = {n: a for n, a in properties.items() if n not in (*colour_names, *normal_names)}
    where = properties if labels[0] is not None else rest
    instance = find_labels(where, labels[0], INSTANCE_NAMES, what, "instance")
    rest = {n: a for n, a in rest.items() if n != instance.name}
    where = properties if labels[1] is not None else rest
    semantic = find_labels(where, labels[1], SEMANTIC_NAMES, what, "semantic")
    notes = [f"instance labels are {instance.name}"] if instance.name else []
    notes += [f"classes are {semantic.name}"] if semantic.name else []
    notes += [note for note in (colour_note, instance.note, semantic.note) if note is not None]
    unused = [n for n in rest if n != semantic.name]
    more = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
    notes += [f"kept, but neither labels nor colours: {', '.join(unused[:8])}{more}"] if unused else []
    cloud = Cloud(
        name,
        pos,
        rgb,
        normals,
        _converted(instance, {NO_INSTANCE: none[0], IGNORED: none[1]}, what),
        _converted(semantic, {IGNORED: none[1]}, what),
        dict(enumerate(stored.class_names)) if semantic.values is not None else {},
        properties,
        tuple(notes),
        path,
        stored.pos.dtype,
        stored.layout,
    )
    return cloud, semantic.words


def _converted(labels: Labels, meant: Mapping[int, Sequence[int | str]], what: str) -> Array | None:
    """The values with those that are ``meant`` for the keys replaced; among words these are words."""
    if labels.values is None:
        return None
    values = labels.values
    for key, given in meant.items():
        wrong = [] if labels.words else [value for value in given if isinstance(value, str)]
        if wrong:
            raise ValueError(
                f"{what}: expected whole numbers for the values of {labels.name} that mean none, which has whole "
                f"numbers, got {', '.join(wrong)}"
            )
        some = [labels.words.index(str(v)) for v in given if str(v) in labels.words] if labels.words else list(given)
        values = np.where(np.isin(labels.values, some), key, values)
    return values


def _number_words(clouds: list[Cloud], words: list[tuple[str, ...]], known: Mapping[int, str]) -> list[Cloud]:
    """The clouds with one number for each word that is a class in any of them; numbers that classes have are taken,
    and a word that names a number in any file is that number."""
    number = {name: value for cloud in clouds for value, name in cloud.class_names.items()}
    number |= {name: value for value, name in known.items()}
    numeric = [
        int(c.semantic.max()) for c, own in zip(clouds, words, strict=True) if c.semantic is not None and not own
    ]
    first = max([-1, *number.values(), *numeric]) + 1
    new = sorted({word for own in words for word in own} - number.keys())
    number |= {word: first + i for i, word in enumerate(new)}
    return [
        replace(
            cloud,
            semantic=np.where(
                cloud.semantic < 0, cloud.semantic, np.array([number[word] for word in own])[cloud.semantic.clip(0)]
            ),
            class_names={number[word]: word for word in own},
        )
        if own and cloud.semantic is not None
        else cloud
        for cloud, own in zip(clouds, words, strict=True)
    ]
