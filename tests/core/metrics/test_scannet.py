"""ScanNet AP against the official numbers and against a plain reading of the protocol."""

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
from straightforward import Scene as Problem
from straightforward import random_scene as random_problem
from straightforward import scannet_ap as straightforward

import probemb_lib.metrics.scannet
from probemb_lib.metrics import ScanNetAP
from probemb_lib.metrics.scannet import CLASS_IDS, THRESHOLDS

DATA = TEST_DATA / "scannet_instance_ap"
CASES = [f"case_{i:02}" for i in range(12)]
FORMS = ["masks", "bits"]


# --- helpers


def load_case(name: str) -> tuple[np.lib.npyio.NpzFile, list]:
    data = np.load(DATA / f"{name}.npz", allow_pickle=False)
    problems = []
    for k in range(int(data["num_scenes"])):
        gt = data[f"scene{k}_gt"]
        masks = np.unpackbits(data[f"scene{k}_pred_masks"], axis=1, count=len(gt)).astype(bool)
        problems.append(Problem(masks, data[f"scene{k}_pred_label"], data[f"scene{k}_pred_score"], gt))
    return data, problems


def update(metric: ScanNetAP, problem: tuple, form: str = "masks") -> None:
    if form == "masks":
        metric.update(*problem)
    else:
        metric.update_packed(np.packbits(problem[0], axis=1), *problem[1:])


def evaluate(problems: list, class_ids: tuple = CLASS_IDS, size: int = 100, form: str = "masks") -> ScanNetAP:
    metric = ScanNetAP(class_ids, min_region_size=size)
    for problem in problems:
        update(metric, problem, form)
    return metric


def assert_array_close(got: np.ndarray, expected: np.ndarray, atol: float, key: str) -> None:
    """Shape and type too, as `strict` says in numpy 2."""
    assert (np.shape(got), np.asarray(got).dtype) == (np.shape(expected), np.asarray(expected).dtype), key
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol, err_msg=key)


def assert_official(result: dict, data: np.lib.npyio.NpzFile) -> None:
    pairs = {
        "class_ap_per_threshold": "ap_per_threshold",
        **{k: k for k in ("class_ap", "class_ap50", "class_ap25")},
    }
    for key, name in pairs.items():
        expected = data[f"expected_{name}"]
        assert_array_close(result[key], expected, 1e-9, key)
    average = [result["ap"], result["ap50"], result["ap25"]]
    np.testing.assert_allclose(average, data["expected_average"], rtol=0, atol=1e-9)


def assert_close(result: dict, expected: dict, atol: float = 1e-12) -> None:
    assert list(result) == list(expected)
    for key, value in expected.items():
        assert_array_close(result[key], value, atol, key)


def label_map(masks: np.ndarray) -> np.ndarray:
    """The last mask that has a vertex owns it."""
    return np.max(np.where(masks, np.arange(len(masks))[:, None], -1), axis=0, initial=-1)


SMALL_IDS = (5, 3, 7)  # not in order, as classes may be given
SMALL_SIZE = 3


