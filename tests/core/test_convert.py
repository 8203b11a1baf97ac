"""Converters: round trips over drawn batches, hosts' own code as oracle, and every error."""

from __future__ import annotations

import doctest
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import PROJECT
from torch import Tensor

from probemb_lib.convert import (
    Layout,
    batch_from_coordinates,
    batch_from_lengths,
    batch_from_offset,
    batch_from_ptr,
    coordinates_from_batch,
    grid_positions,
    lengths_from_batch,
    offset_from_batch,
    pack_dense,
    pack_list,
    ptr_from_batch,
    unpack_dense,
    unpack_list,
)

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
FEATURES: list[Layout] = ["BNC", "BCN", "BCHW", "BCZYX"]
LABELS: list[Layout] = ["BN", "BHW", "BZYX"]

lengths_lists = st.lists(st.integers(0, 6), max_size=6)
dtypes = st.sampled_from(INTEGERS)
quick = settings(max_examples=60, deadline=None)


def expected_batch(lengths: list[int]) -> Tensor:
    return torch.tensor([b for b, n in enumerate(lengths) for _ in range(n)], dtype=torch.int64)


def equal(got: Tensor, expected: Tensor) -> None:
    """Exactly equal, in value, shape, dtype."""
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_equal_can_fail() -> None:
    with pytest.raises(AssertionError):
        equal(torch.tensor([0, 1]), torch.tensor([0, 2]))
    with pytest.raises(AssertionError):
        equal(torch.tensor([0, 1]), torch.tensor([0, 1], dtype=torch.int32))


@quick
@given(lengths_lists, dtypes)
def test_counts_round_trip(lengths: list[int], dtype: torch.dtype) -> None:
    ends = list(itertools.accumulate(lengths))
    batch, num_points, num_clouds = expected_batch(lengths), sum(lengths), len(lengths)
    for given_points in (None, num_points):
        equal(batch_from_lengths(torch.tensor(lengths, dtype=dtype), given_points), batch)
        equal(batch_from_offset(torch.tensor(ends, dtype=dtype), given_points), batch)
        equal(batch_from_ptr(torch.tensor([0, *ends], dtype=dtype), given_points), batch)
    narrow = batch.to(dtype)
    equal(lengths_from_batch(narrow, num_clouds), torch.tensor(lengths, dtype=torch.int64))
    equal(offset_from_batch(narrow, num_clouds), torch.tensor(ends, dtype=torch.int64))
    equal(ptr_from_batch(narrow, num_clouds), torch.tensor([0, *ends], dtype=torch.int64))


@quick
@given(lengths_lists, st.randoms(use_true_random=False))
def test_lengths_do_not_depend_on_the_order(lengths: list[int], random: Any) -> None:
    clouds = expected_batch(lengths).tolist()
    random.shuffle(clouds)
    batch = torch.tensor(clouds, dtype=torch.int64)
    equal(lengths_from_batch(batch, len(lengths)), torch.tensor(lengths, dtype=torch.int64))


def test_without_num_clouds_only_empty_clouds_at_the_end_are_lost() -> None:
    batch = torch.tensor([1, 1, 3])
    assert lengths_from_batch(batch).tolist() == [0, 2, 0, 1]
    assert offset_from_batch(batch).tolist() == [0, 2, 2, 3]
    assert ptr_from_batch(batch).tolist() == [0, 0, 2, 2, 3]
    empty = torch.zeros(0, dtype=torch.int64)
    assert lengths_from_batch(empty).tolist() == []
    assert ptr_from_batch(empty).tolist() == [0]


def test_narrow_lengths_do_not_overflow() -> None:
    batch = batch_from_lengths(torch.tensor([100, 100, 100], dtype=torch.int8))
    assert batch.shape == (300,)
    assert lengths_from_batch(batch).tolist() == [100, 100, 100]


