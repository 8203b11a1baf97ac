"""ScanNet's files of results: written, read back, evaluated; and what is said of broken ones."""

from __future__ import annotations

import gc
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scannet_layout import SIZES, VERTICES, files_of, write_scannet
from torch_geometric.data import Data

from probemb_adapters.scannet import INSTANCE_IDS, ScanNetScenes, evaluation_target
from probemb_adapters.scannet.augment import SphereCrop
from probemb_adapters.scannet.submission import (
    ScenePredictions,
    read_scene_predictions,
    read_submission,
    scene_predictions,
    write_ground_truth,
    write_submission,
)
from probemb_lib.metrics import ScanNetAP

A, B = "scene0000_00", "scene0000_01"
MASK = Path("predicted_masks") / f"{A}_001.txt"


def predictions(seed: int = 0, vertices: int = 50) -> list[ScenePredictions]:
    """Overlapping masks, one of them empty; two scenes, the second without anything found."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, vertices)) < np.array([[0.5], [0.1], [0.0]])
    first = ScenePredictions(masks, np.array([5, 39, 5]), rng.random(3), A)
    return [first, ScenePredictions(np.zeros((0, vertices), bool), np.zeros(0, int), np.zeros(0), B)]


@pytest.fixture(scope="module")
def scannet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scannet(tmp_path_factory.mktemp("scannet"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A submission to break."""
    write_submission(tmp_path / "results", predictions())
    return tmp_path / "results"


def assert_equal(found: ScenePredictions, expected: ScenePredictions) -> None:
    np.testing.assert_array_equal(found.masks, expected.masks, strict=True)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.scores, np.asarray(expected.scores, np.float64))
    assert found.scene_id == expected.scene_id


# --- whole files


def test_files(folder: Path) -> None:
    """By the benchmark's description, line by line."""
    first, _ = predictions()
    names = [f"predicted_masks/{A}_{i:03}.txt" for i in range(3)]
    files = files_of(folder)
    assert set(files) == {f"{A}.txt", f"{B}.txt", *names}
    assert files[f"{B}.txt"] == b""
    lines = files[f"{A}.txt"].decode().splitlines()
    for line, name, mask, label, score in zip(lines, names, *first[:3], strict=True):
        path, label_id, confidence = line.split(" ")
        assert (path, int(label_id), float(confidence)) == (name, label, score)
        assert [int(x) for x in files[path].decode().splitlines()] == mask.astype(int).tolist()


def test_read_back(folder: Path) -> None:
    for order in ([0, 1], [1, 0]):
        expected = [predictions()[i] for i in order]
        found = list(read_submission(folder, {x.scene_id: 50 for x in expected}))
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)


def test_returned_paths(tmp_path: Path) -> None:
    assert write_submission(tmp_path / "a", predictions()) == [tmp_path / "a" / f"{A}.txt", tmp_path / "a" / f"{B}.txt"]
    assert write_submission(tmp_path / "b", []) == []
    assert not (tmp_path / "b").exists()


def test_permissions_are_the_usual_ones(folder: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.txt"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize(
    "content", [b"0\n1\n1\n", b"0\n1\n1", b"0\r\n1\r\n1\r\n", b" 0\n1 \n1\n\n", b"0 1 1"], ids=repr
)
def test_masks_as_other_programs_write_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "mask").write_bytes(content)
    (tmp_path / f"{A}.txt").write_text("\ndeep/er/mask   7\t1e-3\r\n\n")
    found = read_scene_predictions(tmp_path, A, 3)
    assert found.masks.tolist() == [[False, True, True]]
    assert found.labels.tolist() == [7]
    assert found.scores.tolist() == [1e-3]


def test_mesh_without_vertices_in_masks(tmp_path: Path) -> None:
    (tmp_path / "mask.txt").write_bytes(b"")
    (tmp_path / f"{A}.txt").write_text("mask.txt 5 0.5\n")
    assert read_scene_predictions(tmp_path, A, 0).masks.shape == (1, 0)


