"""PartNet AP against the official numbers and against a plain reading of the protocol."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import TEST_DATA
from straightforward import Shape as Problem
from straightforward import partnet_ap as straightforward
from straightforward import random_shape as random_problem

import probemb_lib.metrics.partnet
from probemb_lib.metrics import PartNetAP, ScanNetAP, average_precision

DATA = TEST_DATA / "partnet_instance_ap"
THRESHOLDS = (0.25, 0.5, 0.75)
CASES = [f"case_{i:02}" for i in range(12)]


# --- helpers


def load_case(name: str) -> tuple[np.lib.npyio.NpzFile, list]:
    data = np.load(DATA / f"{name}.npz", allow_pickle=False)
    problems = []
    for b in range(int(data["num_shapes"])):
        part = {k.removeprefix(f"shape{b}_"): data[k] for k in data if k.startswith(f"shape{b}_")}
        valid, num_points = part["pred_valid"], len(part["gt_instance"])
        masks = np.unpackbits(part["pred_masks"], axis=1, count=num_points).astype(bool)
        problems.append(
            Problem(
                masks[valid],
                part["pred_class"][valid],
                part["pred_score"][valid],
                part["gt_instance"],
                part["gt_class"],
                part["other"],
            )
        )
    return data, problems


def evaluate(problems: list, num_classes: int, thresholds: tuple[float, ...] = THRESHOLDS) -> PartNetAP:
    metric = PartNetAP(num_classes, thresholds)
    for problem in problems:
        metric.update(*problem)
    return metric


def assert_equal(result: dict, expected: dict) -> None:
    assert list(result) == list(expected)
    for key in expected:
        assert result[key].dtype == expected[key].dtype, key
        np.testing.assert_array_equal(result[key], expected[key], err_msg=key, strict=True)


@st.composite
def shapes(draw: st.DrawFn, num_classes: int = 3) -> tuple:
    """Tiny shapes, where equal scores, equal IoU and IoU on a threshold are common."""
    num_points = draw(st.integers(0, 12))
    num_gt, num_pred = draw(st.integers(0, 4)), draw(st.integers(0, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    gt_instance = rng.integers(-1, num_gt, size=num_points)
    if draw(st.booleans()):
        label = rng.integers(-1, num_pred, size=num_points)
        masks = label == np.arange(num_pred)[:, None]
    else:
        masks = rng.random((num_pred, num_points)) < rng.choice([0.2, 0.5, 0.8])
    scores = rng.choice(np.array([-1.0, -0.0, 0.0, 0.25, 0.5, 1.0], np.float32), size=num_pred)
    other = rng.random(num_points) < 0.2 if draw(st.booleans()) else None
    pred_classes = rng.integers(num_classes, size=num_pred)
    return Problem(masks, pred_classes, scores, gt_instance, rng.integers(num_classes, size=num_gt), other)


# --- official numbers


@pytest.mark.parametrize("name", CASES)
def test_official_case(name: str) -> None:
    data, problems = load_case(name)
    result = evaluate(problems, int(data["num_classes"]), tuple(data["iou_thresholds"])).compute()
    for key, value in result.items():
        expected = data[f"expected_{key}"]
        if value.dtype.kind == "f":
            assert value.dtype == expected.dtype, key
        np.testing.assert_array_equal(value, expected, err_msg=key)  # to the bit


def test_official_cases_notice_a_changed_answer() -> None:
    data, problems = load_case("case_02")
    off_threshold = tuple(np.nextafter(data["iou_thresholds"], 0))  # IoU on a threshold now counts
    result = evaluate(problems, int(data["num_classes"]), off_threshold).compute()
    assert np.abs(result["class_ap"] - data["expected_class_ap"]).max() > 1e-3


def test_official_curves() -> None:
    data = np.load(DATA / "curves.npz", allow_pickle=False)
    ap = [average_precision(tp[tp >= 0] == 1, int(n)) for tp, n in zip(data["tp"], data["gt_count"], strict=True)]
    np.testing.assert_array_equal(ap, data["expected_ap"])  # to the bit


# --- the straightforward implementation


@pytest.mark.parametrize("name", CASES)
def test_straightforward_implementation_is_official(name: str) -> None:
    data, problems = load_case(name)
    result = straightforward(problems, int(data["num_classes"]), THRESHOLDS)
    for key, value in result.items():
        np.testing.assert_array_equal(value, data[f"expected_{key}"], err_msg=key)  # to the bit


def test_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """It compares to the bit what it times."""
    benchmark = importlib.import_module("partnet_ap")
    result = benchmark.measure(12, 300, 8, 12)
    assert result["times_faster"] > 0
    wrong = {**straightforward(benchmark.draw(0, 2, 300, 8), 10, THRESHOLDS), "part_map": np.zeros(3)}
    monkeypatch.setattr(benchmark, "partnet_ap", lambda *_: wrong)
    with pytest.raises(AssertionError, match="part_map"):
        benchmark.measure(2, 300, 8, 2)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(problems=st.lists(shapes(), max_size=4), thresholds=st.sampled_from([THRESHOLDS, (0.0,), (0.5, 0.2)]))
def test_equals_straightforward(problems: list, thresholds: tuple[float, ...]) -> None:
    result = evaluate(problems, 3, thresholds).compute()
    assert_equal(result, straightforward(problems, 3, thresholds))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(problems=st.lists(shapes(), max_size=4), as_torch=st.booleans())
def test_label_map_equals_masks(problems: list, as_torch: bool) -> None:
    convert = torch.from_numpy if as_torch else np.asarray
    by_label, by_mask = PartNetAP(3), PartNetAP(3)
    for x in problems:
        # the last mask that has a point owns it
        label = np.max(np.where(x.pred_masks, np.arange(len(x.pred_masks))[:, None], -1), axis=0, initial=-1)
        masks = label == np.arange(len(x.pred_masks))[:, None]
        by_mask.update(masks, *x[1:])
        by_label.update_labels(*(None if a is None else convert(a) for a in (label, *x[1:])))
    assert_equal(by_label.compute(), by_mask.compute())


def test_larger_shapes_equal_straightforward() -> None:
    problems = [random_problem(seed, 2000, 40, 12, 4) for seed in range(3)]
    expected = straightforward(problems, 4, THRESHOLDS)
    assert 0.1 < expected["part_map"][1] < 0.9
    assert_equal(evaluate(problems, 4).compute(), expected)


def test_masks_are_counted_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [random_problem(seed, 1000, 20, 8, 3) for seed in range(2)]
    expected = evaluate(problems, 3).compute()
    monkeypatch.setattr(probemb_lib.metrics.partnet, "_CHUNK", 37)
    assert_equal(evaluate(problems, 3).compute(), expected)


# --- hand-made cases


def test_best_unused_instance_depends_on_the_threshold() -> None:
    gt_instance = np.repeat([0, 1], [6, 4])
    masks = np.zeros((2, 10), bool)
    masks[0, :4] = True  # IoU 4/6 with GT 0
    masks[1, 2:] = True  # IoU 4/10 with GT 0, 4/8 with GT 1
    zeros = np.zeros(2, int)
    metric = PartNetAP(1, (0.25, 0.5, 0.75))
    metric.update(masks, zeros, np.array([0.9, 0.8]), gt_instance, zeros)
    np.testing.assert_array_equal(metric.compute()["class_ap"][:, 0], np.float32([1, 51 / 101, 1 / 101]))


def test_other_points_leave_predictions_but_not_the_ground_truth() -> None:
    label, zero, one = np.zeros(4, int), np.zeros(1, int), np.ones(1)
    metric = PartNetAP(1, (0.49, 0.5))
    metric.update_labels(label, zero, one, label, zero, other=np.array([True, True, False, False]))  # 2/4
    np.testing.assert_array_equal(metric.compute()["class_ap"][:, 0], np.float32([1, 1 / 101]))


def test_nothing() -> None:
    result = PartNetAP(2).compute()
    assert np.isnan(result["part_map"]).all()
    assert np.isnan(result["shape_map"]).all()
    assert result["class_ap"].shape == (3, 2)
    assert result["shape_ap"].shape == (3, 0)
    none = np.zeros(0, int)
    metric = PartNetAP(2)
    metric.update(np.zeros((0, 0), bool), none, none, none, none)
    metric.update(np.zeros((0, 5), bool), none, none, np.full(5, -1), none)
    metric.update_labels(torch.zeros(0), torch.zeros(0), torch.zeros(0), torch.zeros(0), torch.zeros(0))
    result = metric.compute()
    assert np.isnan(result["part_map"]).all()
    assert np.isnan(result["shape_map"]).all()
    np.testing.assert_array_equal(result["shape_valid"], [False, False, False])


def test_predictions_without_ground_truth_count_in_shape_map_only() -> None:
    metric = PartNetAP(1)
    metric.update(np.ones((1, 3), bool), np.zeros(1, int), np.ones(1), np.full(3, -1), np.zeros(0, int))
    result = metric.compute()
    assert np.isnan(result["part_map"]).all()
    np.testing.assert_array_equal(result["shape_map"], np.zeros(3))


def test_average_precision_without_predictions_or_ground_truth() -> None:
    assert average_precision(np.zeros(0, bool), 3) == 0
    assert average_precision(np.zeros(4, bool), 0) == 0
    assert average_precision(torch.tensor([False]), 3) == 1 / 101  # the leading point alone


# --- state


def test_merged_and_pickled_state() -> None:
    _, problems = load_case("case_11")
    first, second = evaluate(problems[:2], 40), evaluate(problems[2:], 40)
    alone = second.compute()
    first.merge_state(pickle.loads(pickle.dumps(second)))
    assert_equal(first.compute(), evaluate(problems, 40).compute())
    assert_equal(second.compute(), alone)


def test_merging_with_itself_repeats_the_shapes() -> None:
    _, problems = load_case("case_07")
    metric = evaluate(problems, 5)
    metric.merge_state(metric)
    assert_equal(metric.compute(), evaluate(problems * 2, 5).compute())


def test_a_subset_is_the_evaluator_of_these_shapes() -> None:
    _, problems = load_case("case_11")
    metric, last = evaluate(problems, 40), len(problems) - 1
    assert len(metric) == len(problems)
    for rows in (range(len(problems)), [last, 0], [last, last, 0, last], []):
        expected = evaluate([problems[i] for i in rows], 40).compute()
        assert_equal(metric.subset(rows).compute(), expected)
        np.testing.assert_array_equal(metric.subset(rows).part_map(), expected["part_map"])
    assert len(metric) == len(problems)
    for row in (-1, len(problems)):
        with pytest.raises(IndexError, match=rf"expected shapes in \[0, {len(problems)}\), got {row}"):
            metric.subset([0, row])


def test_reset() -> None:
    _, problems = load_case("case_00")
    metric = evaluate(problems * 2, 5)
    metric.reset()
    metric.update(*problems[0])
    assert_equal(metric.compute(), evaluate(problems, 5).compute())


@pytest.mark.parametrize("num_points", [1_000, 40_000])
def test_state_grows_with_predictions_not_with_points(num_points: int) -> None:
    problems = [random_problem(seed, num_points, 30, 10, 3) for seed in range(3)]
    size = len(pickle.dumps(evaluate(problems, 3))) - len(pickle.dumps(evaluate(problems[:1], 3)))
    assert size / 2 < 30 * (8 + 4 + len(THRESHOLDS)) + 10 * 8 + 300  # class, score, hits; GT class; the objects


# --- several processes


def evaluate_part(part: list) -> PartNetAP:
    return evaluate(part, 4)


def in_two_processes(problems: list) -> list[PartNetAP]:
    """An evaluator of the first half, and one of the second, each from a process of its own."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(evaluate_part, [problems[:5], problems[5:]], chunksize=1)