def test_non_contiguous_counts() -> None:
    every_other = torch.tensor([2, 9, 2, 9, 5, 9])[::2]
    assert batch_from_offset(every_other).tolist() == [0, 0, 2, 2, 2]
    column = torch.tensor([[0, 7], [0, 7], [2, 7]])[:, 0]
    assert ptr_from_batch(column).tolist() == [0, 2, 2, 3]


def test_pyg_batch_is_canonical() -> None:
    data = pytest.importorskip("torch_geometric.data")
    clouds = [data.Data(pos=torch.rand(n, 3)) for n in (3, 1, 2)]
    host = data.Batch.from_data_list(clouds)
    equal(batch_from_ptr(host.ptr, host.num_nodes), host.batch)
    equal(ptr_from_batch(host.batch, host.num_graphs), host.ptr)
    for got, cloud in zip(unpack_list(host.pos, host.batch), clouds, strict=True):
        equal(got, cloud.pos)


@quick
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 2), st.data())
def test_list_round_trip(lengths: list[int], trailing: int, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, 3)) for _ in range(trailing))
    number = itertools.count()
    clouds = [
        torch.tensor([next(number) for _ in range(n * int(np.prod(shape)))], dtype=torch.float64).reshape(n, *shape)
        for n in lengths
    ]
    packed, batch = pack_list(clouds)
    equal(batch, expected_batch(lengths))
    back = unpack_list(packed, batch, len(clouds))
    assert len(back) == len(clouds)
    for got, cloud in zip(back, clouds, strict=True):
        equal(got, cloud)
    # Shuffled: the same points of each cloud, in their packed order.
    order = torch.tensor(data.draw(st.permutations(range(len(batch)))), dtype=torch.int64)
    for b, got in enumerate(unpack_list(packed[order], batch[order], len(clouds))):
        equal(got, packed[order][batch[order] == b])


def test_unpack_list_gives_views_of_sorted_points_only() -> None:
    packed = torch.rand(4, 2)
    assert unpack_list(packed, torch.tensor([0, 0, 1, 1]))[0].data_ptr() == packed.data_ptr()
    assert unpack_list(packed, torch.tensor([0, 1, 1, 0]))[0].data_ptr() != packed.data_ptr()


def test_unpack_list_of_one_cloud() -> None:
    packed = torch.rand(4, 2)
    (cloud,) = unpack_list(packed, None)
    equal(cloud, packed)
    assert [len(c) for c in unpack_list(packed[:0], None)] == [0]
    assert [len(c) for c in unpack_list(packed, None, num_clouds=3)] == [4, 0, 0]


def draw_dense(data: st.DataObject, layout: Layout) -> Tensor:
    shape = [data.draw(st.integers(0, 3), label=axis) for axis in layout]
    return torch.arange(int(np.prod(shape)), dtype=torch.float64).reshape(shape)


@quick
@given(st.sampled_from(FEATURES + LABELS), st.booleans(), st.data())
def test_dense_round_trip(layout: Layout, contiguous: bool, data: st.DataObject) -> None:
    x = draw_dense(data, layout)
    if not contiguous:
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    shape = [n for n, axis in zip(x.shape, layout, strict=True) if axis != "C"]
    packed, batch = pack_dense(x, layout)
    # Independently: walk the pixels in numpy's order.
    array = np.moveaxis(x.numpy(), layout.index("C"), -1) if "C" in layout else x.numpy()
    pixels = list(np.ndindex(*shape))
    assert batch.tolist() == [pixel[0] for pixel in pixels]
    assert packed.shape[0] == len(pixels)
    for row, pixel in zip(packed, pixels, strict=True):
        np.testing.assert_array_equal(row.numpy(), array[pixel])
    equal(unpack_dense(packed, layout, shape), x)

    # Masked: the points kept, in the same order; fill elsewhere.
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(pixels), max_size=len(pixels)))).bool()
    mask = mask.reshape(shape)
    kept, kept_batch = pack_dense(x, layout, mask)
    equal(kept, packed[mask.flatten()])
    equal(kept_batch, batch[mask.flatten()])
    back = unpack_dense(kept, layout, shape, mask, fill=-7)
    keep = mask.unsqueeze(layout.index("C")) if "C" in layout else mask
    equal(back, torch.where(keep, x, -7.0))