def test_other_labels_are_read(tmp_path: Path) -> None:
    """The metric leaves them out, as the benchmark does."""
    (tmp_path / "mask.txt").write_text("1\n")
    (tmp_path / f"{A}.txt").write_text("mask.txt 1 0.5\n")
    assert read_scene_predictions(tmp_path, A, 1).labels.tolist() == [1]


def test_tensors(tmp_path: Path) -> None:
    masks, none = torch.eye(2, dtype=torch.bool), torch.zeros(0)
    score = torch.tensor([0.3, -2.0], dtype=torch.bfloat16, requires_grad=True)
    given = ScenePredictions(masks, torch.tensor([5, 7], dtype=torch.int32), score, A)
    write_submission(tmp_path, [given, ScenePredictions(masks[:0], none, none, B)])
    first, second = read_submission(tmp_path, {A: 2, B: 2})
    assert first.scores.tolist() == score.float().tolist()
    np.testing.assert_array_equal(first.masks, masks)
    assert second.masks.shape == (0, 2)


def test_float32_scores_come_back(tmp_path: Path) -> None:
    """No two scores become one, which would change the curve."""
    scores = np.nextafter(np.float32(0.7), np.float32(1)) + np.zeros(2, np.float32)
    scores[1] = 0.7
    write_submission(tmp_path, [ScenePredictions(np.eye(2, dtype=bool), np.array([5, 5]), scores, A)])
    found = read_scene_predictions(tmp_path, A, 2).scores
    assert found.astype(np.float32).tolist() == scores.tolist()
    assert found[0] > found[1]


def test_one_scene_in_memory(tmp_path: Path) -> None:
    """20 scenes of 40 masks of 5,000 vertices are 4 MB of masks; writing and reading takes a few scenes of it."""
    scene, scenes = 40 * 5000, 20

    def given() -> Iterator[ScenePredictions]:
        for i in range(scenes):
            yield ScenePredictions(np.ones((40, 5000), bool), np.full(40, 5), np.ones(40), f"scene{i:04}_00")

    (path,) = write_submission(tmp_path / "before", [next(given())])  # what is imported on the way is not counted
    list(read_submission(tmp_path / "before", {path.stem: 5000}))
    gc.collect()  # nor what other tests have left to be freed and made again
    tracemalloc.start()
    try:
        paths = write_submission(tmp_path, given())
        for found in read_submission(tmp_path, {path.stem: 5000 for path in paths}):
            assert found.masks.all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * scene < scenes * scene / 3


# --- from items, and evaluation


def found_in(data: Data) -> ScenePredictions:
    """The truth itself."""
    count = int(data.instance.max()) + 1
    masks = data.instance == torch.arange(count)[:, None]
    semantic = torch.stack([data.semantic[mask][0] for mask in masks])
    return scene_predictions(data, masks, semantic, torch.linspace(0.9, 0.5, count))


def shuffled(data: Data) -> Data:
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(1))
    mixed = Data(**{k: v[order] if torch.is_tensor(v) else v for k, v in data.to_dict().items()})
    return mixed


@pytest.mark.parametrize("transform", [None, shuffled])
def test_truth_predicted_scores_one(scannet: Path, tmp_path: Path, transform: Callable[[Data], Data] | None) -> None:
    """Through files, with points in the mesh's order and in another."""
    scenes = ScanNetScenes(scannet, "train", transform=transform)
    write_submission(tmp_path / "found", map(found_in, scenes))
    target = {data.scene_id: evaluation_target(data) for data in ScanNetScenes(scannet, "train")}
    metric = ScanNetAP()
    for found in read_submission(tmp_path / "found", dict.fromkeys(target, VERTICES)):
        assert sorted(found.masks.sum(axis=1)) == sorted(SIZES[i] for i in (1, 4, 5, 7))
        metric.update(found.masks, found.labels, found.scores, target[found.scene_id])
    result = metric.compute()
    assert result["ap"] == result["ap50"] == result["ap25"] == 1
    seen = {i for i, ap in zip(INSTANCE_IDS, result["class_ap"], strict=True) if ap == 1}
    assert seen == {5, 7}  # the trash can has fewer than 100 vertices


