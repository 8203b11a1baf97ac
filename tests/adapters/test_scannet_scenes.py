"""ScanNet's files: what is read, what is written, and what is said of broken ones, all made here."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.recfunctions import repack_fields
from plyfile import PlyData, PlyElement
from scannet_layout import (
    ALIGNMENT,
    CATEGORIES,
    LABEL_MAP,
    SIZES,
    SPLITS,
    UNANNOTATED,
    VERTICES,
    arrays,
    edit_json,
    files_of,
    write_scannet,
)
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from probemb_adapters.scannet import (
    INSTANCE_CLASSES,
    INSTANCE_IDS,
    SEMANTIC_IDS,
    ScanNetScenes,
    class_index,
    evaluation_target,
)
from probemb_adapters.scannet.files import NYU40, ScenePaths, read_label_map, read_scene, read_split, scene_paths
from probemb_adapters.scannet.write import NYU40_MAP, write_label_map, write_scene, write_split
from probemb_lib import index_instances
from probemb_lib.labels import split_scannet
from probemb_lib.metrics import ScanNetAP

SCENE = "scene0011_00"  # the one of `val`, seed 2
TEST_SCENE = "scene0707_00"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scannet(tmp_path_factory.mktemp("scannet"))


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.fixture
def paths(root: Path) -> ScenePaths:
    return scene_paths(root, SCENE)


# --- constants


def test_classes() -> None:
    """The names that the benchmark's documentation lists for the ids."""
    assert len(NYU40) == len(set(NYU40)) == 41
    assert len(INSTANCE_CLASSES) == 18
    assert len(SEMANTIC_IDS) == 20
    assert SEMANTIC_IDS[:2] == (1, 2)
    assert SEMANTIC_IDS[2:] == INSTANCE_IDS == tuple(ScanNetAP().class_ids)
    expected = (
        "cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, desk, curtain, refrigerator, "
        "shower curtain, toilet, sink, bathtub, otherfurniture"
    )
    assert ", ".join(INSTANCE_CLASSES) == expected


def test_class_index() -> None:
    label = torch.arange(41).reshape(1, 41)
    index = class_index(label)
    assert index.shape == label.shape
    for i, value in enumerate(index[0].tolist()):
        assert value == (SEMANTIC_IDS.index(i) if i in SEMANTIC_IDS else -100)


# --- items


@pytest.mark.parametrize(("split", "index", "seed"), [("train", 0, 0), ("train", 1, 1), ("val", -1, 2)])
def test_item(whole: Path, split: str, index: int, seed: int) -> None:
    """Vertex by vertex, from what was written."""
    data = ScanNetScenes(whole, split)
    assert data.scene_ids == tuple(SPLITS[split])
    assert data.classes == INSTANCE_CLASSES
    assert data.num_classes == 19
    item, a = data[index], arrays(seed)
    instances = [1, 4, 5, 7]  # objects of the 18 classes, in the order of the file
    columns = {1: 3, 4: 5, 5: 3, 7: 18}
    for v in range(VERTICES):
        owner = int(a["instance"][v])
        label = 0 if owner < 0 else LABEL_MAP[CATEGORIES[owner]]
        found = int(item.label[v]), int(item.instance[v]), int(item.semantic[v])
        if label == 0:
            assert found == (0, -100, -100)
        elif owner in instances:
            assert found == (label, instances.index(owner), columns[owner])
        else:
            assert found == (label, -1, -100 if label == 35 else 0)
    np.testing.assert_allclose(item.pos, a["pos"] @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3], atol=1e-6)
    np.testing.assert_array_equal(item.rgb, a["rgb"])
    np.testing.assert_allclose(item.x, a["rgb"] / 255 * 2 - 1, atol=1e-6)
    assert item.vertex.tolist() == list(range(VERTICES))
    assert (item.num_vertices, item.scene_id, item.num_nodes) == (VERTICES, SPLITS[split][index], VERTICES)
    assert item.pos.dtype == item.x.dtype == torch.float32
    assert item.rgb.dtype == torch.uint8
    assert item.instance.dtype == item.semantic.dtype == item.label.dtype == item.vertex.dtype == torch.int64
    assert index_instances(item.instance).size.tolist() == [SIZES[i] for i in instances]


