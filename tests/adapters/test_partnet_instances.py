"""PartNet's raw layout: what is read, in which order, and what is said of broken files, all made here."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric import seed_everything
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from probemb_adapters.partnet import (
    PartNetInstances,
    _h5,
    augment,
    evaluation_targets,
    paper_augmentation,
    read_classes,
)
from probemb_lib.metrics import PartNetAP

CLASSES = {
    1: ["chair/seat", "chair/leg"],
    3: ["chair/seat/surface", "chair/seat/frame", "chair/leg/bar"],
}
POINTS = 64


def entry(name: str, *leaves: int) -> dict[str, Any]:
    return {"part_name": name, "leaf_id_list": list(leaves)}


def record(row: int) -> dict[str, Any]:
    """Leaves 1 and 2 are the seat, 3 … 5 legs; 6 is in the hierarchy but in no level, 7 in no entry."""
    legs = [e for leaf in (3, 4, 5) for e in (entry("chair/leg", leaf), entry("chair/leg/bar", leaf))]
    seat = [entry("chair/seat", 1, 2), entry("chair/seat/surface", 1), entry("chair/seat/frame", 2)]
    return {"anno_id": f"{1000 + row}", "ins_seg": [entry("chair", 1, 2, 3, 4, 5, 6), *seat, *legs]}


def write_file(folder: Path, stem: str, label: np.ndarray, records: list[Any], first: int = 0) -> None:
    rng = np.random.default_rng(first)
    with h5py.File(folder / f"{stem}.h5", "w") as file:
        pts = rng.uniform(-1, 1, (*label.shape, 3)).astype(np.float32)
        file.create_dataset("pts", data=pts, compression="gzip")
        file.create_dataset("label", data=label.astype(np.int32), compression="gzip")
    (folder / f"{stem}.json").write_text(json.dumps(records))


@pytest.fixture(scope="module")
def partnet_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 training shapes in two files, 2 test shapes; leaf 5 has no point in the shapes of odd number."""
    root = tmp_path_factory.mktemp("partnet")
    folder = root / "ins_seg_h5" / "Chair"
    folder.mkdir(parents=True)
    stats = root / "stats" / "after_merging_label_ids"
    stats.mkdir(parents=True)
    for level, names in CLASSES.items():
        lines = [f"{i} {name} leaf\n" for i, name in enumerate(names, start=1)]
        (stats / f"Chair-level-{level}.txt").write_text("".join(lines))
    rng = np.random.default_rng(0)
    first = 0
    for stem, count in (("train-00", 3), ("train-01", 2), ("test-00", 2)):
        rows = range(first, first + count)
        label = np.stack([rng.permutation(np.resize([1, 2, 3, 4, 6, 7] + [5] * (1 - r % 2), POINTS)) for r in rows])
        write_file(folder, stem, label, [record(r) for r in rows], first)
        first += count
    return root