def test_ground_truth_files(scannet: Path, tmp_path: Path) -> None:
    scenes = ScanNetScenes(scannet, "train", transform=shuffled)
    paths = write_ground_truth(tmp_path, scenes)
    assert [path.name for path in paths] == [f"{A}.txt", f"{B}.txt"]
    for path, data in zip(paths, ScanNetScenes(scannet, "train"), strict=True):
        assert [int(x) for x in path.read_text().splitlines()] == evaluation_target(data).tolist()
    before = files_of(tmp_path)
    write_ground_truth(tmp_path, scenes)
    assert files_of(tmp_path) == before
    with pytest.raises(ValueError, match="has no annotation"):
        write_ground_truth(tmp_path / "test", ScanNetScenes(scannet, "test"))
    assert not (tmp_path / "test").exists()


def item() -> Data:
    return Data(vertex=torch.tensor([2, 0, 1]), num_vertices=3, scene_id=A)


def test_items_without_all_vertices(scannet: Path) -> None:
    data = ScanNetScenes(scannet, "val", transform=SphereCrop(100))[0]
    with pytest.raises(
        ValueError, match=f"scene0011_00: expected each of the {VERTICES} vertices once, got 100 points"
    ):
        scene_predictions(data, np.ones((1, 100), bool), np.ones(1, int), np.ones(1))


@pytest.mark.parametrize(
    ("masks", "semantic", "error", "message"),
    [
        (np.ones((1, 2), bool), [1], ValueError, rf"{A}: expected masks \(P, 3\) over the item's points, got \(1, 2\)"),
        (np.ones(3, bool), [1], ValueError, r"expected masks \(P, 3\) .* got \(3,\)"),
        (np.ones((2, 3), bool), [0, 3], ValueError, rf"{A}: expected columns 1 … 18 in semantic, got 0 to 3"),
        (np.ones((2, 3), bool), [1, 19], ValueError, "got 1 to 19"),
        (np.ones((1, 3), bool), [1.0], TypeError, f"{A}: expected semantic of integers, got float64"),
    ],
)
def test_wrong_results_of_an_item(masks: np.ndarray, semantic: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scene_predictions(item(), masks, np.array(semantic), np.ones(len(masks)))


# --- nothing half-written


GOOD = {"masks": np.ones((2, 8), bool), "labels": np.array([3, 39]), "scores": np.array([0.5, -3.0]), "scene_id": A}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("masks", np.ones((2, 8)), TypeError, f"{A}: expected masks of bool, got float64; pass masks != 0"),
        ("masks", np.ones((3, 8), bool), ValueError, r"got \(3, 8\), \(2,\) and \(2,\)"),
        ("masks", np.ones(2, bool), ValueError, rf"{A}: expected masks \(P, V\), .* got \(2,\), \(2,\)"),
        ("labels", np.array([3.0, 4.0]), TypeError, f"{A}: expected labels of integers, got float64"),
        ("labels", np.array([3]), ValueError, r"got \(2, 8\), \(1,\) and \(2,\)"),
        ("labels", np.array([1, 13]), ValueError, rf"{A}: expected nyu40 ids 3, 4, .* got \[1, 13\]; for columns"),
        ("scores", np.array(["a", "b"]), TypeError, f"{A}: expected scores of real numbers, got <U1"),
        ("scores", np.array([0.5, np.nan]), ValueError, rf"{A}: expected finite scores, got \[nan\]"),
        ("scores", np.ones((2, 1)), ValueError, r"\(2,\) and \(2, 1\)"),
        ("scene_id", "", ValueError, "expected a scene's name such as scene0000_00, got ''"),
        ("scene_id", "a/b", ValueError, "got 'a/b'"),
        ("scene_id", "a b", ValueError, "got 'a b'"),
    ],
)
def test_wrong_predictions(tmp_path: Path, name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        write_submission(tmp_path / "new", [ScenePredictions(**{**GOOD, name: value})])
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_scenes_before_it(folder: Path, tmp_path: Path) -> None:
    first, _ = predictions()
    bad = ScenePredictions(**{**GOOD, "scene_id": B, "scores": np.array([0.5, np.inf])})
    with pytest.raises(ValueError, match=f"{B}: expected finite scores"):
        write_submission(tmp_path / "new", [first, bad])
    expected = {name: content for name, content in files_of(folder).items() if name.endswith(".txt") and B not in name}
    assert files_of(tmp_path / "new") == expected


@pytest.mark.parametrize("survives", [0, 1])
def test_a_failure_between_masks_leaves_no_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """The disk is full at the first or the second mask; the next attempt goes through."""
    write, written = Path.write_bytes, []

    def full(path: Path, content: bytes) -> int:
        if len(written) == survives:
            raise OSError("no space left")
        written.append(path)
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="no space left"):
            write_submission(tmp_path, predictions())
    assert files_of(tmp_path) == {}
    write_submission(tmp_path, predictions())
    assert len(list(read_submission(tmp_path, {A: 50, B: 50}))) == 2


