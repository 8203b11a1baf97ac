"""The Bhattacharyya kernel: known answers, integration, properties, precision, gradients, every error."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import TEST_DATA
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from probemb_lib import GaussianEmbedding, cosine_similarity, log_bhattacharyya, log_bhattacharyya_paired
from probemb_lib.similarity import MIN_DISSIMILARITY, log1m_similarity

quick = settings(max_examples=40, deadline=None)

with np.load(TEST_DATA / "bhattacharyya_kernel/pairs.npz") as _file:
    PAIRS = dict(_file)

Similarity = Callable[[GaussianEmbedding, GaussianEmbedding], Tensor]


def pairwise_diagonal(x: GaussianEmbedding, y: GaussianEmbedding) -> Tensor:
    return log_bhattacharyya(x, y).diagonal()


BOTH = pytest.mark.parametrize("similarity", [log_bhattacharyya_paired, pairwise_diagonal])


def gaussians(seed: int, n: int, dim: int, *, width: int | None = None, spread: float = 1.0) -> GaussianEmbedding:
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(n, dim, generator=g, dtype=torch.float64)
    return GaussianEmbedding(mean, spread * torch.randn(n, width or dim, generator=g, dtype=torch.float64))


def known(rows: np.ndarray, dim: int, dtype: torch.dtype) -> tuple[GaussianEmbedding, GaussianEmbedding]:
    return tuple(  # type: ignore[return-value]
        GaussianEmbedding(
            torch.tensor(PAIRS[f"mean{j}"][rows, :dim], dtype=dtype),
            torch.tensor(np.log(PAIRS[f"sigma{j}"][rows, :dim]), dtype=dtype),
        )
        for j in (1, 2)
    )


# --- known answers and integration


@BOTH
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_known_answers(similarity: Similarity, dtype: torch.dtype, tolerance: float, dim: int) -> None:
    rows = PAIRS["dim"] == dim
    expected = torch.tensor(PAIRS["expected_log_kappa"][rows])
    got = similarity(*known(rows, dim, dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(got.double(), expected * (1 + 1e-4) - 1e-4, rtol=tolerance, atol=tolerance)


def test_the_oracles_agree_and_reject() -> None:
    """The closed forms of oracles.py against the file's 50 digits and its integrals."""
    one = PAIRS["dim"] == 1
    integrals = PAIRS["expected_log_kappa_integral"]
    assert np.isfinite(integrals[one]).any()
    for i in range(len(PAIRS["dim"])):
        d = PAIRS["dim"][i]
        args = [PAIRS[name][i, :d] for name in ("mean1", "sigma1", "mean2", "sigma2")]
        logs = [args[0], np.log(args[1]), args[2], np.log(args[3])]
        expected = PAIRS["expected_log_kappa"][i]
        np.testing.assert_allclose(oracles.log_kappa(*args), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(float(oracles.log_kappa_digits(*logs)), expected, rtol=1e-12, atol=1e-12)
    wrong_std = [args[0], args[1] * 1.001, args[2], args[3] * 0.999]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(oracles.log_kappa(*wrong_std), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(
            float(oracles.log_kappa_digits(*map(np.log, wrong_std))), expected, rtol=1e-12, atol=1e-12
        )


finite = st.floats(-3, 3)
log_sigma = st.floats(-1.5, 1.5)


@st.composite
def two_gaussians(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    dim = draw(st.integers(1, 3))
    return tuple(np.array(draw(st.lists(s, min_size=dim, max_size=dim))) for s in (finite, log_sigma) * 2)


@settings(max_examples=60, deadline=None)
@given(two_gaussians())
def test_integral_of_the_root(pair: tuple[np.ndarray, ...]) -> None:
    mean_x, log_x, mean_y, log_y = pair
    expected = oracles.log_kappa_by_integration(mean_x, np.exp(log_x), mean_y, np.exp(log_y))
    x, y = (GaussianEmbedding(*(torch.tensor(t)[None] for t in e)) for e in (pair[:2], pair[2:]))
    np.testing.assert_allclose(log_bhattacharyya(x, y).item(), expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(log_bhattacharyya(x, y).item(), expected + 1e-6, rtol=1e-10, atol=1e-10)


def test_integral_over_the_plane() -> None:
    arrays = (np.array([0.3, -0.4]), np.array([0.7, 1.6]), np.array([-0.5, 0.9]), np.array([1.1, 0.5]))
    expected = oracles.kappa_by_integration_2d(*arrays)
    m, s, n, t = (torch.tensor(a)[None] for a in arrays)
    got = log_bhattacharyya(GaussianEmbedding(m, s.log()), GaussianEmbedding(n, t.log())).exp().item()
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    without_half = oracles.log_kappa(arrays[0], arrays[1] * math.sqrt(2), arrays[2], arrays[3] * math.sqrt(2))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(math.exp(without_half), expected, rtol=1e-9)


# --- properties

seeds = st.integers(0, 2**31)
dims = st.integers(1, 6)


@quick
@given(seeds, dims, st.floats(0.01, 12))
def test_symmetry_and_range(seed: int, dim: int, spread: float) -> None:
    x, y = gaussians(seed, 5, dim, spread=spread), gaussians(seed + 1, 4, dim, spread=spread)
    log_kappa = log_bhattacharyya(x, y)
    assert log_kappa.shape == (5, 4)
    assert (log_kappa <= 0).all()
    assert torch.isfinite(log_kappa).all()
    torch.testing.assert_close(log_kappa, log_bhattacharyya(y, x).T, rtol=1e-14, atol=0)


@quick
@given(seeds, dims, st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_identical_gaussians_have_exactly_zero(seed: int, dim: int, dtype: torch.dtype, isotropic: bool) -> None:
    x = gaussians(seed, 6, dim, width=1 if isotropic else dim, spread=5).to(dtype=dtype)
    assert (log_bhattacharyya(x, x).diagonal() == 0).all()
    assert (log_bhattacharyya_paired(x, x) == 0).all()


@quick
@given(seeds, dims, st.floats(-5, 5), st.floats(-5, 5))
def test_translation_and_scale_change_nothing(seed: int, dim: int, shift: float, log_scale: float) -> None:
    x, y = gaussians(seed, 4, dim), gaussians(seed + 1, 3, dim)

    def move(e: GaussianEmbedding) -> GaussianEmbedding:
        return GaussianEmbedding((e.mean + shift) * math.exp(log_scale), e.log_std + log_scale)

    torch.testing.assert_close(log_bhattacharyya(move(x), move(y)), log_bhattacharyya(x, y), rtol=1e-11, atol=1e-11)


@quick
@given(seeds, dims)
def test_permutation_of_rows_and_dimensions(seed: int, dim: int) -> None:
    x, y = gaussians(seed, 5, dim), gaussians(seed + 1, 4, dim)
    g = torch.Generator().manual_seed(seed)
    rows, axes = torch.randperm(5, generator=g), torch.randperm(dim, generator=g)
    expected = log_bhattacharyya(x, y)
    torch.testing.assert_close(log_bhattacharyya(x.select(rows), y), expected[rows], rtol=1e-13, atol=1e-13)
    turned = [GaussianEmbedding(e.mean[:, axes], e.log_std[:, axes]) for e in (x, y)]
    torch.testing.assert_close(log_bhattacharyya(*turned), expected, rtol=1e-13, atol=1e-13)


@quick
@given(seeds, dims, st.booleans())
def test_isotropic_equals_expanded(seed: int, dim: int, both: bool) -> None:
    x, y = gaussians(seed, 5, dim, width=1), gaussians(seed + 1, 5, dim, width=1 if both else dim)
    wide = [GaussianEmbedding(e.mean, e.log_std.expand_as(e.mean)) for e in (x, y)]
    for similarity in (log_bhattacharyya, log_bhattacharyya_paired):
        torch.testing.assert_close(similarity(x, y), similarity(*wide), rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(similarity(y, x), similarity(*wide[::-1]), rtol=1e-13, atol=1e-13)


def test_pairwise_and_paired_agree() -> None:
    x, y = gaussians(0, 30, 3), gaussians(1, 30, 3)
    torch.testing.assert_close(log_bhattacharyya_paired(x, y), log_bhattacharyya(x, y).diagonal(), rtol=0, atol=0)


def test_paired_takes_any_leading_axes() -> None:
    x, y = gaussians(0, 24, 3, width=1), gaussians(1, 24, 3)
    shaped = [GaussianEmbedding(e.mean.view(2, 3, 4, 3), e.log_std.view(2, 3, 4, -1)) for e in (x, y)]
    got = log_bhattacharyya_paired(*shaped)
    torch.testing.assert_close(got, log_bhattacharyya_paired(x, y).view(2, 3, 4), rtol=0, atol=0)
    one = [GaussianEmbedding(e.mean[0], e.log_std[0]) for e in (x, y)]
    torch.testing.assert_close(log_bhattacharyya_paired(*one), got[0, 0, 0], rtol=0, atol=0)


def test_equal_variance_of_an_eighth_is_euclidean() -> None:
    x, y = gaussians(0, 5, 3), gaussians(1, 4, 3)
    x, y = (GaussianEmbedding(e.mean, torch.full_like(e.log_std, -0.5 * math.log(8))) for e in (x, y))
    expected = -torch.cdist(x.mean, y.mean, compute_mode="donot_use_mm_for_euclid_dist").square()
    torch.testing.assert_close(log_bhattacharyya(x, y), expected, rtol=1e-13, atol=1e-13)


# --- precision


@pytest.mark.parametrize("difference", [1e-1, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_tiny_differences_of_sigma_keep_their_digits(difference: float, dtype: torch.dtype, tolerance: float) -> None:
    """1 − κ of nearly equal Gaussians, as expm1 of ln κ gives it: relative, not absolute, accuracy."""
    u, v = torch.tensor([[0.0, 0.0]], dtype=dtype), torch.tensor([[difference, -2 * difference]], dtype=dtype)
    zero = torch.zeros_like(u)
    got = -torch.expm1(log_bhattacharyya(GaussianEmbedding(zero, u), GaussianEmbedding(zero, v))).item()
    with mpmath.workdps(60):
        expected = float(-mpmath.expm1(oracles.log_kappa_digits(zero, u, zero, v)))
    assert 0 < expected < 3 * difference**2
    np.testing.assert_allclose(got, expected, rtol=tolerance)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(got, expected * (1 + 1e-4), rtol=tolerance)


def test_ln_cosh_is_smooth_where_its_forms_meet() -> None:
    d = torch.linspace(0.98, 1.02, 41, dtype=torch.float64)[:, None]
    zero = torch.zeros_like(d)
    got = log_bhattacharyya_paired(GaussianEmbedding(zero, d), GaussianEmbedding(zero, zero))
    expected = [float(oracles.log_kappa_digits(0.0, u.item(), 0.0, 0.0)) for u in d]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_sigma_from_e_minus_12_to_e_12(dtype: torch.dtype, tolerance: float) -> None:
    levels = torch.tensor([-12.0, -6, -1, 0, 1, 6, 12], dtype=dtype)
    log_std = torch.cartesian_prod(levels, levels)
    mean = torch.linspace(-1, 1, 2 * len(log_std), dtype=dtype).view(-1, 2)
    x = GaussianEmbedding(mean.requires_grad_(), log_std.clone().requires_grad_())
    log_kappa = log_bhattacharyya(x, x)
    expected = [
        [float(oracles.log_kappa_digits(m, u, n, v)) for n, v in zip(mean.tolist(), log_std.tolist(), strict=True)]
        for m, u in zip(mean.tolist()[:7], log_std.tolist()[:7], strict=True)
    ]
    torch.testing.assert_close(
        log_kappa[:7].detach().double(),
        torch.tensor(expected, dtype=torch.float64),
        rtol=tolerance * 10,
        atol=tolerance,
    )
    log_kappa.exp().sum().backward()
    log1m_similarity(log_bhattacharyya(x, x)).sum().backward()
    for t in x:
        assert t.grad is not None
        assert torch.isfinite(t.grad).all()


def test_log1m_similarity() -> None:
    log_kappa = torch.tensor([-1e-7, -1e-5, -0.1, -3.0, -40.0, -1000.0, 0.0], dtype=torch.float64, requires_grad=True)
    got = log1m_similarity(log_kappa)
    with mpmath.workdps(50):
        expected = [float(mpmath.log(max(-mpmath.expm1(v), mpmath.mpf("1e-6")))) for v in log_kappa.tolist()]
    assert MIN_DISSIMILARITY == 1e-6
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-12, atol=1e-15)
    got.sum().backward()
    k = log_kappa.detach().exp()
    slope = torch.where(1 - k > 1e-6, -k / -torch.expm1(log_kappa.detach()), 0.0)  # 0 under the floor
    torch.testing.assert_close(log_kappa.grad, slope, rtol=1e-12, atol=1e-16)
    assert log_kappa.grad is not None
    assert log_kappa.grad[[0, -1]].tolist() == [0, 0]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(similarity: Similarity, dtype: torch.dtype) -> None:
    x, y = gaussians(0, 5, 3).to(dtype=dtype), gaussians(1, 5, 3).to(dtype=dtype)
    got = similarity(x, y)
    assert got.dtype == torch.float32
    expected = similarity(x.to(dtype=torch.float64), y.to(dtype=torch.float64))
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


@BOTH
def test_autocast_changes_nothing(similarity: Similarity) -> None:
    x, y = gaussians(0, 5, 3).to(dtype=torch.float32), gaussians(1, 5, 3).to(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = similarity(x, y)
    torch.testing.assert_close(got, similarity(x, y), rtol=0, atol=0)


# --- gradients


@BOTH
@pytest.mark.parametrize("width", [1, 2])
def test_gradients(similarity: Similarity, width: int) -> None:
    x, y = gaussians(0, 3, 2, width=width), gaussians(1, 3, 2)
    inputs = [t.requires_grad_() for t in (*x, *y)]

    def f(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return similarity(GaussianEmbedding(a, b), GaussianEmbedding(c, d))

    assert gradcheck(f, inputs)
    assert gradgradcheck(f, inputs)


def test_gradient_is_zero_between_identical_gaussians() -> None:
    x, y = (
        GaussianEmbedding(torch.zeros(1, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)) for _ in "xy"
    )
    log_bhattacharyya_paired(x, y).sum().backward()
    for t in (*x, *y):
        torch.testing.assert_close(t.grad, torch.zeros(1, 3), rtol=0, atol=0)


# --- shapes and errors


@BOTH
def test_non_contiguous(similarity: Similarity) -> None:
    x, y = gaussians(0, 6, 3), gaussians(1, 6, 3)
    strided = [GaussianEmbedding(e.mean.T.contiguous().T, torch.stack([e.log_std, e.log_std], 1)[:, 0]) for e in (x, y)]
    assert not any(t.is_contiguous() for e in strided for t in e)
    torch.testing.assert_close(similarity(*strided), similarity(x, y), rtol=0, atol=0)


def test_no_rows() -> None:
    none, some = gaussians(0, 0, 3), gaussians(0, 4, 3, width=1)
    assert log_bhattacharyya(none, some).shape == (0, 4)
    assert log_bhattacharyya(some, none).shape == (4, 0)
    assert log_bhattacharyya_paired(none, none).shape == (0,)
    shaped = GaussianEmbedding(torch.zeros(2, 0, 3), torch.zeros(2, 0, 1))
    assert log_bhattacharyya_paired(shaped, shaped).shape == (2, 0)


def test_errors_of_log_bhattacharyya() -> None:
    x = gaussians(0, 4, 3)
    with pytest.raises(ValueError, match=r"equal dimension, got D = 3 and 2"):
        log_bhattacharyya(x, gaussians(0, 4, 2))
    with pytest.raises(ValueError, match=r"^x: expected mean"):
        log_bhattacharyya(GaussianEmbedding(x.mean[0], x.log_std[0]), x)
    with pytest.raises(TypeError, match=r"^y: expected floating-point"):
        log_bhattacharyya(x, GaussianEmbedding(x.mean.long(), x.log_std))


def test_errors_of_log_bhattacharyya_paired() -> None:
    x = gaussians(0, 4, 3)
    with pytest.raises(ValueError, match=r"got \(4, 3\) and \(1, 3\); for all pairs use log_bhattacharyya"):
        log_bhattacharyya_paired(x, gaussians(0, 1, 3))
    with pytest.raises(ValueError, match=r"log_std .* got \(4, 3\) and \(3,\)"):
        log_bhattacharyya_paired(x, GaussianEmbedding(x.mean, x.log_std[0]))
    with pytest.raises(ValueError, match=r"log_std .* got \(\) and \(\)"):
        log_bhattacharyya_paired(*[GaussianEmbedding(torch.zeros(()), torch.zeros(()))] * 2)
    with pytest.raises(ValueError, match=r"^y: expected log_std"):
        log_bhattacharyya_paired(x, GaussianEmbedding(x.mean, x.log_std[:, :2]))
    # As many rows, but in another arrangement: nothing is matched up by accident.
    with pytest.raises(ValueError, match=r"got \(2, 3, 4\) and \(3, 2, 4\)"):
        log_bhattacharyya_paired(*[GaussianEmbedding(torch.zeros(2, 3, 4), torch.zeros(3, 2, 4))] * 2)
    with pytest.raises(ValueError, match="D >= 1"):
        log_bhattacharyya_paired(*[GaussianEmbedding(torch.zeros(2, 0), torch.zeros(2, 0))] * 2)


# --- cosine


@quick
@given(seeds, dims)
def test_cosine(seed: int, dim: int) -> None:
    x, y = gaussians(seed, 5, dim).mean, gaussians(seed + 1, 4, dim).mean
    a, b = x.numpy(), y.numpy()
    expected = [[np.dot(u, v) / (np.linalg.norm(u) * np.linalg.norm(v)) for v in b] for u in a]
    np.testing.assert_allclose(cosine_similarity(x, y).numpy(), expected, rtol=1e-12, atol=1e-14)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(0.999 * cosine_similarity(x, y).numpy(), expected, rtol=1e-12, atol=1e-14)


def test_cosine_of_zero_half_and_autocast() -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    expected = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(cosine_similarity(x, x), expected)
    assert cosine_similarity(x.half(), x.half()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert cosine_similarity(x, x).dtype == torch.float32


@pytest.mark.parametrize("shapes", [((3,), (2, 3)), ((2, 3), (3,)), ((2, 3), (2, 4))])
def test_errors_of_cosine(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, D\) and \(M, D\), got"):
        cosine_similarity(*map(torch.zeros, shapes))