@st.composite
def scenes(draw: st.DrawFn) -> tuple:
    """Tiny scenes, where equal scores, IoU on a threshold, void, small regions and duplicates are common."""
    num_vertices, num_pred = draw(st.integers(0, 40)), draw(st.integers(0, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Unannotated, a wall, a label not evaluated, and instances of two or three classes; instance 0 is one too.
    pool = np.array([0, 1001, 4002, 3000, 3001, 5001, 5002, 5003, 7001])
    pool = rng.choice(pool, size=rng.integers(1, len(pool) + 1), replace=False)
    gt = np.sort(rng.choice(pool, size=num_vertices))
    masks = rng.random((num_pred, num_vertices)) < rng.choice([0.1, 0.5])
    for mask in masks:  # mostly a region, slightly changed
        if num_vertices and rng.random() < 0.8:
            mask[:] = np.isin(gt, rng.choice(pool, size=rng.integers(1, 3))) ^ (rng.random(num_vertices) < 0.1)
    if draw(st.booleans()):
        masks = label_map(masks) == np.arange(num_pred)[:, None]
    labels = rng.choice([3, 5, 5, 5, 7, 4], size=num_pred)
    scores = rng.choice(np.array([-1.0, -0.0, 0.0, 0.25, 0.5, 1.0]), size=num_pred)
    return Problem(masks, labels, scores, gt)


# --- official numbers


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_official_case(name: str, form: str) -> None:
    data, problems = load_case(name)
    assert_official(evaluate(problems, data["class_ids"], form=form).compute(), data)
    np.testing.assert_allclose(THRESHOLDS, data["overlaps"], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_official_scenes_from_label_maps(name: str) -> None:
    """Their masks overlap in every case, which no label map holds: one without the overlaps, and one for each mask."""
    _, problems = load_case(name)
    by_label, by_mask = ScanNetAP(), ScanNetAP()
    for masks, labels, scores, gt in problems:
        label = label_map(masks)
        by_label.update_labels(label, labels, scores, gt)
        by_mask.update(label == np.arange(len(masks))[:, None], labels, scores, gt)
        for p, mask in enumerate(masks):
            by_label.update_labels(np.where(mask, 0, -1), labels[p : p + 1], scores[p : p + 1], gt)
            by_mask.update(masks[p : p + 1], labels[p : p + 1], scores[p : p + 1], gt)
    assert_close(by_label.compute(), by_mask.compute(), atol=0)


@pytest.mark.parametrize("name", CASES)
def test_order_of_predictions_matters_where_the_data_say_so(name: str) -> None:
    data, problems = load_case(name)
    flipped = [Problem(*(x[::-1] for x in problem[:3]), problem.gt) for problem in problems]
    result = evaluate(flipped).compute()
    if data["order_sensitive"]:
        assert np.nanmax(np.abs(result["class_ap25"] - data["expected_class_ap25"])) > 1e-3
        np.testing.assert_allclose(result["class_ap"], data["expected_class_ap"], rtol=0, atol=1e-9)
    else:
        assert_official(result, data)


def test_official_cases_notice_a_changed_answer() -> None:
    data, problems = load_case("case_04")
    with pytest.raises(AssertionError, match="class_ap_per_threshold"):
        assert_official(evaluate(problems, size=101).compute(), data)


def test_official_cases_notice_a_changed_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    data, problems = load_case("case_09")
    monkeypatch.setattr(probemb_lib.metrics.scannet, "THRESHOLDS", tuple(np.array(THRESHOLDS) - 1e-12))
    result = evaluate(problems).compute()  # an IoU on a threshold now counts
    assert np.nanmax(np.abs(result["class_ap_per_threshold"] - data["expected_ap_per_threshold"])) > 1e-3


# --- the straightforward implementation


@pytest.mark.parametrize("name", CASES)
def test_straightforward_implementation_is_official(name: str) -> None:
    data, problems = load_case(name)
    assert_official(straightforward(problems, data["class_ids"]), data)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(problems=st.lists(scenes(), max_size=4), form=st.sampled_from(FORMS))
def test_equals_straightforward(problems: list, form: str) -> None:
    result = evaluate(problems, SMALL_IDS, SMALL_SIZE, form).compute()
    assert_close(result, straightforward(problems, SMALL_IDS, SMALL_SIZE))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(problems=st.lists(scenes(), max_size=4), as_torch=st.booleans())
def test_label_map_equals_masks(problems: list, as_torch: bool) -> None:
    convert = torch.from_numpy if as_torch else np.asarray
    by_label, by_mask = (ScanNetAP(SMALL_IDS, min_region_size=SMALL_SIZE) for _ in range(2))
    for x in problems:
        label = label_map(x.pred_masks)
        by_mask.update(label == np.arange(len(x.pred_masks))[:, None], *x[1:])
        by_label.update_labels(*(convert(a) for a in (label, *x[1:])))
    assert_close(by_label.compute(), by_mask.compute(), atol=0)


def test_larger_scenes_equal_straightforward() -> None:
    problems = [random_problem(seed, 12_000, 60, 25, CLASS_IDS) for seed in range(3)]
    expected = straightforward(problems, CLASS_IDS)
    assert 0.1 < expected["ap"] < 0.9
    assert_close(evaluate(problems).compute(), expected)


def test_large_ids_are_sorted_instead_of_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data, problems = load_case("case_11")
    monkeypatch.setattr(probemb_lib.metrics.scannet, "_TABLE", 20_000)  # some scenes have ids above, by their classes
    assert_official(evaluate(problems).compute(), data)
    monkeypatch.undo()
    metric = ScanNetAP((10**12, 5), min_region_size=1)
    gt = np.array([10**15 + 7, 10**15 + 7, 5001, 0])
    metric.update_labels(np.array([0, 0, 1, -1]), np.array([10**12, 5]), np.ones(2), gt)
    np.testing.assert_array_equal(metric.compute()["class_ap"], [1, 1])


def test_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """It compares what it times."""
    benchmark = importlib.import_module("scannet_ap")
    result = benchmark.measure(6, 6000, 30, 8)
    assert all(result[f"times_faster_{form}"] > 0 for form in ("masks", "bits", "labels"))
    group = [benchmark.draw(seed, 6000, 30, 8)[0] for seed in range(2)]
    wrong = {**straightforward(group, CLASS_IDS), "ap50": 0.5}
    monkeypatch.setattr(benchmark, "scannet_ap", lambda *_: wrong)
    with pytest.raises(AssertionError, match="from_masks: ap50"):
        benchmark.measure(2, 6000, 30, 8)


# --- hand-made cases


def chairs(*sizes: int) -> np.ndarray:
    """Chairs of so many vertices one after the other."""
    return np.repeat(5001 + np.arange(len(sizes)), sizes)


def span(num_vertices: int, *spans: tuple[int, int]) -> np.ndarray:
    return np.stack([(np.arange(num_vertices) >= a) & (np.arange(num_vertices) < b) for a, b in spans])


def chair_ap(masks: np.ndarray, scores: list[float], gt: np.ndarray, size: int = 1) -> np.ndarray:
    """AP of the chair at each threshold."""
    metric = ScanNetAP((5,), min_region_size=size)
    metric.update(masks, np.full(len(masks), 5), np.array(scores), gt)
    return metric.compute()["class_ap_per_threshold"][0]


def test_iou_on_a_threshold_does_not_count() -> None:
    for k, threshold in enumerate(THRESHOLDS[:9]):
        ap = chair_ap(span(20, (0, 10 + k)), [1.0], chairs(20))  # IoU 10/20, 11/20, …
        np.testing.assert_array_equal(ap, [float(t < threshold) for t in THRESHOLDS])


def test_of_two_matches_the_higher_score_counts() -> None:
    """At 0.25 both match. The duplicate comes with the lower score, after full recall, and takes no area."""
    masks, gt = span(10, (0, 4), (4, 10)), chairs(10)
    for scores in ([0.2, 0.9], [0.9, 0.2]):  # IoU 0.4 and 0.6
        assert chair_ap(masks, scores, gt)[9] == 1
    assert chair_ap(masks, [0.9, 0.2], gt)[0] == 0.25  # at 0.5 the first is a false positive of the higher score


def test_a_duplicate_is_not_taken_and_serves_a_later_instance() -> None:
    """The second prediction covers half of both chairs: duplicate of the first, match of the second."""
    masks, gt = span(20, (0, 10), (5, 15)), chairs(10, 10)  # IoU of the second: 5/15 with each
    metric = ScanNetAP((5,), min_region_size=1)
    metric.update(masks, np.full(2, 5), np.array([0.3, 0.8]), gt)
    precision, recall = metric.curve(5, 0.25)
    np.testing.assert_allclose(precision, [1, 1, 2 / 3])  # both matches at 0.8, the duplicate at 0.3
    np.testing.assert_allclose(recall, [0, 1, 1])
    metric.reset()  # the other way round it is taken by the first chair, and the second goes without
    metric.update(masks[::-1], np.full(2, 5), np.array([0.8, 0.3]), gt)
    precision, recall = metric.curve(5, 0.25)
    np.testing.assert_allclose(precision, [1, 1, 0.5])
    np.testing.assert_allclose(recall, [0, 0.5, 0.5])


def test_the_share_that_excuses_moves_with_the_threshold() -> None:
    """A prediction 60 % on void is left out up to 0.55 and a false positive from 0.6 on."""
    gt = np.concatenate([chairs(10), np.zeros(6, int), np.full(4, 3001)])
    ap = chair_ap(span(20, (0, 10), (10, 20)), [0.5, 0.9], gt)
    label = ScanNetAP((5, 3), min_region_size=1)  # the last four vertices are of another class, not void
    label.update(span(20, (0, 10), (10, 20)), np.array([5, 5]), np.array([0.5, 0.9]), gt)
    result = label.compute()["class_ap_per_threshold"][0]
    np.testing.assert_array_equal(ap, np.ones(10))  # all of the second on void
    np.testing.assert_array_equal(result == 1, [t < 0.6 for t in THRESHOLDS])
    np.testing.assert_allclose(result[2:9], 0.25)  # precision 0 then 1/2, trapezoid over recall 0 to 1


def test_small_instances_excuse_and_are_not_missed() -> None:
    gt = chairs(10, 2)
    np.testing.assert_array_equal(chair_ap(span(12, (0, 10)), [0.5], gt, size=3), np.ones(10))
    # Half on the small chair, half on nothing of its class: left out below a share of 0.5, and at it.
    gt = np.concatenate([chairs(10, 2), np.full(2, 3001)])
    metric = ScanNetAP((5, 3), min_region_size=3)
    metric.update(span(14, (0, 10), (10, 14)), np.array([5, 5]), np.array([0.5, 0.9]), gt)
    result = metric.compute()["class_ap_per_threshold"]
    np.testing.assert_array_equal(result[0] == 1, [t < 0.5 for t in THRESHOLDS])
    assert np.isnan(result[1]).all()


def test_a_prediction_that_finds_a_small_instance_is_no_false_positive() -> None:
    gt = np.concatenate([chairs(10, 4), np.full(5, 3001)])
    metric = ScanNetAP((5, 3), min_region_size=5)
    metric.update(span(19, (0, 10), (10, 15)), np.array([5, 5]), np.array([0.5, 0.9]), gt)  # IoU 4/5, excused 4/5
    np.testing.assert_array_equal(metric.compute()["class_ap_per_threshold"][0] == 1, [t < 0.8 for t in THRESHOLDS])


def test_ground_truth_whose_predictions_are_all_left_out_is_zero() -> None:
    """The official script stops here with an error."""
    gt = np.concatenate([chairs(10), np.zeros(10, int)])
    metric = ScanNetAP((5,), min_region_size=1)
    metric.update(span(20, (10, 20)), np.array([5]), np.array([0.9]), gt)
    result = metric.compute()
    assert (result["ap"], result["ap50"], result["ap25"]) == (0, 0, 0)
    np.testing.assert_array_equal(result["class_ap_per_threshold"], np.zeros((1, 10)))
    np.testing.assert_array_equal(metric.curve(5, 0.5), [[1], [0]])
    assert_close(result, straightforward([Problem(span(20, (10, 20)), [5], [0.9], gt)], (5,), 1))


def test_classes_without_ground_truth_or_predictions() -> None:
    metric = ScanNetAP((5, 3, 7), min_region_size=1)
    metric.update(span(4, (0, 4), (0, 4)), np.array([3, 5]), np.ones(2), np.array([5001, 5001, 5001, 7001]))
    result = metric.compute()
    np.testing.assert_array_equal(result["class_ap50"], [1, np.nan, 0])
    np.testing.assert_array_equal(result["class_gt_count"], [1, 0, 1])
    assert result["ap50"] == 0.5


def test_nothing() -> None:
    none = np.zeros(0, int)
    metric = ScanNetAP()
    empty = metric.compute()
    metric.update(np.zeros((0, 0), bool), none, none, none)
    metric.update(np.zeros((0, 5), bool), none, none, np.zeros(5, int))
    metric.update(np.zeros((2, 5), bool), np.array([5, 3]), np.ones(2), np.full(5, 5001))
    metric.update_packed(np.zeros((0, 1), np.uint8), none, none, np.zeros(5, int))
    metric.update_labels(torch.zeros(0), torch.zeros(0), torch.zeros(0), torch.zeros(0))
    for result in (empty, metric.compute()):
        assert np.isnan([result["ap"], result["ap50"], result["ap25"]]).all()
        assert np.isnan(result["class_ap_per_threshold"]).all()
        assert result["class_ap_per_threshold"].shape == (18, 10)
        np.testing.assert_array_equal(result["class_gt_count"], np.zeros(18))


# --- state


def test_merged_and_pickled_state() -> None:
    data, problems = load_case("case_11")
    first, second = evaluate(problems[:2]), evaluate(problems[2:])
    alone = second.compute()
    first.merge_state(pickle.loads(pickle.dumps(second)))
    assert_official(first.compute(), data)
    assert_close(second.compute(), alone, atol=0)


def test_merging_with_itself_repeats_the_scenes() -> None:
    _, problems = load_case("case_07")
    metric = evaluate(problems)
    metric.merge_state(metric)
    assert_close(metric.compute(), evaluate(problems * 2).compute(), atol=0)


def test_a_subset_is_the_evaluator_of_these_scenes() -> None:
    _, problems = load_case("case_11")
    metric, last = evaluate(problems), len(problems) - 1
    assert len(metric) == len(problems)
    assert len(ScanNetAP()) == 0
    for rows in (range(len(problems)), [last, 0], [last, last, 0, last], []):
        subset = metric.subset(rows)
        assert len(subset) == len(rows)
        assert_close(subset.compute(), evaluate([problems[i] for i in rows]).compute(), atol=0)
    other = ScanNetAP((5, 3), min_region_size=7).subset([])  # with the settings
    assert (other.class_ids, other.min_region_size) == ((5, 3), 7)
    metric.subset([0]).reset()
    assert len(metric) == len(problems)
    for row in (-1, len(problems)):
        with pytest.raises(IndexError, match=rf"expected scenes in \[0, {len(problems)}\), got {row}"):
            metric.subset([0, row])


def test_reset() -> None:
    data, problems = load_case("case_00")
    metric = evaluate(problems * 2)
    metric.reset()
    assert len(metric) == 0
    metric.update(*problems[0])
    assert len(metric) == 1
    assert_official(metric.compute(), data)


@pytest.mark.parametrize("num_vertices", [5_000, 80_000])
def test_state_grows_with_predictions_not_with_vertices(num_vertices: int) -> None:
    problems = [random_problem(seed, num_vertices, 30, 10, CLASS_IDS) for seed in range(3)]
    size = len(pickle.dumps(evaluate(problems))) - len(pickle.dumps(evaluate(problems[:1])))
    # class and score, counts at each threshold; GT of each class; the objects
    assert size / 2 < 30 * (8 + 8 + 2 * 4 * len(THRESHOLDS)) + 18 * 8 + 500


# --- several processes


def test_processes_give_the_result_of_one_in_any_order() -> None:
    problems = [tuple(x) for x in load_case("case_11")[1]]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map(evaluate, [problems[:1], problems[1:3], problems[3:]], chunksize=1)
    one = evaluate(problems).compute()
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        metric = ScanNetAP()
        for i in order:
            metric.merge_state(parts[i])
        assert_close(metric.compute(), one, atol=0)


# --- inputs


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))],
)
@pytest.mark.parametrize("form", FORMS)
def test_torch_inputs(device: str, form: str) -> None:
    data, problems = load_case("case_11")
    metric = ScanNetAP()
    for masks, *rest in problems:
        first = masks if form == "masks" else np.packbits(masks, axis=1)
        tensors = [torch.from_numpy(a).to(device) for a in (first, *rest)]
        tensors[2].requires_grad_()
        (metric.update if form == "masks" else metric.update_packed)(*tensors)
    assert_official(metric.compute(), data)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint16, np.uint32, np.uint64])
