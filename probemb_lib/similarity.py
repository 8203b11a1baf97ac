r"""Similarity of Gaussians: the Bhattacharyya kernel κ(p, q) = ∫ √(p q) (section 3.2, Eqs. 1-2 of the paper).

For diagonal Gaussians, with Δ = μ_x − μ_y and d = ln σ_x − ln σ_y a dimension,

    ln κ = Σ_d [ −Δ² / (4 (σ_x² + σ_y²)) − ½ ln cosh d ].

It is symmetric, at most 0, and 0 only for equal Gaussians. Scaling space and σ together changes nothing.

The functions here are the definition, for any shapes, with gradients. Where κ is the cost, it is written out again, and
tests compare each place with float64 loops over this formula:

===================================== ==================== =========================================================
where                                 what                 why not a function of this file
===================================== ==================== =========================================================
``_tile_eager.add_tile``              Σ κ, Σ −ln(1 − κ)    no (N, K) tensor; values and slopes in one pass, in place
``_tile_compiled.fused_tile``         the same             D unrolled, so that Inductor fuses it into a few loops
``_triton.similarity_kernels``        the same             on CUDA: no plane of pairs is ever stored
``member_similarity``                 ln κ with one's own  slopes in closed form; one row a dimension vectorizes
``clustering._rounds``, ``_similar``  κ ≥ τ, on a GPU      float64, a dimension at a time: no (…, D) tensor
``clustering._index``, ``_similar``   κ ≥ τ, on a CPU      numpy in the input's dtype, with a bound of its rounding
``clustering._index``, ``_decide``    κ ≥ τ, near τ        numpy in float64; κ of equal Gaussians exactly 1
``clustering.refine``, ``_log_kappa`` argmax and mean of κ a dimension at a time, in place: no (…, D) tensor
===================================== ==================== =========================================================

``clustering._index._Reach`` and ``clustering.refine._rivals`` bound κ without computing it; tiles and the search for
a threshold compare by these. φ of ``margin`` is another kernel.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding

MIN_DISSIMILARITY = 1e-6
"""Floor of 1 − κ in ln(1 − κ). Equal Gaussians have κ = 1; below the floor the value is ln(1e-6) ≈ −13.8 and the
gradient 0. Two points of equal σ are below it when closer than about 0.003 σ."""


class _LogCosh(torch.autograd.Function):
    """ln cosh d, exact to rounding for tiny d (where cosh d rounds to 1) and for large d (where it overflows)."""

    @staticmethod
    def forward(ctx: Any, d: Tensor) -> Tensor:
        ctx.save_for_backward(d)
        a = d.abs()
        near = torch.log1p(2 * torch.sinh(a.clamp_max(1.0) / 2).square())  # cosh a = 1 + 2 sinh²(a/2)
        far = a - math.log(2) + torch.log1p(torch.exp(-2 * a))
        return torch.where(a < 1, near, far)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        return grad * torch.tanh(d)


def _log_kernel(mean_x: Tensor, log_std_x: Tensor, mean_y: Tensor, log_std_y: Tensor) -> Tensor:
    """ln κ over the last axis; the axes before it broadcast."""
    variance = torch.exp(2 * log_std_x) + torch.exp(2 * log_std_y)  # (..., D) or (..., 1)
    distance = (mean_x - mean_y).square() / (4 * variance)  # (..., D)
    shape: Tensor = _LogCosh.apply(log_std_x - log_std_y)  # (..., D) or (..., 1)
    dim = mean_x.shape[-1]
    repeat = dim // shape.shape[-1]  # an isotropic σ counts once for each dimension
    return -(distance.sum(-1) + 0.5 * repeat * shape.sum(-1))


def log_bhattacharyya(x: GaussianEmbedding, y: GaussianEmbedding) -> Tensor:
    """ln κ of every pair (section 3.2). Memory O(N M D): for sums over all pairs the losses use a fused pass instead.

    Args:
        x: N Gaussians, mean (N, D), log_std (N, D) or (N, 1).
        y: M Gaussians of the same D, mean (M, D).

    Returns:
        (N, M), in [−inf, 0], float32 or better.

    Raises:
        TypeError, ValueError: see :func:`~probemb_lib.gaussian.check_embedding`; or x and y differ in D.

    >>> x = GaussianEmbedding(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1))
    >>> log_bhattacharyya(x, x)[0, 1]
    tensor(-0.5000)
    """
    x, y = check_embedding(x, "x"), check_embedding(y, "y")
    _check_dimensions(x, y)
    return _log_kernel(x.mean[:, None], x.log_std[:, None], y.mean[None], y.log_std[None])


def log_bhattacharyya_paired(x: GaussianEmbedding, y: GaussianEmbedding) -> Tensor:
    """ln κ of each x with the y of the same row (section 3.2).

    Args:
        x, y: Gaussians with mean (..., D) and log_std (..., D) or (..., 1); the axes before the last are equal.

    Returns:
        (...), in [−inf, 0], float32 or better.

    Raises:
        TypeError: see :func:`~probemb_lib.gaussian.check_embedding`.
        ValueError: the shapes differ (nothing is broadcast).

    >>> x = GaussianEmbedding(torch.zeros(2, 3), torch.zeros(2, 3))
    >>> log_bhattacharyya_paired(x, GaussianEmbedding(torch.zeros(2, 3), torch.full((2, 3), 12.0)))
    tensor([-16.9603, -16.9603])
    """
    if x.mean.shape != y.mean.shape:
        raise ValueError(
            f"expected means of equal shape, got {tuple(x.mean.shape)} and {tuple(y.mean.shape)}; "
            "for all pairs use log_bhattacharyya"
        )
    flat = [check_embedding(_flatten(e), name) for e, name in ((x, "x"), (y, "y"))]
    return _log_kernel(flat[0].mean, flat[0].log_std, flat[1].mean, flat[1].log_std).reshape(x.mean.shape[:-1])


def cosine_similarity(x: Tensor, y: Tensor) -> Tensor:
    """cos ∠(x, y) of every pair of deterministic embeddings, for comparison (Fig. 2b of the paper).

    Args:
        x: (N, D).
        y: (M, D).

    Returns:
        (N, M) in [−1, 1]; a zero vector has similarity 0 with all.

    Raises:
        ValueError: not two-dimensional, or D differs.

    >>> cosine_similarity(torch.eye(2), torch.tensor([[1.0, 0.0]]))
    tensor([[1.],
            [0.]])
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"expected (N, D) and (M, D), got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = at_least_float32(x), at_least_float32(y)
    with torch.autocast(x.device.type, enabled=False):  # a product of matrices would drop to half precision
        return torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T


