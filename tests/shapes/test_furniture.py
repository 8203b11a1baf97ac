"""The furniture data in PartNet's layout: nothing lost, fair splits, whole or not there at all."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from paths import PROJECT
from scipy.spatial import cKDTree
from torch_geometric.data import Data

from probemb_adapters.partnet import PartNetInstances, evaluation_targets
from probemb_shapes import furniture
from probemb_shapes.furniture import (
    GROUPS,
    LIBRARIES,
    MIN_PARTS,
    OTHER_PART,
    PART,
    SPLITS,
    FurnitureObject,
    FurnitureReport,
    main,
    read_furniture,
    split_of,
    write_furniture,
)

SOURCE = PROJECT / "data" / "furniture_parts"
LEVEL_3 = [
    "body",
    "bulb",
    "cushion",
    "door",
    "drawer",
    "frame",
    "glass",
    "handle",
    "leg",
    "panel",
    "support",
    "top",
]
RARE = {
    "armrest": 8, "back": 7, "base": 19, "basin": 7, "bedding": 5, "faucet": 18,
    "lampshade": 13, "lid": 4, "seat": 10, "shelf": 9, "wheel": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def objects() -> dict[str, FurnitureObject]:
    return {item.anno_id: item for item in read_furniture(SOURCE)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FurnitureReport]:
    root = tmp_path_factory.mktemp("furniture") / "root"
    return root, write_furniture(SOURCE, root)


def read(root: Path, level: int, category: str = "Furniture") -> dict[str, list[Data]]:
    return {split: list(PartNetInstances(root, category, level, split, random_points=False)) for split in SPLITS}


@pytest.fixture(scope="module")
def shapes(written: tuple[Path, FurnitureReport]) -> dict[str, list[Data]]:
    return read(written[0], 3)


@pytest.fixture
def small_source(tmp_path: Path) -> Path:
    """Four invented objects in the four files; they fall into all three splits."""
    folder = tmp_path / "small"
    folder.mkdir()
    names = {"cc0": "oakChair", "ccby": "table", "katorlegaz": "bar-stool", "furniture_bench": "chair"}
    rng = np.random.default_rng(0)
    for library in LIBRARIES:
        np.savez(
            folder / f"{library}.npz",
            pos=rng.uniform(0, 2, (10_000, 3)).astype(np.float32),
            rgb=rng.integers(0, 256, (10_000, 3)).astype(np.uint8),
            instance=np.sort(rng.integers(0, 3, 10_000)).astype(np.int16),
            ptr=np.array([0, 10_000]),
            object_name=np.array([names[library]]),
            part_ptr=np.array([0, 3]),
            part_class=np.array([1, 1, 0], dtype=np.int16),
            classes=np.array(["other", "leg"]),
        )
    return folder


def edit(path: Path, **arrays: Any) -> None:
    with np.load(path) as file:
        data = dict(file)
    np.savez(path, **{name: value for name, value in (data | arrays).items() if value is not None})


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_every_object_once_with_all_its_parts(
    objects: dict[str, FurnitureObject], shapes: dict[str, list[Data]]
) -> None:
    items = [item for split in SPLITS for item in shapes[split]]
    assert len(items) == len(objects) == 151
    assert {item.anno_id for item in items} == objects.keys()
    for item in items:
        source = objects[item.anno_id]
        assert item.pos.shape == (10_000, 3)
        assert not item.other.any()
        np.testing.assert_array_equal(np.bincount(item.instance), np.bincount(source.instance))
        assert np.bincount(item.instance).min() >= 40
        expected = [f"furniture/{name}" if name in LEVEL_3 else OTHER_PART for name in source.classes]
        level_3 = [*(f"furniture/{name}" for name in LEVEL_3), OTHER_PART]
        assert [level_3[c] for c in evaluation_targets(item).gt_classes] == expected


def test_shapes_fill_the_unit_sphere_with_y_up(
    objects: dict[str, FurnitureObject], shapes: dict[str, list[Data]]
) -> None:
    for item in (item for split in SPLITS for item in shapes[split]):
        pos = item.pos.numpy()
        np.testing.assert_allclose(np.linalg.norm(pos, axis=1).max(), 1.0, atol=1e-6)
        np.testing.assert_allclose(pos.min(0) + pos.max(0), 0.0, atol=1e-6)
        # The source's axes (x right, y back, z up) are x, −z, y here, all to one scale; parts keep points.
        source = objects[item.anno_id]
        back = np.stack((pos[:, 0], -pos[:, 2], pos[:, 1]), axis=1)
        scale = np.ptp(source.pos, axis=0).max() / np.ptp(back, axis=0).max()
        centre = (source.pos.min(0) + source.pos.max(0)) / 2
        for part in range(len(source.classes)):
            expected = source.pos[source.instance == part].mean(0, dtype=np.float64)
            found = back[item.instance.numpy() == part].mean(0, dtype=np.float64) * scale + centre
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_file_is_partnet_s(written: tuple[Path, FurnitureReport], objects: dict[str, FurnitureObject]) -> None:
    folder = written[0] / "ins_seg_h5" / "Furniture"
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{s}-00.{e}" for s in SPLITS for e in ("h5", "json"))
    with h5py.File(folder / "test-00.h5") as file:
        assert {name: (file[name].dtype.str, file[name].chunks[0]) for name in file} == {
            "pts": ("<f4", 1),
            "rgb": ("|u1", 1),
            "label": ("<i4", 1),
        }
        label, rgb = file["label"][0], file["rgb"][0]
    records = json.loads((folder / "test-00.json").read_text())
    source = objects[records[0]["anno_id"]]
    assert label.min() == 1
    for part in range(len(source.classes)):
        expected = Counter(map(tuple, source.rgb[source.instance == part]))
        assert Counter(map(tuple, rgb[label == part + 1])) == expected
    # Shuffled: the parts come mixed from the start.
    assert (np.diff(label) != 0).mean() > 0.3
    stats = written[0] / "stats" / "after_merging_label_ids" / "Furniture-level-1.txt"
    assert stats.read_text() == "1 furniture/part leaf\n"


def test_levels(written: tuple[Path, FurnitureReport], shapes: dict[str, list[Data]]) -> None:
    root = written[0]
    fine = PartNetInstances(root, "Furniture", 3, "val")
    assert fine.classes == (*(f"furniture/{name}" for name in LEVEL_3), OTHER_PART)
    coarse = PartNetInstances(root, "Furniture", 1, "val", random_points=False)
    assert coarse.classes == (PART,)
    for item, other in zip(coarse, shapes["val"], strict=True):
        np.testing.assert_array_equal(item.instance, other.instance)
        assert item.semantic.unique().tolist() == [1]
    with pytest.raises(FileNotFoundError, match="Furniture has level 1, 3"):
        PartNetInstances(root, "Furniture", 2, "val")


def test_report(
    written: tuple[Path, FurnitureReport], objects: dict[str, FurnitureObject], shapes: dict[str, list[Data]]
) -> None:
    report = written[1]
    assert report.shapes == {split: len(shapes[split]) for split in SPLITS} == {"train": 108, "val": 16, "test": 27}
    level_3 = [*(f"furniture/{name}" for name in LEVEL_3), OTHER_PART]
    counted = {
        split: Counter(int(c) for x in shapes[split] for c in evaluation_targets(x).gt_classes) for split in SPLITS
    }
    assert report.parts == {path: {s: counted[s][c] for s in SPLITS} for c, path in enumerate(level_3)}
    assert report.merged == RARE
    assert sum(sum(count.values()) for count in report.parts.values()) == 1392
    count = Counter(name for item in objects.values() for name in item.classes)
    assert all(count[name] >= MIN_PARTS for name in LEVEL_3)
    assert all(count[name] == n < MIN_PARTS for name, n in RARE.items())
    # Every class can be learned and measured.
    assert all(parts["train"] >= 10 and parts["val"] >= 1 and parts["test"] >= 3 for parts in report.parts.values())
    lines = str(report).splitlines()
    assert lines[1].split() == ["shapes", "108", "16", "27", "151"]
    assert "wheel 5" in lines[-1]


def test_groups_are_on_one_side(objects: dict[str, FurnitureObject], shapes: dict[str, list[Data]]) -> None:
    members = [member for group in GROUPS.values() for member in group]
    assert len(set(members)) == len(members)
    assert set(members) <= objects.keys()
    for group in GROUPS.values():
        assert len({split_of(member) for member in group}) == 1
    for split in SPLITS:
        assert {split_of(item.anno_id) for item in shapes[split]} == {split}


def test_no_near_duplicates_across_splits(shapes: dict[str, list[Data]]) -> None:
    """The distance that GROUPS is made with, for all pairs of different splits; near ones only in full."""
    items = [item for split in SPLITS for item in shapes[split]]
    clouds = [item.pos.double().numpy() for item in items]
    trees = [cKDTree(cloud) for cloud in clouds]
    splits = np.array([split_of(item.anno_id) for item in items])
    turn = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # a quarter about y
    turns = [np.linalg.matrix_power(turn, k) for k in range(4)]
    turned = np.stack([np.stack([cloud[:16] @ t for t in turns]) for cloud in clouds])  # (M, 4, 16, 3)

    def distance(i: int, j: int, k: int, points: int = 512) -> float:
        there = trees[i].query(clouds[j][:points] @ turns[k])[0].mean()
        back = trees[j].query(clouds[i][:points] @ turns[k].T)[0].mean()
        return float(there + back) / 2

    near = {}
    for i, tree in enumerate(trees):
        others = np.flatnonzero(splits > splits[i])
        if len(others):
            coarse = tree.query(turned[others])[0].mean(-1)  # (others, 4)
            for row, k in np.argwhere(coarse < 0.08):
                j = int(others[row])
                pair = (items[i].anno_id, items[j].anno_id)
                near[pair] = min(near.get(pair, 1.0), distance(i, j, int(k)))
    assert len(near) > 100  # the search does find pairs
    assert min(near.values()) > 0.03, sorted(near.items(), key=lambda x: x[1])[:5]
    # The same distance does see the twins that GROUPS holds together.
    name = [item.anno_id for item in items]
    doors = name.index("katorlegaz-exterior-door-02"), name.index("katorlegaz-exterior-door-05")
    assert distance(*doors, 0) < 0.015


def test_two_writings_are_equal(small_source: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def progress(items: list[FurnitureObject]) -> list[FurnitureObject]:
        seen.extend(item.anno_id for item in items)
        return items

    first = write_furniture(small_source, tmp_path / "a", progress=progress)
    second = write_furniture(small_source, tmp_path / "deep" / "b")
    assert seen == ["cc0-oakChair", "ccby-table", "katorlegaz-bar-stool", "furniture_bench-chair"]
    assert first == second
    assert first.merged == {"leg": 8}
    assert contents(tmp_path / "a") == contents(tmp_path / "deep" / "b")
    assert len(contents(tmp_path / "a")) == 9


def test_complete_cache_is_reused(small_source: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    report = write_furniture(small_source, root)
    stamps = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert write_furniture(small_source, root) == report
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == stamps


@pytest.mark.parametrize("damage", ["source", "version", "truncated", "file gone", "manifest"])
def test_stale_cache_is_written_again(
    small_source: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    write_furniture(small_source, root)
    expected = contents(root)
    path = root / "ins_seg_h5" / "Furniture" / "test-00.h5"
    if damage == "source":
        edit(small_source / "cc0.npz", rgb=np.zeros((10_000, 3), np.uint8))
    elif damage == "version":
        monkeypatch.setattr(furniture, "VERSION", 2)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "file gone":
        path.unlink()
    else:
        (root / "manifest.json").write_text("{")
    write_furniture(small_source, root)
    if damage in ("source", "version"):
        assert contents(root) != expected
    else:
        assert contents(root) == expected
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("before", ["nothing", "older"])
def test_interrupted_writing_leaves_no_half(small_source: Path, tmp_path: Path, before: str) -> None:
    root = tmp_path / "root"
    if before == "older":
        write_furniture(small_source, root)
        edit(small_source / "cc0.npz", rgb=np.zeros((10_000, 3), np.uint8))
    expected = contents(root) if root.exists() else None

    def interrupted(items: list[FurnitureObject]) -> Any:
        yield items[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_furniture(small_source, root, progress=interrupted)
    assert sorted(p.name for p in tmp_path.iterdir()) == (["root", "small"] if expected else ["small"])
    assert (contents(root) if root.exists() else None) == expected
    write_furniture(small_source, root)
    assert sum(len(items) for items in read(root, 3).values()) == 4


def test_foreign_folder_is_left_alone(small_source: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    write_furniture(small_source, tmp_path / "root")  # an empty folder is taken
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("mine", "file"):
        with pytest.raises(FileExistsError, match=rf"{name} holds other things .* pass an empty or new folder"):
            write_furniture(small_source, tmp_path / name)
    assert contents(tmp_path / "mine") == {"thesis.tex": b"x"}


def test_source_errors(small_source: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    edit(small_source / "ccby.npz", instance=np.full(10_000, 1, np.int16))
    with pytest.raises(ValueError, match=r"ccby\.npz, object table: expected 10000 points over the parts 0 … 2"):
        write_furniture(small_source, root)
    edit(small_source / "cc0.npz", ptr=np.array([0, 9_999]))
    with pytest.raises(ValueError, match=r"cc0\.npz, object oakChair: .* got pos \(9999, 3\)"):
        write_furniture(small_source, root)
    edit(small_source / "cc0.npz", part_ptr=None, rgb=None)
    with pytest.raises(ValueError, match=r"cc0\.npz has no array rgb, part_ptr"):
        write_furniture(small_source, root)
    for junk in (b"", b"PK\x03\x04 cut off"):
        (small_source / "cc0.npz").write_bytes(junk)
        with pytest.raises(ValueError, match=r"cc0\.npz is no readable npz file"):
            write_furniture(small_source, root)
    (small_source / "cc0.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"cc0\.npz is missing: source must be the folder data/furniture_parts"):
        write_furniture(small_source, root)
    assert not root.exists()


@pytest.mark.parametrize("bar", [True, False])
def test_command(
    small_source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bar: bool,
) -> None:
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    main(["--source", str(small_source), "--root", str(tmp_path / "root")])
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[0] == "shapes"
    assert out.splitlines()[-1] == str(tmp_path / "root")
    assert ("4/4" in err) == bar


def test_extra_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    spec = importlib.util.spec_from_file_location("furniture_without_extra", furniture.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r'pip install -e "\.\[partnet\]"'):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