def merged(parts: list[PartNetAP]) -> dict:
    metric = PartNetAP(4)
    for part in parts:
        metric.merge_state(part)
    return metric.compute()


def test_two_processes_give_the_result_of_one() -> None:
    """Merged by rank, to the bit; the other way round, the shapes come in another order and all else is the same."""
    problems = [random_problem(seed, 500, 20, 8, 4) for seed in range(10)]
    first, second = in_two_processes(problems)
    one = evaluate(problems, 4).compute()
    assert 0.1 < one["part_map"][1] < 0.9
    assert_equal(merged([first, second]), one)
    swapped = merged([second, first])
    assert_equal(swapped, evaluate(problems[5:] + problems[:5], 4).compute())
    for key in ("class_ap", "class_valid", "class_gt_count", "part_map"):
        np.testing.assert_array_equal(swapped[key], one[key], err_msg=key)
    np.testing.assert_array_equal(np.roll(swapped["shape_ap"], 5, axis=1), one["shape_ap"])
    np.testing.assert_allclose(swapped["shape_map"], one["shape_map"], rtol=1e-6)  # a float32 sum in another order


def test_order_of_merging_decides_between_equal_scores() -> None:
    """As the order of the shapes does in one process."""
    problems = [random_problem(seed, 500, 20, 8, 4) for seed in range(10)]
    problems = [x._replace(pred_scores=np.round(x.pred_scores, 1)) for x in problems]
    first, second = in_two_processes(problems)
    one = evaluate(problems, 4).compute()
    swapped = merged([second, first])
    assert_equal(merged([first, second]), one)
    assert_equal(swapped, evaluate(problems[5:] + problems[:5], 4).compute())
    assert (swapped["class_ap"] != one["class_ap"]).any()


