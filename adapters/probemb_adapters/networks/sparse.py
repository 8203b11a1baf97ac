r"""Sparse convolution in plain torch: no compiler, on CPU and CUDA, in float32, float64 and mixed precision.

A convolution gives each output voxel the sum over the taps of its kernel,

    y[o] = Σ_t x[i(t, o)] W_t,    over the taps t for which the voxel i(t, o) = s·o + offset(t) is occupied.

Who neighbours whom is looked up in sorted integer keys, once for each stride and size, and kept with the voxels
(:class:`Neighbours`). The sum goes over the taps in their order, so two runs give the same bits. Offsets are numbered
as in MinkowskiEngine 0.5, x fastest; weights serve both.

    x = SparseTensor(features, coordinates)                     # (V, C), (V, 4) distinct: cloud, x, y, z
    y = convolve(x, kernel, size=3)                             # kernel (27, C, C'), on the same voxels
    coarse = convolve(x, kernel, size=2, stride=2)              # kernel (8, C, C')
    fine = convolve(coarse, kernel, size=2, stride=2, transposed=True)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from probemb_adapters.networks._neighbours import MAX_SIZE, MAX_STRIDE, KernelMap, Neighbours

__all__ = ["SparseTensor", "convolve"]

GATHERED_AT_ONCE = 1 << 26
"""Numbers in the table of gathered neighbours, of the way for GPUs: 256 MB in float32."""


class SparseTensor:
    """Features of voxels.

    Args:
        features: (V, C) floating point.
        coordinates: (V, 4) integers, distinct, in any order: cloud, x, y, z.

    Attributes:
        F: the features; its rows are those of C.
        C: (V, 4) the coordinates, multiples of the stride in x, y and z.
        tensor_stride: edge of a voxel, in those of the input.

    Raises:
        TypeError, ValueError: other dtypes or shapes, two devices, or a voxel that is there twice.

    >>> x = SparseTensor(torch.ones(2, 3), torch.tensor([[0, 0, 0, 0], [0, 5, 0, -1]]))
    >>> convolve(x, torch.ones(8, 3, 4), size=2, stride=2).C
    tensor([[ 0,  0,  0,  0],
            [ 0,  4,  0, -2]])
    """

    def __init__(self, features: Tensor, coordinates: Tensor) -> None:
        if features.ndim != 2 or coordinates.shape != (len(features), 4):
            raise ValueError(
                f"expected features (V, C) and coordinates (V, 4), got {tuple(features.shape)} and "
                f"{tuple(coordinates.shape)}"
            )
        if not features.is_floating_point() or coordinates.is_floating_point() or coordinates.dtype == torch.bool:
            raise TypeError(
                f"expected floating-point features and integer coordinates, got {features.dtype} and "
                f"{coordinates.dtype}"
            )
        if features.device != coordinates.device:
            raise ValueError(f"expected one device, got {features.device} and {coordinates.device}")
        self.F, self.C, self.tensor_stride = features, coordinates, 1
        self.neighbours = Neighbours(coordinates)

    def with_features(self, features: Tensor, tensor_stride: int | None = None) -> SparseTensor:
        """Other features on the same voxels, or on those of another stride that are known."""
        other = SparseTensor.__new__(SparseTensor)
        other.tensor_stride = self.tensor_stride if tensor_stride is None else tensor_stride
        other.F, other.neighbours = features, self.neighbours
        other.C = (
            self.C
            if other.tensor_stride == self.tensor_stride
            else self.neighbours.level(other.tensor_stride).coordinates
        )
        return other


def convolve(x: SparseTensor, kernel: Tensor, size: int, stride: int = 1, *, transposed: bool = False) -> SparseTensor:
    """A convolution of voxels, as MinkowskiEngine's.

    Of an odd size with stride 1, its outputs are its inputs and offsets are centred. Of size 2 with stride 2, outputs
    are the cells of 2 × 2 × 2 voxels that hold any; transposed, outputs are the voxels that were strided before.
    Under autocast it computes in autocast's dtype, summed in float32 or better.

    Args:
        x: V voxels with C channels.
        kernel: (size³, C, C'), offsets with x fastest.
        size: of the kernel along each axis.
        stride: 1 or 2.
        transposed: with stride 2: from coarse voxels back to the fine ones.

    Raises:
        ValueError: a kernel of another shape, a size and stride that are none of these, or no finer voxels to go to.
    """
    if kernel.shape[:-1] != (size**3, x.F.shape[1]) or kernel.ndim != 3:
        raise ValueError(f"expected a kernel ({size**3}, {x.F.shape[1]}, C'), got {tuple(kernel.shape)}")
    if (stride, transposed) == (1, False) and size % 2 == 1 and size <= MAX_SIZE:
        kernel_map, out_stride = x.neighbours.kernel_map(x.tensor_stride, size), x.tensor_stride
    elif (stride, size, transposed) == (2, 2, False) and x.tensor_stride < MAX_STRIDE:
        kernel_map, out_stride = x.neighbours.strided(x.tensor_stride), 2 * x.tensor_stride
    elif (stride, size, transposed) == (2, 2, True) and x.tensor_stride > 1:
        kernel_map, out_stride = x.neighbours.strided(x.tensor_stride // 2).transposed, x.tensor_stride // 2
    else:
        raise ValueError(
            f"expected an odd size up to {MAX_SIZE} with stride 1, or size 2 with stride 2 from a tensor stride below "
            f"{MAX_STRIDE}, transposed from one above 1; got size {size}, stride {stride}, transposed {transposed}, "
            f"tensor stride {x.tensor_stride}"
        )
    features, device = x.F, x.F.device.type
    if torch.is_autocast_enabled(device) and features.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        features, kernel = features.to(dtype), kernel.to(dtype)
    result: Tensor = _Convolution.apply(features, kernel, kernel_map)
    return x.with_features(result, out_stride)


class _Convolution(torch.autograd.Function):
    """y[o] = Σ_t x[i(t, o)] W_t. Backward keeps the input alone, and gathers again.

    ∂x is the transposed convolution of ∂y with the taps transposed; ∂W_t = Σ_o x[i(t, o)]ᵀ ∂y[o].
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, kernel)
        ctx.kernel_map = kernel_map
        return _product(features, kernel, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, kernel = ctx.saved_tensors
        grad = grad.contiguous()
        grad_features = grad_kernel = None
        if ctx.needs_input_grad[0]:
            grad_features = _product(grad, kernel.transpose(1, 2), ctx.kernel_map.transposed)
        if ctx.needs_input_grad[1]:
            grad_kernel = _correlation(features, grad, ctx.kernel_map)
        return grad_features, grad_kernel, None


def _product(features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    """Σ_t x[i(t, o)] W_t, (outputs, C')."""
    on_cpu = features.device.type == "cpu"
    return (_product_by_taps if on_cpu else _product_by_columns)(features, kernel, kernel_map)


def _correlation(features: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """Σ_o x[i(t, o)]ᵀ ∂y[o], (T, C, C')."""
    on_cpu = features.device.type == "cpu"
    return (_correlation_by_taps if on_cpu else _correlation_by_columns)(features, grad, kernel_map)


# --- a tap at a time, with the voxels that it connects alone: least arithmetic, what a CPU is short of


def _product_by_taps(features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    dtype = torch.promote_types(features.dtype, torch.float32)
    total = features.new_zeros((kernel_map.outputs, kernel.shape[2]), dtype=dtype)
    for tap, (weight, (source, target)) in enumerate(zip(kernel, kernel_map.pairs, strict=True)):
        if tap == kernel_map.identity:
            total += features @ weight
        elif len(source):
            total.index_add_(0, target, (features.index_select(0, source) @ weight).to(dtype))
    return total.to(features.dtype)


def _correlation_by_taps(features: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    result = features.new_zeros((len(kernel_map.reads), features.shape[1], grad.shape[1]))
    for tap, (out, (source, target)) in enumerate(zip(result, kernel_map.pairs, strict=True)):
        if tap == kernel_map.identity:
            torch.mm(features.t(), grad, out=out)
        elif len(source):
            torch.mm(features.index_select(0, source).t(), grad.index_select(0, target), out=out)
    return result


# --- all taps in one product, zeros where there is no voxel: few launches, what a GPU is short of


def _product_by_columns(features: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    weight = kernel.flatten(0, 1)  # (T·C, C')
    blocks = [gathered @ weight for gathered in _gathered(features, kernel_map)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _correlation_by_columns(features: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    blocks = _gathered(features, kernel_map)
    first = next(blocks)
    total, done = first.t() @ grad[: len(first)], len(first)  # (T·C, C')
    for gathered in blocks:
        product = gathered.t() @ grad[done : done + len(gathered)]
        total = total + product.to(torch.promote_types(product.dtype, torch.float32))
        done += len(gathered)
    return total.to(features.dtype).view(-1, features.shape[1], grad.shape[1])


def _gathered(features: Tensor, kernel_map: KernelMap) -> Iterator[Tensor]:
    """(outputs, T·C) what each output reads, in blocks of rows, one at least."""
    columns = kernel_map.columns
    padded = torch.nn.functional.pad(features, (0, 0, 0, 1))
    width = columns.shape[1] * features.shape[1]
    for rows in columns.split(max(1, GATHERED_AT_ONCE // width)):
        yield padded.index_select(0, rows.flatten()).view(len(rows), width)
