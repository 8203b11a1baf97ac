"""Sums over segments against numpy loops, with their first and second derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from probemb_lib import segments
from probemb_lib.segments import expand_segments, gather_points, segment_logsumexp, segment_sum

# Empty segments at the start, within and at the end.
LENGTHS = st.lists(st.integers(0, 5), min_size=0, max_size=8)
CASES = [[0, 3, 0, 0, 2, 1, 0], [4], [], [0], [0, 0], [1, 1, 1]]


def layout(lengths: list[int]) -> tuple[Tensor, Tensor]:
    sizes = torch.tensor(lengths, dtype=torch.int64)
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]), torch.repeat_interleave(torch.arange(len(lengths)), sizes)


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[-1]), dtype=dtype)


def pieces(x: Tensor, ptr: Tensor) -> list[np.ndarray]:
    return [x.numpy()[..., a:b] for a, b in zip(ptr.tolist(), ptr.tolist()[1:], strict=False)]


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.sampled_from([(), (1,), (3,), (2, 2)]))
def test_segment_sum_and_its_transpose(lengths: list[int], shape: tuple[int, ...]) -> None:
    ptr, segment = layout(lengths)
    x = draw(*shape, len(segment))
    expected = np.array([p.sum(-1) for p in pieces(x, ptr)]).reshape(len(lengths), *shape)
    expected = np.moveaxis(expected, 0, -1)
    got = segment_sum(x, ptr, segment).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
    if np.abs(expected).sum() > 0:
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(got, np.roll(expected, 1, axis=-1) + 1e-6, rtol=1e-13, atol=1e-13)
    y = draw(*shape, len(lengths))
    wide = expand_segments(y, ptr, segment)
    torch.testing.assert_close(wide, torch.repeat_interleave(y, ptr.diff(), -1), rtol=0, atol=0)
    # <S x, y> = <x, Sᵀ y>
    torch.testing.assert_close((segment_sum(x, ptr, segment) * y).sum(), (x * wide).sum())


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.floats(0, 300))
def test_segment_logsumexp(lengths: list[int], spread: float) -> None:
    ptr, segment = layout(lengths)
    x = draw(len(segment)) * spread
    expected = [np.logaddexp.reduce(p) if len(p) else 0.0 for p in pieces(x, ptr)]
    got = segment_logsumexp(x, ptr, segment).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
    if len(expected):
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(got, np.add(expected, 1e-6) * (1 + 1e-6), rtol=1e-13, atol=1e-13)


def test_segment_logsumexp_far_below_underflow() -> None:
    ptr, segment = layout([2, 0, 1])
    x = torch.tensor([-1000.0, -1000.0, -5000.0], requires_grad=True)
    got = segment_logsumexp(x, ptr, segment)
    torch.testing.assert_close(got, torch.tensor([-1000 + np.log(2), 0.0, -5000.0], dtype=torch.float32))
    got.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.5, 0.5, 1.0]))


@pytest.mark.parametrize("lengths", CASES)
def test_gradients(lengths: list[int]) -> None:
    ptr, segment = layout(lengths)
    x, y = draw(2, len(segment)).requires_grad_(), draw(2, len(lengths)).requires_grad_()
    line = draw(len(segment)).requires_grad_()
    for f, arg in (
        (lambda t: segment_sum(t, ptr, segment), x),
        (lambda t: expand_segments(t, ptr, segment), y),
        (lambda t: segment_logsumexp(t, ptr, segment), line),
    ):
        assert gradcheck(f, arg)
        assert gradgradcheck(f, arg)


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4)])
@pytest.mark.parametrize("order", [[3, 0, 2], [0, 1, 2, 3], []])
def test_gather_points(order: list[int], shape: tuple[int, ...]) -> None:
    index = torch.tensor(order, dtype=torch.int64)
    x = draw(*shape).requires_grad_()
    torch.testing.assert_close(gather_points(x, index), x[..., index], rtol=0, atol=0)
    assert gradcheck(lambda t: gather_points(t, index), x)
    assert gradgradcheck(lambda t: gather_points(t, index), x)


def test_sums_of_float32_are_accumulated_in_float64() -> None:
    """A million equal numbers in float32: the sum is exact to float32, and float32 in, float32 out."""
    x = torch.full((1, 1_000_000), 0.1)
    ptr, segment = layout([1_000_000])
    got = segment_sum(x, ptr, segment)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.item(), 1e6 * np.float64(np.float32(0.1)), rtol=1e-7)


def test_devices_without_segments_go_over_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Apple's; here the CPU stands in for one."""
    ptr, segment = layout([3, 0, 4])
    x = draw(2, 7, dtype=torch.float32)
    expected = segment_sum(x, ptr, segment), segment_logsumexp(x[0], ptr, segment)
    monkeypatch.setattr(segments, "SEGMENTS_RUN_ON", ("cuda",))
    there = segment_sum(x, ptr, segment), segment_logsumexp(x[0], ptr, segment)
    torch.testing.assert_close(there, expected, rtol=0, atol=0)
    assert there[0].dtype == torch.float32


def test_inputs_of_any_strides() -> None:
    ptr, segment = layout([2, 0, 3])
    x = draw(5, 3).T
    assert not x.is_contiguous()
    torch.testing.assert_close(segment_sum(x, ptr, segment), segment_sum(x.contiguous(), ptr, segment), rtol=0, atol=0)