def test_scan_without_annotation(whole: Path) -> None:
    (item,) = ScanNetScenes(whole, "test")
    assert set(item.keys()) == {"pos", "rgb", "x", "vertex", "num_vertices", "scene_id"}
    np.testing.assert_array_equal(item.pos, arrays(3)["pos"])
    assert [p.name for p in (whole / "scans_test" / TEST_SCENE).iterdir()] == [f"{TEST_SCENE}_vh_clean_2.ply"]
    with pytest.raises(ValueError, match="scene0707_00 has no annotation"):
        evaluation_target(item)
    (blind,) = ScanNetScenes(whole, "val", annotated=False)
    assert "instance" not in blind
    np.testing.assert_array_equal(blind.pos, ScanNetScenes(whole, "val")[0].pos)


def test_scans_of_any_folder_are_aligned_where_they_say_so(root: Path) -> None:
    """A test scan in `scans`, with a txt."""
    write_scene(root, "scene0708_00", np.eye(3), np.zeros((3, 3), np.uint8), axis_alignment=ALIGNMENT)
    shutil.move(root / "scans_test" / "scene0708_00", root / "scans" / "scene0708_00")
    expected = np.eye(3) @ ALIGNMENT[:3, :3].T + ALIGNMENT[:3, 3]
    np.testing.assert_allclose(read_scene(root, "scene0708_00", None).pos, expected, atol=1e-6)
    np.testing.assert_array_equal(read_scene(root, "scene0708_00", None, axis_align=False).pos, np.eye(3))


def test_without_alignment(root: Path, paths: ScenePaths) -> None:
    (item,) = ScanNetScenes(root, "val", axis_align=False)
    np.testing.assert_array_equal(item.pos, arrays(2)["pos"])
    paths.info.write_text("colorHeight = 968\nsceneType = Office\n")
    (item,) = ScanNetScenes(root, "val")
    np.testing.assert_array_equal(item.pos, arrays(2)["pos"])


def test_transform_gets_the_item(whole: Path) -> None:
    seen = []
    data = ScanNetScenes(whole, "val", transform=lambda item: seen.append(item.scene_id) or item.scene_id)
    assert data[0] == SCENE
    assert seen == [SCENE]


def test_loader(whole: Path) -> None:
    """Two workers; the batch comes apart again."""
    data = pickle.loads(pickle.dumps(ScanNetScenes(whole, "train")))
    batch = next(iter(DataLoader(data, batch_size=2, num_workers=2)))
    assert batch.num_nodes == 2 * VERTICES
    assert len(index_instances(batch.instance, batch.batch).size) == 8
    for one, item in zip(batch.to_data_list(), data, strict=True):
        assert one.scene_id == item.scene_id
        assert torch.equal(evaluation_target(one), evaluation_target(item))


def test_no_such_item(whole: Path) -> None:
    data = ScanNetScenes(whole, "train")
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"scene {index} of a split of 2"):
            data[index]


# --- ground truth for evaluation


def test_evaluation_target(whole: Path) -> None:
    item, owner = ScanNetScenes(whole, "val")[0], arrays(2)["instance"]
    target = evaluation_target(item)
    rows = {1: 5001, 4: 7002, 5: 5003, 7: 39004, 0: 1000, 2: 2000, 3: 35000, 6: 0, -1: 0}
    assert target.tolist() == [rows[i] for i in owner.tolist()]
    instance, semantic = split_scannet(target)
    assert torch.equal(instance >= 0, item.instance >= 0)
    assert torch.equal(semantic == -100, item.label == 0)
    order = torch.randperm(VERTICES, generator=torch.Generator().manual_seed(0))
    mixed = Data(instance=item.instance[order], label=item.label[order], vertex=order)
    mixed.num_vertices, mixed.scene_id = VERTICES, SCENE
    assert torch.equal(evaluation_target(mixed), target)


@pytest.mark.parametrize("vertex", [[0, 1], [0, 1, 1], [0, 1, 3], [0, 1, 2, 2]])
def test_evaluation_needs_all_vertices(vertex: list[int]) -> None:
    item = Data(instance=torch.zeros(len(vertex)).long(), label=torch.ones(len(vertex)).long())
    item.vertex, item.num_vertices, item.scene_id = torch.tensor(vertex), 3, SCENE
    with pytest.raises(ValueError, match=f"{SCENE}: expected each of the 3 vertices once, got {len(vertex)} points"):
        evaluation_target(item)


