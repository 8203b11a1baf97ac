"""Colours, normals and labels among the properties of points, by the names that tools give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from probemb_adapters.clouds.cloud import Array
from probemb_lib.labels import IGNORED

INSTANCE_NAMES = (
    *("instance", "instances", "instance_id", "instance_ids", "instance_label", "instance_labels", "ins", "ins_label"),
    *("object", "object_id", "objectid", "tree_id", "treeid", "plant_id", "original_cloud_index", "label", "labels"),
)
"""Properties that are taken for instances, the first that is there, in any case, CloudCompare's `scalar_` aside."""

SEMANTIC_NAMES = (
    *("semantic", "semantics", "semantic_label", "semantic_labels", "sem_label", "class", "classes", "class_id"),
    *("category", "classification"),
)
"""Properties that are taken for classes, the first that is there."""

_COLOURS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_COLOUR_ARRAYS = ("rgb", "color", "colors", "colour", "colours")
_FLOAT_COLOURS = (("rf", "gf", "bf"),)
_NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
_NORMAL_ARRAYS = ("normal", "normals")

_MISSING = ("na", "n/a", "nan", "null")  # as tables of R, Excel and databases write an empty cell
_UNCLASSIFIED = 1  # las: 0 never classified, 1 unclassified


class Labels(NamedTuple):
    """Labels of points, if there are any.

    Attributes:
        values: (N,) int64.
        name: the property that they are.
        note: a line where a usual name was not taken, or where points have no word.
        words: where the property has words, those that ``values`` count, in order; an empty one, or NA, is −100.
    """

    values: Array | None = None
    name: str | None = None
    note: str | None = None
    words: tuple[str, ...] = ()


def find_colours(properties: Mapping[str, Array]) -> tuple[Array | None, tuple[str, ...], str | None]:
    """Colours (N, 3) uint8, the properties that they are, and a line where they are not as usual or not usable.

    8-bit as they are; 16-bit divided by 257, unless all are below 256; fractions of one times 255.
    """
    values, names = _three(properties, (*_COLOURS, *_FLOAT_COLOURS), _COLOUR_ARRAYS)
    if values is None:
        return None, (), None
    told = f"colours {', '.join(names)}"
    if values.dtype == np.uint8:
        return values, names, None
    if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        return None, names, f"{told} not used: {values.dtype} that are not all finite numbers"
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < 0 or high > 65_535:
        return None, names, f"{told} not used: expected 0 to 255, 0 to 65535 or 0 to 1, got {low:g} to {high:g}"
    if high == 0:
        return None, names, f"{told} not used: all are zero"
    if values.dtype.kind == "f" and high <= 1:
        return np.round(255 * values).astype(np.uint8), names, f"{told} are fractions of one"
    if high <= 255 and values.dtype.kind != "f" and values.dtype != np.uint16:  # wide integers, as text has them
        return values.astype(np.uint8), names, None
    if high <= 255:
        return (
            np.round(values).astype(np.uint8),
            names,
            f"{told} of {values.dtype} are within 0 to 255, so taken as 8-bit",
        )
    return np.round(values / 257.0).astype(np.uint8), names, f"{told} are 16-bit"


def find_normals(properties: Mapping[str, Array]) -> tuple[Array | None, tuple[str, ...]]:
    """Normals (N, 3) float32 and the properties that they are."""
    values, names = _three(properties, _NORMALS, _NORMAL_ARRAYS)
    return (None, ()) if values is None or values.dtype.kind not in "fi" else (values.astype(np.float32), names)


