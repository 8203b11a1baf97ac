"""Images of any sizes with their instances in one npz file, one after the other: the layout of `data/nuclei`.

    image (sum of pixels,) of any number type, rows first      shape (images, 2): height and width
    label (sum of pixels,) integers, 0 background              ptr (images + 1,): where each image begins
    name (images,)

A split is a CSV file with the columns `name` and `split` beside it; further columns are left alone.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from probemb_adapters.files import readable, replaced_file
from probemb_adapters.images.pairs import Array, LabelledImage

_ARRAYS = ("image", "label", "shape", "ptr", "name")


def read_nuclei(path: str | Path) -> list[LabelledImage]:
    """All images of an npz file of this layout, in its order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no npz file, arrays are missing, or their sizes do not fit together.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "two.npz"
    ...     write_nuclei(path, [LabelledImage("a", np.ones((2, 3), np.uint8), np.eye(2, 3, dtype=np.uint16))])
    ...     [(image.name, image.image.shape, int(image.label.max())) for image in read_nuclei(path)]
    [('a', (2, 3), 1)]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected an npz file with {', '.join(_ARRAYS)}")
    with readable(path), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in _ARRAYS if name in file.files}
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise ValueError(f"{path}: expected the arrays {', '.join(_ARRAYS)}, got none of {', '.join(missing)}")
    with readable(path):
        return _images(path, *(arrays[key] for key in _ARRAYS))


def _images(path: Path, image: Array, label: Array, shape: Array, ptr: Array, name: Array) -> list[LabelledImage]:
    pixels = shape.astype(np.int64).prod(axis=-1)
    if shape.shape != (len(name), 2) or not np.array_equal(ptr, np.concatenate([[0], pixels.cumsum()])):
        raise ValueError(f"{path}: expected ptr to begin with 0 and grow by the {len(name)} products of shape (n, 2)")
    if image.shape != (ptr[-1],) or label.shape != (ptr[-1],):
        raise ValueError(f"{path}: expected {ptr[-1]} pixels as ptr says, got {image.shape} and {label.shape}")
    return [
        LabelledImage(str(name[i]), *(a[ptr[i] : ptr[i + 1]].reshape(shape[i]) for a in (image, label)))
        for i in range(len(name))
    ]


def write_nuclei(path: str | Path, images: Sequence[LabelledImage]) -> None:
    """Write images of this layout, for example to hand a test set to `examples/nuclei_unet.py --evaluate`.

    Raises:
        ValueError: no image, one without labels, of more than two axes, or whose labels have another shape.
    """
    if not images:
        raise ValueError("expected at least one image, got none")
    labels = []
    for image in images:
        if image.image.ndim != 2 or image.label is None or image.label.shape != image.image.shape:
            shape = None if image.label is None else image.label.shape
            raise ValueError(f"{image.name}: expected image and label (H, W), got {image.image.shape} and {shape}")
        labels.append(image.label.ravel())
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            image=np.concatenate([image.image.ravel() for image in images]),
            label=np.concatenate(labels),
            shape=np.array([image.image.shape for image in images], np.int32),
            ptr=np.cumsum([0, *(image.image.size for image in images)], dtype=np.int64),
            name=np.array([image.name for image in images]),
        )


def read_split(path: str | Path, column: str = "split") -> dict[str, str]:
    """The side, such as `train`, of each image by its name, or what another column says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no columns `name` and ``column``, or a name twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a CSV file with the columns name and {column}")
    with readable(path), path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if None in {key for row in rows for key in row} or None in {value for row in rows for value in row.values()}:
        raise ValueError(f"{path}: expected as many values as columns in each row")
    if not rows or not {"name", column} <= rows[0].keys():
        got = ", ".join(rows[0]) if rows else "no row"
        raise ValueError(f"{path}: expected the columns name and {column}, got {got}")
    sides = {row["name"]: row[column] for row in rows}
    if len(sides) < len(rows):
        raise ValueError(f"{path}: expected each name once, got {len(rows)} rows with {len(sides)} names")
    return sides


def read_sides(
    images: Sequence[LabelledImage], data: str | Path, split: str | Path | None = None
) -> dict[str, list[LabelledImage]]:
    """The images of each side of a split, in their order.

    Args:
        images: of the file ``data``.
        split: CSV file of the sides. None: ``split.csv`` beside ``data`` if it names all images; else all are `test`.

    Raises:
        FileNotFoundError, ValueError: as of :func:`read_split`; an image is on no side of the split that was given.
    """
    beside = Path(data).with_name("split.csv")
    if split is not None:
        side = read_split(split)
        if unknown := [image.name for image in images if image.name not in side]:
            raise ValueError(f"{split}: expected a side for each image, got none for {', '.join(unknown[:5])}")
    else:
        side = read_split(beside) if beside.is_file() else {}
        if not all(image.name in side for image in images):
            side = {}
    sides: dict[str, list[LabelledImage]] = {}
    for image in images:
        sides.setdefault(side.get(image.name, "test"), []).append(image)
    return sides
