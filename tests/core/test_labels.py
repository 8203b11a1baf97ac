"""Label conventions: drawn labels against a rule-by-rule oracle, narrow types, hosts, every error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from probemb_lib.labels import (
    CELLPOSE,
    CITYSCAPES,
    EMBEDSEG,
    MASK3D,
    POINTCEPT,
    POINTGROUP,
    SOFTGROUP,
    STARDIST,
    TORCH_POINTS3D,
    LabelConvention,
    for_s3dis,
    for_scannet,
    labels_from_masks,
    mmdetection3d,
    mmdetection3d_instances,
    split_cityscapes,
    split_scannet,
    to_host_labels,
)

quick = settings(max_examples=100, deadline=None)
OURS = LabelConvention()


def equal(got: Tensor, expected: list[Any]) -> None:
    """int64 and exactly equal."""
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.int64), rtol=0, atol=0)


def test_equal_can_fail() -> None:
    with pytest.raises(AssertionError):
        equal(torch.tensor([0, 1]), [0, 2])
    with pytest.raises(AssertionError):
        equal(torch.tensor([0, 1], dtype=torch.int32), [0, 1])


def convert_one(convention: LabelConvention, instance: int, semantic: int) -> tuple[int, int]:
    """The rules of the docstring for one point."""
    unclassed = semantic in convention.ignored_semantic
    none = instance in convention.no_instance
    ignored = (
        instance in convention.ignored_instance
        or (none and semantic in convention.thing_classes)
        or (unclassed and convention.ignored_semantic_ignores_instance)
    )
    background = semantic in convention.background_classes
    outside = none or semantic in convention.stuff_classes or background
    column = 0 if background else semantic + convention.class_shift
    return -100 if ignored else -1 if outside else instance, -100 if unclassed else column


@st.composite
def conventions(draw: st.DrawFn) -> LabelConvention:
    """Values 0 .. 3 of ``instance`` and ``semantic``, and −1, −2, each with at most one meaning."""
    values = [-2, -1, 0, 1, 2, 3]
    meaning = {v: draw(st.sampled_from(["", "none", "ignored"])) for v in values}
    kind = {v: draw(st.sampled_from(["", "ignored", "stuff", "thing", "background"])) for v in values}
    return LabelConvention(
        no_instance=tuple(v for v in values if meaning[v] == "none"),
        ignored_instance=tuple(v for v in values if meaning[v] == "ignored"),
        ignored_semantic=tuple(v for v in values if kind[v] == "ignored"),
        stuff_classes=tuple(v for v in values if kind[v] == "stuff" and v >= 0),
        thing_classes=tuple(v for v in values if kind[v] == "thing" and v >= 0),
        ignored_semantic_ignores_instance=draw(st.booleans()),
        background_classes=tuple(v for v in values if kind[v] == "background" and v >= 0),
        class_shift=draw(st.integers(1, 2)),  # below it classes may be refused
    )


@quick
@given(conventions(), st.booleans(), st.data())
def test_convert_follows_the_rules_point_by_point(
    convention: LabelConvention, as_numpy: bool, data: st.DataObject
) -> None:
    ids = sorted({*range(6), *convention.no_instance, *convention.ignored_instance})
    classes = sorted({*range(6), *convention.ignored_semantic})
    points = data.draw(st.lists(st.tuples(st.sampled_from(ids), st.sampled_from(classes)), max_size=12))
    both = torch.tensor(points, dtype=torch.int32).reshape(-1, 2)
    before = both.clone()
    instance, semantic = both[:, 0], both[:, 1]  # not contiguous
    got = convention.convert(instance.numpy(), semantic.numpy()) if as_numpy else convention.convert(instance, semantic)
    expected = [convert_one(convention, i, s) for i, s in points]
    equal(got[0], [i for i, _ in expected])
    equal(got[1], [s for _, s in expected])
    torch.testing.assert_close(both, before, rtol=0, atol=0)
    # What came out is in the convention of this library, where converting changes nothing.
    for again, once in zip(OURS.convert(*got), got, strict=True):
        torch.testing.assert_close(again, once, rtol=0, atol=0)


@quick
@given(st.lists(st.integers(-1, 9), max_size=9))
def test_one_class_where_there_is_no_semantic(ids: list[int]) -> None:
    instance, semantic = STARDIST.convert(torch.tensor(ids, dtype=torch.int16))
    equal(instance, [{0: -1, -1: -100}.get(i, i) for i in ids])
    equal(semantic, [{0: 0, -1: -100}.get(i, 1) for i in ids])


def test_outputs_share_no_memory_with_inputs() -> None:
    instance, semantic = torch.tensor([1, 2]), torch.tensor([3, 4])
    for convention in (OURS, LabelConvention(no_instance=(), ignored_instance=(), ignored_semantic=())):
        for got in (
            *convention.convert(instance, semantic),
            *convention.convert(instance.numpy(), semantic.numpy()),
        ):
            got.zero_()
    to_host_labels(instance, start=0, none=-1).zero_()
    for got in (*split_scannet(instance), *split_cityscapes(instance)):
        got.zero_()
    equal(instance, [1, 2])
    equal(semantic, [3, 4])


def test_any_shape_and_any_integer_array() -> None:
    image = [[0, 200], [200, 7]]
    for dtype in (np.uint8, np.uint16, np.int16, np.uint32, np.uint64, ">u2", ">i4"):
        array = np.array(image, dtype=dtype)[::-1].copy()[::-1]  # a negative stride, as flips leave
        array.flags.writeable = False
        equal(CELLPOSE.convert(array)[0], [[-1, 200], [200, 7]])
    for torch_dtype in (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64):
        equal(EMBEDSEG.convert(torch.tensor(image).to(torch_dtype))[0], [[-1, 200], [200, 7]])


def test_ids_beyond_narrow_types_stay() -> None:
    equal(EMBEDSEG.convert(np.array([0, 65535], dtype=np.uint16))[0], [-1, 65535])
    equal(EMBEDSEG.convert(np.array([0, 2**62], dtype=np.uint64))[0], [-1, 2**62])


# --- hosts


def test_pointcept() -> None:
    # unannotated, wall with an id, wall after InstanceParser, chair, chair
    instance, segment = torch.tensor([-1, 4, -1, 0, 1]), torch.tensor([-1, 0, 0, 4, 4])
    got = POINTCEPT.convert(instance, segment)
    equal(got[0], [-1, 4, -1, 0, 1])
    equal(got[1], [-100, 0, 0, 4, 4])
    equal(replace(POINTCEPT, stuff_classes=(0, 1)).convert(instance, segment)[0], [-1, -1, -1, 0, 1])
    left_out = replace(POINTCEPT, ignored_semantic_ignores_instance=True)
    equal(left_out.convert(instance, segment)[0], [-100, 4, -1, 0, 1])


def test_pointgroup_and_softgroup() -> None:
    # unannotated, wall, chair, an instance of a class outside the 20
    instance, label = torch.tensor([-100, -100, 0, 3]), torch.tensor([-100, 0, 4, -100])
    for convention in (POINTGROUP, SOFTGROUP):
        got = convention.convert(instance, label)
        equal(got[0], [-1, -1, 0, 3])  # an ignored class does not make an ignored instance
        equal(got[1], [-100, 0, 4, -100])


def test_mmdetection3d() -> None:
    got = mmdetection3d(13).convert(np.array([0, 1, 2]), np.array([13, 12, 0]))
    equal(got[0], [-1, 1, 2])
    equal(got[1], [-100, 12, 0])


def test_mmdetection3d_instance_set() -> None:
    """Walls and floors are class 18 there, with ids: they are background, not instances."""
    convention = mmdetection3d_instances(18)
    instance, semantic = convention.convert(torch.tensor([0, 1, 2, 3, 4]), torch.tensor([18, 18, 0, 1, 17]))
    equal(instance, [-1, -1, 2, 3, 4])
    equal(semantic, [0, 0, 1, 2, 18])
    assert convention.num_columns == 19
    equal(convention.host_classes(torch.tensor([1, 18, 0])), [0, 17, 18])
    with pytest.warns(UserWarning, match=r"2 points of a class at or above num_classes, 18, .*mmdetection3d_instances"):
        wrong = mmdetection3d(18).convert(torch.tensor([1, 2, 2, 0]), torch.tensor([18, 18, 0, 18]))
    equal(wrong[0], [1, 2, 2, -1])  # what it warns of


@pytest.mark.filterwarnings("error")
def test_a_class_beyond_is_warned_of_once_it_trains() -> None:
    ids, classes = torch.tensor([1, 2]), torch.tensor([20, 3])
    equal(replace(mmdetection3d(20), ignored_semantic_ignores_instance=True).convert(ids, classes)[0], [-100, 2])
    with pytest.raises(UserWarning, match="1 points"):
        mmdetection3d(20).convert(ids, classes)
    replace(POINTCEPT, num_classes=20).convert(ids, torch.tensor([-1, 3]))  # not beyond


def test_classes_of_a_data_set_are_set_once() -> None:
    """Else cabinets and beds were the background, and class 13 of ScanNet ignored."""
    for convention in (mmdetection3d_instances(), mmdetection3d(13), for_s3dis(POINTCEPT), CITYSCAPES):
        with pytest.raises(ValueError, match="convention: expected one of a host, without the classes of a data set"):
            for_scannet(convention)
    with pytest.raises(ValueError, match="take mmdetection3d_instances"):
        for_s3dis(mmdetection3d_instances(13))
    assert for_scannet(for_scannet(POINTCEPT)) == for_scannet(POINTCEPT)
    assert for_scannet(mmdetection3d(20)).num_columns == 19


def test_scannet_and_s3dis_of_all_hosts() -> None:
    """The same three points in every host: wall, a chair (4 of 20, and 8 of 13), nobody knows."""
    hosts = [
        (POINTCEPT, [7, 3, -1], -1),
        (SOFTGROUP, [7, 3, -100], -100),
        (MASK3D, [7, 3, -1], 255),
        (TORCH_POINTS3D, [7, 3, 0], -1),
    ]
    for host, ids, unknown in hosts:
        scannet, s3dis = for_scannet(host), for_s3dis(host)
        instance, semantic = scannet.convert(torch.tensor(ids), torch.tensor([0, 4, unknown]))
        equal(instance, [-1, 3, -1])
        equal(semantic, [0, 3, -100])
        instance, semantic = s3dis.convert(torch.tensor(ids), torch.tensor([0, 8, unknown]))
        equal(instance, [7, 3, -1])  # a ceiling is an instance
        equal(semantic, [1, 9, -100])
        assert (scannet.num_columns, s3dis.num_columns) == (19, 14)
        equal(scannet.host_classes(torch.tensor([1, 18])), [2, 19])
        equal(s3dis.host_classes(torch.tensor([1, 13])), [0, 12])


@quick
@given(conventions(), st.lists(st.integers(0, 5), max_size=6))
def test_host_classes_are_the_inverse(convention: LabelConvention, classes: list[int]) -> None:
    named = {*convention.background_classes, *convention.ignored_semantic}
    host = [c for c in classes if c not in named]
    ids = [max({0, *convention.no_instance}) + 9] * len(host)
    column = convention.convert(torch.tensor(ids, dtype=torch.int64), torch.tensor(host, dtype=torch.int64))[1]
    equal(convention.host_classes(column), host)


def test_masks_become_labels() -> None:
    masks = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]]).bool()
    instance, semantic = labels_from_masks(masks, torch.tensor([3, 4], dtype=torch.uint16))
    equal(instance, [[0, -100, 1], [-1, -1, -1]])
    equal(semantic, [[3, -100, 4], [0, 0, 0]])
    equal(labels_from_masks(masks)[1], [[1, -100, 1], [0, 0, 0]])
    for got, expected in zip(labels_from_masks(masks[:0]), (-1, 0), strict=True):
        equal(got, [[expected] * 3] * 2)


def test_cityscapes() -> None:
    # road, void, two cars, a group of cars, a licence plate drawn as nothing, bicycle
    encoded = np.array([0, 255, 13000, 13001, 13, 255, 18000], dtype=np.uint16)
    instance, semantic = split_cityscapes(encoded)
    equal(instance, [-1, -1, 13000, 13001, -1, -1, 18000])
    equal(semantic, [0, 255, 13, 13, 13, 255, 18])
    got = CITYSCAPES.convert(instance, semantic)
    equal(got[0], [-1, -100, 13000, 13001, -100, -100, 18000])
    equal(got[1], [0, -100, 13, 13, 13, -100, 18])
    # −1, a licence plate, is void: of an id, of a region without one and of uint8, where 255 is void in its own right.
    got = CITYSCAPES.convert(torch.tensor([13000, -1, -1]), torch.tensor([-1, -1, 13]))
    equal(got[0], [-100, -100, -100])
    equal(got[1], [-100, -100, 13])
    equal(CITYSCAPES.convert(instance, semantic.to(torch.uint8))[1], [0, -100, 13, 13, 13, -100, 18])


@quick
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 999)), max_size=9))
def test_split_scannet(points: list[tuple[int, int]]) -> None:
    instance, semantic = split_scannet(np.array([1000 * c + i for c, i in points], dtype=np.int64))
    equal(instance, [1000 * c + i if i else -1 for c, i in points])
    equal(semantic, [c if c else -100 for c, _ in points])


@quick
@given(st.lists(st.tuples(st.integers(1, 33), st.integers(0, 999) | st.none()), max_size=9))
def test_split_cityscapes(points: list[tuple[int, int | None]]) -> None:
    instance, semantic = split_cityscapes(torch.tensor([c if i is None else 1000 * c + i for c, i in points]).long())
    equal(instance, [-1 if i is None else 1000 * c + i for c, i in points])
    equal(semantic, [c for c, _ in points])


# --- results


@quick
@given(
    st.lists(st.integers(-1, 100), max_size=9),
    st.sampled_from([(0, 1, EMBEDSEG), (-1, 0, POINTCEPT), (-100, 0, POINTGROUP)]),
    st.sampled_from([torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64]),
)
def test_host_labels_round_trip(label: list[int], host: tuple[int, int, LabelConvention], dtype: torch.dtype) -> None:
    none, start, convention = host
    if none < 0 and torch.iinfo(dtype).min == 0:
        dtype = torch.int64
    got = to_host_labels(torch.tensor(label, dtype=torch.int64), none=none, start=start, dtype=dtype)
    assert got.dtype == dtype
    assert got.tolist() == [none if i == -1 else i + start for i in label]
    back = convention.convert(got, torch.zeros_like(got, dtype=torch.int64))[0]
    equal(torch.where(back >= 0, back - start, back), label)


def test_host_labels_fill_a_type_to_its_limit_and_no_further() -> None:
    assert to_host_labels(torch.tensor([-1, 254]), dtype=torch.uint8).tolist() == [0, 255]
    assert to_host_labels(np.array([-1, 126], dtype=np.int8), dtype=torch.int8).tolist() == [0, 127]
    with pytest.raises(ValueError, match=r"dtype: expected one that holds 0 .. 256, got torch.uint8 with 0 .. 255"):
        to_host_labels(torch.tensor([-1, 255]), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"dtype: expected one that holds -1 .. 1"):
        to_host_labels(torch.tensor([-1, 1]), none=-1, start=0, dtype=torch.uint8)


# --- errors


def test_conventions_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        POINTCEPT.no_instance = (0,)  # type: ignore[misc]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8])
def test_values_that_a_narrow_type_wrapped_around_are_found(dtype: type[np.integer[Any]]) -> None:
    wrapped = np.array([-1 if dtype is not np.int8 else 255, 0, 1]).astype(dtype)
    convention = POINTCEPT if dtype is not np.int8 else LabelConvention(no_instance=(255,))
    with pytest.raises(ValueError, match=r"instance: expected a type that holds .*; read the labels as int64"):
        convention.convert(wrapped, np.zeros(3, dtype=np.int64))
    # The same type is fine where no such value occurs.
    equal(convention.convert(wrapped[1:], np.zeros(2, dtype=np.int64))[0], [0, 1])
    with pytest.raises(ValueError, match=r"semantic: expected a type that holds .*; read the labels as int64"):
        replace(convention, ignored_semantic=convention.no_instance).convert(np.zeros(3, dtype=np.int64), wrapped)


_I = torch.tensor
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: LabelConvention(no_instance=-1), TypeError, "no_instance: expected a tuple of int, got -1"),  # type: ignore[arg-type]
    (lambda: LabelConvention(stuff_classes=(True,)), TypeError, "stuff_classes: expected a tuple of int"),
    (lambda: LabelConvention((0,), (0,)), ValueError, r"got \[0\] in no_instance and ignored_instance"),
    (
        lambda: LabelConvention(stuff_classes=(1,), thing_classes=(1, 2)),
        ValueError,
        r"got \[1\] in stuff_classes and thing_classes",
    ),
    (
        lambda: LabelConvention(ignored_semantic=(9,), stuff_classes=(9,)),
        ValueError,
        r"got \[9\] in stuff_classes and ignored_semantic",
    ),
    (
        lambda: LabelConvention(ignored_semantic=(9,), thing_classes=(9,)),
        ValueError,
        r"got \[9\] in thing_classes and ignored_semantic",
    ),
    (
        lambda: OURS.convert(_I([0.0]), _I([0])),
        TypeError,
        "instance: expected an integer type, got torch.float32",
    ),
    (
        lambda: OURS.convert(_I([True]), _I([0])),
        TypeError,
        "instance: expected an integer type, got torch.bool",
    ),
    (
        lambda: OURS.convert(_I([0]), np.zeros(1)),
        TypeError,
        "semantic: expected an integer type, got float64",
    ),
    (
        lambda: OURS.convert(_I([0]), np.zeros(1, bool)),
        TypeError,
        "semantic: expected an integer type, got bool",
    ),
    (
        lambda: OURS.convert(_I([0]), _I([0, 0])),
        ValueError,
        r"semantic: expected the shape of instance, \(1,\), got",
    ),
    (lambda: OURS.convert(_I([0]), _I([[0]])), ValueError, "semantic: expected the shape of instance"),
    (
        lambda: OURS.convert(_I([-2, -3, 0]), _I([0, 0, 0])),
        ValueError,
        r"instance: .* got \[-3, -2\]; is it another",
    ),
    (lambda: OURS.convert(_I([0]), _I([-1])), ValueError, r"semantic: .* got \[-1\]; is it another"),
    (lambda: EMBEDSEG.convert(np.array([-5], dtype=np.int16)), ValueError, "did a narrow type wrap around"),
    (
        lambda: EMBEDSEG.convert(np.array([2**63], dtype=np.uint64)),
        ValueError,
        r"instance: expected values below 2\*\*63",
    ),
    (lambda: mmdetection3d(0), ValueError, "num_classes: expected at least 1, got 0"),
    (lambda: replace(OURS, num_classes=True), TypeError, "num_classes: expected an int or None, got True"),
    (
        lambda: mmdetection3d(20).convert(_I([1, 2, 3]), _I([20, 40, 22])),
        ValueError,
        r"semantic: expected classes 0 \.\. 19 or 20 \(ignored\), got 22, 40; are these raw ids",
    ),
    (
        lambda: CITYSCAPES.convert(_I([-1]), _I([33])),
        ValueError,
        r"semantic: expected classes 0 \.\. 18 or 255, -1 \(ignored\), got 33",
    ),
    (
        lambda: LabelConvention(background_classes=(1,), thing_classes=(1,)),
        ValueError,
        r"got \[1\] in background_classes and thing_classes",
    ),
    (lambda: replace(OURS, class_shift=1.0), TypeError, "class_shift: expected an int, got 1.0"),  # type: ignore[arg-type]
    (
        lambda: replace(POINTCEPT, num_classes=20, background_classes=(0,), class_shift=-1),
        ValueError,
        r"class_shift: expected one that brings the classes to 1 and above, .* got -1, which brings class 1 to 0",
    ),
    (
        lambda: replace(POINTCEPT, class_shift=-1).convert(_I([0]), _I([0])),
        ValueError,
        r"semantic: expected classes that class_shift -1 brings to 0 and above, got 0; name them in background_classes",
    ),
    (lambda: POINTCEPT.num_columns, ValueError, "num_columns: expected a convention with num_classes"),
    (
        lambda: mmdetection3d_instances().convert(_I([1]), _I([19])),
        ValueError,
        r"expected classes 0 \.\. 17 or .*18 \(background\), got 19",
    ),
    (
        lambda: for_scannet(POINTCEPT).host_classes(_I([19])),
        ValueError,
        r"semantic: expected columns of the host's classes, got 19 with class_shift -1 and num_classes 20",
    ),
    (lambda: for_s3dis(POINTCEPT).host_classes(_I([0])), ValueError, "got 0 with class_shift 1"),
    (lambda: POINTCEPT.host_classes(_I([-1])), ValueError, r"semantic: .* got \[-1\]"),
    (lambda: labels_from_masks(_I([[1, 0]])), TypeError, "masks: expected torch.bool, got torch.int64; use masks > 0"),
    (lambda: labels_from_masks(_I([True])), ValueError, r"masks: expected \(K, ...\), .* got \(1,\)"),
    (
        lambda: labels_from_masks(np.ones((1, 2), bool)),
        TypeError,
        "masks: expected a torch.Tensor, got ndarray: .*as_",
    ),  # type: ignore[arg-type]
    (lambda: labels_from_masks(_I([[True]]), [1]), TypeError, "classes: expected a torch.Tensor, got list"),  # type: ignore[arg-type]
    (lambda: labels_from_masks(_I([[True]]), _I([1.0])), TypeError, "classes: expected an integer type"),
    (lambda: labels_from_masks(_I([[True]]), _I([1, 2])), ValueError, r"classes: expected \(1,\)"),
    (lambda: labels_from_masks(_I([[True]]), _I([-1])), ValueError, "a class >= 0 .* with -1"),
    (lambda: split_scannet(_I([1.0])), TypeError, "encoded: expected an integer type"),
    (lambda: split_scannet(_I([-1])), ValueError, r"encoded: expected values >= 0 .* got \[-1\]"),
    (lambda: split_cityscapes(np.array([1.0])), TypeError, "encoded: expected an integer type"),
    (lambda: split_cityscapes(_I([-1])), ValueError, r"encoded: expected values >= 0 .* got \[-1\]"),
    (lambda: to_host_labels(_I([0.0])), TypeError, "label: expected an integer type"),
    (
        lambda: to_host_labels(_I([0]), dtype=torch.float32),
        TypeError,
        "dtype: expected an integer type of torch",
    ),
    (
        lambda: to_host_labels(_I([0]), dtype=torch.bool),
        TypeError,
        "dtype: expected an integer type of torch",
    ),
    (lambda: to_host_labels(_I([-100, 0])), ValueError, r"label: expected values >= 0 .* got \[-100\]"),
    (
        lambda: to_host_labels(_I([-1, 0]), start=0),
        ValueError,
        "none: expected a value that no instance has, got 0, the id of instance 0",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_lists_are_no_labels() -> None:
    with pytest.raises(
        TypeError, match=r"instance: expected a tensor or a numpy array, got list: np\.asarray makes one"
    ):
        EMBEDSEG.convert([[0, 1], [1, 2]])
