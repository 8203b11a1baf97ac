"""ScanNet v2's files, read one scene at a time.

    {root}/scans/{scene}/{scene}_vh_clean_2.ply                        x, y, z in metres, red, green, blue; faces
    {root}/scans/{scene}/{scene}_vh_clean_2.0.010000.segs.json         segIndices: over-segment of each vertex
    {root}/scans/{scene}/{scene}.aggregation.json                      segGroups [{label: raw category, segments}, …]
    {root}/scans/{scene}/{scene}.txt                                   axisAlignment: 4 × 4, row by row
    {root}/scans_test/{scene}/…                                        test scans: the ply, without annotation
    {root}/scannetv2-labels.combined.tsv                               raw_category → nyu40id
    {root}/scannetv2_{train,val,test}.txt                              one scene a line

Scans without annotation may also lie in `scans`. Faces are not read. Source: Dai et al., "ScanNet", CVPR 2017, and the
data set's published scripts.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from probemb_adapters.clouds import check_digits, far_offset
from probemb_adapters.files import missing_extra

try:
    from plyfile import PlyData, PlyParseError
except ImportError as error:
    raise missing_extra("ScanNet needs plyfile", "scannet", error) from error

Array = np.ndarray[Any, np.dtype[Any]]

NYU40 = (
    *("unannotated", "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf"),
    *("picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat"),
    *("clothes", "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box"),
    *("whiteboard", "person", "nightstand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure"),
    *("otherfurniture", "otherprop"),
)
"""Names of the nyu40 ids 0 … 40, the classes of ScanNet's label files; 0 is a vertex that nobody annotated."""

LABEL_MAP = "scannetv2-labels.combined.tsv"
LABELLED, UNLABELLED = "scans", "scans_test"

_TRIANGLES = {"face": {"vertex_indices": 3}}  # known to be triangles, faces are mapped instead of parsed one by one


class ScenePaths(NamedTuple):
    """Where the files of a scene lie, whether they are there or not."""

    mesh: Path
    segments: Path
    aggregation: Path
    info: Path


class ScanNetScene(NamedTuple):
    """One scene in the order of its mesh.

    Attributes:
        pos: (V, 3) float32, metres, z up; axis-aligned if so asked for, less ``offset``.
        rgb: (V, 3) uint8.
        label: (V,) int64, nyu40 id, 0 unannotated; None without annotation.
        object: (V,) int64, row of the object in `segGroups`, −1 unannotated; None without annotation.
        scene_id: such as scene0000_00.
        offset: (3,) float64, what was subtracted before the cast to float32; zero unless the scene lies far from the
            origin, such as one in UTM coordinates.
    """

    pos: Array
    rgb: Array
    label: Array | None
    object: Array | None
    scene_id: str
    offset: Array


def scene_paths(root: str | Path, scene_id: str, folder: str | None = None) -> ScenePaths:
    """The paths of a scene in ``folder``; by default in `scans_test` if that has the scene, else in `scans`."""
    if folder is None:
        folder = UNLABELLED if (Path(root) / UNLABELLED / scene_id).is_dir() else LABELLED
    stem = Path(root) / folder / scene_id / scene_id
    return ScenePaths(
        mesh=stem.with_name(f"{scene_id}_vh_clean_2.ply"),
        segments=stem.with_name(f"{scene_id}_vh_clean_2.0.010000.segs.json"),
        aggregation=stem.with_name(f"{scene_id}.aggregation.json"),
        info=stem.with_name(f"{scene_id}.txt"),
    )


def read_split(root: str | Path, split: str) -> tuple[str, ...]:
    """The scenes of `scannetv2_{split}.txt`, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file; the message lists what there is.
        ValueError: it names no scene, or one twice.
    """
    path = Path(root) / f"scannetv2_{split}.txt"
    if not path.is_file():
        found = ", ".join(sorted(p.name for p in Path(root).glob("scannetv2_*.txt")))
        raise FileNotFoundError(
            f"{path} is missing: {root} has {found or 'no scannetv2_*.txt'}; the lists of scenes are published in "
            "ScanNet's repository"
        )
    scenes = tuple(path.read_text(encoding="utf-8", errors="replace").split())
    if not scenes:
        raise ValueError(f"{path} names no scene: expected one a line")
    scene, count = Counter(scenes).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{path}: {scene} stands {count} times")
    return scenes