def test_integer_types(dtype: type) -> None:
    _, problems = load_case("case_01")
    (masks, labels, scores, gt) = problems[0]
    gt = np.where(gt // 1000 > 32, 0, gt)  # what int16 can hold
    expected = evaluate([Problem(masks, labels, scores, gt)]).compute()
    assert expected["ap"] > 0
    result = evaluate([Problem(masks, labels.astype(dtype), scores, gt.astype(dtype))]).compute()
    assert_close(result, expected, atol=0)
    by_label, by_int64 = ScanNetAP(), ScanNetAP()
    label = label_map(masks)
    signed = dtype if np.issubdtype(dtype, np.signedinteger) else np.int64
    by_label.update_labels(label.astype(signed), labels.astype(dtype), scores, gt.astype(dtype))
    by_int64.update_labels(label, labels, scores, gt)
    assert_close(by_label.compute(), by_int64.compute(), atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.uint8])
def test_scores_of_other_types(dtype: torch.dtype) -> None:
    x = random_problem(1, 6000, 30, 8, CLASS_IDS)
    scores = torch.from_numpy(x.pred_scores * 100).to(dtype)
    metric = ScanNetAP()
    metric.update(*x[:2], scores, x.gt)
    assert_close(metric.compute(), evaluate([x._replace(pred_scores=scores.double().numpy())]).compute(), atol=0)


