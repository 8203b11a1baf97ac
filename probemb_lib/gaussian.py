"""The embedding of a point: a Gaussian with a diagonal covariance (section 3.1 of the paper)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class GaussianEmbedding(NamedTuple):
    """Diagonal Gaussians N(μ, diag(σ²)), one a row.

    Attributes:
        mean: μ, shape (N, D), in the unit of the positions.
        log_std: ln σ, shape (N, D), or (N, 1) where one σ serves all dimensions (isotropic).

    Losses and their gradients are finite for |ln σ| ≤ 35 and |μ| ≤ 10³ in float32, and for |ln σ| ≤ 300 and
    |μ| ≤ 10⁹ in float64: beyond, σ² or (Δ/σ)² need not be a number.

    >>> x = GaussianEmbedding(torch.zeros(5, 3), torch.zeros(5, 1))
    >>> x.dim, x.select(torch.tensor([0, 2])).mean.shape
    (3, torch.Size([2, 3]))
    """

    mean: Tensor
    log_std: Tensor

    @property
    def dim(self) -> int:
        """The dimension D of the embedding space."""
        return self.mean.shape[-1]

    @property
    def std(self) -> Tensor:
        """σ, shape of ``log_std``."""
        return self.log_std.exp()

    def select(self, rows: Tensor) -> GaussianEmbedding:
        """The Gaussians of some rows, given by index or mask."""
        return GaussianEmbedding(self.mean[rows], self.log_std[rows])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GaussianEmbedding:
        """Both tensors on another device or in another dtype."""
        return GaussianEmbedding(self.mean.to(device, dtype), self.log_std.to(device, dtype))

    def detach(self) -> GaussianEmbedding:
        """Both tensors cut from the graph."""
        return GaussianEmbedding(self.mean.detach(), self.log_std.detach())


def columns(x: GaussianEmbedding) -> Tensor:
    """μ and ln σ with one row a dimension, (2, D, N): loops over points then vectorize."""
    return torch.stack([x.mean.T, x.log_std.expand_as(x.mean).T])


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay: what autocast produced is not computed on."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def to_pack(x: Tensor, ndim: int) -> str:
    """For the message about a tensor of more axes than the packed form has: what to do."""
    return "; of padded clouds, images or volumes pack_dense of probemb_lib.convert makes it" if x.ndim > ndim else ""


def plain_tensor(x: Any, name: str) -> Tensor:
    """The tensor, without the class that a host derived from :class:`torch.Tensor` to carry something along with it.

    Such a class, MONAI's MetaTensor for one, answers each operation in Python and keeps its own type in all results.
    Tensors that stand for others (fake, functional, distributed ones) stay what they are.

    Raises:
        TypeError: not a tensor.
    """
    if not isinstance(x, Tensor):
        way = ": torch.from_numpy or torch.as_tensor makes one" if hasattr(x, "__array__") else ""
        raise TypeError(f"{name}: expected a torch.Tensor, got {'None' if x is None else type(x).__name__}{way}")
    if type(x) is Tensor or torch.compiler.is_compiling():
        return x
    return x.as_subclass(Tensor) if type(x).__torch_dispatch__ is Tensor.__torch_dispatch__ else x


def check_embedding(x: GaussianEmbedding, name: str = "embedding") -> GaussianEmbedding:
    """Check shapes and dtypes; return the embedding in float32 or better, its tensors as :func:`plain_tensor` has them.

    Raises:
        TypeError: no pair of tensors, not floating point, or μ and ln σ on different devices or (beyond half precision)
            dtypes.
        ValueError: shapes are not (N, D) and (N, D) or (N, 1) with D ≥ 1.
    """
    if not isinstance(x, tuple) or len(x) != 2 or isinstance(x[0], tuple):
        got = f"a tensor {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"{name}: expected a GaussianEmbedding of mean and log_std, got {got}; of a head's output pass "
            "output.embedding, neither the whole output nor embedding.mean"
        )
    mean, log_std = plain_tensor(x[0], f"{name}.mean"), plain_tensor(x[1], f"{name}.log_std")
    if not (mean.is_floating_point() and log_std.is_floating_point()):
        raise TypeError(f"{name}: expected floating-point mean and log_std, got {mean.dtype} and {log_std.dtype}")
    if mean.ndim != 2 or mean.shape[1] < 1:
        raise ValueError(f"{name}: expected mean of shape (N, D) with D >= 1, got {tuple(mean.shape)}")
    if log_std.ndim != 2 or log_std.shape[0] != mean.shape[0] or log_std.shape[1] not in (1, mean.shape[1]):
        raise ValueError(
            f"{name}: expected log_std of shape {tuple(mean.shape)} or ({mean.shape[0]}, 1), got {tuple(log_std.shape)}"
        )
    if mean.device != log_std.device:
        raise TypeError(f"{name}: mean is on {mean.device}, log_std on {log_std.device}")
    mean, log_std = at_least_float32(mean), at_least_float32(log_std)
    dtype = torch.promote_types(mean.dtype, log_std.dtype)
    return GaussianEmbedding(mean.to(dtype), log_std.to(dtype))
