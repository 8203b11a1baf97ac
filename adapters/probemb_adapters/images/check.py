"""Folders of images and label images: their pairs, and what looks wrong with files and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from probemb_adapters.images import LabelledImage
from probemb_adapters.images.files import ENDINGS, match_names, name_of, read_pair
from probemb_adapters.images.pairs import Array

SPLITS = ("train", "val", "test")
LABELS = ("labels", "masks")
FOR_VOLUMES = "the command takes images alone; for volumes examples/volumes.py, docs/images.md#your-own-volumes"


class Finding(NamedTuple):
    """What looks like a mix-up in one image."""

    name: str
    wrong: bool
    message: str


def read_folder(
    folder: Path, channel: int | None = None, *, axes: int = 2
) -> tuple[dict[str, list[LabelledImage]], list[Finding]]:
    """The pairs of each of the subfolders train, val and test, or all of them under the name ""; and what is left out.

    A file without a match in the other folder is a remark, one that cannot be read or has another shape is an error.

    Args:
        axes: 2 for images, 3 for volumes.

    Raises:
        FileNotFoundError, ValueError: a folder is missing, some of the subfolders without the others, no names that
            match, or files of other axes.
    """
    there = [name for name in SPLITS if (folder / name / "images").is_dir() or files_of(folder / name)]
    if there and len(there) < len(SPLITS):
        raise ValueError(f"{folder}: expected images in the subfolders train, val and test, got {', '.join(there)}")
    findings: list[Finding] = []
    found = {name: list(_pairs(folder / name, channel, findings)) for name in there or ("",)}
    if others := [image.name for images in found.values() for image in images if image.image.ndim != axes]:
        expected = f"images (H, W), got volumes: {', '.join(others[:5])}; {FOR_VOLUMES}"
        raise ValueError(
            f"{folder}: expected {expected if axes == 2 else f'volumes (Z, Y, X), got images: {others[0]}'}"
        )
    return found, findings


def files_of(folder: Path) -> list[Path]:
    """The images right in a folder, by name, without the label images that lie beside theirs."""
    if not folder.is_dir():
        return []
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in ENDINGS and not p.name.startswith(".")]
    beside = {label for _, label in match_names(folder)[0]} if files else set()
    return [path for path in files if path not in beside]


def _pairs(folder: Path, channel: int | None, findings: list[Finding]) -> Iterator[LabelledImage]:
    apart = (folder / "images").is_dir()
    labels = next((folder / name for name in LABELS if (folder / name).is_dir()), None)
    if apart and labels is None:
        raise FileNotFoundError(f"{folder}: expected a folder {' or '.join(LABELS)} of label images beside images")
    pairs, alone = match_names(folder / "images", labels) if apart else match_names(folder)
    if not pairs:
        raise ValueError(
            f"{folder}: expected images in a folder images and label images of the same names in a folder labels "
            f"beside it, or both in one folder, as a.tif or a_raw.tif with a_labels.tif or a_mask.png, got "
            f"{len(alone)} alone: {'; '.join(alone[:5])}"
        )
    findings += [Finding(folder.name, False, message) for message in alone]
    for image, label in pairs:
        try:
            pair = read_pair(image, label, channel=channel)
        except (OSError, ValueError) as error:
            findings.append(Finding(name_of(image), True, str(error)))
        else:
            yield pair._replace(label=_counted(np.asarray(pair.label)))


def _counted(label: Array) -> Array:
    """Objects as 1 … n in the order of their numbers, which may be as large as a file holds; 0 stays."""
    numbers, place = np.unique(label, return_inverse=True)
    return place.reshape(label.shape) + int(numbers[:1].any())


def findings_of(image: LabelledImage) -> list[Finding]:
    """A mask of the foreground in the place of labels, objects in pieces, very small ones, none."""
    label = np.zeros(0, np.int64) if image.label is None else image.label
    pixels = np.bincount(label.ravel(), minlength=1)[1:]
    objects = int((pixels > 0).sum())
    if not objects:
        return [Finding(image.name, False, "no object")]
    found = []
    pieces = sum(ndimage.label(label[box] == i + 1)[1] for i, box in enumerate(ndimage.find_objects(label)) if box)
    if objects == 1 and pieces > 2:
        way = "number the objects, 1 to n, for example by scipy.ndimage.label"
        found.append(Finding(image.name, True, f"one number in {pieces} places, a mask of the foreground: {way}"))
    elif pieces > objects:
        found.append(Finding(image.name, False, f"{objects} objects in {pieces} connected pieces"))
    if small := int(((pixels > 0) & (pixels < 5)).sum()):
        found.append(Finding(image.name, False, f"{small} of {objects} objects have less than 5 pixels"))
    return found


def findings_in(images: Sequence[LabelledImage]) -> list[Finding]:
    """Those of each. Where some image has several objects, one in pieces is no mask of the foreground, but may be cut
    by others or have lost pixels."""
    found = [finding for image in images for finding in findings_of(image)]
    counted = any(image.label is not None and len(np.unique(image.label[image.label > 0])) > 1 for image in images)
    return [finding._replace(wrong=finding.wrong and not counted) for finding in found]


def check_images(folder: Path, channel: int | None) -> tuple[str, bool]:
    """The usual mix-ups in each image of a folder, a line a finding; and whether one is an error."""
    sides, of_files = read_folder(folder, channel)
    images = [image for side in sides.values() for image in side]
    of_labels = findings_in(images)
    lines = [finding.message for finding in of_files] + [f"{finding.name}: {finding.message}" for finding in of_labels]
    objects = sum(len(np.unique(i.label[i.label > 0])) for i in images if i.label is not None)
    return "\n".join([*lines, f"{len(images)} images, {objects} objects, {len(lines)} findings"]), any(
        finding.wrong for finding in (*of_files, *of_labels)
    )
