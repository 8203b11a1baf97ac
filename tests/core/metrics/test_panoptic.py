"""Panoptic quality against torchmetrics, and against every matching tried."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torchmetrics.detection
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import label_image_counts

from probemb_lib.metrics import PanopticQuality


def draw_image(rng: np.random.Generator, num_classes: int) -> tuple[np.ndarray, ...]:
    """Truth and a prediction with some of its objects cut, moved and renamed: numbers (9, 10) and classes."""
    true = np.zeros((9, 10), int)
    for number in range(1, 7):
        y, x = rng.integers(0, 8, 2)
        true[y : y + 4, x : x + 4] = number
    pred = np.roll(true, rng.integers(0, 2, 2), axis=(0, 1)) * (rng.random(true.shape) < 0.95)
    pred[pred == 3] = rng.integers(3, 9)
    classes = rng.integers(1, num_classes, (2, 9))
    same = rng.random(9) < 0.7
    classes[1, same] = classes[0, same]
    return pred, true, np.where(pred, classes[0][pred], 0), np.where(true, classes[1][true], 0)


def theirs(images: list[tuple[np.ndarray, ...]], ignored: list[np.ndarray], num_classes: int) -> np.ndarray:
    """PQ, SQ, RQ (L − 1, 3) of torchmetrics, for which background is a class of stuff and void a class unknown."""
    metric = torchmetrics.detection.PanopticQuality(
        things=set(range(1, num_classes)),
        stuffs={0},
        allow_unknown_preds_category=True,
        return_sq_and_rq=True,
        return_per_class=True,
    )
    for (pred, true, of_pred, of_true), mask in zip(images, ignored, strict=True):
        known = np.where(mask, num_classes + 7, of_true)
        target = torch.from_numpy(np.stack([known, true], -1))[None]
        metric.update(torch.from_numpy(np.stack([of_pred, pred], -1))[None], target)
    return metric.compute()[: num_classes - 1].numpy()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([2, 4]), st.booleans())
def test_equals_torchmetrics(seed: int, num_classes: int, with_ignored: bool) -> None:
    rng = np.random.default_rng(seed)
    images = [draw_image(rng, num_classes) for _ in range(3)]
    ignored = [rng.random(true.shape) < (np.linspace(0, 1, 10) if with_ignored else 0) for _, true, *_ in images]
    metric = PanopticQuality(num_classes)
    for image, mask in zip(images, ignored, strict=True):
        metric.update(*image, mask)
    result = metric.compute()
    ours = np.stack([result["class_pq"], result["class_sq"], result["class_rq"]], 1)[1:]
    valid = ~np.isnan(ours[:, 0])
    np.testing.assert_allclose(ours[valid], theirs(images, ignored, num_classes)[valid], rtol=1e-6)  # theirs is float32
    np.testing.assert_allclose([result["pq"], result["sq"], result["rq"]], ours[valid].mean(0))


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_equals_every_matching_tried(seed: int, with_ignored: bool) -> None:
    rng = np.random.default_rng(seed)
    pred, true, *_ = draw_image(rng, 2)
    ignored = rng.random(true.shape) < 0.4 if with_ignored else None
    metric = PanopticQuality()
    metric.update(pred, true, ignored=ignored)
    tp, fp, fn, iou = label_image_counts(pred, true, 0.5, ignored, strict=True)
    result = metric.compute()
    assert (result["tp"][1], result["fp"][1], result["fn"][1]) == (tp, fp, fn)
    assert result["pq"] == pytest.approx(iou / (tp + 0.5 * fp + 0.5 * fn), nan_ok=True)


def test_one_half_is_no_match() -> None:
    """Unlike in LabelImageAP: above one half a segment has one partner at most, so Kirillov et al. ask for more."""
    metric = PanopticQuality()
    metric.update(np.array([1, 0]), np.array([1, 1]))
    assert metric.compute()["pq"] == 0


def test_a_number_of_two_classes_is_two_segments() -> None:
    metric = PanopticQuality(3)
    ids, classes = np.array([7, 7, 7, 7]), np.array([1, 1, 2, 2])
    metric.update(ids, ids, classes, classes)
    result = metric.compute()
    np.testing.assert_array_equal(result["tp"], [0, 1, 1])
    assert result["pq"] == 1


def test_nothing() -> None:
    metric = PanopticQuality(3)
    assert np.isnan(metric.compute()["pq"])
    metric.update(np.zeros((2, 2), int), np.zeros((2, 2), int))
    metric.update(np.zeros((0, 2), int), np.zeros((0, 2), int))
    result = metric.compute()
    for name in ("pq", "sq", "rq", "class_pq", "class_sq", "class_rq"):
        assert np.isnan(result[name]).all(), name


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))],
)
def test_state(device: str) -> None:
    rng = np.random.default_rng(0)
    images = [draw_image(rng, 3) for _ in range(4)]
    whole, first, second = PanopticQuality(3), PanopticQuality(3), PanopticQuality(3)
    for i, image in enumerate(images):
        whole.update(*image)
        (first if i < 2 else second).update(*(torch.from_numpy(x).to(device) for x in image))
    first.merge_state(pickle.loads(pickle.dumps(second)))
    assert len(first) == 4
    for name, value in whole.compute().items():
        np.testing.assert_array_equal(value, first.compute()[name])
    first.reset()
    assert len(first) == 0
    with pytest.raises(ValueError, match="merge only evaluators with equal settings"):
        first.merge_state(PanopticQuality())


IDS = np.array([[1, 0], [0, 2]])


@pytest.mark.parametrize(
    ("semantic", "error", "message"),
    [
        (IDS.astype(float), TypeError, "pred_semantic: expected integers, got float64"),
        (IDS[0], ValueError, r"pred_semantic: expected the shape of true, \(2, 2\), got \(2,\)"),
        (IDS - 1, ValueError, r"pred_semantic: expected classes of objects in 1 .. 2, got 0"),
        (IDS * 2, ValueError, r"pred_semantic: expected classes of objects in 1 .. 2, got 4"),
    ],
)
def test_errors(semantic: np.ndarray, error: type[Exception], message: str) -> None:
    metric = PanopticQuality(3)
    with pytest.raises(error, match=message):
        metric.update(IDS, IDS, semantic)
    with pytest.raises(error, match=message.replace("pred", "true")):
        metric.update(IDS, IDS, None, semantic)
    assert len(metric) == 0


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="num_classes: expected at least 2, the background counted, got 1"):
        PanopticQuality(1)
    with pytest.raises(TypeError):
        PanopticQuality(2.5)
    with pytest.raises(ValueError, match="pred: expected the shape of true"):
        PanopticQuality().update(IDS[:1], IDS)