# --- inputs


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))],
)
def test_torch_inputs(device: str) -> None:
    data, problems = load_case("case_11")
    metric = PartNetAP(40)
    for x in problems:
        tensors = [torch.from_numpy(a).to(device) for a in x]
        tensors[2].requires_grad_()
        metric.update(*tensors)
    np.testing.assert_array_equal(metric.compute()["class_ap"], data["expected_class_ap"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8])
def test_scores_are_compared_as_float32(dtype: torch.dtype) -> None:
    x = random_problem(1, 500, 30, 8, 2)
    scores = torch.from_numpy(x.pred_scores * 100).to(dtype)
    metric = PartNetAP(2)
    metric.update(*x[:2], scores, *x[3:])
    expected = evaluate([x._replace(pred_scores=scores.float().numpy())], 2).compute()
    assert_equal(metric.compute(), expected)


def test_inputs_are_not_changed_and_need_not_be_contiguous() -> None:
    x = random_problem(2, 600, 20, 8, 2)
    before = pickle.dumps(x)
    strided = [np.repeat(np.asfortranarray(a), 2, axis=-1)[..., ::2] for a in x]
    reference = evaluate([x], 2).compute()
    assert_equal(evaluate([Problem(*strided)], 2).compute(), reference)
    assert pickle.dumps(x) == before


