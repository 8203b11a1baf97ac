"""AP of label images against every matching tried, and against the dense assignment of StarDist and Cellpose."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import best_matching, label_image_counts
from scipy.optimize import linear_sum_assignment

from probemb_lib.metrics import LabelImageAP, match_label_images
from probemb_lib.metrics.label_images import IOU_THRESHOLDS


def draw_pair(seed: int, shape: tuple[int, ...] = (9, 8), objects: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Two label images alike: cells of the nearest of a few points, some background, and the second moved a little."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    centers = rng.uniform(0, max(shape), (objects, len(shape)))
    images = []
    for move in (0.0, rng.choice([0.0, 0.5, 1.5])):
        moved = centers + rng.normal(0, 1, centers.shape) * move
        image = np.linalg.norm(grid[..., None, :] - moved, axis=-1).argmin(-1) + 1
        image[rng.random(shape) < 0.15] = 0
        images.append(image * (image != rng.integers(1, objects + 1)))
    return images[0], images[1]


def dense_assignment(pred: np.ndarray, true: np.ndarray, threshold: float) -> tuple[int, float]:
    """TP and the sum of their IoU, from the whole matrix with the costs that both tools give each pair."""
    a, b = (np.unique(x[x > 0]) for x in (true, pred))
    iou = np.array([[((true == i) & (pred == j)).sum() / ((true == i) | (pred == j)).sum() for j in b] for i in a])
    if iou.size == 0:
        return 0, 0.0
    rows, columns = linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * min(iou.shape)))
    found = iou[rows, columns]
    return int((found >= threshold).sum()), float(found[found >= threshold].sum())


# --- counts


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([(9, 8), (30,), (4, 5, 4)]))
def test_equals_every_matching_tried(seed: int, shape: tuple[int, ...]) -> None:
    pred, true = draw_pair(seed, shape)
    metric = LabelImageAP((0.05, 0.2, *IOU_THRESHOLDS, 1.0))
    metric.update(pred, true)
    result = metric.compute()
    for t, threshold in enumerate(metric.iou_thresholds):
        tp, fp, fn, iou = label_image_counts(pred, true, threshold)
        assert (result["tp"][t], result["fp"][t], result["fn"][t]) == (tp, fp, fn)
        assert result["sq"][t] == pytest.approx(iou / tp if tp else np.nan, nan_ok=True)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_equals_the_dense_assignment(seed: int) -> None:
    """True positives at every threshold; the sum of IoU from one half on, where the matching is the only one."""
    pred, true = draw_pair(seed, (20, 20), 12)
    metric = LabelImageAP((0.1, 0.3, *IOU_THRESHOLDS))
    metric.update(pred, true)
    result = metric.compute()
    for t, threshold in enumerate(metric.iou_thresholds):
        tp, iou = dense_assignment(pred, true, threshold)
        assert result["tp"][t] == tp
        if threshold >= 0.5:
            assert result["sq"][t] == pytest.approx(iou / tp if tp else np.nan, nan_ok=True)


def test_the_oracle_tries_every_way() -> None:
    """Greedy by IoU pairs one; two are possible."""
    assert best_matching({(1, 1): 0.5, (1, 2): 0.4, (2, 1): 0.45}) == (2, pytest.approx(0.85))
    assert best_matching({(1, 1): 0.5, (1, 2): 0.4, (2, 1): 0.3, (2, 2): 0.4}) == (2, pytest.approx(0.9))


def test_below_one_half_as_many_as_can_be_are_matched() -> None:
    """The first object prefers the prediction that is the only one for the second."""
    true = np.array([1] * 10 + [2] * 10)
    pred = np.array([3] * 3 + [4] * 13 + [0] * 4)  # IoU: 1-3 0.3, 1-4 7/16, 2-4 6/17
    metric = LabelImageAP((0.29,))
    metric.update(pred, true)
    assert metric.compute()["tp"] == [2]
    found = match_label_images(pred, true, 0.29)
    assert found.pred.tolist() == [3, 4]
    assert found.true.tolist() == [1, 2]
    np.testing.assert_array_equal(found.iou, [0.3, 6 / 17])


@pytest.mark.parametrize("threshold", IOU_THRESHOLDS)
def test_iou_on_a_threshold_counts(threshold: float) -> None:
    """As in both tools; the default thresholds are the doubles next to their fractions."""
    fraction = Fraction(str(threshold))
    true = np.ones(fraction.denominator, dtype=int)
    pred = true * (np.arange(len(true)) < fraction.numerator)
    for object_missing, expected in ((0, 1.0), (1, 0.0)):
        metric = LabelImageAP((threshold,))
        metric.update(pred * (np.arange(len(true)) >= object_missing), true)
        assert metric.compute()["ap"] == [expected]


def test_two_halves_at_one_half_are_one_hit_and_one_false_alarm() -> None:
    metric = LabelImageAP((0.5,))
    metric.update(np.array([1, 1, 2, 2]), np.array([5, 5, 5, 5]))
    result = metric.compute()
    assert [result[k].tolist() for k in ("tp", "fp", "fn", "ap", "f1", "sq", "pq")] == [
        *([1], [1], [0], [0.5]),
        *([2 / 3], [0.5], [1 / 3]),
    ]


def test_pooled_and_by_image() -> None:
    """Of one image with one object that is found and one with three of which one is."""
    metric = LabelImageAP((0.5,))
    metric.update(np.array([1, 1]), np.array([1, 1]))
    metric.update(np.array([1, 0, 0]), np.array([1, 2, 3]))
    result = metric.compute()
    assert result["ap"] == [2 / 4]
    np.testing.assert_array_equal(result["image_ap"], [[1.0], [1 / 3]])
    assert result["mean_image_ap"] == [2 / 3]
    assert (result["precision"], result["recall"]) == ([1.0], [0.5])


def test_empty_images() -> None:
    nothing, something = np.zeros((2, 2), int), np.eye(2, dtype=int)
    metric = LabelImageAP((0.5,))
    metric.update(nothing, nothing)
    result = metric.compute()
    for name in ("ap", "mean_image_ap", "precision", "recall", "f1", "sq", "pq"):
        np.testing.assert_array_equal(result[name], [np.nan])
    metric.update(nothing, something)
    metric.update(something, nothing)
    metric.update(something, something)
    metric.update(np.zeros((0, 3), int), np.zeros((0, 3), int))
    result = metric.compute()
    np.testing.assert_array_equal(result["image_ap"][:, 0], [np.nan, 0, 0, 1, np.nan])
    np.testing.assert_allclose(result["mean_image_ap"], [1 / 3])
    np.testing.assert_allclose(result["ap"], [1 / 3])


def test_no_images() -> None:
    result = LabelImageAP().compute()
    assert result["image_ap"].shape == (0, 9)
    np.testing.assert_array_equal(result["ap"], np.full(9, np.nan))
    np.testing.assert_array_equal(result["tp"], np.zeros(9, int))


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_numbers_of_objects_do_not_matter(seed: int) -> None:
    """Other numbers, far apart and in another order, up to the largest of int64."""
    pred, true = draw_pair(seed)
    rng = np.random.default_rng(seed)
    table = np.concatenate([[0], rng.choice(10**12, 5, replace=False) + 1, [2**63 - 1]])
    one, other = LabelImageAP(), LabelImageAP()
    one.update(pred, true)
    other.update(table[np.where(pred == 5, 6, pred)], table[true])
    for name, value in one.compute().items():
        np.testing.assert_allclose(other.compute()[name], value, rtol=1e-14, err_msg=name)  # sums in another order


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_exchanging_truth_and_prediction_exchanges_misses_and_false_alarms(seed: int) -> None:
    pred, true = draw_pair(seed)
    one, other = LabelImageAP(), LabelImageAP()
    one.update(pred, true)
    other.update(true, pred)
    a, b = one.compute(), other.compute()
    np.testing.assert_array_equal(a["fp"], b["fn"])
    np.testing.assert_array_equal(a["ap"], b["ap"])


# --- ignored pixels


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_ignored_pixels_equal_the_oracle(seed: int) -> None:
    pred, true = draw_pair(seed)
    ignored = np.random.default_rng(seed).random(pred.shape) < np.linspace(0, 1, pred.shape[1])
    metric = LabelImageAP((0.51, 0.8))  # at one half, two may fit one, and the one that is left over counts or not
    metric.update(pred, true, ignored)
    result = metric.compute()
    for t, threshold in enumerate(metric.iou_thresholds):
        counts = label_image_counts(pred, true, threshold, ignored)
        assert (result["tp"][t], result["fp"][t], result["fn"][t]) == counts[:3]


def test_what_is_ignored() -> None:
    """A pixel of the union; a true object; a predicted one by more than half, which at half is a false alarm."""
    ignored = np.array([0, 0, 1, 1, 1, 0, 1], bool)
    true = np.array([1, 1, 0, 2, 0, 0, 0])
    pred = np.array([1, 1, 1, 0, 4, 5, 5])
    metric = LabelImageAP((1.0,))
    metric.update(pred, true, ignored)
    result = metric.compute()
    assert (result["tp"], result["fp"], result["fn"]) == ([1], [1], [0])


# --- state and input


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert list(a) == list(b)
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def test_state() -> None:
    """Merged, pickled, taken apart and forgotten."""
    pairs = [draw_pair(seed) for seed in range(5)]
    whole, first, second = LabelImageAP(), LabelImageAP(), LabelImageAP()
    for i, pair in enumerate(pairs):
        whole.update(*pair)
        (first if i < 2 else second).update(*pair)
    first.merge_state(pickle.loads(pickle.dumps(second)))
    assert len(first) == 5
    assert len(second) == 3
    assert_equal(first.compute(), whole.compute())
    assert_equal(whole.subset([2, 3, 4]).compute(), second.compute())
    first.reset()
    assert len(first) == 0
    with pytest.raises(ValueError, match="merge only evaluators with equal settings"):
        first.merge_state(LabelImageAP((0.5,)))
    with pytest.raises(TypeError, match="expected a LabelImageAP"):
        first.merge_state([])


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
def test_torch_and_numpy(dtype: torch.dtype, device: str) -> None:
    pred, true = draw_pair(3, (4, 5, 6))
    one, other = LabelImageAP(), LabelImageAP()
    one.update(pred, true)
    other.update(torch.from_numpy(pred).to(device, dtype), torch.from_numpy(true).to(device, dtype))
    assert_equal(one.compute(), other.compute())


def test_views_are_taken_and_not_changed() -> None:
    pred, true = draw_pair(1)
    before = pred.copy(), true.copy()
    one, other = LabelImageAP(), LabelImageAP()
    one.update(pred, true)
    other.update(np.asfortranarray(pred)[::-1], true[::-1])
    assert_equal(one.compute(), other.compute())
    np.testing.assert_array_equal(before, (pred, true))


OBJECTS = np.array([[1, 0], [0, 2]])


@pytest.mark.parametrize(
    ("pred", "true", "ignored", "error", "message"),
    [
        (OBJECTS.astype(float), OBJECTS, None, TypeError, "pred: expected a label image of integers"),
        (OBJECTS, OBJECTS > 0, None, TypeError, "true: expected a label image of integers, 0 outside, got bool"),
        (OBJECTS - 1, OBJECTS, None, ValueError, r"pred: expected 0 outside .* got -1; .* label_image"),
        (OBJECTS, np.full((2, 2), 2**63, np.uint64), None, ValueError, "true: expected 0 outside"),
        (OBJECTS[:1], OBJECTS, None, ValueError, r"pred: expected the shape of true, \(2, 2\), got \(1, 2\)"),
        (OBJECTS, OBJECTS, OBJECTS, TypeError, "ignored: expected bool"),
        (OBJECTS, OBJECTS, OBJECTS[0] > 0, ValueError, r"ignored: expected the shape of true, \(2, 2\), got \(2,\)"),
    ],
)
def test_errors(
    pred: np.ndarray, true: np.ndarray, ignored: np.ndarray | None, error: type[Exception], message: str
) -> None:
    metric = LabelImageAP()
    with pytest.raises(error, match=message):
        metric.update(pred, true, ignored)
    assert len(metric) == 0


@pytest.mark.parametrize("thresholds", [(), (0.0,), (0.5, 1.5), (float("nan"),)])
def test_threshold_errors(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected one or more numbers in \(0, 1\]"):
        LabelImageAP(thresholds)
    with pytest.raises(ValueError, match=r"iou_threshold: expected a number in \(0, 1\]"):
        match_label_images(OBJECTS, OBJECTS, next(iter(thresholds[-1:]), 0.0))
