"""PartNet's network-ready layout: written, read, equal to the raw layout; and what is said of broken files."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from partnet_layout import (
    CLASSES,
    LEVEL,
    POINTS,
    corrupt,
    edit,
    entry,
    files_of,
    record,
    truncate,
    write_classes,
    write_file,
    write_partnet,
)
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from probemb_adapters.partnet import PartNetInstances, evaluation_targets
from probemb_adapters.partnet.detection import PartNetDetection, write_detection

FOLDER = Path("ins_seg_h5_for_detection") / f"Chair-{LEVEL}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_partnet(tmp_path_factory.mktemp("partnet"))
    for split in ("train", "test"):
        write_detection(root, "Chair", LEVEL, split, num_points=POINTS)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "copy")


def detection(root: Path, split: str = "test", level: int = LEVEL, **options: Any) -> PartNetDetection:
    return PartNetDetection(root, "Chair", level, split, **{"num_points": POINTS, **options})


def instances(root: Path, split: str = "test", **options: Any) -> PartNetInstances:
    return PartNetInstances(root, "Chair", LEVEL, split, **{"num_points": POINTS, **options})


def assert_same(a: Data, b: Data) -> None:
    assert a.keys() == b.keys()
    for key in a.keys():  # noqa: SIM118  (Data is no mapping)
        equal = torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key]
        assert equal, key


# --- reading


@pytest.mark.parametrize(
    "options",
    [{}, {"num_points": 7}, {"class_agnostic": True}, {"transform": lambda data: Data(pos=data.pos * 2)}],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_items_are_those_of_the_raw_layout(whole: Path, split: str, options: dict[str, Any]) -> None:
    a, b = detection(whole, split, **options), instances(whole, split, **options)
    assert len(a) == len(b) == 5
    assert (a.classes, a.num_classes, a.shape_ids) == (b.classes, b.num_classes, b.shape_ids)
    for i in range(-5, 5):
        torch.manual_seed(i)
        first = a[i]
        torch.manual_seed(i)
        assert_same(first, b[i])


def test_files_say_what_the_raw_files_say(whole: Path) -> None:
    """By the definition of the layout, mask by mask, from leaf ids."""
    with h5py.File(whole / "ins_seg_h5" / "Chair" / "train-00.h5") as file:
        pts, label = file["pts"][:], file["label"][:]
    with h5py.File(whole / FOLDER / "train-00.h5") as file:
        found = {name: file[name][:] for name in file}
        assert all(file[name].compression == "gzip" for name in file)
    parts = [("chair/leg", [3]), ("chair/leg", [4]), ("chair/leg", [5]), ("chair/seat", [1, 2])]  # no back: no points
    masks = np.zeros((3, 200, POINTS), bool)
    gt_label = np.zeros((3, POINTS), np.uint8)
    for slot, (name, leaves) in enumerate(parts):
        masks[:, slot] = np.isin(label, leaves)
        gt_label[masks[:, slot]] = CLASSES.index(name) + 1
    expected = {
        "pts": pts,
        "gt_label": gt_label,
        "gt_mask": masks,
        "gt_valid": masks.any(2),
        "gt_other_mask": gt_label == 0,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name, strict=True)
    source = whole / "ins_seg_h5" / "Chair" / "train-00.json"
    assert (whole / FOLDER / "train-00.json").read_bytes() == source.read_bytes()


def test_leaves_that_no_part_of_the_level_names_are_other(whole: Path) -> None:
    """A negative leaf id is one of them."""
    with h5py.File(whole / "ins_seg_h5" / "Chair" / "test-00.h5") as file:
        label = file["label"][0]
    assert (label == -4).any()
    np.testing.assert_array_equal(detection(whole).read(0).instance < 0, (label == -4) | (label == 7))


def test_shape_without_instance_is_all_other(whole: Path) -> None:
    item = detection(whole)[4]
    assert item.other.all()
    assert item.semantic.tolist() == [0] * POINTS
    assert len(evaluation_targets(item).gt_classes) == 0


def test_read_gives_the_order_of_the_file(whole: Path) -> None:
    data = detection(whole, transform=lambda data: Data())
    shape = data.read(-2)
    with h5py.File(whole / FOLDER / "test-01.h5") as file:
        np.testing.assert_array_equal(shape.pos, file["pts"][0])
        np.testing.assert_array_equal(np.append(shape.classes, 0)[shape.instance], file["gt_label"][0])
    assert (shape.anno_id, shape.shape_id) == ("test10", "test-01/0")
    for i in (5, -6):
        with pytest.raises(IndexError, match=f"shape {i} of a split of 5"):
            data.read(i)


def test_order_of_points_without_json(root: Path) -> None:
    (root / FOLDER / "test-00.json").unlink()
    data = detection(root)
    assert [item.anno_id for item in data] == ["test-00/0", "test-00/1", "test-00/2", "test10", "test11"]
    assert torch.equal(data[0].point, data[0].point)
    assert not torch.equal(data[0].point, data[1].point)


def test_masks_without_points_are_skipped(root: Path) -> None:
    """As in the published training files: the slot is valid all the same."""
    path = root / FOLDER / "test-00.h5"
    before = detection(root)[1]
    with h5py.File(path, "r+") as file:
        file["gt_mask"][1] = np.roll(file["gt_mask"][1], 3, axis=0)  # slots 0 … 2 are empty
        file["gt_valid"][1, :9] = True
    assert_same(detection(root)[1], before)


def test_slots_that_are_not_valid_are_not_looked_at(root: Path) -> None:
    """Before, between and after the valid ones."""
    before = detection(root)[1]
    with h5py.File(root / FOLDER / "test-00.h5", "r+") as file:
        old = file["gt_mask"][1, :4]
        slots = [2, 3, 7, 150]
        mask, valid = np.ones((200, POINTS), bool), np.zeros(200, bool)
        mask[slots], valid[slots] = old, True
        file["gt_mask"][1], file["gt_valid"][1] = mask, valid
    assert_same(detection(root)[1], before)


def test_the_later_of_overlapping_masks_has_the_points(root: Path) -> None:
    path = root / FOLDER / "test-00.h5"
    with h5py.File(path, "r+") as file:
        mask = file["gt_mask"][0]
        seat = mask[3].copy()
        mask[0] |= seat  # the seat, slot 3, is later than the leg of slot 0, and gt_label says so
        file["gt_mask"][0] = mask
    np.testing.assert_array_equal(detection(root).read(0).instance == 3, seat)


def test_any_number_of_slots(root: Path) -> None:
    before = detection(root)[0]
    path = root / FOLDER / "test-00.h5"
    with h5py.File(path) as file:
        mask, valid = file["gt_mask"][:, :4], file["gt_valid"][:, :4]
    edit(path, "gt_mask", mask)
    edit(path, "gt_valid", valid)
    assert_same(detection(root)[0], before)


def test_pickled_and_in_workers(whole: Path) -> None:
    data = detection(whole)
    assert_same(pickle.loads(pickle.dumps(data))[2], data[2])
    (batch,) = DataLoader(data, batch_size=5, num_workers=1)
    assert batch.shape_id == list(data.shape_ids)


# --- writing


def test_first_points_are_written(root: Path, tmp_path: Path) -> None:
    paths = write_detection(root, "Chair", LEVEL, "test", output=tmp_path / "out", num_points=20)
    assert paths == [tmp_path / "out" / FOLDER / f"test-0{i}.h5" for i in (0, 1)]
    shutil.copytree(root / "stats", tmp_path / "out" / "stats")
    short, full = detection(tmp_path / "out", num_points=20).read(0), detection(root).read(0)
    np.testing.assert_array_equal(short.pos, full.pos[:20])
    np.testing.assert_array_equal(short.instance < 0, full.instance[:20] < 0)


def test_nothing_is_overwritten(root: Path) -> None:
    before = files_of(root)
    with pytest.raises(FileExistsError, match=r"test-00\.h5 is there already: remove .*test-\*\.h5, or write into"):
        write_detection(root, "Chair", LEVEL, "test", num_points=POINTS)
    assert files_of(root) == before


def test_error_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """The last shape of the last file is broken: the files before it do not stay."""
    edit(root / "ins_seg_h5" / "Chair" / "test-01.h5", "pts", np.nan, (1, 3, 2))
    with pytest.raises(ValueError, match=r"test-01\.h5, shape 1: pts holds a NaN"):
        write_detection(root, "Chair", LEVEL, "test", output=tmp_path / "out", num_points=POINTS)
    assert files_of(tmp_path / "out") == {}


def many_parts(root: Path, count: int) -> None:
    """A split `val` with a shape of that many parts, one point each, after a shape of one part."""
    label = np.stack([np.zeros(count), np.arange(count)]).astype(int)
    records = [{"anno_id": "a", "ins_seg": [entry("chair/leg", i) for i in range(count)]} for _ in range(2)]
    write_file(root, "val-00", label, records)


def test_more_than_200_instances(root: Path) -> None:
    many_parts(root, 200)
    write_detection(root, "Chair", LEVEL, "val", num_points=200)
    assert len(detection(root, "val", num_points=200).read(1).classes) == 200
    for path in (root / FOLDER).glob("val*"):
        path.unlink()
    many_parts(root, 201)
    before = files_of(root)
    with pytest.raises(ValueError, match=r"val-00\.h5, shape 1: has 201 instances .* holds 200: leave the shape out"):
        write_detection(root, "Chair", LEVEL, "val", num_points=201)
    assert files_of(root) == before
    write_detection(root, "Chair", LEVEL, "val", num_points=200)  # the first 200 points have 200 of them


def test_more_than_255_classes(root: Path) -> None:
    write_classes(root, [*(f"chair/{i}" for i in range(254)), "chair/leg"], level=1)
    write_detection(root, "Chair", 1, "test", num_points=POINTS)
    assert detection(root, level=1).read(0).classes.tolist() == [255] * 3
    write_classes(root, [*(f"chair/{i}" for i in range(255)), "chair/leg"], level=3)
    with pytest.raises(ValueError, match="Chair-3: the files hold 255 classes, as uint8, not 256"):
        write_detection(root, "Chair", 3, "test", num_points=POINTS)
    assert not (root / FOLDER.parent / "Chair-3").exists()


def test_raw_layout_too_short(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test-00\.h5 has 60 points a shape: pass num_points=60 or fewer, not 10000"):
        write_detection(root, "Chair", LEVEL, "test", output=tmp_path / "out")


# --- broken files


def test_missing_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"root must be the folder that holds .*ins_seg_h5_for_detection and"):
        detection(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"Chair-1 is missing: .* holds Chair-2"):
        detection(root, level=1)
    with pytest.raises(FileNotFoundError, match=r"no val-\*\.h5 in .*: it holds test, train"):
        detection(root, "val")
    (root / "stats" / "after_merging_label_ids" / f"Chair-level-{LEVEL}.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"Chair-level-2\.txt is missing"):
        detection(root)


@pytest.mark.parametrize("num_points", [0, 10_001])
def test_num_points(whole: Path, num_points: int) -> None:
    with pytest.raises(ValueError, match=f"num_points must be 1 … 10000 .* got {num_points}"):
        detection(whole, num_points=num_points)


def test_too_few_points(whole: Path) -> None:
    with pytest.raises(ValueError, match=r"test-00\.h5 has 60 points a shape: pass num_points=60 or fewer, not 61"):
        detection(whole, num_points=61)


def test_truncated(root: Path) -> None:
    truncate(root / FOLDER / "test-01.h5")
    with pytest.raises(OSError, match=r"test-01\.h5 is no readable HDF5 file, perhaps truncated"):
        detection(root)


@pytest.mark.parametrize("name", ["pts", "gt_label", "gt_mask", "gt_valid", "gt_other_mask"])
def test_corrupt_chunk(root: Path, name: str) -> None:
    corrupt(root / FOLDER / "test-00.h5", name)
    data = detection(root)  # the heads are whole
    with pytest.raises(OSError, match=r"test-00\.h5, shape 0 cannot be read"):
        data[0]
    data[1]


ARRAYS: list[tuple[str, Any, str]] = [
    ("pts", None, r"expected pts \(B, N, 3\) of floats, got no pts"),
    ("pts", np.zeros((3, 60, 4), "f4"), r"expected pts \(B, N, 3\) of floats, got \(3, 60, 4\) float32"),
    ("pts", np.zeros((3, 60), "f4"), r"got \(3, 60\) float32"),
    ("pts", np.zeros((3, 60, 3), int), r"got \(3, 60, 3\) int64"),
    ("gt_label", None, r"expected gt_label \(3, 60\) of integers to fit the other arrays, got no gt_label"),
    ("gt_label", np.zeros((3, 59), int), r"expected gt_label \(3, 60\) of integers .* got \(3, 59\) int64"),
    ("gt_label", np.zeros((3, 60)), r"got \(3, 60\) float64"),
    ("gt_mask", np.zeros((3, 200, 60), np.uint8), r"expected gt_mask \(3, slots, 60\) of bool .* uint8"),
    ("gt_mask", np.zeros((3, 60), bool), r"expected gt_mask .* got \(3, 60\) bool"),
    ("gt_valid", np.zeros((3, 100), bool), r"expected gt_valid \(3, 200\) of bool .* got \(3, 100\)"),
    ("gt_other_mask", np.zeros((2, 60), bool), r"expected gt_other_mask \(3, 60\) of bool .* got \(2, 60\)"),
]


@pytest.mark.parametrize(("name", "value", "message"), ARRAYS)
def test_arrays(root: Path, name: str, value: Any, message: str) -> None:
    edit(root / FOLDER / "test-00.h5", name, value)
    with pytest.raises(ValueError, match=r"test-00\.h5: " + ("" if message[:3] == "exp" else ".*") + message):
        detection(root)


def test_group_in_the_place_of_an_array(root: Path) -> None:
    with h5py.File(root / FOLDER / "test-00.h5", "r+") as file:
        del file["gt_label"]
        file.create_group("gt_label")
    with pytest.raises(ValueError, match="got no gt_label"):
        detection(root)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(root: Path, value: float) -> None:
    edit(root / FOLDER / "test-00.h5", "pts", value, (1, 3, 2))
    data = detection(root)
    assert data[0].pos.isfinite().all()
    with pytest.raises(ValueError, match=r"test-00\.h5, shape 1: pts holds a NaN or an infinity"):
        data[1]


def break_label(file: h5py.File, value: int, where: str) -> None:
    """One class for all points of the first mask, or for one of its points, or for one other point."""
    points = np.flatnonzero(file["gt_other_mask"][1] if where == "other" else file["gt_mask"][1, 0])
    label = file["gt_label"][1].astype(np.int16)
    label[points if where == "mask" else points[0]] = value
    whole = file["gt_label"][:].astype(np.int16)
    whole[1] = label
    del file["gt_label"]
    file["gt_label"] = whole


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize(
    ("value", "where", "message"),
    [
        (4, "mask", "expected gt_label 0 … 3, as the level has 3 classes, got 0 to 4"),
        (-1, "mask", "expected gt_label 0 … 3, .* got -1 to"),
        (0, "mask", "1 masks of gt_mask have points of class 0, other"),
        (1, "point", r"a mask of gt_mask has points of the classes \[1, 2\] of gt_label"),
        (0, "point", r"a mask of gt_mask has points of the classes \[0, 2\] of gt_label"),
        (2, "other", "1 points have a class in gt_label and no mask in gt_mask"),
    ],
)
def test_labels_that_contradict(root: Path, value: int, where: str, message: str, class_agnostic: bool) -> None:
    with h5py.File(root / FOLDER / "test-00.h5", "r+") as file:
        break_label(file, value, where)
    data = detection(root, class_agnostic=class_agnostic)
    data[0]
    with pytest.raises(ValueError, match=r"test-00\.h5, shape 1: " + message):
        data[1]


def test_other_mask_that_contradicts(root: Path) -> None:
    path = root / FOLDER / "test-00.h5"
    with h5py.File(path) as file:
        other = file["gt_other_mask"][2]
    edit(path, "gt_other_mask", ~other, 2)
    with pytest.raises(ValueError, match=r"test-00\.h5, shape 2: 60 points contradict: gt_other_mask must be where"):
        detection(root)[2]


def test_stats_of_another_level(root: Path) -> None:
    write_classes(root, CLASSES[:1])
    message = r"0 … 1 in .*Chair-2, as the level has 1 classes, got up to 2; is .*level-2\.txt that of these files"
    with pytest.raises(ValueError, match=message):
        detection(root)


def test_shapes_that_are_looked_at_when_opened(root: Path) -> None:
    """Shapes beyond the unit sphere, and shapes without instances, are warned of; broken ones are for the reading."""
    path = root / FOLDER / "test-00.h5"
    for other in (root / FOLDER).glob("test-01.*"):
        other.unlink()
    with h5py.File(path, "r+") as file:
        file["pts"][:] /= np.linalg.norm(file["pts"][:], axis=2).max()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detection(root)
    with h5py.File(path, "r+") as file:
        file["pts"][2] *= 10
    with pytest.warns(UserWarning, match=r"Chair-2: expected shapes in the unit sphere.* got 1 of 3 .* far as") as w:
        detection(root)
    assert w[0].filename == __file__
    with h5py.File(path, "r+") as file:
        file["pts"][:] /= 10
        file["gt_label"][:] = 0
    with pytest.warns(UserWarning, match="expected instances, got none in the 3 shapes that were looked at"):
        detection(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"anno_id"', r"test-00\.json is no JSON"),
        ('{"a": 1}', r"test-00\.json: expected a list with one record a shape, got dict"),
        (json.dumps([record("a")]), r"test-00\.json has 1 records but test-00\.h5 has 3 shapes"),
        (json.dumps([record("a"), {"ins_seg": []}, record("b")]), r"json, shape 1: expected a record with anno_id"),
        (json.dumps(["a", "b", "c"]), r"json, shape 0: expected a record with anno_id, got a"),
    ],
)
def test_json(root: Path, content: str, message: str) -> None:
    (root / FOLDER / "test-00.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        detection(root)