def find_labels(
    properties: Mapping[str, Array], given: str | None, usual: Sequence[str], what: str, kind: str
) -> Labels:
    """The labels among the properties of points.

    Args:
        given: the property; None takes the first of ``usual`` that is there, unless its values are no labels.
        what: begins the messages, such as the file.
        kind: `instance` or `semantic`, the option that names the property.

    Raises:
        ValueError: there is no property ``given``, or its values are no labels.
    """
    name = given
    if given is None:
        keys = {_key(name): name for name in reversed(list(properties))}
        name = next((keys[key] for key in usual if key in keys), None)
    if name is None:
        return Labels()
    if name not in properties:
        raise ValueError(
            f"{what}: expected a property {name}, named for {kind} labels, got {', '.join(properties) or 'none'}; name "
            "another, or move files without labels out of the folder"
        )
    values, note = properties[name], None
    words: tuple[str, ...] = ()
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind in "SU" and values.ndim == 1:
        values, words = _numbered(values)
        empty = bool((values == IGNORED).any())
        note = f"{name}: points without a word are taken for not labelled" if empty else None
    if values.dtype.kind == "u" and values.dtype.itemsize >= 4 and values.ndim == 1:
        values, note = _unwrapped(values, name)
    wrong = _wrong_labels(values)
    if wrong is None and given is None and _key(name) == "classification" and values.max(initial=0) <= _UNCLASSIFIED:
        return Labels(note=f"{name} not used as {kind}: no point is classified")
    if wrong is None:
        return Labels(values.astype(np.int64), name, note, words)
    if given is None:
        return Labels(note=f"{name} not used as {kind}: {wrong}")
    raise ValueError(
        f"{what}: expected whole numbers in {name}, taken for {kind}, {wrong}; name another property for {kind} "
        "labels, or give such points a whole number that means none"
    )


def _numbered(values: Array) -> tuple[Array, tuple[str, ...]]:
    """The places of words (N,) among all, and these in order; of words that are whole numbers, these and none."""
    text = np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values
    text = np.char.strip(text)
    words, place = np.unique(np.where(np.isin(np.char.lower(text), _MISSING), "", text), return_inverse=True)
    if all(re.fullmatch(r"[+-]?\d{1,18}", word) for word in words if word):
        return np.array([int(word or IGNORED) for word in words], dtype=np.int64)[place], ()
    empty = int(words[0] == "")
    return np.where(place < empty, IGNORED, place - empty), tuple(words[empty:].tolist())


def _unwrapped(values: Array, name: str) -> tuple[Array, str | None]:
    """−1 and −100 where the type has no signs and 32 bits or more: no label is as large. With 8 or 16, one may be."""
    signed = values.astype(np.int64 if values.dtype.itemsize > 4 else np.int32)  # wraps, in any byte order
    below = (signed == -1) | (signed == IGNORED)
    note = f"{name}: -1 or -100 in {values.dtype} are taken for that"
    return np.where(below, signed, values.astype(np.int64)), note if below.any() else None


def _wrong_labels(values: Array) -> str | None:
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        return f"got {values.dtype} {values.shape}"
    if values.dtype.kind != "f":
        return None
    bad = ~np.isfinite(values)
    if bad.any():
        return f"got {np.count_nonzero(bad)} that are NaN or infinite, the first at row {int(np.argmax(bad))}"
    bad = values != np.round(values)
    return f"got {values[bad][0]:g} at row {int(np.argmax(bad))}" if bad.any() else None


def _three(
    properties: Mapping[str, Array], triples: Sequence[tuple[str, str, str]], arrays: Sequence[str]
) -> tuple[Array | None, tuple[str, ...]]:
    """(N, 3) of three properties or of one, and their names."""
    keys = {_key(name): name for name in reversed(list(properties))}
    for triple in triples:
        if all(key in keys and properties[keys[key]].ndim == 1 for key in triple):
            names = tuple(keys[key] for key in triple)
            return np.stack([properties[name] for name in names], axis=1), names
    for key in arrays:
        if key in keys and properties[keys[key]].ndim == 2 and properties[keys[key]].shape[1] in (3, 4):
            return properties[keys[key]][:, :3], (keys[key],)
    return None, ()


def _key(name: str) -> str:
    """The name as it is compared: CloudCompare writes `scalar_Original_cloud_index`."""
    return name.strip().lower().replace(" ", "_").removeprefix("scalar_")