def test_infinite_scores_rank_first_and_last() -> None:
    _, problems = load_case("case_00")
    order = np.argsort(np.argsort(problems[0].pred_scores)).astype(float)
    finite = evaluate([problems[0]._replace(pred_scores=order)]).compute()
    order[order == order.min()], order[order == order.max()] = -np.inf, np.inf
    assert_close(evaluate([problems[0]._replace(pred_scores=order)]).compute(), finite, atol=0)


def test_inputs_are_not_changed_and_need_not_be_contiguous() -> None:
    x = random_problem(2, 6000, 20, 8, CLASS_IDS)
    label = label_map(x.pred_masks)
    before = pickle.dumps((*x, label))
    strided = [np.repeat(np.asfortranarray(a), 2, axis=-1)[..., ::2] for a in (*x, label)]
    assert_close(evaluate([Problem(*strided[:4])]).compute(), evaluate([x]).compute(), atol=0)
    bits = np.asfortranarray(np.packbits(x.pred_masks, axis=1))
    plain, odd = ScanNetAP(), ScanNetAP()
    plain.update_labels(label, *x[1:])
    odd.update_labels(strided[4], *strided[1:4])
    assert_close(odd.compute(), plain.compute(), atol=0)
    odd.reset()
    odd.update_packed(bits, *x[1:])
    assert_close(odd.compute(), evaluate([x]).compute(), atol=0)
    assert pickle.dumps((*x, label)) == before