# --- curve


@pytest.mark.parametrize("name", ["case_01", "case_07"])
def test_curve_gives_the_class_ap(name: str) -> None:
    data, problems = load_case(name)
    metric = evaluate(problems, 5)
    for t, threshold in enumerate(THRESHOLDS):
        for c in range(5):
            precision, recall = metric.curve(c, threshold)
            assert precision.dtype == recall.dtype == np.float32
            assert (precision[0], recall[0]) == (1, 0)
            levels = np.arange(0, 1.01, 0.01).astype(np.float32)
            ap = sum(float(np.max(precision[recall >= t], initial=0)) / 101 for t in levels)
            if len(precision) == 1 or np.isnan(recall[1]):
                ap = 0.0
            assert np.float32(ap) == data["expected_class_ap"][t, c]


def test_curve_without_ground_truth() -> None:
    metric = PartNetAP(2)
    metric.update(np.ones((2, 3), bool), np.zeros(2, int), np.ones(2), np.full(3, -1), np.zeros(0, int))
    precision, recall = metric.curve(0, 0.5)
    np.testing.assert_array_equal(precision, [1, 0, 0])
    np.testing.assert_array_equal(recall, [0, np.nan, np.nan])
    np.testing.assert_array_equal(metric.curve(1, 0.5), [[1], [0]])


# --- errors

GOOD = {
    "pred_masks": np.ones((2, 3), bool),
    "pred_classes": np.array([0, 1]),
    "pred_scores": np.array([0.5, 0.6]),
    "gt_instance": np.array([0, 0, -1]),
    "gt_classes": np.array([1]),
    "other": np.zeros(3, bool),
}
BAD = [
    ("pred_masks", np.ones((2, 3)), TypeError, "pred_masks: expected bool, got float64"),
    ("pred_masks", np.ones(3, bool), ValueError, r"pred_masks: expected shape \(P, 3\).*got \(3,\)"),
    ("pred_masks", np.ones((2, 4), bool), ValueError, r"pred_masks: expected shape \(P, 3\).*got \(2, 4\)"),
    ("pred_masks", np.ones((3, 3), bool), ValueError, "each of the 3 predictions, got 2 pred_classes and 2"),
    ("pred_classes", np.array([0]), ValueError, "got 1 pred_classes and 2 pred_scores"),
    ("pred_classes", np.array([0.0, 1.0]), TypeError, "pred_classes: expected integers, got float64"),
    ("pred_classes", np.array([True, False]), TypeError, "pred_classes: expected integers, got bool"),
    ("pred_classes", np.array([[0, 1]]), ValueError, r"pred_classes: expected one dimension.*\(1, 2\)"),
    ("pred_classes", np.array([1, 2]), ValueError, "pred_classes: expected 0 to 1, got 1 to 2.*0-based"),
    ("pred_classes", np.array([-1, 1]), ValueError, "pred_classes: expected 0 to 1, got -1 to 1"),
    ("pred_scores", np.array([0.5]), ValueError, "got 2 pred_classes and 1 pred_scores"),
    ("pred_scores", np.ones((2, 1)), ValueError, r"pred_scores: expected one dimension.*\(2, 1\)"),
    ("pred_scores", np.array([0.5, np.nan]), ValueError, "pred_scores: expected no NaN, got 1"),
    ("pred_scores", np.array(["a", "b"]), TypeError, "pred_scores: expected real numbers, got <U1"),
    (
        "gt_instance",
        np.array([0, 0, 1]),
        ValueError,
        "gt_instance: expected -1 or a row of gt_classes, which has 1",
    ),
    ("gt_instance", np.array([0, 0, -100]), ValueError, "got -100 to 0.*give -1"),
    ("gt_instance", np.array([0.0, 0, 0]), TypeError, "gt_instance: expected integers"),
    ("gt_instance", np.zeros((3, 1), int), ValueError, "gt_instance: expected one dimension"),
    ("gt_classes", np.array([2]), ValueError, "gt_classes: expected 0 to 1, got 2 to 2.*subtract 1"),
    ("other", np.zeros(3, int), TypeError, "other: expected bool, got int64"),
    ("other", np.zeros(2, bool), ValueError, r"other: expected shape \(3,\).*got \(2,\)"),
]