def test_square_shapes_are_told_apart_by_the_layout_alone() -> None:
    x = torch.arange(9).reshape(1, 3, 3)
    equal(pack_dense(x, "BNC")[0], x[0])
    equal(pack_dense(x, "BCN")[0], x[0].T)
    equal(pack_dense(x, "BHW")[0], x.flatten())


def test_labels_of_any_dtype_come_back() -> None:
    for dtype in [*INTEGERS, torch.bool, torch.float16]:
        x = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
        packed, _ = pack_dense(x, "BN")
        equal(unpack_dense(packed, "BN", (2, 3)), x)
        mask = torch.tensor([[True, False, True], [False, False, True]])
        equal(unpack_dense(pack_dense(x, "BN", mask)[0], "BN", (2, 3), mask), x.masked_fill(~mask, 0))


@quick
@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.integers(0, 3), st.data())
def test_grid_positions_are_in_the_order_of_pack_dense(shape: list[int], batch_size: int, data: st.DataObject) -> None:
    spacing = [data.draw(st.sampled_from([0.25, 1.0, 2.0])) for _ in shape]
    positions = grid_positions(shape, batch_size=batch_size, spacing=spacing, dtype=torch.float64)
    expected = [
        [i * step for i, step in zip(pixel, spacing, strict=True)]
        for _ in range(batch_size)
        for pixel in np.ndindex(*shape)
    ]
    equal(positions, torch.tensor(expected, dtype=torch.float64).reshape(-1, len(shape)))


def test_grid_positions_of_a_volume_match_its_packed_voxels() -> None:
    z, y, x = torch.meshgrid(torch.arange(2), torch.arange(3), torch.arange(4), indexing="ij")
    volume = torch.stack([z * 2.0, y * 0.5, x * 0.5]).unsqueeze(0).repeat(2, 1, 1, 1, 1)  # (2, 3, Z, Y, X)
    packed, batch = pack_dense(volume, "BCZYX")
    equal(grid_positions((2, 3, 4), batch_size=2, spacing=(2.0, 0.5, 0.5)), packed)
    assert lengths_from_batch(batch).tolist() == [24, 24]
    assert grid_positions((2, 2)).dtype == torch.float32
    assert grid_positions((5,), spacing=2).flatten().tolist() == [0, 2, 4, 6, 8]


@quick
@given(lengths_lists, st.integers(1, 4), dtypes, st.randoms(use_true_random=False))
def test_coordinates_round_trip(lengths: list[int], dim: int, dtype: torch.dtype, random: Any) -> None:
    clouds = expected_batch(lengths).tolist()
    random.shuffle(clouds)
    batch = torch.tensor(clouds, dtype=torch.int64)
    coords = torch.tensor([random.randrange(100) for _ in range(len(clouds) * dim)], dtype=torch.int32).reshape(-1, dim)
    merged = coordinates_from_batch(batch.to(dtype), coords.to(dtype))
    assert merged.dtype == torch.int32
    got_batch, got_coords = batch_from_coordinates(merged)
    equal(got_batch, batch)
    equal(got_coords, coords)