def test_bits_beyond_the_vertices_do_not_count() -> None:
    metric = ScanNetAP((5,), min_region_size=1)
    metric.update_packed(np.full((1, 1), 255, np.uint8), np.array([5]), np.ones(1), np.full(3, 5001))
    assert metric.compute()["ap"] == 1


# --- curve


@pytest.mark.parametrize("name", ["case_06", "case_07", "case_10"])
def test_curve_gives_the_class_ap(name: str) -> None:
    data, problems = load_case(name)
    metric = evaluate(problems)
    for c, class_id in enumerate(CLASS_IDS):
        for t, threshold in enumerate(THRESHOLDS):
            precision, recall = metric.curve(class_id, threshold)
            assert precision.dtype == recall.dtype == np.float64
            assert (precision[0], recall[0]) == (1, 0)
            expected = data["expected_ap_per_threshold"][c, t]
            if not np.isnan(expected):
                area = np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2)
                assert abs(area - expected) < 1e-9


def test_curve_without_ground_truth() -> None:
    metric = ScanNetAP((5, 3), min_region_size=1)
    gt = np.array([3001, 3001, 3001])
    metric.update(np.ones((2, 3), bool), np.full(2, 5), np.array([0.5, 0.5]), gt)
    np.testing.assert_array_equal(metric.curve(5, 0.5), [[1, 0], [0, np.nan]])  # equal scores enter together
    np.testing.assert_array_equal(metric.curve(3, 0.5), [[1], [0]])


