"""Triton twin of ``own_similarity`` in ``probemb_lib/member_similarity.py``, which has the formulas: kernel and launch.

One pass over the members in place of some twenty. Nothing is read back from the GPU.
"""

# mypy: ignore-errors
# Triton's language is not typed.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


def own_similarity(
    moments: Tensor, centers: Tensor, size: Tensor | None, instance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments and results of the eager function, all float32 and contiguous."""
    _, dim, count = moments.shape
    log_kappa, slopes, share = (moments.new_empty(s) for s in ((count,), (3, dim, count), (dim, count)))
    if count > 0:
        with torch.cuda.device_of(moments):
            own_kernel[(triton.cdiv(count, BLOCK),)](
                moments.contiguous(),
                centers.contiguous(),
                instance if size is None else size,
                instance,
                log_kappa,
                slopes,
                share,
                count,
                centers.shape[2],
                dim,
                size is not None,
                BLOCK,
                enable_fp_fusion=True,
            )
    return log_kappa, slopes, share


@triton.jit
def _log1p(x):
    """ln(1 + x) for x ≥ 0: below ½ by the series of 2 artanh w, whose next term is under 1e-8 of it."""
    w = tl.div_rn(x, 2.0 + x)
    w2 = w * w
    series = 2.0 * w * (1.0 + w2 * (1 / 3 + w2 * (1 / 5 + w2 * (1 / 7 + w2 * (1 / 9)))))
    return tl.where(x < 0.5, series, tl.log(1.0 + x))


@triton.jit(do_not_specialize=["count", "num_centers"])
def own_kernel(
    moments,
    centers,
    size,
    instance,
    log_kappa,
    slopes,
    share,
    count,
    num_centers,
    D: tl.constexpr,
    INDEPENDENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program for BLOCK members: ln κ (M,), (h + q ρ) p, s and (h − q) p (3, D, M), and σ_i² / V_k (D, M)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < count
    k = tl.load(instance + i, mask=live, other=0)
    i, m = i.to(tl.int64), tl.zeros((), tl.int64) + count
    n = tl.load(size + k, mask=live, other=1).to(tl.float32) if INDEPENDENT else 1.0
    total = tl.zeros((BLOCK,), tl.float32)
    for d in tl.static_range(D):
        mean = tl.load(moments + d * m + i, mask=live, other=0.0)
        variance = tl.load(moments + (D + d) * m + i, mask=live, other=1.0)
        c_mean = tl.load(centers + d * num_centers + k, mask=live, other=0.0)
        c_variance = tl.load(centers + (D + d) * num_centers + k, mask=live, other=1.0)
        ratio = tl.div_rn(variance, c_variance)
        tl.store(share + d * m + i, ratio, mask=live)
        if INDEPENDENT:
            ratio, c_variance = ratio * n, tl.div_rn(c_variance, n)
        part, h = tl.div_rn(1.0, 1.0 + ratio), 1.0 - ratio
        delta = c_mean - mean
        s = delta * tl.div_rn(part, c_variance)
        q = delta * s
        sinh2 = 0.25 * tl.minimum(tl.div_rn(h, ratio) * h, 1e38, propagate_nan=tl.PropagateNan.ALL)
        total += _log1p(sinh2) + q
        tl.store(slopes + d * m + i, (h + q * ratio) * part, mask=live)
        tl.store(slopes + (D + d) * m + i, s, mask=live)
        tl.store(slopes + (2 * D + d) * m + i, (h - q) * part, mask=live)
    tl.store(log_kappa + i, -0.25 * total, mask=live)
