"""Files for PartNet's evaluation script: written, read back, evaluated; and what is said of broken ones."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Iterator
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
    truncate,
    write_classes,
    write_file,
    write_partnet,
)
from paths import TEST_DATA
from torch_geometric.data import Data

from probemb_adapters.partnet import PartNetInstances, evaluation_targets
from probemb_adapters.partnet.predictions import (
    ShapePredictions,
    evaluate_files,
    read_ground_truth,
    read_predictions,
    shape_predictions,
    write_ground_truth,
    write_predictions,
)
from probemb_lib.metrics import PartNetAP

ORACLES = TEST_DATA / "partnet_instance_ap"
FOLDER = Path("ins_seg_h5_gt") / f"Chair-{LEVEL}"
SHAPES = ["test-00/0", "test-00/1", "test-00/2", "test-01/0", "test-01/1"]


def predict(root: Path, seed: int = 0) -> Iterator[tuple[Data, np.ndarray, np.ndarray, np.ndarray]]:
    """For each test item: masks over its points that overlap and half agree with the truth, classes, scores."""
    rng = np.random.default_rng(seed)
    for data in PartNetInstances(root, "Chair", LEVEL, "test", num_points=POINTS):
        count = int(rng.integers(0, 12))
        target = rng.integers(0, 4, count)
        masks = (data.instance.numpy() == target[:, None]) ^ (rng.random((count, POINTS)) < 0.15)
        classes = np.where(target < 3, 1, 0)
        yield data, masks, classes, rng.choice(np.float32([0.1, 0.5, 0.7, 0.9]), count)


def predictions(root: Path) -> list[ShapePredictions]:
    return [shape_predictions(*x) for x in predict(root)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_partnet(tmp_path_factory.mktemp("partnet"))
    write_ground_truth(root, "Chair", LEVEL, num_points=POINTS)
    write_predictions(root / "pred", root / FOLDER, (shape_predictions(*x) for x in predict(root)))
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "copy")


def evaluate(root: Path, num_classes: int = len(CLASSES), **options: Any) -> PartNetAP:
    return evaluate_files(root / FOLDER, root / "pred", num_classes, **options)


def assert_equal(a: PartNetAP, b: PartNetAP) -> None:
    expected = b.compute()
    for key, value in a.compute().items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key, strict=True)


# --- whole files


def test_evaluation_of_files_is_that_of_items(whole: Path) -> None:
    """The items have another order of points than the files."""
    metric = PartNetAP(len(CLASSES))
    for data, masks, classes, scores in predict(whole):
        metric.update(masks, classes, scores, *evaluation_targets(data))
    assert_equal(evaluate(whole), metric)
    result = metric.compute()
    assert 0.1 < result["part_map"][0] < 0.9
    assert result["class_gt_count"].tolist() == [4, 12, 0]
    one = evaluate(whole, iou_thresholds=(0.3,)).compute()
    assert one["part_map"].shape == (1,)


def test_ground_truth_predicted_scores_one(whole: Path, tmp_path: Path) -> None:
    found = []
    for shape_id, targets in read_ground_truth(whole / FOLDER, len(CLASSES)):
        count = len(targets.gt_classes)
        masks = targets.gt_instance == torch.arange(count)[:, None]
        found.append(ShapePredictions(masks, targets.gt_classes, torch.linspace(0.9, 0.5, count), shape_id))
    write_predictions(tmp_path / "pred", whole / FOLDER, found)
    result = evaluate_files(whole / FOLDER, tmp_path / "pred", len(CLASSES)).compute()
    np.testing.assert_allclose(result["part_map"], 1, atol=1e-6)
    np.testing.assert_allclose(result["shape_map"], 1, atol=1e-6)


def test_ground_truth_files(whole: Path) -> None:
    """By the definition of the layout, from leaf ids."""
    with h5py.File(whole / "ins_seg_h5" / "Chair" / "test-01.h5") as file:
        pts, label = file["pts"][:], file["label"][:]
    masks, labels = np.zeros((2, 200, POINTS), bool), np.zeros((2, 200), np.uint8)
    for slot, (name, leaves) in enumerate(
        [("chair/leg", [3]), ("chair/leg", [4]), ("chair/leg", [5]), ("chair/seat", [1, 2])]
    ):
        masks[0, slot] = np.isin(label[0], leaves)
        labels[0, slot] = CLASSES.index(name)
    expected = {
        "pts": pts,
        "gt_mask": masks,
        "gt_mask_label": labels,
        "gt_mask_valid": masks.any(2),
        "gt_mask_other": ~masks.any(1),
    }
    with h5py.File(whole / FOLDER / "test-01.h5") as file:
        assert set(file) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(file[name][:], value, err_msg=name, strict=True)
            assert file[name].compression == "gzip"
            assert file[name].chunks == (1, *value.shape[1:])
    source = whole / "ins_seg_h5" / "Chair" / "test-01.json"
    assert (whole / FOLDER / "test-01.json").read_bytes() == source.read_bytes()


def test_ground_truth_read_back(whole: Path) -> None:
    data = PartNetInstances(whole, "Chair", LEVEL, "test", num_points=POINTS)
    read = list(read_ground_truth(whole / FOLDER, len(CLASSES)))
    assert [shape_id for shape_id, _ in read] == SHAPES
    for i, (_, targets) in enumerate(read):
        shape = data.read(i)
        np.testing.assert_array_equal(targets.gt_instance, shape.instance)
        np.testing.assert_array_equal(targets.gt_classes, shape.classes - 1)
        np.testing.assert_array_equal(targets.other, shape.instance < 0)
    assert len(read[4][1].gt_classes) == 0  # a shape without instance


def test_prediction_files(whole: Path) -> None:
    with h5py.File(whole / "pred" / "test-00.h5") as file:
        found = {name: file[name][:] for name in file}
        assert file["mask"].chunks == (1, 200, POINTS)
        assert file["mask"].compression == "gzip"
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        "mask": ((3, 200, POINTS), "bool"),
        "label": ((3, 200), "uint8"),
        "valid": ((3, 200), "bool"),
        "conf": ((3, 200), "float32"),
    }
    (data, masks, classes, scores), *_ = predict(whole)
    order = np.argsort(-scores, kind="stable")
    assert found["valid"][0].tolist() == [True] * len(scores) + [False] * (200 - len(scores))
    np.testing.assert_array_equal(found["conf"][0, : len(scores)], scores[order])
    np.testing.assert_array_equal(found["label"][0, : len(scores)], classes[order])
    np.testing.assert_array_equal(found["mask"][0, : len(scores)][:, data.point], masks[order])
    assert not found["mask"][0, len(scores) :].any()


def test_predictions_read_back(whole: Path) -> None:
    read = list(read_predictions(whole / "pred", len(CLASSES)))
    assert [x.shape_id for x in read] == SHAPES
    for x, y in zip(read, predictions(whole), strict=True):
        order = np.argsort(-y.scores, kind="stable")
        for a, b in zip(x[:3], y[:3], strict=True):
            np.testing.assert_array_equal(a, b[order])


@pytest.mark.parametrize("name", [f"case_{i:02}" for i in range(12)])
def test_files_as_other_programs_write_them_have_the_official_result(name: str, tmp_path: Path) -> None:
    """One file a shape, invalid slots anywhere, more than 200 slots, ground truth without points."""
    case = np.load(ORACLES / f"{name}.npz", allow_pickle=False)
    gt_folder, pred_folder = tmp_path / "gt", tmp_path / "pred"
    gt_folder.mkdir()
    pred_folder.mkdir()
    for b in range(int(case["num_shapes"])):
        x = {k.removeprefix(f"shape{b}_"): case[k] for k in case if k.startswith(f"shape{b}_")}
        instance = x["gt_instance"]
        with h5py.File(gt_folder / f"test-{b:02}.h5", "w") as file:
            file["gt_mask"] = (instance == np.arange(len(x["gt_class"]))[:, None])[None]
            file["gt_mask_label"] = x["gt_class"].astype(np.uint8)[None]
            file["gt_mask_valid"] = np.ones((1, len(x["gt_class"])), bool)
            file["gt_mask_other"] = x["other"][None]
        with h5py.File(pred_folder / f"test-{b:02}.h5", "w") as file:
            file["mask"] = np.unpackbits(x["pred_masks"], axis=1, count=len(instance)).astype(bool)[None]
            file["label"] = x["pred_class"].astype(np.uint8)[None]
            file["valid"] = x["pred_valid"][None]
            file["conf"] = x["pred_score"][None]
    result = evaluate_files(gt_folder, pred_folder, int(case["num_classes"])).compute()
    for key, value in result.items():
        np.testing.assert_array_equal(value, case[f"expected_{key}"], err_msg=key)  # to the bit


def one_shape(root: Path, points: int = 8) -> Path:
    """Ground truth of a split `val` with a single shape."""
    label = np.ones((1, points), int)
    write_file(root, "val-00", label, [{"anno_id": "a", "ins_seg": [entry("chair/seat", 1)]}])
    (path,) = write_ground_truth(root, "Chair", LEVEL, split="val", num_points=points)
    return path.parent


def test_the_200_most_confident_are_kept(root: Path) -> None:
    folder = one_shape(root)
    scores = np.random.default_rng(0).permutation(np.repeat(np.linspace(0.1, 0.9, 50), 5)).astype(np.float32)
    masks = np.arange(250)[:, None] >> np.arange(8) & 1 == 1  # the bits of the row
    given = ShapePredictions(masks, np.zeros(250, int), scores, "val-00/0")
    write_predictions(root / "many", folder, [given], split="val")
    (read,) = read_predictions(root / "many", 1, split="val")
    order = np.argsort(-scores, kind="stable")[:200]
    np.testing.assert_array_equal(read.masks, masks[order])
    np.testing.assert_array_equal(read.scores, scores[order])
    assert scores[order].min() > np.delete(scores, order).max()


def test_tensors(root: Path) -> None:
    folder = one_shape(root)
    masks, none = torch.ones(1, 8, dtype=torch.bool), torch.zeros(0)
    score = torch.tensor([0.3], dtype=torch.bfloat16, requires_grad=True)
    shape = ShapePredictions(masks, torch.tensor([2]), score, "val-00/0")
    write_predictions(root / "a", folder, [shape], split="val")
    (read,) = read_predictions(root / "a", 3, split="val")
    assert read.scores.tolist() == score.float().tolist()
    assert read.classes.tolist() == [2]
    write_predictions(root / "b", folder, [ShapePredictions(masks[:0], none, none, "val-00/0")], split="val")
    (read,) = read_predictions(root / "b", 3, split="val")
    assert read.masks.shape == (0, 8)


def test_one_shape_in_memory(root: Path) -> None:
    """40 shapes of 2,000 points have 16 MB of masks a file; reading and evaluating takes a few shapes of it."""
    count, points = 40, 2000
    label = np.tile(np.arange(points) % 10, (count, 1))
    records = [{"anno_id": str(i), "ins_seg": [entry("chair/leg", j) for j in range(10)]} for i in range(count)]
    write_file(root, "val-00", label, records)
    shape = 200 * points
    tracemalloc.start()
    try:
        (path,) = write_ground_truth(root, "Chair", LEVEL, split="val", num_points=points)
        given = (
            ShapePredictions(np.ones((200, points), bool), np.ones(200, int), np.ones(200), f"val-00/{i}")
            for i in range(count)
        )
        write_predictions(root / "many", path.parent, given, split="val")
        evaluate_files(path.parent, root / "many", 3, split="val")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * shape < count * shape / 2


# --- nothing half-written


def test_an_error_leaves_nothing(root: Path) -> None:
    given = predictions(root)
    before = files_of(root)
    given[4] = ShapePredictions(np.ones((1, POINTS), bool), np.zeros(1, int), np.array([np.nan]), "test-01/1")
    with pytest.raises(ValueError, match="test-01/1: expected finite scores"):
        write_predictions(root / "new", root / FOLDER, given)
    edit(root / "ins_seg_h5" / "Chair" / "test-01.h5", "pts", np.nan, (1, 3, 2))
    with pytest.raises(ValueError, match=r"test-01\.h5, shape 1: pts holds a NaN"):
        write_ground_truth(root, "Chair", LEVEL, output=root / "new", num_points=POINTS)
    after = files_of(root)
    assert after.keys() == before.keys()


def test_nothing_is_overwritten(root: Path) -> None:
    before = files_of(root)
    with pytest.raises(FileExistsError, match=r"test-00\.h5 is there already"):
        write_ground_truth(root, "Chair", LEVEL, num_points=POINTS)
    with pytest.raises(FileExistsError, match=r"test-00\.h5 is there already"):
        write_predictions(root / "pred", root / FOLDER, predictions(root))
    assert files_of(root) == before


# --- wrong predictions


@pytest.mark.parametrize(("num_points", "choice"), [(20, 20), (1, 1)])
def test_predictions_on_fewer_points(whole: Path, num_points: int, choice: int) -> None:
    data = PartNetInstances(whole, "Chair", LEVEL, "test", num_points=num_points)[1]
    masks = np.ones((1, num_points), bool)
    with pytest.raises(
        ValueError, match=rf"test-00/1: expected all points .* a choice of {choice}: .*num_points=10000"
    ):
        shape_predictions(data, masks, np.zeros(1, int), np.ones(1))


def test_masks_over_other_points(whole: Path) -> None:
    data = PartNetInstances(whole, "Chair", LEVEL, "test", num_points=POINTS)[1]
    for masks in (np.ones((1, 59), bool), np.ones(60, bool)):
        with pytest.raises(ValueError, match=r"test-00/1: expected masks \(P, 60\) over the item's points"):
            shape_predictions(data, masks, np.zeros(1, int), np.ones(1))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 2, 1, 3, 4], "expected predictions for test-00/1, got test-00/2: .*shuffle=False"),
        ([0, 1, 2, 3], "expected predictions for test-01/1, got no more"),
        ([], "expected predictions for test-00/0, got no more"),
        ([0, 1, 2, 3, 4, 0], "got predictions for test-00/0 after the last shape"),
    ],
)
def test_order_of_shapes(whole: Path, tmp_path: Path, order: list[int], message: str) -> None:
    given = predictions(whole)
    with pytest.raises(ValueError, match=message):
        write_predictions(tmp_path / "new", whole / FOLDER, [given[i] for i in order])
    assert files_of(tmp_path) == {}


GOOD = {"masks": np.ones((2, 8), bool), "classes": np.array([0, 254]), "scores": np.array([0.5, -3.0])}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("masks", np.ones((2, 8)), TypeError, "expected masks of bool, got float64; pass masks != 0"),
        ("masks", np.ones((2, 7), bool), ValueError, r"expected masks \(P, 8\), .* got \(2, 7\)"),
        ("masks", np.ones((3, 8), bool), ValueError, r"got \(3, 8\), \(2,\) and \(2,\)"),
        ("masks", np.ones(8, bool), ValueError, r"got \(8,\), \(2,\)"),
        ("masks", np.array(True), ValueError, r"got \(\), \(2,\)"),
        ("classes", np.array([0.0, 1.0]), TypeError, "expected classes of integers, got float64"),
        ("classes", np.array([0]), ValueError, r"got \(2, 8\), \(1,\) and \(2,\)"),
        ("classes", np.array([-1, 0]), ValueError, "expected classes 0 … 254, 0-based .* got -1 to 0"),
        ("classes", np.array([0, 255]), ValueError, "expected classes 0 … 254, .* got 0 to 255"),
        ("scores", np.array(["a", "b"]), TypeError, "expected scores of real numbers, got <U1"),
        ("scores", np.array([[0.5, 0.6]]), ValueError, r"and \(1, 2\)"),
        ("scores", np.array([0.5, np.nan]), ValueError, r"expected finite scores as float32, got \[nan\]"),
        ("scores", np.array([0.5, 1e300]), ValueError, r"expected finite scores as float32, got \[inf\]"),
    ],
)
def test_wrong_predictions(root: Path, name: str, value: np.ndarray, error: type[Exception], message: str) -> None:
    folder = one_shape(root)
    write_predictions(root / "good", folder, [ShapePredictions(**GOOD, shape_id="val-00/0")], split="val")
    with pytest.raises(error, match="val-00/0: .*" + message):
        write_predictions(
            root / "bad", folder, [ShapePredictions(**{**GOOD, name: value}, shape_id="val-00/0")], split="val"
        )
    assert files_of(root / "bad") == {}


def test_more_than_200_instances(root: Path) -> None:
    label = np.arange(201)[None]
    parts = [entry("chair/leg", i) for i in range(201)]
    write_file(root, "val-00", label, [{"anno_id": "a", "ins_seg": parts}])
    before = files_of(root)
    with pytest.raises(ValueError, match=r"val-00\.h5, shape 0: has 201 instances .* holds 200"):
        write_ground_truth(root, "Chair", LEVEL, split="val", num_points=201)
    assert files_of(root) == before


def test_more_than_255_classes(root: Path) -> None:
    write_classes(root, [*(f"chair/{i}" for i in range(254)), "chair/leg"], level=1)
    (path, _) = write_ground_truth(root, "Chair", 1, num_points=POINTS)
    (_, targets), *_ = read_ground_truth(path.parent, 255)
    assert targets.gt_classes.tolist() == [254] * 3
    write_classes(root, [*(f"chair/{i}" for i in range(255)), "chair/leg"], level=3)
    with pytest.raises(ValueError, match="Chair-3: the files hold 255 classes, as uint8, not 256"):
        write_ground_truth(root, "Chair", 3, num_points=POINTS)


# --- broken files


def test_missing(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no test-\*\.h5 in .*: expected the folder of one category and level"):
        list(read_ground_truth(tmp_path / "none", 3))
    with pytest.raises(FileNotFoundError, match=r"no val-\*\.h5 in .*pred"):
        list(read_predictions(root / "pred", 3, split="val"))
    with pytest.raises(FileNotFoundError, match=r"no val-\*\.h5 in "):
        write_predictions(root / "new", root / FOLDER, [], split="val")
    (root / "pred" / "test-01.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"pred/test-01\.h5 is missing"):
        evaluate(root)


def test_predictions_for_a_file_that_the_ground_truth_has_not(root: Path) -> None:
    shutil.copy(root / "pred" / "test-01.h5", root / "pred" / "test-02.h5")
    with pytest.raises(ValueError, match=r"pred has predictions for test-02\.h5, which .* has not"):
        evaluate(root)


@pytest.mark.parametrize(("rows", "points"), [(2, POINTS), (3, POINTS - 1), (4, POINTS)])
def test_other_shapes_than_the_ground_truth(root: Path, rows: int, points: int) -> None:
    path = root / "pred" / "test-00.h5"
    for name, value in {
        "mask": np.zeros((rows, 5, points), bool),
        "label": np.zeros((rows, 5), np.uint8),
        "valid": np.zeros((rows, 5), bool),
        "conf": np.zeros((rows, 5), np.float32),
    }.items():
        edit(path, name, value)
    with pytest.raises(
        ValueError, match=rf"pred/test-00\.h5 has {rows} shapes of {points} points, but .* has 3 of {POINTS}"
    ):
        evaluate(root)


@pytest.mark.parametrize("where", ["pred", FOLDER])
def test_truncated(root: Path, where: str | Path) -> None:
    truncate(root / where / "test-01.h5")
    with pytest.raises(OSError, match=r"test-01\.h5 is no readable HDF5 file, perhaps truncated"):
        evaluate(root)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        *(("pred", name) for name in ("mask", "label", "valid", "conf")),
        *((FOLDER, name) for name in ("gt_mask", "gt_mask_label", "gt_mask_valid", "gt_mask_other")),
    ],
)
def test_corrupt_chunk(root: Path, where: str | Path, name: str) -> None:
    corrupt(root / where / "test-00.h5", name)
    with pytest.raises(OSError, match=r"test-00\.h5, shape 0 cannot be read"):
        evaluate(root)


@pytest.mark.parametrize(
    ("where", "name", "value", "message"),
    [
        ("pred", "mask", None, r"expected mask \(B, slots, N\) of bool, got no mask"),
        ("pred", "mask", np.zeros((3, 200, POINTS), np.uint8), r"of bool, got \(3, 200, 60\) uint8"),
        ("pred", "mask", np.zeros((3, POINTS), bool), r"expected mask .* got \(3, 60\) bool"),
        ("pred", "label", np.zeros((3, 200)), r"expected label \(3, 200\) of integers .* float64"),
        ("pred", "label", np.zeros((3, 100), np.uint8), r"expected label \(3, 200\) .* got \(3, 100\)"),
        ("pred", "valid", np.zeros((3, 200), int), r"expected valid \(3, 200\) of bool .* int64"),
        ("pred", "conf", np.zeros((3, 200), int), r"expected conf \(3, 200\) of floats .* int64"),
        ("pred", "conf", np.zeros((2, 200), np.float32), r"expected conf \(3, 200\) .* got \(2, 200\)"),
        (FOLDER, "gt_mask", np.zeros((3, POINTS), bool), r"expected gt_mask \(B, slots, N\) of bool"),
        (FOLDER, "gt_mask_label", np.zeros((3, POINTS), np.uint8), r"expected gt_mask_label \(3, 200\)"),
        (FOLDER, "gt_mask_valid", None, "got no gt_mask_valid"),
        (FOLDER, "gt_mask_other", np.zeros((3, 59), bool), r"expected gt_mask_other \(3, 60\)"),
    ],
)
def test_arrays(root: Path, where: str | Path, name: str, value: np.ndarray | None, message: str) -> None:
    edit(root / where / "test-00.h5", name, value)
    with pytest.raises(ValueError, match=r"test-00\.h5: .*" + message):
        evaluate(root)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_confidence_that_is_not_finite(root: Path, value: float) -> None:
    counts = [len(x.scores) for x in predictions(root)]
    row = next(i for i, count in enumerate(counts[:3]) if count > 1)
    edit(root / "pred" / "test-00.h5", "conf", value, (row, 1))
    with pytest.raises(ValueError, match=rf"pred/test-00\.h5, shape {row}: expected finite conf, got \["):
        evaluate(root)


@pytest.mark.parametrize(("where", "name"), [("pred", "label"), (FOLDER, "gt_mask_label")])
def test_class_out_of_range(root: Path, where: str | Path, name: str) -> None:
    row = next(i for i, x in enumerate(predictions(root)[:3]) if len(x.scores) > 1)
    edit(root / where / "test-00.h5", name, 3, (row, 1))
    with pytest.raises(ValueError, match=rf"test-00\.h5, shape {row}: expected {name} 0 … 2 in valid slots, got .* 3"):
        evaluate(root)
    evaluate(root, num_classes=4)


def test_slots_that_are_not_valid_are_not_looked_at(root: Path) -> None:
    expected = evaluate(root)
    for where, prefix in (("pred", ""), (FOLDER, "gt_mask_")):
        edit(root / where / "test-00.h5", f"{prefix}label", 77, (0, 199))
        edit(root / where / "test-00.h5", "mask" if where == "pred" else "gt_mask", True, (0, 199))
    edit(root / "pred" / "test-00.h5", "conf", np.nan, (0, 199))
    assert_equal(evaluate(root), expected)


def test_ground_truth_without_points_is_left_out(root: Path) -> None:
    expected = evaluate(root)
    edit(root / FOLDER / "test-00.h5", "gt_mask_valid", True, (0, slice(0, 9)))
    edit(root / FOLDER / "test-00.h5", "gt_mask_label", 77, (0, 8))
    assert_equal(evaluate(root), expected)


def test_ground_truth_that_overlaps(root: Path) -> None:
    path = root / FOLDER / "test-00.h5"
    with h5py.File(path) as file:
        both = file["gt_mask"][2, 0] | file["gt_mask"][2, 1]
        shared = np.count_nonzero(file["gt_mask"][2, 1])
    edit(path, "gt_mask", both, (2, 0))
    with pytest.raises(ValueError, match=rf"test-00\.h5, shape 2: instances of gt_mask overlap in {shared} points"):
        evaluate(root)