# --- errors

GOOD = {
    "pred_masks": np.ones((2, 9), bool),
    "pred_labels": np.array([3, 5]),
    "pred_scores": np.array([0.5, 0.6]),
    "gt": np.full(9, 5001),
}
BAD = [
    ("pred_masks", np.ones((2, 9), np.uint8), TypeError, "pred_masks: expected bool, got uint8.*update_packed"),
    ("pred_masks", np.ones(9, bool), ValueError, r"pred_masks: expected shape \(P, 9\).*got \(9,\)"),
    ("pred_masks", np.ones((2, 4), bool), ValueError, r"pred_masks: expected shape \(P, 9\).*got \(2, 4\)"),
    ("pred_masks", np.ones((3, 9), bool), ValueError, "each of the 3 predictions, got 2 pred_labels and 2"),
    ("pred_labels", np.array([5]), ValueError, "got 1 pred_labels and 2 pred_scores"),
    ("pred_labels", np.array([5.0, 3.0]), TypeError, "pred_labels: expected integers, got float64"),
    ("pred_labels", np.array([[5, 3]]), ValueError, r"pred_labels: expected one dimension.*\(1, 2\)"),
    ("pred_scores", np.array([0.5]), ValueError, "got 2 pred_labels and 1 pred_scores"),
    ("pred_scores", np.ones((2, 1)), ValueError, r"pred_scores: expected one dimension.*\(2, 1\)"),
    ("pred_scores", np.array([0.5, np.nan]), ValueError, "pred_scores: expected no NaN, got 1"),
    ("pred_scores", np.array(["a", "b"]), TypeError, "pred_scores: expected real numbers, got <U1"),
    ("gt", np.full(9, 5.0), TypeError, "gt: expected integers, got float64"),
    ("gt", np.full((3, 3), 5001), ValueError, r"gt: expected one dimension, got shape \(3, 3\)"),
    ("gt", np.full(9, 5, np.uint8), TypeError, r"gt: expected integers that hold label \* 1000.*got uint8"),
    ("gt", np.full(9, -100), ValueError, r"gt: expected label \* 1000 .*got -100.*set negative"),
]