def read_label_map(root: str | Path) -> dict[str, int]:
    """From raw category to nyu40 id, by `scannetv2-labels.combined.tsv`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or an id is not 0 … 40.
    """
    path = Path(root) / LABEL_MAP
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected ScanNet's table of categories in the root folder")
    label_map: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            columns = rows.fieldnames or ()
            if not {"raw_category", "nyu40id"} <= set(columns):
                names = ", ".join(columns) or "none"
                raise ValueError(f"{path}: expected columns raw_category and nyu40id, got {names}")
            for row in rows:
                text = row["nyu40id"] or ""
                if not text.isdecimal() or int(text) >= len(NYU40):
                    where = f"{path}, line {rows.line_num}"
                    raise ValueError(f"{where}: expected nyu40id 0 … {len(NYU40) - 1}, got {text!r}")
                label_map[row["raw_category"]] = int(text)
    except csv.Error as error:
        raise ValueError(f"{path} is no readable table ({error}): take it from ScanNet again") from error
    return label_map


def read_scene(
    root: str | Path, scene_id: str, label_map: Mapping[str, int] | None, *, axis_align: bool = True
) -> ScanNetScene:
    """A scene with its annotation, or without.

    Where two groups have a segment, the later one has its vertices: scene0217_00 lists all of its objects twice.

    Args:
        root: the folder that holds `scans`.
        scene_id: such as scene0000_00.
        label_map: of :func:`read_label_map`; None leaves the annotation unread.
        axis_align: rotate and shift the positions by `axisAlignment`, so that walls are along x and y. They stay
            as they are where `{scene}.txt` has no such line, or a scan without annotation has no such file.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or contradicts another one; the message names the scene and the file.
    """
    paths = scene_paths(root, scene_id)
    pos, rgb = _read_mesh(paths.mesh)
    if axis_align and (label_map is not None or paths.info.is_file()):
        alignment = _read_alignment(paths.info)
        pos = pos @ alignment[:3, :3].T + alignment[:3, 3]
    offset = far_offset(pos)
    pos = (pos - offset if offset.any() else pos).astype(np.float32)
    if label_map is None:
        return ScanNetScene(pos, rgb, None, None, scene_id, offset)
    owner, labels = _read_annotation(paths, label_map, len(pos))
    return ScanNetScene(pos, rgb, labels[owner], owner, scene_id, offset)


def check_scene_id(scene_id: str) -> None:
    """Raises a ValueError unless files can have the name and lists of files can tell it."""
    if scene_id in ("", ".", "..") or any(c.isspace() or c in "/\\" for c in scene_id):
        raise ValueError(f"expected a scene's name such as scene0000_00, got {scene_id!r}")


def check_alignment(expected: str, matrix: Array) -> None:
    """Raises a ValueError that begins with ``expected`` unless a (4, 4) matrix moves points to finite places."""
    if not np.isfinite(matrix).all() or matrix[3].tolist() != [0, 0, 0, 1]:
        raise ValueError(f"{expected} of finite numbers with a last row 0 0 0 1, got {matrix.tolist()}")


