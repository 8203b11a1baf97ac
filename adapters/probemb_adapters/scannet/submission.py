"""Results in the files of ScanNet's instance benchmark, for every vertex of the mesh: written, and read back::

    {folder}/{scene}.txt                             a line an instance: mask file, nyu40 id, confidence
    {folder}/predicted_masks/{scene}_{000..}.txt     a line a vertex of the mesh: 1 inside, 0 outside
    {gt_folder}/{scene}.txt                          a line a vertex: label · 1000 + instance

A scene's txt is written after its masks, so a scene that has one is complete. Source: the benchmark's documentation
and its published script (ScanNet/BenchmarkScripts/3d_evaluation/evaluate_semantic_instance.py)::

    write_submission("results", (scene_predictions(data, masks, semantic, score) for …))
    for found in read_submission("results", {data.scene_id: data.num_vertices for data in scenes}):
        metric.update(found.masks, found.labels, found.scores, target[found.scene_id])
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from probemb_adapters.files import replaced_file, room_for
from probemb_adapters.scannet.files import Array, check_scene_id
from probemb_adapters.scannet.scenes import INSTANCE_CLASSES, INSTANCE_IDS, check_whole, evaluation_target
from probemb_lib.metrics.inputs import as_numpy

MASKS = "predicted_masks"

_ZERO, _NEWLINE = ord("0"), ord("\n")


class ScenePredictions(NamedTuple):
    """Predicted instances of one scene, in the order in which `ScanNetAP.update` takes them.

    Attributes:
        masks: (P, V) bool, over the vertices of the mesh in its order; they may overlap.
        labels: (P,) integer, nyu40 ids.
        scores: (P,) real, the confidences.
        scene_id: such as scene0000_00.
    """

    masks: Array | Tensor
    labels: Array | Tensor
    scores: Array | Tensor
    scene_id: str


def scene_predictions(
    data: Data, masks: Array | Tensor, semantic: Array | Tensor, scores: Array | Tensor
) -> ScenePredictions:
    """Predictions on an item of `ScanNetScenes`, in the order of its mesh and with nyu40 ids.

    With the result of `greedy_cluster` on an item: ``scene_predictions(data, found.masks(), found.semantic,
    found.score)``.

    Args:
        data: the item, with all vertices in any order; ``vertex``, ``num_vertices`` and ``scene_id`` are used.
        masks: (P, N) bool, over the points of the item.
        semantic: (P,) integer, the column of the score, 1 … 18.
        scores: (P,) real.

    Raises:
        TypeError: ``semantic`` is not of integers.
        ValueError: the item has not all vertices, the masks are not over its points, or a column is not 1 … 18.

    >>> import torch
    >>> data = Data(vertex=torch.tensor([2, 0, 1]), num_vertices=3, scene_id="scene0000_00")
    >>> found = scene_predictions(data, torch.tensor([[True, False, False]]), torch.tensor([3]), torch.ones(1))
    >>> found.masks, found.labels
    (array([[False, False,  True]]), array([5]))
    """
    check_whole(data)
    given, columns = as_numpy(masks), _integers(data.scene_id, "semantic", semantic)
    if given.ndim != 2 or given.shape[1] != len(data.vertex):
        raise ValueError(
            f"{data.scene_id}: expected masks (P, {len(data.vertex)}) over the item's points, got {given.shape}"
        )
    if columns.size and (columns.min() < 1 or columns.max() > len(INSTANCE_IDS)):
        raise ValueError(
            f"{data.scene_id}: expected columns 1 … {len(INSTANCE_IDS)} in semantic, got {columns.min()} to "
            f"{columns.max()}"
        )
    ordered = np.empty_like(given)
    ordered[:, as_numpy(data.vertex)] = given
    return ScenePredictions(ordered, np.array(INSTANCE_IDS)[columns - 1], scores, data.scene_id)


def write_submission(folder: str | Path, predictions: Iterable[ScenePredictions]) -> list[Path]:
    """Write the files of scenes, each complete or not at all; one scene is in memory at a time.

    Instances keep their order. An error leaves the scenes before it. Zip the folder's content for the server.

    Args:
        folder: where the files go.
        predictions: one of each scene, also of a scene without any instance.

    Returns:
        the scenes' txt files.

    Raises:
        FileExistsError: a scene is there already.
        TypeError: masks are not bool, labels not integer, scores not real.
        ValueError: arrays do not fit each other, a label is none of the 18 nyu40 ids, or a score is not finite. The
            message names the scene.
    """
    folder = Path(folder)
    written = []
    for scene in predictions:
        masks, labels, scores = _checked(scene)
        path = folder / f"{scene.scene_id}.txt"
        if path.exists():
            raise FileExistsError(f"{path} is there already: remove it, or write into another folder")
        (folder / MASKS).mkdir(parents=True, exist_ok=True)
        names = [f"{scene.scene_id}_{row:03}.txt" for row in range(len(masks))]
        with room_for(path), TemporaryDirectory(dir=folder, prefix=f".{scene.scene_id}-") as temporary:
            for name, mask in zip(names, masks, strict=True):
                (Path(temporary) / name).write_bytes(_encode(mask))
            for name in names:
                os.replace(Path(temporary) / name, folder / MASKS / name)
        rows = zip(names, labels.tolist(), scores.tolist(), strict=True)
        with replaced_file(path) as file:
            file.write_text("".join(f"{MASKS}/{name} {label} {score!r}\n" for name, label, score in rows))
        written.append(path)
    return written


def read_submission(folder: str | Path, num_vertices: Mapping[str, int]) -> Iterator[ScenePredictions]:
    """The predictions of each scene, as this module or any other program wrote them; one scene in memory at a time.

    Args:
        folder: the folder of the scenes' txt files.
        num_vertices: of the mesh of each scene; scenes come in this order.

    Raises:
        FileNotFoundError: a scene, or one of its masks, is missing.
        ValueError: the folder has other scenes, or as :func:`read_scene_predictions`.
    """
    folder = Path(folder)
    extra = sorted({path.stem for path in folder.glob("*.txt")} - set(num_vertices))
    if extra:
        raise ValueError(f"{folder} has predictions for {', '.join(extra)}, which num_vertices has not")
    for scene_id, count in num_vertices.items():
        yield read_scene_predictions(folder, scene_id, count)


def read_scene_predictions(folder: str | Path, scene_id: str, num_vertices: int) -> ScenePredictions:
    """The predictions of one scene, in the order of its txt file.

    Labels are not restricted to the 18 classes: the metric leaves out others, as the benchmark does.

    Args:
        folder: the folder of the scenes' txt files.
        scene_id: such as scene0000_00.
        num_vertices: V, vertices of its mesh.

    Raises:
        FileNotFoundError: the scene, or one of its masks, is missing.
        ValueError: a line is not `mask_path label_id confidence`, a mask lies outside the folder, or has not one 0 or 1
            for each vertex; the message names the file and the line.
    """
    folder = Path(folder)
    path = folder / f"{scene_id}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected one for each scene, empty if nothing was found")
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    masks = np.zeros((len(lines), num_vertices), dtype=np.bool_)
    labels, scores = np.zeros(len(lines), np.int64), np.zeros(len(lines), np.float64)
    for row, (number, line) in enumerate(lines):
        where = f"{path}, line {number}"
        name, labels[row], scores[row] = _parse_line(where, line)
        mask_path = folder / name
        if not mask_path.is_file():
            raise FileNotFoundError(f"{where}: {mask_path} is missing")
        mask = _decode(mask_path.read_bytes())
        if mask is None:
            raise ValueError(f"{where}: expected a 0 or 1 in each line of {mask_path}")
        if len(mask) != num_vertices:
            raise ValueError(
                f"{where}: {mask_path} has {len(mask)} lines, but the mesh of {scene_id} has {num_vertices} vertices: "
                "a mask has one for every vertex"
            )
        masks[row] = mask
    return ScenePredictions(masks, labels, scores, scene_id)


def write_ground_truth(folder: str | Path, scenes: Iterable[Data]) -> list[Path]:
    """Write the ground truth of annotated items for the benchmark's script, one txt a scene, existing ones anew.

    Returns:
        the files.

    Raises:
        ValueError: as `evaluation_target`.
    """
    written = []
    for data in scenes:
        path = Path(folder) / f"{data.scene_id}.txt"
        target = evaluation_target(data).tolist()
        with replaced_file(path) as file:
            file.write_text("\n".join(map(str, target)) + "\n")
        written.append(path)
    return written


def _checked(scene: ScenePredictions) -> tuple[Array, Array, Array]:
    name = scene.scene_id
    masks, scores = as_numpy(scene.masks), as_numpy(scene.scores)
    labels = _integers(name, "labels", scene.labels)
    check_scene_id(name)
    if masks.dtype != np.bool_:
        raise TypeError(f"{name}: expected masks of bool, got {masks.dtype}; pass masks != 0")
    if scores.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected scores of real numbers, got {scores.dtype}")
    p = masks.shape[:1]
    if masks.ndim != 2 or not labels.shape == scores.shape == p:
        raise ValueError(
            f"{name}: expected masks (P, V), labels (P,) and scores (P,), got {masks.shape}, {labels.shape} and "
            f"{scores.shape}"
        )
    other = np.setdiff1d(labels, INSTANCE_IDS)
    if len(other):
        raise ValueError(
            f"{name}: expected nyu40 ids {', '.join(map(str, INSTANCE_IDS))} ({INSTANCE_CLASSES[0]} …), got "
            f"{other.tolist()}; for columns of the score use scene_predictions"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{name}: expected finite scores, got {scores[~np.isfinite(scores)].tolist()}")
    return masks, labels, scores


def _parse_line(where: str, line: str) -> tuple[str, int, float]:
    try:
        name, label, score = line.split()
        found = name, int(label), float(score)
    except ValueError as error:
        raise ValueError(f"{where}: expected 'mask_path label_id confidence', got {line!r}") from error
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{where}: expected a path inside the folder, got {name}")
    if not math.isfinite(found[2]):
        raise ValueError(f"{where}: expected a finite confidence, got {score}")
    return found


def _encode(mask: Array) -> bytes:
    """A line a vertex."""
    characters = np.full((len(mask), 2), _NEWLINE, dtype=np.uint8)
    characters[:, 0] = mask + np.uint8(_ZERO)
    return characters.tobytes()


def _decode(content: bytes) -> Array | None:
    """The mask of a file, (V,) bool; None where a line is not 0 or 1."""
    characters = np.frombuffer(content if content.endswith(b"\n") else content + b"\n", np.uint8)
    digits = characters[::2] - np.uint8(_ZERO)
    if len(characters) % 2 or (characters[1::2] != _NEWLINE).any() or (digits > 1).any():
        # with carriage returns or spaces around; many times slower
        lines = content.split()
        if not set(lines) <= {b"0", b"1"}:
            return None
        return np.array([line == b"1" for line in lines], dtype=np.bool_)
    return digits.astype(np.bool_)


def _integers(name: str, what: str, values: Array | Tensor) -> Array:
    array = as_numpy(values)
    if array.size and array.dtype.kind not in "iu":  # an empty tensor is float without being meant so
        raise TypeError(f"{name}: expected {what} of integers, got {array.dtype}")
    return array.astype(np.int64)