def test_good_arguments_raise_nothing() -> None:
    metric = ScanNetAP(min_region_size=1)
    metric.update(**GOOD)
    assert metric.compute()["ap"] == 1


@pytest.mark.parametrize(("name", "value", "error", "message"), BAD)
def test_update_errors(name: str, value: np.ndarray, error: type[Exception], message: str) -> None:
    metric = ScanNetAP(min_region_size=1)
    with pytest.raises(error, match=message):
        metric.update(**{**GOOD, name: value})
    assert metric.compute()["class_gt_count"].sum() == 0  # a refused scene leaves no trace


def test_label_ids_that_were_wrapped_by_int16_are_refused() -> None:
    with pytest.raises(ValueError, match="small integer type"):
        ScanNetAP().update(**{**GOOD, "gt": np.full(9, 39_001).astype(np.int16)})


@pytest.mark.parametrize(
    ("bits", "error", "message"),
    [
        (np.ones((2, 2), bool), TypeError, "pred_bits: expected uint8.*got bool.*to update"),
        (np.ones((2, 9), np.uint8), ValueError, r"pred_bits: expected shape \(P, 2\), 8 of the 9 .*got \(2, 9\)"),
        (np.ones(2, np.uint8), ValueError, r"pred_bits: .*got \(2,\); pack along axis 1"),
        (np.ones((3, 2), np.uint8), ValueError, "each of the 3 predictions"),
    ],
)
def test_update_packed_errors(bits: np.ndarray, error: type[Exception], message: str) -> None:
    rest = {k: v for k, v in GOOD.items() if k != "pred_masks"}
    ScanNetAP().update_packed(np.ones((2, 2), np.uint8), **rest)
    with pytest.raises(error, match=message):
        ScanNetAP().update_packed(bits, **rest)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("label", np.full(9, 2), ValueError, "label: expected -1 or a row of pred_labels, which has 2, got 2 to 2"),
        ("label", np.full(9, -2), ValueError, "got -2 to -2; number the predictions from 0"),
        ("label", np.zeros(4, int), ValueError, "label: expected 9 values.*got 4"),
        ("label", np.zeros(9), TypeError, "label: expected integers, got float64"),
        ("pred_labels", np.array([0.5, 1]), TypeError, "pred_labels: expected integers"),
        ("pred_scores", np.array([0.5]), ValueError, "got 2 pred_labels and 1 pred_scores"),
        ("gt", np.full(9, -1), ValueError, "got -1"),
    ],
)
def test_update_labels_errors(name: str, value: np.ndarray, error: type[Exception], message: str) -> None:
    good = {"label": np.zeros(9, int), **{k: v for k, v in GOOD.items() if k != "pred_masks"}}
    ScanNetAP().update_labels(**good)
    with pytest.raises(error, match=message):
        ScanNetAP().update_labels(**{**good, name: value})


def test_settings_errors() -> None:
    for class_ids in [(), (0, 5), (5, 3, 5), (-3,)]:
        with pytest.raises(ValueError, match="class_ids: expected one or more distinct labels"):
            ScanNetAP(class_ids)
    for arguments in [((2.5,), 100), ((5,), 1.5)]:
        with pytest.raises(TypeError, match="float"):
            ScanNetAP(arguments[0], min_region_size=arguments[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="min_region_size: expected at least 1 vertex, got 0"):
        ScanNetAP(min_region_size=0)


def test_merge_errors() -> None:
    with pytest.raises(TypeError, match="expected a ScanNetAP, got dict"):
        ScanNetAP().merge_state({})  # type: ignore[arg-type]
    for other in [ScanNetAP((5,)), ScanNetAP(min_region_size=1)]:
        with pytest.raises(ValueError, match="equal settings"):
            ScanNetAP().merge_state(other)


def test_curve_errors() -> None:
    with pytest.raises(ValueError, match=r"class_id: expected one of the labels .* got 0"):
        ScanNetAP().curve(0, 0.5)
    with pytest.raises(ValueError, match=r"threshold: expected one of .* got 0\.95"):
        ScanNetAP().curve(5, 0.95)
