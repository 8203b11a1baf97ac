"""Between the packed form of this library and the layouts in which hosts keep their points.

Packed: one tensor (N, …) holds the points of all clouds of a batch, and ``batch`` (N,) int64 tells the cloud
of each point. ``batch`` need not be sorted; where a function takes ``batch=None`` there is one cloud. PyTorch
Geometric's ``Batch.batch`` is this form already.

- Pointcept, the ends of the clouds (B,): ``batch_from_offset``, ``offset_from_batch``
- CSR and PyG's ``Batch.ptr``, 0 and the ends (B + 1,): ``batch_from_ptr``, ``ptr_from_batch``
- the number of points of each cloud (B,): ``batch_from_lengths``, ``lengths_from_batch``
- mmdetection3d, a list with one tensor a cloud: ``pack_list``, ``unpack_list``
- MinkowskiEngine and spconv, a batch column: ``batch_from_coordinates``, ``coordinates_from_batch``
- images, volumes, padded clouds, (B, C, H, W) etc.: ``pack_dense``, ``unpack_dense``, ``grid_positions``

Features, positions, labels and results all go through the same functions; gradients pass through them. What
depends on values rather than on shapes (is it sorted, does it end at N) is checked in eager mode, at the
price of a synchronisation on a GPU, and taken on trust while ``torch.compile`` traces: with ``num_points`` or
``num_clouds`` given, the functions on offsets, ptr, lengths and ``batch`` trace without a graph break.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

Layout = Literal["BNC", "BCN", "BCHW", "BCZYX", "BN", "BHW", "BZYX"]
"""The axes of a dense tensor in order: B clouds, C channels (none for labels), N points or H W or Z Y X."""

_LAYOUTS: tuple[Layout, ...] = ("BNC", "BCN", "BCHW", "BCZYX", "BN", "BHW", "BZYX")


def batch_from_offset(offset: Tensor, num_points: int | None = None) -> Tensor:
    """The cloud of each point, from the end of each cloud (Pointcept's ``offset``).

    Args:
        offset: (B,), any integer type; cloud b ends before point ``offset[b]``, where cloud b + 1 begins.
        num_points: N; where given, the last end must equal it.

    Returns:
        ``batch`` (N,) int64.

    Raises:
        TypeError: ``offset`` is not of an integer type.
        ValueError: ``offset`` is not one-dimensional, is negative, decreases, or does not end at
            ``num_points``.

    >>> batch_from_offset(torch.tensor([2, 2, 5]))
    tensor([0, 0, 2, 2, 2])
    """
    return _batch_from_ends(_as_index(offset, "offset"), num_points, "offset")


def batch_from_ptr(ptr: Tensor, num_points: int | None = None) -> Tensor:
    """The cloud of each point, from 0 and the end of each cloud (CSR; PyG's ``Batch.ptr``).

    Args:
        ptr: (B + 1,), any integer type, ``ptr[0] = 0``.
        num_points: N; where given, the last end must equal it.

    Returns:
        ``batch`` (N,) int64.

    Raises:
        TypeError: ``ptr`` is not of an integer type.
        ValueError: ``ptr`` is not one-dimensional, is empty, does not begin at 0, decreases, or does not end
            at ``num_points``.

    >>> batch_from_ptr(torch.tensor([0, 2, 2, 5]))
    tensor([0, 0, 2, 2, 2])
    """
    ptr = _as_index(ptr, "ptr")
    if len(ptr) == 0:
        raise ValueError("ptr: expected (B + 1,) with a leading 0, got an empty tensor")
    if not torch.compiler.is_compiling() and ptr[0] != 0:
        raise ValueError(f"ptr: expected a leading 0, got {int(ptr[0])}; for ends without the 0 use batch_from_offset")
    return _batch_from_ends(ptr[1:], num_points, "ptr")


def batch_from_lengths(lengths: Tensor, num_points: int | None = None) -> Tensor:
    """The cloud of each point, from the number of points of each cloud.

    Args:
        lengths: (B,), any integer type, ≥ 0.
        num_points: N; where given, the lengths must add up to it.

    Returns:
        ``batch`` (N,) int64.

    Raises:
        TypeError: ``lengths`` is not of an integer type.
        ValueError: ``lengths`` is not one-dimensional, is negative, or does not add up to ``num_points``.

    >>> batch_from_lengths(torch.tensor([2, 0, 3]))
    tensor([0, 0, 2, 2, 2])
    """
    lengths = _as_index(lengths, "lengths")
    if not torch.compiler.is_compiling() and (lengths < 0).any():
        raise ValueError(f"lengths: expected numbers of points >= 0, got {int(lengths.min())}")
    return _batch_from_ends(lengths.cumsum(0), num_points, "the sum of lengths")


def offset_from_batch(batch: Tensor, num_clouds: int | None = None) -> Tensor:
    """The end of each cloud (Pointcept's ``offset``), the inverse of :func:`batch_from_offset`.

    Args:
        batch: (N,), any integer type, sorted, as ends presume points in the order of their clouds.
        num_clouds: B; where ``None``, the largest entry plus one, so that empty clouds at the end are lost.

    Returns:
        (B,) int64.

    Raises:
        TypeError: ``batch`` is not of an integer type.
        ValueError: ``batch`` is not one-dimensional, not sorted, negative, or not below ``num_clouds``.

    >>> offset_from_batch(torch.tensor([0, 0, 2, 2, 2]), num_clouds=4)
    tensor([2, 2, 5, 5])
    """
    return ptr_from_batch(batch, num_clouds)[1:]


def ptr_from_batch(batch: Tensor, num_clouds: int | None = None) -> Tensor:
    """0 and the end of each cloud (CSR; PyG's ``Batch.ptr``), the inverse of :func:`batch_from_ptr`.

    Args and errors as of :func:`offset_from_batch`.

    Returns:
        (B + 1,) int64.

    >>> ptr_from_batch(torch.tensor([0, 0, 2, 2, 2]))
    tensor([0, 2, 2, 5])
    """
    batch, num_clouds = _as_batch(batch, num_clouds)
    if not torch.compiler.is_compiling() and not _is_sorted(batch):
        raise ValueError(
            "batch: expected the points in the order of their clouds, got an unsorted batch; sort the points "
            "by batch.argsort(stable=True) first, or use lengths_from_batch"
        )
    # ptr[b] is the number of points in clouds before b.
    return torch.searchsorted(batch, torch.arange(num_clouds + 1, device=batch.device))


def lengths_from_batch(batch: Tensor, num_clouds: int | None = None) -> Tensor:
    """The number of points of each cloud, empty clouds included; ``batch`` may be unsorted.

    Args:
        batch: (N,), any integer type.
        num_clouds: B; where ``None``, the largest entry plus one, so that empty clouds at the end are lost.

    Returns:
        (B,) int64.

    Raises:
        TypeError: ``batch`` is not of an integer type.
        ValueError: ``batch`` is not one-dimensional, is negative, or not below ``num_clouds``.

    >>> lengths_from_batch(torch.tensor([2, 0, 2, 0, 2]), num_clouds=4)
    tensor([2, 0, 3, 0])
    """
    batch, num_clouds = _as_batch(batch, num_clouds)
    return batch.new_zeros(num_clouds).scatter_add_(0, batch, torch.ones_like(batch))


def pack_list(clouds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One tensor a cloud (mmdetection3d's ``points``) to the packed form.

    Args:
        clouds: B ≥ 1 tensors (n_b, …), alike in all but n_b, which may be 0.

    Returns:
        The packed tensor (N, …), N = Σ n_b, and ``batch`` (N,) int64.

    Raises:
        TypeError: the tensors differ in dtype or device, which ``torch.cat`` would promote silently.
        ValueError: there is no tensor, one has no dimension, or they differ in dimensions after the first.

    >>> packed, batch = pack_list([torch.zeros(2, 3), torch.zeros(0, 3), torch.ones(1, 3)])
    >>> packed.shape, batch
    (torch.Size([3, 3]), tensor([0, 0, 2]))
    """
    if len(clouds) == 0:
        raise ValueError("clouds: expected at least one tensor, got an empty list; an empty cloud is a (0, ...) tensor")
    first = clouds[0]
    for b, cloud in enumerate(clouds):
        if cloud.ndim == 0 or cloud.shape[1:] != first.shape[1:]:
            expected = ", ".join(["n", *map(str, first.shape[1:])])
            raise ValueError(f"clouds[{b}]: expected shape ({expected}), got {tuple(cloud.shape)}")
        if cloud.dtype != first.dtype or cloud.device != first.device:
            raise TypeError(
                f"clouds[{b}]: expected {first.dtype} on {first.device} as clouds[0], "
                f"got {cloud.dtype} on {cloud.device}"
            )
    lengths = torch.tensor([len(cloud) for cloud in clouds], device=first.device)
    return torch.cat(list(clouds)), batch_from_lengths(lengths, sum(len(cloud) for cloud in clouds))


def unpack_list(packed: Tensor, batch: Tensor | None, num_clouds: int | None = None) -> list[Tensor]:
    """The packed form to one tensor a cloud, each with its points in their packed order.

    Args:
        packed: (N, …).
        batch: (N,), any integer type, sorted or not; ``None`` is one cloud.
        num_clouds: B; where ``None``, the largest entry of ``batch`` plus one.

    Returns:
        B tensors (n_b, …): views of ``packed`` where ``batch`` is sorted, copies where it is not.

    Raises:
        TypeError: ``batch`` is not of an integer type.
        ValueError: ``batch`` is not (N,), is negative, or not below ``num_clouds``.

    >>> unpack_list(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 0, 1]))
    [tensor([2.]), tensor([1., 3.])]
    """
    if packed.ndim == 0:
        raise ValueError("packed: expected shape (N, ...), got a tensor without dimensions")
    if batch is None:
        batch = torch.zeros(len(packed), dtype=torch.int64, device=packed.device)
        num_clouds = 1 if num_clouds is None else num_clouds
    batch, num_clouds = _as_batch(batch, num_clouds)
    if len(batch) != len(packed):
        raise ValueError(f"batch: expected one entry for each of the {len(packed)} points, got {len(batch)}")
    if not _is_sorted(batch):
        packed = packed[batch.argsort(stable=True)]
    return list(torch.split(packed, lengths_from_batch(batch, num_clouds).tolist()))


def pack_dense(x: Tensor, layout: Layout, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A dense tensor to the packed form: cloud after cloud, each row-major over its axes, channels last.

    Args:
        x: features, logits or positions "BNC", "BCN", "BCHW", "BCZYX"; labels "BN", "BHW", "BZYX".
        layout: the name of each axis of ``x`` in order. It is not guessed: (B, 3, 3) could be either.
        mask: bool, the shape of ``x`` without C, ``True`` on the points to keep, ``False`` on padding.

    Returns:
        The packed tensor (N, C), or (N,) for labels, and ``batch`` (N,) int64.

    Raises:
        TypeError: ``mask`` is not bool.
        ValueError: the layout is none of the above, or the shape of ``x`` or ``mask`` does not fit it.

    >>> packed, batch = pack_dense(torch.arange(8).reshape(2, 2, 2), "BCN")
    >>> packed.tolist(), batch.tolist()
    ([[0, 2], [1, 3], [4, 6], [5, 7]], [0, 0, 1, 1])
    """
    _check_layout(layout)
    if x.ndim != len(layout):
        raise ValueError(f"x: expected the axes {layout}, {len(layout)} of them, got shape {tuple(x.shape)}")
    if "C" in layout:
        x = x.movedim(layout.index("C"), -1)
    shape = tuple(x.shape[: len(layout.replace("C", ""))])  # without C
    packed = x.flatten(0, len(shape) - 1)
    clouds = torch.arange(shape[0], device=x.device)
    batch = clouds.view(-1, *[1] * (len(shape) - 1)).expand(shape).flatten().contiguous()  # one cloud: a view
    if mask is None:
        return packed, batch
    _check_mask(mask, shape, layout)
    keep = mask.flatten()
    return packed[keep], batch[keep]


def unpack_dense(
    packed: Tensor,
    layout: Layout,
    shape: Sequence[int],
    mask: Tensor | None = None,
    fill: float = 0,
) -> Tensor:
    """The packed form to a dense tensor, the inverse of :func:`pack_dense`.

    Args:
        packed: (N, C), or (N,) for a layout without C, in the order of :func:`pack_dense`.
        layout: the name of each axis of the result in order.
        shape: the size of each axis without C, e.g. (B, H, W) for "BCHW" and for "BHW".
        mask: bool, of this shape, as given to :func:`pack_dense`.
        fill: the value where ``mask`` is ``False``, e.g. −1 for labels.

    Returns:
        The dense tensor in the dtype of ``packed``.

    Raises:
        TypeError: ``mask`` is not bool, or ``fill`` is a float and ``packed`` is not floating point.
        ValueError: the layout is none of these; ``packed``, ``shape`` and ``mask`` do not fit together; or
            ``fill`` does not fit into the dtype, where it would wrap around.

    >>> x = torch.rand(2, 5, 4, 3)
    >>> packed, _ = pack_dense(x, "BCHW")
    >>> torch.equal(unpack_dense(packed, "BCHW", (2, 4, 3)), x)
    True
    """
    _check_layout(layout)
    shape = tuple(shape)
    axes = layout.replace("C", "")
    if len(shape) != len(axes) or min(shape) < 0:
        raise ValueError(f"shape: expected the sizes of the axes {', '.join(axes)}, got {shape}")
    if packed.ndim != (2 if "C" in layout else 1):
        expected = "(N, C)" if "C" in layout else "(N,)"
        raise ValueError(f"packed: expected shape {expected} for layout {layout}, got {tuple(packed.shape)}")
    _check_fill(fill, packed.dtype)
    if mask is not None:
        _check_mask(mask, shape, layout)
    if mask is None or not torch.compiler.is_compiling():
        num_points = math.prod(shape) if mask is None else int(mask.sum())
        if len(packed) != num_points:
            where = f"shape {shape}" if mask is None else "the points where mask is True"
            raise ValueError(f"packed: expected {num_points} points, as many as {where}, got {len(packed)}")
    if mask is None:
        dense = packed.reshape(*shape, *packed.shape[1:])
    else:
        dense = packed.new_full((*shape, *packed.shape[1:]), fill)
        dense = dense.masked_scatter(mask if packed.ndim == 1 else mask.unsqueeze(-1), packed)
    return dense.movedim(-1, layout.index("C")) if "C" in layout else dense


def grid_positions(
    shape: Sequence[int],
    *,
    batch_size: int = 1,
    spacing: float | Sequence[float] = 1.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """The positions of the pixels of images or the voxels of volumes, in the order of :func:`pack_dense`.

    Position = index · spacing: the centre of the first pixel is the origin, the coordinates are in the order
    of the axes, (y, x) or (z, y, x), and in the unit of the spacing. With the true spacing of an anisotropic
    volume a distance, and so σ, means the same along all axes.

    Args:
        shape: the size of each axis, (H, W) or (Z, Y, X); any number of axes D ≥ 1.
        batch_size: B; every cloud has the same grid.
        spacing: the distance between neighbours, > 0; one for all axes, or one an axis as in ``shape``.
        dtype: float32 or float64; in half precision pixels far from the origin would coincide.
        device: where to make them.

    Returns:
        (B · Π shape, D).

    Raises:
        TypeError: ``dtype`` is neither float32 nor float64.
        ValueError: ``shape`` is empty, a size is negative, or ``spacing`` is not finite and positive or not
            one an axis.

    >>> grid_positions((2, 2), spacing=(2.0, 0.5))
    tensor([[0.0000, 0.0000],
            [0.0000, 0.5000],
            [2.0000, 0.0000],
            [2.0000, 0.5000]])
    """
    shape = tuple(shape)
    if len(shape) == 0 or min(*shape, batch_size) < 0:
        raise ValueError(f"shape: expected at least one size and all >= 0, got {shape} with batch_size {batch_size}")
    steps = _steps_of(spacing, len(shape))
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype: expected torch.float32 or torch.float64, got {dtype}")
    axes = [torch.arange(n, dtype=dtype, device=device) * step for n, step in zip(shape, steps, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)  # (*shape, D)
    return grid.expand(batch_size, *grid.shape).flatten(0, -2)


def _steps_of(spacing: float | Sequence[float], axes: int) -> tuple[float, ...]:
    """One number an axis, finite and positive."""
    one = isinstance(spacing, (int, float, Real))  # numpy's numbers are real ones, too
    steps = (float(spacing),) * axes if one else tuple(float(step) for step in spacing)  # type: ignore[arg-type, union-attr]
    if len(steps) != axes or not all(math.isfinite(step) and step > 0 for step in steps):
        raise ValueError(f"spacing: expected a positive number, or one for each of {axes} axes, got {spacing}")
    return steps


def batch_from_coordinates(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """Sparse-tensor coordinates (MinkowskiEngine, spconv) to the cloud of each row and its coordinates.

    The rows of a MinkowskiEngine tensor are not in the order of the points that it was made from: labels must
    go through the same map as the features.

    Args:
        coordinates: (N, 1 + D), any integer type, the batch index in the first column.

    Returns:
        ``batch`` (N,) int64, and the coordinates (N, D) as a view.

    Raises:
        TypeError: ``coordinates`` is not of an integer type, as those of a ``TensorField``.
        ValueError: ``coordinates`` is not (N, 1 + D) with D ≥ 1, or a batch index is negative.

    >>> batch_from_coordinates(torch.tensor([[0, 5, 6, 7], [1, 8, 9, 0]], dtype=torch.int32))
    (tensor([0, 1]), tensor([[5, 6, 7],
            [8, 9, 0]], dtype=torch.int32))
    """
    if not _is_integer(coordinates):
        raise TypeError(
            f"coordinates: expected an integer type, got {coordinates.dtype}; of a TensorField's C take "
            "C[:, 0].long() as batch and C[:, 1:] as positions"
        )
    if coordinates.ndim != 2 or coordinates.shape[1] < 2:
        raise ValueError(f"coordinates: expected shape (N, 1 + D) with D >= 1, got {tuple(coordinates.shape)}")
    batch = coordinates[:, 0].to(torch.int64)
    if not torch.compiler.is_compiling() and (batch < 0).any():
        raise ValueError(
            f"coordinates: expected batch indices >= 0 in the first column, got {int(batch.min())}; "
            "is the batch index in another column?"
        )
    return batch, coordinates[:, 1:]


def coordinates_from_batch(batch: Tensor, coords: Tensor) -> Tensor:
    """The batch index in front of integer coordinates, the inverse of :func:`batch_from_coordinates`.

    Args:
        batch: (N,), any integer type.
        coords: (N, D), any integer type: positions that were divided by the voxel size and floored.

    Returns:
        (N, 1 + D) int32, which MinkowskiEngine and spconv ask for.

    Raises:
        TypeError: ``batch`` or ``coords`` is not of an integer type.
        ValueError: the shapes are others, a batch index is negative, or a value does not fit into int32.

    >>> coordinates_from_batch(torch.tensor([0, 1]), torch.tensor([[5, 6], [7, 8]]))
    tensor([[0, 5, 6],
            [1, 7, 8]], dtype=torch.int32)
    """
    batch = _as_index(batch, "batch")
    if not _is_integer(coords):
        raise TypeError(f"coords: expected an integer type, got {coords.dtype}; use (positions / voxel).floor().int()")
    if coords.ndim != 2 or coords.shape[1] < 1 or len(coords) != len(batch):
        raise ValueError(f"coords: expected shape ({len(batch)}, D) with D >= 1, got {tuple(coords.shape)}")
    merged = torch.cat([batch.unsqueeze(1), coords.to(torch.int64)], dim=1)
    if not torch.compiler.is_compiling():
        if (batch < 0).any():
            raise ValueError(f"batch: expected indices >= 0, got {int(batch.min())}")
        if (merged != merged.to(torch.int32)).any():
            raise ValueError("coords: expected values that fit into int32, got some that do not")
    return merged.to(torch.int32)


def _is_integer(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def _as_index(x: Tensor, name: str) -> Tensor:
    """A one-dimensional tensor of an integer type as int64."""
    if not _is_integer(x):
        raise TypeError(f"{name}: expected an integer type, got {x.dtype}")
    if x.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {tuple(x.shape)}")
    return x.to(torch.int64).contiguous()


def _as_batch(batch: Tensor, num_clouds: int | None) -> tuple[Tensor, int]:
    """``batch`` as int64 and the number of clouds, both checked."""
    batch = _as_index(batch, "batch")
    if num_clouds is None:
        num_clouds = int(batch.max()) + 1 if len(batch) else 0
    elif num_clouds < 0:
        raise ValueError(f"num_clouds: expected >= 0, got {num_clouds}")
    if not torch.compiler.is_compiling() and len(batch):
        low, high = int(batch.min()), int(batch.max())
        if low < 0 or high >= num_clouds:
            raise ValueError(f"batch: expected clouds in 0 .. {num_clouds - 1}, got {low} .. {high}")
    return batch, num_clouds


def _batch_from_ends(ends: Tensor, num_points: int | None, name: str) -> Tensor:
    if num_points is None:
        num_points = int(ends[-1]) if len(ends) else 0
    if not torch.compiler.is_compiling():
        if len(ends) and (ends[0] < 0 or (ends.diff() < 0).any()):
            raise ValueError(f"{name}: expected ends of clouds that are >= 0 and never decrease, got {ends.tolist()}")
        last = int(ends[-1]) if len(ends) else 0
        if last != num_points:
            raise ValueError(f"{name}: expected it to end at the {num_points} points, got {last}")
    # A point is in the first cloud that ends after it: empty clouds end too early.
    return torch.searchsorted(ends.contiguous(), torch.arange(num_points, device=ends.device), right=True)


def _is_sorted(batch: Tensor) -> bool:
    return bool((batch.diff() >= 0).all())


def _check_layout(layout: str) -> None:
    if layout not in _LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(_LAYOUTS)}, got {layout!r}")


def _check_mask(mask: Tensor, shape: tuple[int, ...], layout: str) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected torch.bool, True on the points to keep, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"mask: expected shape {shape} for layout {layout} without C, got {tuple(mask.shape)}")


def _check_fill(fill: float, dtype: torch.dtype) -> None:
    if dtype.is_floating_point or dtype.is_complex:
        return
    if isinstance(fill, float):
        raise TypeError(f"fill: expected an int for packed of {dtype}, got {fill}")
    low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    if not low <= fill <= high:
        raise ValueError(f"fill: expected {low} .. {high} for packed of {dtype}, got {fill}")