@pytest.fixture
def broken_root(partnet_root: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(partnet_root, tmp_path / "broken")


def dataset(root: Path, level: int = 1, split: str = "test", **options: Any) -> PartNetInstances:
    return PartNetInstances(root, "Chair", level, split, num_points=options.pop("num_points", POINTS), **options)


def folder_of(root: Path) -> Path:
    return root / "ins_seg_h5" / "Chair"


def network_ready(label: np.ndarray, ins_seg: list[Any], classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """gt_mask (G, N) and gt_label (N,) by the rule of PartNet's network-ready files, entry by entry."""
    masks, gt_label = [], np.zeros(len(label), dtype=int)
    for item in ins_seg:
        if item["part_name"] in classes:
            masks.append(np.isin(label, item["leaf_id_list"]))
            gt_label[masks[-1]] = classes.index(item["part_name"]) + 1
    return np.array(masks), gt_label


@pytest.mark.parametrize("level", [1, 3])
def test_labels_are_those_of_the_network_ready_files(partnet_root: Path, level: int) -> None:
    data = dataset(partnet_root, level, "train")
    assert data.classes == tuple(CLASSES[level])
    assert data.num_classes == len(CLASSES[level]) + 1
    assert len(data) == 5
    for i, (stem, row) in enumerate(
        [("train-00", 0), ("train-00", 1), ("train-00", 2), ("train-01", 0), ("train-01", 1)]
    ):
        item = data[i]
        assert (item.anno_id, item.shape_id) == (f"{1000 + i}", f"{stem}/{row}")
        with h5py.File(folder_of(partnet_root) / f"{stem}.h5") as file:
            pts, label = file["pts"][row], file["label"][row]
        masks, gt_label = network_ready(label, record(i)["ins_seg"], CLASSES[level])
        masks = masks[masks.any(1)]  # published training files keep empty masks; they are skipped here
        assert len(masks) == (4 if level == 1 else 5) - i % 2
        point = item.point.numpy()
        assert sorted(point) == list(range(POINTS))
        np.testing.assert_array_equal(item.pos.numpy(), pts[point])
        np.testing.assert_array_equal(item.semantic.numpy(), gt_label[point])
        np.testing.assert_array_equal(item.other.numpy(), gt_label[point] == 0)
        np.testing.assert_array_equal(item.instance.numpy() == np.arange(len(masks))[:, None], masks[:, point])
        assert item.pos.dtype == torch.float32
        assert item.instance.dtype == item.semantic.dtype == item.point.dtype == torch.int64
        assert item.other.dtype == torch.bool


def test_class_agnostic(partnet_root: Path) -> None:
    fine, agnostic = dataset(partnet_root, 3), dataset(partnet_root, 3, class_agnostic=True)
    assert agnostic.classes == ("part",)
    assert agnostic.num_classes == 2
    assert_close(agnostic[0].instance, fine[0].instance)
    assert_close(agnostic[0].semantic, (fine[0].semantic > 0).long())


def test_shared_leaf_goes_to_the_later_entry(broken_root: Path) -> None:
    label = np.array([[1, 1, 2, 2]])
    parts = [entry("chair/seat", 1, 2), entry("chair/leg", 2), entry("chair/leg", 1)]
    write_file(folder_of(broken_root), "val-00", label, [{"anno_id": "a", "ins_seg": parts}])
    item = dataset(broken_root, split="val", num_points=4)[0]
    # The seat has lost all of its points; the two legs are rows 0 and 1 in the order of the entries.
    assert_close(item.instance, torch.from_numpy(np.where(label[0][item.point] == 2, 0, 1)))
    assert_close(item.semantic, torch.full((4,), 2))


@pytest.mark.parametrize("ins_seg", [[], [entry("chair", 1, 2)]])
def test_shape_without_instances_is_all_other(broken_root: Path, ins_seg: list[Any]) -> None:
    write_file(folder_of(broken_root), "val-00", np.array([[1, 2, 1]]), [{"anno_id": "a", "ins_seg": ins_seg}])
    item = dataset(broken_root, split="val", num_points=3)[0]
    assert item.instance.tolist() == [-1, -1, -1]
    assert item.semantic.tolist() == [0, 0, 0]
    targets = evaluation_targets(item)
    assert targets.gt_classes.shape == (0,)
    assert targets.other.all()


def test_only_the_first_10000_points_are_used(broken_root: Path) -> None:
    label = np.full((1, 10_050), 1)
    label[0, 10_000:] = 3
    write_file(folder_of(broken_root), "val-00", label, [record(0)])
    item = PartNetInstances(broken_root, "Chair", 1, "val")[0]
    assert item.point.sort().values.tolist() == list(range(10_000))
    assert item.semantic.unique().tolist() == [1]


def test_order_of_evaluation_is_fixed_and_nested(partnet_root: Path) -> None:
    data = dataset(partnet_root)
    assert_close(data[0].point, data[0].point)
    assert_close(dataset(partnet_root, num_points=20)[0].point, data[0].point[:20])
    assert not torch.equal(data[0].point, data[1].point)
    assert not torch.equal(data[0].point, torch.arange(POINTS))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    data[0]
    assert_close(torch.rand(3), expected)  # the global generator is left alone


def test_order_of_training_is_drawn_from_torch(partnet_root: Path) -> None:
    data = dataset(partnet_root, split="train", num_points=20)
    torch.manual_seed(0)
    first, second = data[0].point, data[0].point
    torch.manual_seed(0)
    assert_close(data[0].point, first)
    assert not torch.equal(first, second)
    assert len(first.unique()) == 20
    fixed = dataset(partnet_root, split="train", num_points=20, random_points=False)
    assert_close(fixed[0].point, fixed[0].point)


def test_fewer_points_drop_instances_without_points(broken_root: Path) -> None:
    label = np.array([[1] * 30 + [3]])
    write_file(folder_of(broken_root), "val-00", label, [record(0)])
    rows = [evaluation_targets(dataset(broken_root, split="val", num_points=n)[0]).gt_classes for n in range(1, 32)]
    assert {tuple(r.tolist()) for r in rows} >= {(0,), (0, 1)}
    assert rows[-1].tolist() == [0, 1]


def test_index(partnet_root: Path) -> None:
    data = dataset(partnet_root)
    assert data[-1].anno_id == data[1].anno_id
    assert [item.anno_id for item in data] == ["1005", "1006"]
    with pytest.raises(IndexError, match="shape 2 of a split of 2"):
        data[2]


def test_pickled_dataset_reads(partnet_root: Path) -> None:
    data = dataset(partnet_root)
    data[0]
    assert_close(pickle.loads(pickle.dumps(data))[1].pos, data[1].pos)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_reproducible(partnet_root: Path, num_workers: int) -> None:
    data = dataset(partnet_root, split="train", num_points=32, transform=paper_augmentation())
    data[0]  # the parent has read before the workers fork

    def epoch(seed: int) -> list[Data]:
        seed_everything(seed)
        return list(DataLoader(data, batch_size=2, shuffle=True, num_workers=num_workers))

    first, again, other = epoch(1), epoch(1), epoch(2)
    assert [b.num_graphs for b in first] == [2, 2, 1]
    assert first[0].pos.shape == (64, 3)
    assert first[0].batch.tolist() == [0] * 32 + [1] * 32
    for a, b in zip(first, again, strict=True):
        assert a.anno_id == b.anno_id
        assert_close(a.pos, b.pos, rtol=0, atol=0)
        assert_close(a.instance, b.instance)
    assert not torch.equal(first[0].pos, other[0].pos)


def test_workers_draw_differently(partnet_root: Path) -> None:
    """Each worker is seeded for itself, python's `random` included: no two shapes share a rotation."""

    def rotation(item: Data) -> Data:
        item.pos, item.eye = (
            torch.eye(3),
            paper_augmentation(jitter=0, translation=0)(Data(pos=torch.eye(3))).pos,
        )
        return item

    data = dataset(partnet_root, split="train", transform=rotation)
    eyes = torch.cat([batch.eye.view(-1, 9) for batch in DataLoader(data, num_workers=2)])
    assert torch.unique(eyes, dim=0).shape == (5, 9)


def test_perfect_prediction_scores_one(partnet_root: Path) -> None:
    data = dataset(partnet_root, 3)
    metric = PartNetAP(data.num_classes - 1)
    for item in data:
        targets = evaluation_targets(item)
        masks = targets.gt_instance == torch.arange(len(targets.gt_classes))[:, None]
        metric.update(masks, targets.gt_classes, torch.linspace(0.9, 0.5, len(masks)), *targets)
    np.testing.assert_allclose(metric.compute()["part_map"], 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("instance", "semantic"),
    [([0, 2, 2], [1, 1, 1]), ([0, 0, 1], [1, 2, 1]), ([1, 1, -1], [1, 1, 0])],
)
def test_targets_want_dense_instances_of_one_class(instance: list[int], semantic: list[int]) -> None:
    data = Data(instance=torch.tensor(instance), semantic=torch.tensor(semantic))
    with pytest.raises(ValueError, match="relabel after a transform"):
        evaluation_targets(data)


class TestErrors:
    def test_root(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="root must be the folder that holds PartNet's ins_seg_h5"):
            dataset(tmp_path)

    def test_category(self, partnet_root: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"Lamp is missing: .* holds Chair"):
            PartNetInstances(partnet_root, "Lamp", 1, "test")

    def test_split(self, partnet_root: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no val-\*\.h5 in .*: it holds test, train"):
            dataset(partnet_root, split="val")

    def test_level(self, partnet_root: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"Chair-level-2\.txt is missing: Chair has level 1, 3"):
            dataset(partnet_root, 2)
        with pytest.raises(FileNotFoundError, match="has no level of Lamp"):
            read_classes(partnet_root, "Lamp", 1)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1\n", "line 1: expected 'id part_path"),
            ("1 a leaf\n2 a leaf\n", "line 2: a stands twice"),
            ("\n", "no class"),
        ],
    )
    def test_stats(self, broken_root: Path, text: str, message: str) -> None:
        (broken_root / "stats" / "after_merging_label_ids" / "Chair-level-1.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            dataset(broken_root)

    @pytest.mark.parametrize("num_points", [0, 10_001])
    def test_num_points(self, partnet_root: Path, num_points: int) -> None:
        with pytest.raises(ValueError, match=f"num_points must be 1 … 10000 .* got {num_points}"):
            dataset(partnet_root, num_points=num_points)

    def test_too_few_points(self, partnet_root: Path) -> None:
        with pytest.raises(ValueError, match=r"test-00\.h5 has 64 points a shape: pass num_points=64 or fewer, not 65"):
            dataset(partnet_root, num_points=65)

    def test_json_missing(self, broken_root: Path) -> None:
        (folder_of(broken_root) / "test-00.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"test-00\.json is missing"):
            dataset(broken_root)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[{"anno_id"', r"test-00\.json is no JSON"),
            ('{"a": 1}', "expected a list with one record a shape, got dict"),
            (json.dumps([record(0)]), r"test-00\.json has 1 records but test-00\.h5 has 2 shapes"),
            (
                json.dumps([record(0), {"ins_seg": []}]),
                "shape 1: expected anno_id and ins_seg.* KeyError: 'anno_id'",
            ),
            (json.dumps([{"anno_id": "1"}, record(1)]), "shape 0: expected .* KeyError: 'ins_seg'"),
            (
                json.dumps([record(0), {"anno_id": "1", "ins_seg": [{"part_name": "a"}]}]),
                "shape 1.*'leaf_id_list'",
            ),
            (json.dumps([record(0), [1]]), "shape 1: expected .* TypeError"),
            (
                json.dumps([record(0), {"anno_id": "1", "ins_seg": [entry("a") | {"leaf_id_list": ["x"]}]}]),
                "ValueError",
            ),
        ],
    )
    def test_json(self, broken_root: Path, text: str, message: str) -> None:
        (folder_of(broken_root) / "test-00.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            dataset(broken_root)

    @pytest.mark.parametrize(
        ("pts", "label", "message"),
        [
            (None, np.zeros((2, 64), int), r"expected pts \(B, N, 3\) of floats, got no pts"),
            (np.zeros((2, 64, 4), np.float32), np.zeros((2, 64), int), r"got \(2, 64, 4\) float32"),
            (np.zeros((2, 64, 3), int), np.zeros((2, 64), int), r"got \(2, 64, 3\) int64"),
            (np.zeros((2, 64, 3), np.float32), None, r"expected label \(2, 64\) of integers .* got no label"),
            (np.zeros((2, 64, 3), np.float32), np.zeros((2, 63), int), r"got \(2, 63\) int64"),
            (np.zeros((2, 64, 3), np.float32), np.zeros((2, 64)), r"got \(2, 64\) float64"),
        ],
    )
    def test_h5(self, broken_root: Path, pts: np.ndarray | None, label: np.ndarray | None, message: str) -> None:
        with h5py.File(folder_of(broken_root) / "test-00.h5", "w") as file:
            for name, data in (("pts", pts), ("label", label)):
                if data is not None:
                    file[name] = data
        with pytest.raises(ValueError, match=r"test-00\.h5: .*" + message):
            dataset(broken_root)

    def test_truncated_h5(self, broken_root: Path) -> None:
        path = folder_of(broken_root) / "test-00.h5"
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(OSError, match=r"test-00\.h5 is no readable HDF5 file, perhaps truncated"):
            dataset(broken_root)

    def test_corrupt_chunk(self, broken_root: Path) -> None:
        path = folder_of(broken_root) / "test-00.h5"
        with h5py.File(path) as file:
            chunk = file["pts"].id.get_chunk_info(0)
        content = bytearray(path.read_bytes())
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
        path.write_bytes(content)
        data = dataset(broken_root)  # the heads are whole
        with pytest.raises(OSError, match=r"test-00\.h5, shape 0 cannot be read"):
            data[0]

    def test_not_finite(self, broken_root: Path) -> None:
        with h5py.File(folder_of(broken_root) / "test-00.h5", "r+") as file:
            file["pts"][1, 3, 2] = np.nan
        data = dataset(broken_root)
        assert data[0].pos.isfinite().all()
        with pytest.raises(ValueError, match=r"test-00\.h5, shape 1: pts holds a NaN"):
            data[1]

    def test_labels_of_another_json(self, broken_root: Path) -> None:
        with h5py.File(folder_of(broken_root) / "test-00.h5", "r+") as file:
            file["label"][0] = 77
        with pytest.warns(UserWarning, match=r"Chair, test: 57% of the points of the 2 shapes"):
            data = dataset(broken_root)
        with pytest.raises(ValueError, match=r"test-00\.h5, shape 0: no label is a leaf id .*anno_id 1005"):
            data[0]

    def test_most_labels_of_another_json(self, broken_root: Path) -> None:
        """One leaf in common, as trees before and after the merging have: all else would be other, without a word."""
        with h5py.File(folder_of(broken_root) / "test-00.h5", "r+") as file:
            label = file["label"][:]
            file["label"][:] = np.where(label == 1, 1, label + 100)
        with pytest.raises(ValueError, match=r"84% of the points .* not of the same release \(a merged json beside"):
            dataset(broken_root)

    @pytest.mark.parametrize("class_agnostic", [False, True])
    @pytest.mark.parametrize("names", [["lamp/base", "lamp/shade"], ["chair/chair_seat", "chair/chair_leg"]])
    def test_level_of_other_names(self, broken_root: Path, names: list[str], class_agnostic: bool) -> None:
        path = broken_root / "stats" / "after_merging_label_ids" / "Chair-level-1.txt"
        path.write_text("".join(f"{i} {name} leaf\n" for i, name in enumerate(names, 1)))
        message = (
            rf"level-1\.txt names {names[0]}, {names[1]}, but the parts of the shapes in .*Chair are .*chair/.*: no"
        )
        with pytest.raises(ValueError, match=message + " shape has a part of the level. Is it the file of another"):
            dataset(broken_root, class_agnostic=class_agnostic)

    def test_level_of_some_other_names(self, broken_root: Path) -> None:
        path = broken_root / "stats" / "after_merging_label_ids" / "Chair-level-1.txt"
        path.write_text("1 chair/seat leaf\n2 chair/a leaf\n3 chair/b leaf\n4 chair/c leaf\n5 chair/d leaf\n")
        with pytest.warns(UserWarning, match=r"level-1\.txt: 33% of the leaves .* does not name chair/leg, chair/"):
            assert len(dataset(broken_root).classes) == 5

    def test_shapes_outside_the_unit_sphere(self, broken_root: Path) -> None:
        path = folder_of(broken_root) / "test-00.h5"
        with h5py.File(path, "r+") as file:
            file["pts"][:] /= np.linalg.norm(file["pts"][:], axis=2).max()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset(broken_root)
        with h5py.File(path, "r+") as file:
            file["pts"][1] *= 100
        with pytest.warns(UserWarning, match=r"Chair: expected shapes in the unit sphere.* got 1 of 2 ") as w:
            dataset(broken_root)
        assert w[0].filename == str(Path(__file__))

    @pytest.mark.parametrize(("module", "missing"), [(_h5, "h5py"), (augment, "torch_geometric.data")])
    def test_extra_missing(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType, missing: str) -> None:
        monkeypatch.setitem(sys.modules, missing, None)
        spec = importlib.util.spec_from_file_location("without_extra", module.__file__)
        assert spec is not None
        assert spec.loader is not None
        with pytest.raises(ImportError, match=r'pip install -e "\.\[partnet\]"'):
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
