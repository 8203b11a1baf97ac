"""GaussianEmbedding and its check: shapes, dtypes, every error."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding, plain_tensor


@pytest.mark.parametrize("width", [1, 3])
def test_attributes(width: int) -> None:
    x = GaussianEmbedding(torch.randn(5, 3), torch.randn(5, width))
    assert x.dim == 3
    torch.testing.assert_close(x.std, torch.exp(x.log_std), rtol=0, atol=0)
    mean, log_std = x
    assert mean is x.mean
    assert log_std is x.log_std


@pytest.mark.parametrize("rows", [torch.tensor([3, 0, 3]), torch.tensor([True, False, False, True, False])])
def test_select(rows: Tensor) -> None:
    x = GaussianEmbedding(torch.randn(5, 3), torch.randn(5, 1))
    torch.testing.assert_close(x.select(rows).mean, x.mean[rows], rtol=0, atol=0)
    torch.testing.assert_close(x.select(rows).log_std, x.log_std[rows], rtol=0, atol=0)


def test_to_and_detach() -> None:
    x = GaussianEmbedding(torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True))
    assert [t.requires_grad for t in x.detach()] == [False, False]
    assert [t.requires_grad for t in x] == [True, True]
    assert {t.dtype for t in x.to(dtype=torch.float64)} == {torch.float64}
    assert {t.device.type for t in x.to("meta")} == {"meta"}
    torch.testing.assert_close(x.to(dtype=torch.float64).mean.float(), x.mean, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_widened_and_float64_stays(given: torch.dtype, expected: torch.dtype) -> None:
    assert at_least_float32(torch.zeros(2, dtype=given)).dtype == expected
    x = check_embedding(GaussianEmbedding(torch.zeros(2, 3, dtype=given), torch.zeros(2, 1, dtype=given)))
    assert [t.dtype for t in x] == [expected, expected]


def test_mixed_dtypes_take_the_wider() -> None:
    x = check_embedding(GaussianEmbedding(torch.zeros(2, 3, dtype=torch.float16), torch.zeros(2, 3).double()))
    assert [t.dtype for t in x] == [torch.float64, torch.float64]


@pytest.mark.parametrize("width", [1, 3])
def test_no_rows(width: int) -> None:
    x = check_embedding(GaussianEmbedding(torch.zeros(0, 3), torch.zeros(0, width)))
    assert [tuple(t.shape) for t in x] == [(0, 3), (0, width)]


@pytest.mark.parametrize(
    ("mean", "log_std", "error", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3), TypeError, "floating-point mean and log_std, got"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), TypeError, "floating-point mean and log_std, got"),
        (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.complex64), TypeError, "floating-point"),
        (torch.zeros(3), torch.zeros(3), ValueError, r"mean of shape \(N, D\).* got \(3,\)"),
        (torch.zeros(2, 2, 3), torch.zeros(2, 2, 3), ValueError, r"mean of shape \(N, D\)"),
        (torch.zeros(2, 0), torch.zeros(2, 0), ValueError, "D >= 1"),
        (torch.zeros(2, 3), torch.zeros(2), ValueError, r"log_std of shape \(2, 3\) or \(2, 1\), got \(2,\)"),
        (torch.zeros(2, 3), torch.zeros(1, 3), ValueError, r"got \(1, 3\)"),
        (torch.zeros(2, 3), torch.zeros(2, 2), ValueError, r"got \(2, 2\)"),
        (torch.zeros(2, 3), torch.zeros(2, 3, device="meta"), TypeError, "mean is on cpu, log_std on meta"),
    ],
)
def test_errors(mean: Tensor, log_std: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"embedding: .*{message}"):
        check_embedding(GaussianEmbedding(mean, log_std))


def test_a_tensor_that_stands_for_another_stays() -> None:
    with FakeTensorMode():
        fake = torch.zeros(3)
    assert plain_tensor(fake, "x") is fake
    with pytest.raises(TypeError, match=r"^x: expected a torch\.Tensor, got list$"):
        plain_tensor([1.0], "x")


def test_the_error_names_the_argument() -> None:
    with pytest.raises(ValueError, match=r"^seeds: "):
        check_embedding(GaussianEmbedding(torch.zeros(3), torch.zeros(3)), "seeds")