def test_good_arguments_raise_nothing() -> None:
    metric = PartNetAP(2)
    metric.update(**GOOD)
    assert metric.compute()["class_gt_count"].tolist() == [0, 1]


@pytest.mark.parametrize(("name", "value", "error", "message"), BAD)
def test_update_errors(name: str, value: np.ndarray, error: type[Exception], message: str) -> None:
    metric = PartNetAP(2)
    with pytest.raises(error, match=message):
        metric.update(**{**GOOD, name: value})
    assert metric.compute()["shape_ap"].shape == (3, 0)  # a refused shape leaves no trace


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        (
            "label",
            np.array([0, 2, -1]),
            ValueError,
            "label: expected -1 or a row of pred_classes, which has 2",
        ),
        ("label", np.array([0, -1]), ValueError, "label: expected 3 values.*got 2"),
        ("label", np.array([0.0, 1, 1]), TypeError, "label: expected integers, got float64"),
        ("pred_classes", np.array([1, 2]), ValueError, "pred_classes: expected 0 to 1, got 1 to 2"),
        ("pred_scores", np.array([0.5]), ValueError, "got 2 pred_classes and 1 pred_scores"),
    ],
)
def test_update_labels_errors(name: str, value: np.ndarray, error: type[Exception], message: str) -> None:
    good = {"label": np.array([0, 1, -1]), **{k: v for k, v in GOOD.items() if k != "pred_masks"}}
    PartNetAP(2).update_labels(**good)
    with pytest.raises(error, match=message):
        PartNetAP(2).update_labels(**{**good, name: value})


def test_settings_errors() -> None:
    with pytest.raises(ValueError, match="num_classes: expected at least 1, got 0"):
        PartNetAP(0)
    with pytest.raises(TypeError, match="float"):
        PartNetAP(2.5)  # type: ignore[arg-type]
    for thresholds in [(), (0.5, 1.0), (-0.1,), (float("nan"),)]:
        with pytest.raises(ValueError, match="iou_thresholds: expected one or more"):
            PartNetAP(2, thresholds)


def test_merge_errors() -> None:
    with pytest.raises(TypeError, match="expected a PartNetAP, got dict"):
        PartNetAP(2).merge_state({})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a PartNetAP, got ScanNetAP"):
        PartNetAP(2).merge_state(ScanNetAP())  # type: ignore[misc]
    for other in [PartNetAP(3), PartNetAP(2, (0.5,))]:
        with pytest.raises(ValueError, match="equal settings"):
            PartNetAP(2).merge_state(other)


def test_curve_errors() -> None:
    for class_id in (-1, 2):
        with pytest.raises(ValueError, match=rf"class_id: expected 0 .* to 1, got {class_id}"):
            PartNetAP(2).curve(class_id, 0.5)
    with pytest.raises(ValueError, match=r"threshold: expected one of .* got 0\.6"):
        PartNetAP(2).curve(0, 0.6)


def test_average_precision_errors() -> None:
    with pytest.raises(TypeError, match="hit: expected bool, got int64"):
        average_precision(np.array([1, 0]), 1)
    with pytest.raises(ValueError, match=r"hit: expected shape \(L,\), got \(1, 2\)"):
        average_precision(np.array([[True, False]]), 1)
    with pytest.raises(ValueError, match="at least the 2 true positives, got 1"):
        average_precision(np.array([True, True]), 1)