def test_too_many_instances() -> None:
    item = Data(instance=torch.tensor([998]), label=torch.tensor([5]), vertex=torch.tensor([0]))
    item.num_vertices, item.scene_id = 1, SCENE
    assert evaluation_target(item).tolist() == [5999]
    item.instance = torch.tensor([999])
    with pytest.raises(ValueError, match=f"{SCENE}: expected at most 999 instances, .* got ids up to 999"):
        evaluation_target(item)


# --- files as they are published


def write_published(root: Path, *, text: bool = False, byte_order: str = "<") -> None:
    """All that ScanNet's own files have and ours do not, by other means than ours."""
    folder = root / "scans" / "scene0000_00"
    folder.mkdir(parents=True)
    vertex = np.zeros(6, dtype=[*((c, "f4") for c in "xyz"), *((c, "u1") for c in ("red", "green", "blue", "alpha"))])
    vertex["x"], vertex["green"] = np.arange(6), [0, 1, 2, 3, 4, 255]
    face = np.array([([0, 1, 2],), ([3, 4, 5],)], dtype=[("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
    PlyData(elements, text=text, byte_order=byte_order).write(folder / "scene0000_00_vh_clean_2.ply")
    segs = {"params": {"kThresh": "0.0001", "segMinVerts": "20"}, "sceneId": "scene0000_00"}
    segs["segIndices"] = [7, 7, 900, 900, 12, 0]
    (folder / "scene0000_00_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segs))
    groups = [
        {"id": 0, "objectId": 0, "segments": [12, 7], "label": 'monitor 24"'},
        {"id": 1, "objectId": 1, "segments": [900], "label": "couch"},
        # all objects again, as in scene0217_00
        {"id": 2, "objectId": 2, "segments": [7, 12], "label": 'monitor 24"'},
        {"id": 3, "objectId": 3, "segments": [900], "label": "couch"},
        {"id": 4, "objectId": 4, "segments": [], "label": "couch"},
    ]
    content = {"sceneId": "scannet.scene0000_00", "appId": "Aggregator.v2", "segGroups": groups}
    (folder / "scene0000_00.aggregation.json").write_text(json.dumps(content))
    rows = [f"axisAlignment = {' '.join(map(str, ALIGNMENT.ravel()))} ", "colorHeight = 968", "sceneType = Office"]
    (folder / "scene0000_00.txt").write_text("\n".join(rows) + "\n")
    columns = ["id", "raw_category", "category", "count", "nyu40id", "eigen13id", "nyuClass", "mpcat40"]
    table = [columns, ["1", "couch", "couch", "7", "6", "8", "sofa", ""]]
    table += [["2", '"monitor 24"""', "monitor", "1", "40", "", "", ""]]
    (root / "scannetv2-labels.combined.tsv").write_text("".join("\t".join(row) + "\r\n" for row in table))
    (root / "scannetv2_train.txt").write_text("scene0000_00\r\n")


@pytest.mark.parametrize(("text", "byte_order"), [(False, "<"), (False, ">"), (True, "=")])
def test_published_files(tmp_path: Path, text: bool, byte_order: str) -> None:
    write_published(tmp_path, text=text, byte_order=byte_order)
    (item,) = ScanNetScenes(tmp_path, "train")
    assert item.label.tolist() == [40, 40, 6, 6, 40, 0]
    assert item.instance.tolist() == [-1, -1, 0, 0, -1, -100]
    assert item.semantic.tolist() == [-100, -100, 4, 4, -100, -100]
    assert item.pos.tolist() == [[1.5, i - 2, 0.25] for i in range(6)]
    assert item.rgb[:, 1].tolist() == [0, 1, 2, 3, 4, 255]


def test_scene_without_an_instance(tmp_path: Path) -> None:
    write_label_map(tmp_path)
    write_split(tmp_path, "train", ["a"])
    write_scene(tmp_path, "a", np.eye(3), np.zeros((3, 3), np.uint8), instance=[-1, -1, -1])
    (item,) = ScanNetScenes(tmp_path, "train")
    assert item.instance.tolist() == item.semantic.tolist() == [-100] * 3
    assert evaluation_target(item).tolist() == [0, 0, 0]


# --- written files


def test_written_mesh(whole: Path) -> None:
    """By plyfile."""
    a = arrays(2)
    mesh = PlyData.read(scene_paths(whole, SCENE).mesh)
    labelled = PlyData.read(whole / "scans" / SCENE / f"{SCENE}_vh_clean_2.labels.ply")
    for ply in (mesh, labelled):
        vertex = ply["vertex"]
        np.testing.assert_array_equal(np.stack([vertex[c] for c in "xyz"], 1), a["pos"], strict=True)
        np.testing.assert_array_equal(np.stack([vertex[c] for c in ("red", "green", "blue")], 1), a["rgb"], strict=True)
        assert (vertex["alpha"] == 255).all()
        np.testing.assert_array_equal(np.stack(ply["face"]["vertex_indices"]), a["faces"])
    assert "label" not in mesh["vertex"].data.dtype.names
    np.testing.assert_array_equal(labelled["vertex"]["label"], read_scene(whole, SCENE, LABEL_MAP).label)


def test_written_annotation(whole: Path) -> None:
    a, paths = arrays(2), scene_paths(whole, SCENE)
    assert json.loads(paths.segments.read_text())["segIndices"] == a["segment"].tolist()
    groups = json.loads(paths.aggregation.read_text())["segGroups"]
    assert [group["label"] for group in groups] == CATEGORIES
    assert [group["objectId"] for group in groups] == list(range(len(CATEGORIES)))
    for row, group in enumerate(groups):
        assert group["segments"] == np.unique(a["segment"][a["instance"] == row]).tolist()
    assert np.count_nonzero(a["instance"] < 0) == UNANNOTATED


def test_written_tables(tmp_path: Path) -> None:
    write_label_map(tmp_path / "new")
    assert read_label_map(tmp_path / "new") == NYU40_MAP
    assert NYU40_MAP["otherprop"] == 40
    write_label_map(tmp_path / "new", {'24" monitor': 40, "a\tb": 0})
    assert read_label_map(tmp_path / "new") == {'24" monitor': 40, "a\tb": 0}
    write_split(tmp_path / "new", "train", ["b", "a"])
    assert read_split(tmp_path / "new", "train") == ("b", "a")
    with pytest.raises(ValueError, match="'tv': expected a nyu40 id 0 … 40, got 41"):
        write_label_map(tmp_path / "other", {"tv": 41})
    assert files_of(tmp_path).keys() == {"new/scannetv2-labels.combined.tsv", "new/scannetv2_train.txt"}


GOOD: dict[str, Any] = {
    "pos": np.eye(3),
    "rgb": np.zeros((3, 3), np.uint8),
    "faces": [[0, 1, 2]],
    "instance": [0, 0, -1],
    "categories": ["chair"],
    "segment": [4, 5, 0],
    "axis_alignment": np.eye(4),
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pos": np.zeros((3, 2))}, ValueError, r"a: expected pos of shape \(\*, 3\), got \(3, 2\)"),
        ({"pos": [["1", "2", "3"]] * 3}, TypeError, "a: expected pos of real numbers, got <U1"),
        ({"pos": [[0, 0, np.nan]] * 3}, ValueError, "a: expected positions, all finite as float32, got 0 such of 3"),
        ({"pos": np.eye(3) * 1e39}, ValueError, "got 0 such of 3"),
        ({"rgb": np.zeros((2, 3), np.uint8)}, ValueError, r"a: expected rgb of shape \(3, 3\), got \(2, 3\)"),
        ({"rgb": np.zeros((3, 3))}, TypeError, "a: expected rgb of uint8, got float64"),
        ({"rgb": np.zeros((3, 3), np.uint16)}, TypeError, "a: expected rgb of uint8, got uint16"),
        ({"faces": [[0, 1, 3]]}, ValueError, "a: expected faces 0 … 2, got 0 to 3"),
        ({"faces": [[0.0, 1.0, 2.0]]}, TypeError, "a: expected faces of integers, got float64"),
        ({"instance": [0, 1, 0]}, ValueError, "a: expected instance -1 … 0, got 0 to 1"),
        ({"instance": [0, 0]}, ValueError, r"a: expected instance of shape \(3\), got \(2,\)"),
        ({"categories": ["bean bag"]}, ValueError, "a: the category 'bean bag' is not in the table"),
        ({"segment": [4, 4, 4]}, ValueError, "a: expected segments of one object each, got segment 4 in objects 0 and"),
        ({"segment": [-1, 0, 5]}, ValueError, "a: expected segment 0 … 2147483647, got -1 to 5"),
        ({"axis_alignment": np.eye(3)}, ValueError, r"a: expected axis_alignment of shape \(4, 4\), got \(3, 3\)"),
        ({"axis_alignment": np.eye(4) * 2}, ValueError, "a: expected axis_alignment of finite numbers with a last row"),
        ({"axis_alignment": np.eye(4) + np.nan}, ValueError, "a: expected axis_alignment of finite numbers"),
        ({"scene_id": "a/b"}, ValueError, "expected a scene's name such as scene0000_00, got 'a/b'"),
        ({"scene_id": ".."}, ValueError, "got '..'"),
        ({"scene_id": "a b"}, ValueError, "got 'a b'"),
    ],
)
def test_scenes_that_cannot_be_written(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write_scene(tmp_path, **{"scene_id": "a", **GOOD, **change})
    assert list(tmp_path.iterdir()) == []


def test_no_vertices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a: expected positions, all finite as float32, got 0 such of 0"):
        write_scene(tmp_path, "a", np.zeros((0, 3)), np.zeros((0, 3), np.uint8))


def test_a_scene_in_utm_coordinates(tmp_path: Path) -> None:
    """Written in double, read less an offset in whole metres: the scene at the origin to a micrometre."""
    pos = np.round(np.random.default_rng(0).random((400, 3)) * [5, 4, 2.5], 3)
    rgb = np.zeros((400, 3), np.uint8)
    utm = np.array([500_000, 5_400_000, 300])
    write_scene(tmp_path, "a", pos + utm, rgb)
    write_scene(tmp_path, "b", pos, rgb)
    far, near = (read_scene(tmp_path, scene, None) for scene in "ab")
    assert PlyData.read(scene_paths(tmp_path, "a").mesh)["vertex"]["y"].dtype == np.float64
    assert PlyData.read(scene_paths(tmp_path, "b").mesh)["vertex"]["y"].dtype == np.float32
    np.testing.assert_array_equal(near.offset, [0, 0, 0])
    np.testing.assert_array_equal(far.offset, np.round(far.offset))
    np.testing.assert_array_equal(near.pos, pos.astype(np.float32))
    np.testing.assert_allclose(far.pos.astype(np.float64) + far.offset - utm, pos, rtol=0, atol=1e-6)
    # Its alignment turns about the origin, so it is applied before the offset is subtracted.
    turn = np.array([[0, -1, 0, 7], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_scene(tmp_path, "c", pos + utm, rgb, axis_alignment=turn)
    turned = read_scene(tmp_path, "c", None)
    expected = (pos + utm) @ turn[:3, :3].T + turn[:3, 3]
    np.testing.assert_allclose(turned.pos.astype(np.float64) + turned.offset, expected, rtol=0, atol=1e-6)


def test_positions_that_lost_their_digits(tmp_path: Path) -> None:
    pos = np.random.default_rng(0).random((400, 3)) + np.array([500_000, 5_400_000, 300])
    for lost in (pos.astype(np.float32), pos.astype(np.float32).astype(np.float64)):
        with pytest.raises(
            ValueError, match=r"a: expected positions that float32 can tell apart, got .* subtract an offset"
        ):
            write_scene(tmp_path, "a", lost, np.zeros((400, 3), np.uint8))
    write_scene(tmp_path, "a", pos, np.zeros((400, 3), np.uint8))
    mesh = scene_paths(tmp_path, "a").mesh
    vertex = PlyData.read(mesh)["vertex"].data
    fields = [(name, "f4" if name in "xyz" else "u1") for name in vertex.dtype.names]
    PlyData([PlyElement.describe(vertex.astype(fields), "vertex")]).write(mesh)
    with pytest.raises(ValueError, match=r"_vh_clean_2\.ply: expected positions that float32 can tell apart"):
        read_scene(tmp_path, "a", None)


def test_scene_that_is_there_already(tmp_path: Path) -> None:
    folder = write_scene(tmp_path, "a", **GOOD)
    assert folder == tmp_path / "scans" / "a"
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError, match="a is there already"):
        write_scene(tmp_path, "a", **GOOD)
    assert files_of(tmp_path) == before
    assert len(before) == 5


def test_an_error_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        write_scene(tmp_path, "a", **GOOD)
    assert files_of(tmp_path) == {}
    assert list((tmp_path / "scans").iterdir()) == []


# --- missing and broken files


def test_missing_split(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"scannetv2_all\.txt is missing: .*scannetv2_test\.txt, scannetv2_tr"):
        ScanNetScenes(root, "all")
    with pytest.raises(FileNotFoundError, match=r"scannetv2_val\.txt is missing: .* has no scannetv2_\*\.txt"):
        ScanNetScenes(root / "scans", "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [("\n", "val.txt names no scene"), (f"{SCENE}\nx\n{SCENE}\n", f"val.txt: {SCENE} stands 2 times")],
)
def test_split(root: Path, text: str, message: str) -> None:
    (root / "scannetv2_val.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        ScanNetScenes(root, "val")


@pytest.mark.parametrize(
    ("name", "hint"), [("mesh", ""), ("segments", "annotated=False"), ("aggregation", "annotated")]
)
def test_missing_file_is_found_at_once(root: Path, paths: ScenePaths, name: str, hint: str) -> None:
    path: Path = getattr(paths, name)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{SCENE}: .*scans/{SCENE}/{path.name} is missing: .*{hint}"):
        ScanNetScenes(root, "val")
    with pytest.raises(FileNotFoundError, match=f"{path.name} is missing: unpack the scene again"):
        read_scene(root, SCENE, LABEL_MAP)


def test_missing_test_scan(root: Path) -> None:
    shutil.rmtree(root / "scans_test" / TEST_SCENE)
    with pytest.raises(FileNotFoundError, match=f"{TEST_SCENE}: .*_vh_clean_2.ply is missing"):
        ScanNetScenes(root, "test")


def test_missing_alignment(root: Path, paths: ScenePaths) -> None:
    paths.info.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{SCENE}\.txt is missing: .*axis_align=False"):
        ScanNetScenes(root, "val")[0]
    assert ScanNetScenes(root, "val", axis_align=False)[0].num_nodes == VERTICES


def test_missing_table(root: Path) -> None:
    (root / "scannetv2-labels.combined.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"scannetv2-labels\.combined\.tsv is missing"):
        ScanNetScenes(root, "val")
    assert len(ScanNetScenes(root, "test")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected columns raw_category and nyu40id, got none"),
        ("raw_category\tnyuClass\nwall\twall\n", "got raw_category, nyuClass"),
        ("raw_category\tnyu40id\nwall\t1\nbox\t\n", "line 3: expected nyu40id 0 … 40, got ''"),
        ("raw_category\tnyu40id\nwall\n", "line 2: expected nyu40id 0 … 40, got ''"),
        ("raw_category\tnyu40id\nwall\t41\n", "line 2: expected nyu40id 0 … 40, got '41'"),
        ('raw_category\tnyu40id\n"' + "x" * 140_000, "is no readable table"),
    ],
)
def test_table(root: Path, text: str, message: str) -> None:
    (root / "scannetv2-labels.combined.tsv").write_text(text)
    with pytest.raises(ValueError, match=rf"scannetv2-labels\.combined\.tsv.* {message}"):
        ScanNetScenes(root, "val")


def rewrite_mesh(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    vertex = change(PlyData.read(path, mmap=False)["vertex"].data)
    PlyData([PlyElement.describe(vertex, "vertex")]).write(path)


def with_nan(vertex: np.ndarray) -> np.ndarray:
    vertex["y"][5] = np.nan
    return vertex


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vertex: repack_fields(vertex[["x", "y", "red", "green"]]), "expected vertices with .* got no z, blue"),
        (lambda vertex: vertex[:0], "has no vertex"),
        (with_nan, "a coordinate is NaN or infinite"),
        (
            lambda vertex: vertex.astype([(c, "f4") for c in vertex.dtype.names]),
            "expected colours of uchar, got float32",
        ),
    ],
)
def test_mesh(root: Path, paths: ScenePaths, change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    rewrite_mesh(paths.mesh, change)
    with pytest.raises(ValueError, match=rf"{SCENE}_vh_clean_2\.ply.* {message}"):
        ScanNetScenes(root, "val")[0]


@pytest.mark.parametrize("keep", [0, 3, 100, 5000, -7])
def test_damaged_mesh(root: Path, paths: ScenePaths, keep: int) -> None:
    """Cut in the header, in the vertices, in the faces."""
    paths.mesh.write_bytes(paths.mesh.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{SCENE}_vh_clean_2\.ply is no readable ply file of a mesh"):
        ScanNetScenes(root, "val")[0]


def test_no_mesh(root: Path, paths: ScenePaths) -> None:
    for content in (b"\xff\xfe\x00\x01" * 9, b"ply\nformat ascii 1.0\nend_header\n"):
        paths.mesh.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{SCENE}_vh_clean_2\.ply is no readable ply file"):
            ScanNetScenes(root, "val")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axisAlignment = 1 0 0", "expected axisAlignment with 16 numbers, got '1 0 0'"),
        ("axisAlignment = " + "x " * 16, "expected axisAlignment with 16 numbers, got 'x x"),
        ("axisAlignment = " + "1 " * 16, "expected axisAlignment of finite numbers with a last row 0 0 0 1, got"),
        ("axisAlignment = nan" + " 0" * 14 + " 1", "expected axisAlignment of finite numbers with a last row 0 0 0 1"),
    ],
)
def test_alignment(root: Path, paths: ScenePaths, text: str, message: str) -> None:
    paths.info.write_text(f"numColorFrames = 5\n{text}\n")
    with pytest.raises(ValueError, match=rf"{SCENE}\.txt: {message}"):
        ScanNetScenes(root, "val")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("segIndices"), ": expected segIndices, a list of integers"),
        (lambda c: c.update(segIndices=[0.5] * VERTICES), ": expected segIndices, a list of integers"),
        (lambda c: c.update(segIndices=["1"] * VERTICES), ": expected segIndices, a list of integers"),
        (lambda c: c.update(segIndices=[[1], [1, 2]]), ": expected segIndices, a list of integers"),
        (lambda c: c.update(segIndices=[[1]] * VERTICES), ": expected segIndices, a list of integers"),
        (lambda c: c.update(segIndices=[2**70] * VERTICES), ": expected segIndices, a list of integers"),
        (lambda c: c["segIndices"].pop(), f" has {VERTICES - 1} segIndices, but the mesh has {VERTICES} vertices"),
        (lambda c: c.update(segIndices=[]), f" has 0 segIndices, but the mesh has {VERTICES} vertices"),
    ],
)
def test_segments(root: Path, paths: ScenePaths, change: Callable[[Any], object], message: str) -> None:
    edit_json(paths.segments, change)
    with pytest.raises(ValueError, match=rf"{SCENE}_vh_clean_2\.0\.010000\.segs\.json{message}"):
        ScanNetScenes(root, "val")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("segGroups"), r": expected segGroups, a list of \{label, segments\}"),
        (lambda c: c["segGroups"].insert(1, "chair"), ", group 1: expected a label and segments"),
        (lambda c: c["segGroups"][2].pop("label"), ", group 2: expected a label and segments"),
        (lambda c: c["segGroups"][2].update(segments=None), ", group 2: expected a label and segments"),
        (
            lambda c: c["segGroups"][3].update(label="bean bag"),
            ", group 3: the category 'bean bag' is not in scannetv2",
        ),
        (lambda c: c["segGroups"][4]["segments"].append(9999), r", group 4: segment 9999 is not in .*segs\.json"),
        (lambda c: c["segGroups"][4]["segments"].append(1), ", group 4: segment 1 is not in"),
    ],
)
def test_aggregation(root: Path, paths: ScenePaths, change: Callable[[Any], object], message: str) -> None:
    edit_json(paths.aggregation, change)
    with pytest.raises(ValueError, match=rf"{SCENE}\.aggregation\.json{message}"):
        ScanNetScenes(root, "val")[0]


@pytest.mark.parametrize("name", ["segments", "aggregation"])
@pytest.mark.parametrize(
    ("content", "message"), [(b'{"segGroups": [', "is no JSON"), (b"\xff\xfe", "is no JSON"), (b"[]", "got list")]
)
def test_json(root: Path, paths: ScenePaths, name: str, content: bytes, message: str) -> None:
    path: Path = getattr(paths, name)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name}.* {message}"):
        ScanNetScenes(root, "val")[0]


def test_batch_of_crops_keeps_scene_sizes(whole: Path) -> None:
    """`num_vertices` is that of the mesh whatever the number of points."""
    item = ScanNetScenes(whole, "val")[0]
    part = item.subgraph(torch.arange(10))
    one, two = Batch.from_data_list([part, item]).to_data_list()
    assert (one.num_nodes, int(one.num_vertices)) == (10, VERTICES)
    assert torch.equal(evaluation_target(two), evaluation_target(item))
