"""Scenes of one's own in ScanNet's files, for whatever reads ScanNet; the layout is in `scannet.files`.

write_label_map(root)
write_scene(root, "scene0000_00", pos, rgb, faces, instance=instance, categories=["chair", "floor"])
write_split(root, "train", ["scene0000_00"])
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from probemb_adapters.clouds import check_digits, far_offset
from probemb_adapters.files import replaced_file
from probemb_adapters.scannet.files import (
    LABEL_MAP,
    LABELLED,
    NYU40,
    UNLABELLED,
    Array,
    ScenePaths,
    check_alignment,
    check_scene_id,
    scene_paths,
)

NYU40_MAP: dict[str, int] = {name: i for i, name in enumerate(NYU40) if i}
"""A table of categories in which the names of the nyu40 ids stand for themselves."""


def write_scene(
    root: str | Path,
    scene_id: str,
    pos: ArrayLike,
    rgb: ArrayLike,
    faces: ArrayLike | None = None,
    *,
    instance: ArrayLike | None = None,
    categories: Sequence[str] = (),
    segment: ArrayLike | None = None,
    axis_alignment: ArrayLike | None = None,
    label_map: Mapping[str, int] | None = None,
) -> Path:
    """Write a scene: the mesh, and with ``instance`` its segments, its objects and `{scene}_vh_clean_2.labels.ply`.

    The scene's folder appears when all is written: an error leaves nothing.

    Args:
        root: the folder that holds `scans`; a scene without annotation goes into `scans_test`, as ScanNet has it.
        scene_id: such as scene0000_00.
        pos: (V, 3) metres, z up, before ``axis_alignment``; written as float32, or as float64 far from the origin,
            such as in UTM coordinates, where the reader subtracts an offset.
        rgb: (V, 3) uint8.
        faces: (F, 3) integer, triangles of rows of ``pos``; by default none.
        instance: (V,) integer, the row of ``categories`` that owns the vertex, or −1 where it is unannotated. Wall and
            floor are objects, too. None: a scan without annotation.
        categories: the raw category of each object.
        segment: (V,) integer ≥ 0, the over-segmentation, whose segments belong to one object each; by default a
            segment is an object.
        axis_alignment: (4, 4), what turns and shifts ``pos`` so that walls are along x and y; by default the identity.
        label_map: from raw category to nyu40 id, as :func:`write_label_map` writes it; by default `NYU40_MAP`.

    Returns:
        the scene's folder.

    Raises:
        FileExistsError: the scene is there already.
        TypeError: arrays are not of the expected types.
        ValueError: arrays do not fit each other, values are out of range, positions lost their digits in float32, or
            a category is not in the table. The message names the scene.
    """
    label_map = NYU40_MAP if label_map is None else label_map
    check_scene_id(scene_id)
    pos = _array(scene_id, "pos", pos, "fiu", (None, 3))
    vertices = len(pos)
    rgb = _array(scene_id, "rgb", rgb, "fiu", (vertices, 3))
    faces = np.zeros((0, 3), np.int32) if faces is None else _array(scene_id, "faces", faces, "iu", (None, 3))
    alignment = None if axis_alignment is None else _array(scene_id, "axis_alignment", axis_alignment, "fiu", (4, 4))
    with np.errstate(over="ignore"):
        finite = np.count_nonzero(np.isfinite(pos.astype(np.float32)).all(axis=1))
    if not vertices or finite < vertices:
        raise ValueError(f"{scene_id}: expected positions, all finite as float32, got {finite} such of {vertices}")
    check_digits(pos, scene_id)
    pos = pos.astype(np.float64 if pos.dtype != np.float32 and far_offset(pos).any() else np.float32)
    if alignment is not None:
        check_alignment(f"{scene_id}: expected axis_alignment", alignment)
    if rgb.dtype != np.uint8:
        raise TypeError(f"{scene_id}: expected rgb of uint8, got {rgb.dtype}")
    _check_range(scene_id, "faces", faces, 0, vertices - 1)
    annotation = {}
    labels = None
    if instance is not None:
        instance = _array(scene_id, "instance", instance, "iu", (vertices,)).astype(np.int64)
        _check_range(scene_id, "instance", instance, -1, len(categories) - 1)
        unknown = [category for category in categories if category not in label_map]
        if unknown:
            raise ValueError(f"{scene_id}: the category {unknown[0]!r} is not in the table: pass it in label_map")
        labels = np.array([*(label_map[category] for category in categories), 0], dtype=np.uint16)[instance]
        segment = instance + 1 if segment is None else _array(scene_id, "segment", segment, "iu", (vertices,))
        annotation = _annotation(scene_id, instance, categories, segment)

    folder = LABELLED if instance is not None else UNLABELLED
    final = scene_paths(root, scene_id, folder).mesh.parent
    if final.exists():
        raise FileExistsError(f"{final} is there already: remove it, or write under another root")
    final.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=final.parent, prefix=f".{scene_id}-") as temporary:
        paths = scene_paths(temporary, scene_id, folder)
        paths.mesh.parent.mkdir(parents=True)
        _write_mesh(paths.mesh, pos, rgb, faces)
        if labels is not None:
            _write_mesh(paths.mesh.with_suffix(".labels.ply"), pos, rgb, faces, labels)
        _write_info(paths, annotation, alignment)
        os.replace(paths.mesh.parent, final)
    return final


def write_label_map(root: str | Path, label_map: Mapping[str, int] | None = None) -> Path:
    """Write `scannetv2-labels.combined.tsv` with the columns that readers use.

    Args:
        root: the folder that holds `scans`.
        label_map: from raw category to nyu40 id; by default `NYU40_MAP`.

    Raises:
        ValueError: an id is not 0 … 40.
    """
    label_map = NYU40_MAP if label_map is None else label_map
    for category, label in label_map.items():
        if not 0 <= label < len(NYU40):
            raise ValueError(f"{category!r}: expected a nyu40 id 0 … {len(NYU40) - 1}, got {label}")
    path = Path(root) / LABEL_MAP
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["id", "raw_category", "category", "nyu40id", "nyu40class"])
        for row, (category, label) in enumerate(label_map.items(), start=1):
            writer.writerow([row, category, category, label, NYU40[label]])
    return path


def write_split(root: str | Path, split: str, scene_ids: Sequence[str]) -> Path:
    """Write `scannetv2_{split}.txt`, one scene a line; what was there is replaced."""
    path = Path(root) / f"scannetv2_{split}.txt"
    with replaced_file(path) as temporary:
        temporary.write_text("".join(f"{scene_id}\n" for scene_id in scene_ids), encoding="utf-8")
    return path


def _annotation(scene_id: str, instance: Array, categories: Sequence[str], segment: Array) -> dict[str, Any]:
    """The contents of segs.json and aggregation.json."""
    _check_range(scene_id, "segment", segment, 0, 2**31 - 1)
    segments, first, segment_of = np.unique(segment, return_index=True, return_inverse=True)
    owner = instance[first]
    shared = np.flatnonzero(owner[segment_of] != instance)
    if len(shared):
        row = shared[0]
        raise ValueError(
            f"{scene_id}: expected segments of one object each, got segment {segment[row]} in objects "
            f"{owner[segment_of[row]]} and {instance[row]}"
        )
    groups = [
        {"id": row, "objectId": row, "segments": segments[owner == row].tolist(), "label": category}
        for row, category in enumerate(categories)
    ]
    return {
        "segs": {"sceneId": scene_id, "segIndices": segment.tolist()},
        "aggregation": {
            "sceneId": f"scannet.{scene_id}",
            "segGroups": groups,
            "segmentsFile": f"scannet.{scene_id}_vh_clean_2.0.010000.segs.json",
        },
    }


def _write_info(paths: ScenePaths, annotation: dict[str, Any], alignment: Array | None) -> None:
    """All but the meshes; a scan without annotation has the ply only, unless it is to be aligned."""
    if annotation:
        paths.segments.write_text(json.dumps(annotation["segs"]), encoding="utf-8")
        paths.aggregation.write_text(json.dumps(annotation["aggregation"]), encoding="utf-8")
    if annotation or alignment is not None:
        matrix = np.eye(4) if alignment is None else alignment.astype(np.float64)
        numbers = " ".join(repr(x) for x in matrix.ravel().tolist())
        paths.info.write_text(f"axisAlignment = {numbers}\n", encoding="utf-8")


def _write_mesh(path: Path, pos: Array, rgb: Array, faces: Array, labels: Array | None = None) -> None:
    """A binary ply, as ScanNet's; whole arrays at a time, where plyfile would write each face by itself."""
    real = ("<f4", "float") if pos.dtype == np.float32 else ("<f8", "double")
    fields = [(name, *real) for name in "xyz"]
    fields += [(name, "u1", "uchar") for name in ("red", "green", "blue", "alpha")]
    fields += [("label", "<u2", "ushort")] if labels is not None else []
    vertex = np.empty(len(pos), dtype=[(name, code) for name, code, _ in fields])
    for i, (axis, color) in enumerate(zip("xyz", ("red", "green", "blue"), strict=True)):
        vertex[axis], vertex[color] = pos[:, i], rgb[:, i]
    vertex["alpha"] = 255
    if labels is not None:
        vertex["label"] = labels
    face = np.empty(len(faces), dtype=[("count", "u1"), ("vertices", "<i4", (3,))])
    face["count"], face["vertices"] = 3, faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertex)}",
        *(f"property {kind} {name}" for name, _, kind in fields),
        f"element face {len(face)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    path.write_bytes("\n".join(header).encode("ascii") + vertex.tobytes() + face.tobytes())


def _check_range(scene_id: str, name: str, values: Array, low: int, high: int) -> None:
    if values.size and (values.min() < low or values.max() > high):
        raise ValueError(f"{scene_id}: expected {name} {low} … {high}, got {values.min()} to {values.max()}")


def _array(scene_id: str, name: str, given: ArrayLike, kinds: str, shape: tuple[int | None, ...]) -> Array:
    array: Array = np.asarray(given)
    if array.dtype.kind not in kinds:
        expected = "real numbers" if "f" in kinds else "integers"
        raise TypeError(f"{scene_id}: expected {name} of {expected}, got {array.dtype}")
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        text = ", ".join("*" if n is None else str(n) for n in shape)
        raise ValueError(f"{scene_id}: expected {name} of shape ({text}), got {array.shape}")
    return array