def _read_mesh(path: Path) -> tuple[Array, Array]:
    """Positions (V, 3) as in the file and colours (V, 3) uint8."""
    try:
        with _existing(path).open("rb") as file:
            vertex = PlyData.read(file, mmap="r", known_list_len=_TRIANGLES)["vertex"].data
    except (PlyParseError, KeyError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no readable ply file of a mesh ({error}): unpack it again") from error
    names = ("x", "y", "z"), ("red", "green", "blue")
    missing = [name for name in names[0] + names[1] if name not in (vertex.dtype.names or ())]
    if missing:
        raise ValueError(f"{path}: expected vertices with x, y, z, red, green, blue, got no {', '.join(missing)}")
    pos, rgb = (np.stack([vertex[name] for name in some], axis=1) for some in names)
    if not len(pos):
        raise ValueError(f"{path} has no vertex: unpack it again")
    if rgb.dtype != np.uint8:
        raise ValueError(f"{path}: expected colours of uchar, got {rgb.dtype}")
    if not np.isfinite(pos).all():
        raise ValueError(f"{path}: a coordinate is NaN or infinite: unpack it again")
    check_digits(pos, str(path))
    return pos, rgb


def _read_alignment(path: Path) -> Array:
    """The (4, 4) matrix of a scene's txt; the identity where it has none."""
    lines = _existing(path, " (or read with axis_align=False)").read_text(errors="replace").splitlines()
    if not any("=" in line for line in lines):
        raise ValueError(f"{path}: expected lines such as axisAlignment = ..., got none: unpack the scene again")
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                matrix = np.array([float(x) for x in value.split()]).reshape(4, 4)
            except ValueError as error:
                raise ValueError(f"{path}: expected axisAlignment with 16 numbers, got {value.strip()!r}") from error
            check_alignment(f"{path}: expected axisAlignment", matrix)
            return matrix
    return np.eye(4)


def _read_annotation(paths: ScenePaths, label_map: Mapping[str, int], vertices: int) -> tuple[Array, Array]:
    """Group of each vertex (V,) or −1, and the nyu40 id of each group, a 0 appended for −1."""
    segment = _read_segments(paths.segments, vertices)
    groups = _read_groups(paths.aggregation)
    segments, segment_of = np.unique(segment, return_inverse=True)
    owner = np.full(len(segments), -1, dtype=np.int64)
    labels = np.zeros(len(groups) + 1, dtype=np.int64)
    for row, (category, some) in enumerate(groups):
        if category not in label_map:
            raise ValueError(
                f"{paths.aggregation}, group {row}: the category {category!r} is not in {LABEL_MAP}: use the table of "
                "the same release"
            )
        at = np.searchsorted(segments, some)
        unknown = some[segments[np.minimum(at, len(segments) - 1)] != some]
        if len(unknown):
            raise ValueError(
                f"{paths.aggregation}, group {row}: segment {unknown[0]} is not in {paths.segments.name}: unpack both "
                "again"
            )
        owner[at] = row
        labels[row] = label_map[category]
    return owner[segment_of], labels


def _read_segments(path: Path, vertices: int) -> Array:
    content = _read_json(path)
    segment = _integers(content.get("segIndices"))
    if segment is None:
        raise ValueError(f"{path}: expected segIndices, a list of integers")
    if len(segment) != vertices:
        raise ValueError(
            f"{path} has {len(segment)} segIndices, but the mesh has {vertices} vertices: unpack both again"
        )
    return segment


def _read_groups(path: Path) -> list[tuple[str, Array]]:
    """Raw category and segments of each object."""
    groups = _read_json(path).get("segGroups")
    if not isinstance(groups, list):
        raise ValueError(f"{path}: expected segGroups, a list of {{label, segments}}")
    found = []
    for row, group in enumerate(groups):
        group = group if isinstance(group, dict) else {}
        category, segments = group.get("label"), _integers(group.get("segments"))
        if not isinstance(category, str) or segments is None:
            raise ValueError(f"{path}, group {row}: expected a label and segments, a list of integers")
        found.append((category, segments))
    return found


def _integers(values: Any) -> Array | None:
    """A list of integers as (n,) int64; None for anything else."""
    if not isinstance(values, list):
        return None
    try:
        array = np.array(values) if values else np.zeros(0, np.int64)
    except ValueError:  # lists of several lengths
        return None
    return array.astype(np.int64) if array.ndim == 1 and array.dtype.kind == "i" else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_existing(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): unpack it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def _existing(path: Path, instead: str = "") -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: unpack the scene again{instead}")
    return path