def test_masks_of_an_interrupted_scene_are_replaced(folder: Path) -> None:
    """A process that dies before the scene's txt is written leaves masks that no scene has."""
    expected = files_of(folder)
    (folder / f"{A}.txt").unlink()
    (folder / MASK).write_text("0\n")
    write_submission(folder, predictions()[:1])
    assert files_of(folder) == expected


def test_nothing_is_overwritten(folder: Path) -> None:
    before = files_of(folder)
    with pytest.raises(FileExistsError, match=rf"{A}\.txt is there already"):
        write_submission(folder, predictions(1))
    assert files_of(folder) == before


# --- wrong files


def read(folder: Path) -> list[ScenePredictions]:
    return list(read_submission(folder, {A: 50, B: 50}))


def test_missing_scene(folder: Path) -> None:
    (folder / f"{B}.txt").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{B}\.txt is missing: .* empty if nothing was found"):
        read(folder)


def test_other_scenes(folder: Path) -> None:
    with pytest.raises(ValueError, match=f"has predictions for {B}, which num_vertices has not"):
        list(read_submission(folder, {A: 50}))


def test_missing_mask(folder: Path) -> None:
    (folder / MASK).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{A}\.txt, line 2: .*{A}_001\.txt is missing"):
        read(folder)
    shutil.rmtree(folder / "predicted_masks")
    with pytest.raises(FileNotFoundError, match=rf"{A}\.txt, line 1: .*{A}_000\.txt is missing"):
        read(folder)


@pytest.mark.parametrize(
    "content",
    [b"0\n2\n", b"0\n-1\n", b"0\n1.0\n", b"a\nb\n", b"0\n\xff\n", b"00\n11\n", b"0,1\n"],
    ids=repr,
)
def test_mask_that_is_none(folder: Path, content: bytes) -> None:
    (folder / MASK).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{A}\.txt, line 2: expected a 0 or 1 in each line of .*{A}_001\.txt"):
        read(folder)


@pytest.mark.parametrize(("content", "lines"), [(b"1\n" * 49, 49), (b"1\n" * 51, 51), (b"", 0), (b"1 " * 49, 49)])
def test_mask_of_another_mesh(folder: Path, content: bytes, lines: int) -> None:
    (folder / MASK).write_bytes(content)
    with pytest.raises(ValueError, match=rf"line 2: .*{A}_001\.txt has {lines} lines, but the mesh of {A} has 50"):
        read(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{MASK} 5", "expected 'mask_path label_id confidence', got 'predicted"),
        (f"{MASK} 5 0.5 1", "expected 'mask_path label_id confidence'"),
        (f"{MASK} chair 0.5", "expected 'mask_path label_id confidence'"),
        (f"{MASK} 5.0 0.5", "expected 'mask_path label_id confidence'"),
        (f"{MASK} 5 high", "expected 'mask_path label_id confidence'"),
        (f"{MASK} 5 nan", "expected a finite confidence, got nan"),
        (f"{MASK} 5 inf", "expected a finite confidence, got inf"),
        ("/etc/hostname 5 0.5", "expected a path inside the folder, got /etc/hostname"),
        ("../mask.txt 5 0.5", r"expected a path inside the folder, got \.\./mask\.txt"),
    ],
)
def test_line(folder: Path, line: str, message: str) -> None:
    path = folder / f"{A}.txt"
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"{A}\.txt, line 5: {message}"):
        read(folder)
