"""Two engines for one sparse network: MinkowskiEngine where it is installed, plain torch everywhere.

A network holds kernels, norms and nothing of an engine; the tensor that goes in decides. Both number voxels, strides
and kernel offsets alike, so weights move between them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from probemb_adapters.networks.sparse import SparseTensor, convolve

Engine = Literal["auto", "minkowski", "torch"]

ENGINES = {"minkowski": "MinkowskiEngine", "torch": "plain torch"}
"""What they are called."""

AnySparse = Any
"""A `MinkowskiEngine.SparseTensor`, or a :class:`~probemb_adapters.networks.sparse.SparseTensor`."""


def pick_engine(engine: Engine, device: str) -> Literal["minkowski", "torch"]:
    """The engine that computes on a type of device; `auto` is MinkowskiEngine where it can, and torch elsewhere.

    Raises:
        ImportError: MinkowskiEngine is asked for and cannot be imported.
        ValueError: another name, or MinkowskiEngine was built without CUDA and the device is one.

    >>> pick_engine("torch", "cpu")
    'torch'
    """
    if engine == "torch":
        return "torch"
    if engine == "auto":
        return "minkowski" if device in _minkowski_devices() else "torch"
    if engine != "minkowski":
        raise ValueError(f"engine: expected auto, minkowski or torch, got {engine!r}")
    from probemb_adapters.networks._minkowski_engine import BUILD, ME

    devices = ("cpu", "cuda") if ME.is_cuda_available() else ("cpu",)
    if device not in devices:
        raise ValueError(
            f"expected features on {' or '.join(devices)}, which MinkowskiEngine was built for, got {device}: take "
            f'engine="torch", or build it again where torch.cuda.is_available(): {BUILD}'
        )
    return "minkowski"


@cache
def _minkowski_devices() -> tuple[str, ...]:
    """Types of devices that an installed MinkowskiEngine computes on; none where it cannot be imported."""
    try:
        from probemb_adapters.networks._minkowski_engine import ME
    except ImportError:
        return ()
    return ("cpu", "cuda") if ME.is_cuda_available() else ("cpu",)


def sparse_tensor(features: Tensor, coordinates: Tensor, engine: Literal["minkowski", "torch"]) -> AnySparse:
    """Features (V, C) of distinct voxels (V, 4) int32, for an engine."""
    if engine == "torch":
        return SparseTensor(features, coordinates)
    from probemb_adapters.networks._minkowski_engine import ME

    return ME.SparseTensor(features, coordinates)


def with_features(x: AnySparse, features: Tensor) -> AnySparse:
    """Other features on the voxels of x."""
    if isinstance(x, SparseTensor):
        return x.with_features(features)
    return type(x)(features, coordinate_map_key=x.coordinate_map_key, coordinate_manager=x.coordinate_manager)


def convolution(x: AnySparse, kernel: Tensor, size: int, stride: int, transposed: bool) -> AnySparse:
    """A convolution by the engine of x, see :func:`~probemb_adapters.networks.sparse.convolve`."""
    if isinstance(x, SparseTensor):
        return convolve(x, kernel, size, stride, transposed=transposed)
    from probemb_adapters.networks._minkowski_engine import ME, ConvolutionMode

    key = ME.CoordinateMapKey(x.D + 1)  # empty: the engine strides the voxels, or finds those it strided
    function = ME.MinkowskiConvolutionTransposeFunction if transposed else ME.MinkowskiConvolutionFunction
    region = ME.KernelGenerator(size, stride, dimension=x.D)
    mode = ConvolutionMode.DEFAULT
    with torch.autocast(x.F.device.type, enabled=False):
        features = function.apply(x.F, kernel, region, mode, x.coordinate_map_key, key, x.coordinate_manager)
    return ME.SparseTensor(features, coordinate_map_key=key, coordinate_manager=x.coordinate_manager)


def same_voxels(x: AnySparse, y: AnySparse) -> bool:
    """Whether rows of both are of the same voxels."""
    if isinstance(x, SparseTensor) and isinstance(y, SparseTensor):
        return x.neighbours is y.neighbours and x.tensor_stride == y.tensor_stride
    return bool(x.coordinate_map_key == y.coordinate_map_key)