def test_gradients_pass_through() -> None:
    def through_dense(x: Tensor) -> Tensor:
        mask = torch.tensor([[True, False], [True, True]])
        packed, batch = pack_dense(x, "BCN", mask)
        return unpack_dense(packed * (1.0 + batch.unsqueeze(1)), "BCN", (2, 2), mask)

    def through_lists(x: Tensor, y: Tensor) -> Tensor:
        packed, _ = pack_list([x, y])
        shuffled = torch.tensor([1, 0, 1, 0, 0])
        return torch.cat([cloud.square() for cloud in unpack_list(packed, shuffled)])

    x = torch.rand(2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(through_dense, (x,))
    a = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    b = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(through_lists, (a, b))


def test_inputs_stay_as_they_are() -> None:
    x = torch.rand(2, 3, 4)
    mask = torch.tensor([[True] * 4, [False] * 4])
    before, mask_before = x.clone(), mask.clone()
    packed, _ = pack_dense(x, "BCN", mask)
    packed.zero_()
    equal(x, before)
    source = torch.rand(4, 3)
    source_before = source.clone()
    dense = unpack_dense(source, "BCN", (2, 4), mask, fill=1.0)
    dense.zero_()
    equal(source, source_before)
    equal(mask, mask_before)


def test_compile_in_one_graph() -> None:
    mask = torch.tensor([[[True, False], [True, True]]])

    def convert(x: Tensor, offset: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        packed, batch = pack_dense(x, "BCHW")
        return (
            packed,
            batch,
            unpack_dense(packed, "BCHW", (1, 2, 2)),
            unpack_dense(packed[:3], "BCHW", (1, 2, 2), mask, fill=-1),
            batch_from_offset(offset, 5),
            batch_from_lengths(lengths, 5),
            batch_from_ptr(torch.cat([offset.new_zeros(1), offset]), 5),
            lengths_from_batch(batch, 1),
            ptr_from_batch(batch, 1),
            grid_positions((2, 2), spacing=0.5),
            *batch_from_coordinates(coordinates_from_batch(batch, batch.unsqueeze(1))),
        )

    torch._dynamo.reset()
    compiled = torch.compile(convert, backend="eager", fullgraph=True)
    arguments = (torch.rand(1, 3, 2, 2), torch.tensor([2, 2, 5]), torch.tensor([2, 0, 3]))
    for got, expected in zip(compiled(*arguments), convert(*arguments), strict=True):
        equal(got, expected)


_I = torch.tensor
ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: batch_from_offset(_I([1.0])), TypeError, "offset: expected an integer type, got torch.float32"),
    (lambda: batch_from_offset(_I([True])), TypeError, "offset: expected an integer type, got torch.bool"),
    (lambda: batch_from_offset(_I(3)), ValueError, "offset: expected one dimension"),
    (lambda: batch_from_offset(_I([[3]])), ValueError, "offset: expected one dimension"),
    (lambda: batch_from_offset(_I([3, 2])), ValueError, "offset: .* never decrease"),
    (lambda: batch_from_offset(_I([-1, 2])), ValueError, "offset: expected ends of clouds that are >= 0"),
    (
        lambda: batch_from_offset(_I([2, 4]), 5),
        ValueError,
        "offset: expected it to end at the 5 points, got 4",
    ),
    (lambda: batch_from_offset(_I([], dtype=torch.int64), 5), ValueError, "end at the 5 points, got 0"),
    (lambda: batch_from_ptr(_I([0.0])), TypeError, "ptr: expected an integer type"),
    (lambda: batch_from_ptr(_I([[0]])), ValueError, "ptr: expected one dimension"),
    (lambda: batch_from_ptr(_I([], dtype=torch.int64)), ValueError, "ptr: .* got an empty tensor"),
    (lambda: batch_from_ptr(_I([2, 4])), ValueError, "ptr: expected a leading 0, got 2"),
    (lambda: batch_from_ptr(_I([0, 3, 2])), ValueError, "ptr: .* never decrease"),
    (lambda: batch_from_ptr(_I([0, 3]), 4), ValueError, "ptr: expected it to end at the 4 points, got 3"),
    (lambda: batch_from_lengths(_I([0.0])), TypeError, "lengths: expected an integer type"),
    (lambda: batch_from_lengths(_I([[1]])), ValueError, "lengths: expected one dimension"),
    (lambda: batch_from_lengths(_I([3, -1])), ValueError, "lengths: expected numbers of points >= 0, got -1"),
    (lambda: batch_from_lengths(_I([3, 1]), 5), ValueError, "lengths: expected it to end at the 5 points"),
    (lambda: lengths_from_batch(_I([0.0])), TypeError, "batch: expected an integer type"),
    (lambda: lengths_from_batch(_I([[0]])), ValueError, "batch: expected one dimension"),
    (lambda: lengths_from_batch(_I([0, -1])), ValueError, r"batch: expected clouds in 0 .. 0, got -1 .. 0"),
    (lambda: lengths_from_batch(_I([0, 2]), 2), ValueError, r"batch: expected clouds in 0 .. 1, got 0 .. 2"),
    (lambda: lengths_from_batch(_I([0]), -1), ValueError, "num_clouds: expected >= 0, got -1"),
    (lambda: offset_from_batch(_I([1, 0])), ValueError, "batch: .* unsorted batch; sort the points"),
    (lambda: ptr_from_batch(_I([1, 0])), ValueError, "batch: .* unsorted batch; sort the points"),
    (lambda: pack_list([]), ValueError, "clouds: expected at least one tensor"),
    (lambda: pack_list([_I(1.0)]), ValueError, r"clouds\[0\]: expected shape \(n\)"),
    (
        lambda: pack_list([torch.zeros(2, 3), torch.zeros(3, 2)]),
        ValueError,
        r"clouds\[1\]: .* \(n, 3\), got \(3, 2\)",
    ),
    (lambda: pack_list([_I([1]), _I([1.0])]), TypeError, r"clouds\[1\]: expected torch.int64"),
    (lambda: pack_list([_I([1]), _I([1], device="meta")]), TypeError, r"clouds\[1\]: .* on meta"),
    (lambda: unpack_list(_I(1.0), None), ValueError, "packed: expected shape"),
    (
        lambda: unpack_list(_I([1.0]), _I([0, 0])),
        ValueError,
        "batch: expected one entry for each of the 1 points",
    ),
    (lambda: unpack_list(_I([1.0]), _I([0.0])), TypeError, "batch: expected an integer type"),
    (lambda: unpack_list(_I([1.0]), _I([3]), 2), ValueError, "batch: expected clouds in"),
    (lambda: unpack_list(_I([1.0]), None, 0), ValueError, "batch: expected clouds in"),
    (
        lambda: pack_dense(torch.zeros(1, 2, 3), "NCB"),
        ValueError,
        "layout: expected one of BNC, .* got 'NCB'",
    ),  # type: ignore[arg-type]
    (
        lambda: pack_dense(torch.zeros(1, 2), "BNC"),
        ValueError,
        r"x: expected the axes BNC, 3 of them, got shape",
    ),
    (lambda: pack_dense(torch.zeros(1, 2), "BN", torch.ones(1, 2)), TypeError, "mask: expected torch.bool"),
    (
        lambda: pack_dense(torch.zeros(1, 2, 3), "BCN", torch.ones(1, 2, dtype=torch.bool)),
        ValueError,
        r"mask: expected shape \(1, 3\) for layout BCN without C, got \(1, 2\)",
    ),
    (lambda: unpack_dense(torch.zeros(2), "NB", (1, 2)), ValueError, "layout: expected one of"),  # type: ignore[arg-type]
    (
        lambda: unpack_dense(torch.zeros(2), "BN", (2,)),
        ValueError,
        "shape: expected the sizes of the axes B, N",
    ),
    (
        lambda: unpack_dense(torch.zeros(2), "BN", (-1, 2)),
        ValueError,
        "shape: expected the sizes of the axes",
    ),
    (lambda: unpack_dense(torch.zeros(2), "BNC", (1, 2)), ValueError, r"packed: expected shape \(N, C\)"),
    (lambda: unpack_dense(torch.zeros(2, 1), "BN", (1, 2)), ValueError, r"packed: expected shape \(N,\)"),
    (
        lambda: unpack_dense(torch.zeros(3), "BN", (1, 2)),
        ValueError,
        r"packed: expected 2 points, as many as shape",
    ),
    (
        lambda: unpack_dense(torch.zeros(2), "BN", (1, 2), _I([[True, False]])),
        ValueError,
        "packed: expected 1 points, as many as the points where mask is True, got 2",
    ),
    (
        lambda: unpack_dense(torch.zeros(2), "BN", (1, 2), torch.ones(1, 2)),
        TypeError,
        "mask: expected torch.bool",
    ),
    (
        lambda: unpack_dense(torch.zeros(2), "BN", (1, 2), _I([True, True])),
        ValueError,
        "mask: expected shape",
    ),
    (lambda: unpack_dense(_I([1, 2]), "BN", (1, 2), fill=0.5), TypeError, "fill: expected an int"),
    (
        lambda: unpack_dense(_I([1], dtype=torch.uint8), "BN", (1, 1), fill=-1),
        ValueError,
        r"fill: expected 0 .. 255",
    ),
    (lambda: unpack_dense(_I([True]), "BN", (1, 1), fill=2), ValueError, r"fill: expected 0 .. 1"),
    (lambda: grid_positions(()), ValueError, "shape: expected at least one size"),
    (lambda: grid_positions((2, -1)), ValueError, "shape: expected at least one size and all >= 0"),
    (lambda: grid_positions((2,), batch_size=-1), ValueError, "with batch_size -1"),
    (
        lambda: grid_positions((2, 2), spacing=(1.0,)),
        ValueError,
        "spacing: expected a positive number, or one for",
    ),
    (lambda: grid_positions((2, 2), spacing=0.0), ValueError, "spacing: expected a positive number"),
    (lambda: grid_positions((2, 2), spacing=(1.0, float("inf"))), ValueError, "spacing: expected a positive"),
    (lambda: grid_positions((2, 2), dtype=torch.float16), TypeError, "dtype: expected torch.float32 or"),
    (lambda: batch_from_coordinates(torch.zeros(1, 4)), TypeError, "coordinates: .* TensorField"),
    (lambda: batch_from_coordinates(_I([0, 1])), ValueError, r"coordinates: expected shape \(N, 1 \+ D\)"),
    (lambda: batch_from_coordinates(_I([[0]])), ValueError, r"coordinates: expected shape \(N, 1 \+ D\)"),
    (
        lambda: batch_from_coordinates(_I([[-3, 1]])),
        ValueError,
        "coordinates: .* got -3; is the batch index in",
    ),
    (lambda: coordinates_from_batch(_I([0.0]), _I([[1]])), TypeError, "batch: expected an integer type"),
    (lambda: coordinates_from_batch(_I([0]), _I([[1.5]])), TypeError, "coords: expected an integer type"),
    (lambda: coordinates_from_batch(_I([0]), _I([1])), ValueError, r"coords: expected shape \(1, D\)"),
    (lambda: coordinates_from_batch(_I([0]), torch.zeros(1, 0).int()), ValueError, "coords: expected shape"),
    (lambda: coordinates_from_batch(_I([0, 1]), _I([[1]])), ValueError, r"coords: expected shape \(2, D\)"),
    (lambda: coordinates_from_batch(_I([-1]), _I([[1]])), ValueError, "batch: expected indices >= 0, got -1"),
    (lambda: coordinates_from_batch(_I([0]), _I([[2**31]])), ValueError, "coords: .* fit into int32"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


PAGE = (PROJECT / "docs" / "tensors.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```pycon\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_of_the_page_run(snippet: str) -> None:
    if "torch_geometric" in snippet:
        pytest.importorskip("torch_geometric")
    test = doctest.DocTestParser().get_doctest(snippet, {}, "docs/tensors.md", None, None)
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.attempted > 0
    assert results.failed == 0