def log1m_similarity(log_kappa: Tensor) -> Tensor:
    """ln(1 − κ) from ln κ, with 1 − κ not under :data:`MIN_DISSIMILARITY` (gradient 0 there). Any shape.

    >>> log1m_similarity(torch.tensor([0.0, -1e-3, -1.0]))
    tensor([-13.8155,  -6.9083,  -0.4587])
    """
    return torch.log((-torch.expm1(log_kappa)).clamp_min(MIN_DISSIMILARITY))


def _flatten(e: GaussianEmbedding) -> GaussianEmbedding:
    if e.mean.ndim == 0 or e.log_std.ndim == 0 or e.log_std.shape[:-1] != e.mean.shape[:-1]:
        raise ValueError(
            f"expected mean (..., D) and log_std (..., D) or (..., 1), "
            f"got {tuple(e.mean.shape)} and {tuple(e.log_std.shape)}"
        )
    rows = e.mean.shape[:-1].numel()
    return GaussianEmbedding(e.mean.reshape(rows, e.mean.shape[-1]), e.log_std.reshape(rows, e.log_std.shape[-1]))


def _check_dimensions(x: GaussianEmbedding, y: GaussianEmbedding) -> None:
    if x.dim != y.dim:
        raise ValueError(f"expected x and y of equal dimension, got D = {x.dim} and {y.dim}")
