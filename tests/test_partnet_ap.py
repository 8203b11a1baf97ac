"""PartNet AP against the official numbers and against a plain reading of the protocol."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import probemb_lib.metrics.partnet
from probemb_lib.metrics import PartNetAP, average_precision

DATA = Path(__file__).parent / "data" / "partnet_instance_ap"
THRESHOLDS = (0.25, 0.5, 0.75)
CASES = [f"case_{i:02}" for i in range(12)]


class Problem(NamedTuple):
    """The arguments of one update."""

    pred_masks: np.ndarray
    pred_classes: np.ndarray
    pred_scores: np.ndarray
    gt_instance: np.ndarray
    gt_classes: np.ndarray
    other: np.ndarray | None


# --- a straightforward implementation: loops over predictions and GT, boolean and/or for each pair ---


def straightforward(problems: list[Problem], num_classes: int, thresholds: tuple[float, ...]) -> dict:
    """The protocol step by step; shares no code with the library."""
    num_shapes = len(problems)
    class_ap = np.zeros((len(thresholds), num_classes), np.float32)
    shape_ap = np.zeros((len(thresholds), num_shapes), np.float32)
    gt_count = np.zeros((num_shapes, num_classes), np.int64)
    pred_count = np.zeros((num_shapes, num_classes), np.int64)
    for t, threshold in enumerate(thresholds):
        pooled: list[list[tuple[float, bool]]] = [[] for _ in range(num_classes)]
        for b, x in enumerate(problems):
            kept = np.ones(len(x.gt_instance), bool) if x.other is None else ~x.other
            gts = [(x.gt_instance == g, c) for g, c in enumerate(x.gt_classes) if (x.gt_instance == g).any()]
            gt_count[b] = [sum(c == k for _, c in gts) for k in range(num_classes)]
            pred_count[b] = [np.sum(x.pred_classes == k) for k in range(num_classes)]
            used = [False] * len(gts)
            ranked: list[list[tuple[float, bool]]] = [[] for _ in range(num_classes)]
            for p in sorted(range(len(x.pred_scores)), key=lambda p: -x.pred_scores[p]):
                mask = x.pred_masks[p] & kept
                best_iou, best = 0.0, -1
                for g, (gt_mask, c) in enumerate(gts):
                    if c == x.pred_classes[p] and not used[g]:
                        iou = np.sum(mask & gt_mask) / float(np.sum(mask | gt_mask))
                        if iou > best_iou:
                            best_iou, best = iou, g
                hit = best >= 0 and best_iou > threshold
                if hit:
                    used[best] = True
                ranked[x.pred_classes[p]].append((x.pred_scores[p], hit))
            present = (gt_count[b] > 0) | (pred_count[b] > 0)
            if present.any():
                ap = np.array([interpolated(ranked[k], gt_count[b, k]) for k in range(num_classes)], np.float32)
                shape_ap[t, b] = np.sum(ap * present) / present.sum()
            for k in range(num_classes):
                pooled[k] += ranked[k]
        class_ap[t] = [interpolated(pooled[k], gt_count[:, k].sum()) for k in range(num_classes)]
    class_valid = gt_count.sum(axis=0) > 0
    shape_valid = ((gt_count > 0) | (pred_count > 0)).any(axis=1)
    return {
        "class_ap": class_ap,
        "class_valid": class_valid,
        "class_gt_count": gt_count.sum(axis=0),
        "part_map": plain_mean(class_ap, class_valid),
        "shape_ap": shape_ap,
        "shape_valid": shape_valid,
        "shape_map": plain_mean(shape_ap, shape_valid),
    }


def interpolated(ranked: list[tuple[float, bool]], gt_count: int) -> float:
    if gt_count == 0 or not ranked:
        return 0.0
    ranked = sorted(ranked, key=lambda pair: -pair[0])
    points = [(np.float32(0), np.float32(1))]  # recall, precision
    true = 0
    for n, (_, hit) in enumerate(ranked, start=1):
        true += hit
        points.append((np.float32(true) / np.float32(gt_count), np.float32(true) / np.float32(n)))
    ap = 0.0
    for level in np.arange(0, 1.01, 0.01).astype(np.float32):
        ap += float(max((p for r, p in points if r >= level), default=np.float32(0))) / 101
    return ap


def plain_mean(value: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if not valid.any():
        return np.full(len(value), np.nan)
    return np.array([float(np.sum(row * valid)) / valid.sum() for row in value])


# --- helpers ---


def load_case(name: str) -> tuple[np.lib.npyio.NpzFile, list[Problem]]:
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


def evaluate(problems: list[Problem], num_classes: int, thresholds: tuple[float, ...] = THRESHOLDS) -> PartNetAP:
    metric = PartNetAP(num_classes, thresholds)
    for problem in problems:
        metric.update(*problem)
    return metric


def assert_equal(result: dict, expected: dict) -> None:
    assert list(result) == list(expected)
    for key in expected:
        assert result[key].dtype == expected[key].dtype, key
        np.testing.assert_array_equal(result[key], expected[key], err_msg=key, strict=True)


def random_problem(seed: int, num_points: int, num_pred: int, num_gt: int, num_classes: int) -> Problem:
    """Contiguous GT, predictions that are shifted GT of mostly the right class."""
    rng = np.random.default_rng(seed)
    gt_instance = np.minimum(np.arange(num_points) * (num_gt + 1) // num_points, num_gt)
    gt_instance[gt_instance == num_gt] = -1
    gt_classes = rng.integers(num_classes, size=num_gt)
    target = rng.integers(num_gt, size=num_pred)
    width = num_points // (num_gt + 1)
    shift = rng.integers(-width // 2, width // 2 + 1, size=num_pred)
    masks = np.stack([np.roll(gt_instance == g, s) for g, s in zip(target, shift, strict=True)])
    pred_classes = np.where(rng.random(num_pred) < 0.8, gt_classes[target], rng.integers(num_classes, size=num_pred))
    scores = rng.random(num_pred).astype(np.float32)
    return Problem(masks, pred_classes, scores, gt_instance, gt_classes, rng.random(num_points) < 0.05)


@st.composite
def shapes(draw: st.DrawFn, num_classes: int = 3) -> Problem:
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


# --- official numbers ---


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


# --- the straightforward implementation ---


@pytest.mark.parametrize("name", ["case_02", "case_05", "case_11"])
def test_straightforward_implementation_is_official(name: str) -> None:
    data, problems = load_case(name)
    result = straightforward(problems, int(data["num_classes"]), THRESHOLDS)
    for key, value in result.items():
        np.testing.assert_array_equal(value, data[f"expected_{key}"], err_msg=key)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(problems=st.lists(shapes(), max_size=4), thresholds=st.sampled_from([THRESHOLDS, (0.0,), (0.5, 0.2)]))
def test_equals_straightforward(problems: list[Problem], thresholds: tuple[float, ...]) -> None:
    result = evaluate(problems, 3, thresholds).compute()
    assert_equal(result, straightforward(problems, 3, thresholds))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(problems=st.lists(shapes(), max_size=4), as_torch=st.booleans())
def test_label_map_equals_masks(problems: list[Problem], as_torch: bool) -> None:
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


# --- hand-made cases ---


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


# --- state ---


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


def test_reset() -> None:
    _, problems = load_case("case_00")
    metric = evaluate(problems * 2, 5)
    metric.reset()
    metric.update(*problems[0])
    assert_equal(metric.compute(), evaluate(problems, 5).compute())


def test_state_keeps_no_masks() -> None:
    x = random_problem(0, 20_000, 30, 10, 3)
    assert len(pickle.dumps(evaluate([x], 3))) < 2_000


# --- inputs ---


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


# --- curve ---


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


# --- errors ---

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
