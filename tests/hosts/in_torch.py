"""What hosts' compiled packages do, in plain torch, so that their networks run on a CPU in `make hosts`.

spconv 2.3.8 without CUDA computes convolutions wrongly, and its backward raises; here each is the sum of its definition
over the taps. torch_scatter and pointops need a compiler. Slow, correct, and for tests alone.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor


class Rows:
    """The rows of voxels (cloud, z, y, x)."""

    def __init__(self, indices: Tensor) -> None:
        self.key, self.order = self.number(indices).sort()

    @staticmethod
    def number(indices: Tensor) -> Tensor:
        return indices @ torch.tensor([1 << 48, 1 << 32, 1 << 16, 1]) + (1 << 40)  # none is below −2¹⁵

    def of(self, wanted: Tensor) -> Tensor:
        """Their rows, −1 where there is none."""
        key = self.number(wanted)
        place = torch.searchsorted(self.key, key).clamp_max(len(self.key) - 1)
        return torch.where(self.key[place] == key, self.order[place], -1)


def conv_forward(self: Any, x: Any, add_input: Any = None) -> Any:
    """Replaces `SparseConvolution.forward`: y[o] = Σ_k W_k x[s·o + k − p] over the voxels that are there."""
    import spconv.pytorch as spconv

    taps = list(itertools.product(*map(range, self.kernel_size)))
    indices, features = x.indices.long(), x.features
    weight = self.weight.flatten(1, -2)  # KRSC: (out, taps, in)
    step, pad = torch.tensor(self.stride), torch.tensor(self.padding)
    if self.subm:
        step, pad = torch.ones_like(step), torch.tensor(self.kernel_size) // 2
    shape = list(x.spatial_shape)
    if self.inverse:
        indices_out, shape, step, pad = x.indice_dict[self.indice_key]
    elif self.subm:
        indices_out = indices
    else:
        sizes = zip(shape, pad.tolist(), self.kernel_size, step.tolist(), strict=True)
        shape = [(n + 2 * p - k) // s + 1 for n, p, k, s in sizes]
        reached = []
        for tap in taps:
            up = indices[:, 1:] + pad - torch.tensor(tap)
            out = up // step
            fits = (up % step == 0).all(1) & (out >= 0).all(1) & (out < torch.tensor(shape)).all(1)
            reached.append(torch.cat([indices[fits, :1], out[fits]], 1))
        indices_out = torch.unique(torch.cat(reached), dim=0)
        if self.indice_key is not None:
            x.indice_dict[self.indice_key] = (indices, list(x.spatial_shape), step, pad)
    rows = Rows(indices)
    total = features.new_zeros((len(indices_out), self.out_channels))
    for k, tap in enumerate(taps):
        if self.inverse:  # the voxels that this tap brought down go up again
            up = indices_out[:, 1:] + pad - torch.tensor(tap)
            source = torch.cat([indices_out[:, :1], up // step], 1)
            fits = (up % step == 0).all(1)
        else:
            source = torch.cat([indices_out[:, :1], indices_out[:, 1:] * step + torch.tensor(tap) - pad], 1)
            fits = torch.ones(len(source), dtype=torch.bool)
        row = torch.where(fits, rows.of(source), -1)
        there = (row >= 0).nonzero().squeeze(1)
        total = total.index_add(0, there, features[row[there]] @ weight[:, k].T)
    if self.bias is not None:
        total = total + self.bias
    out = spconv.SparseConvTensor(total, indices_out.int(), shape, x.batch_size)
    out.indice_dict = x.indice_dict
    return out


def segment_csr(src: Tensor, indptr: Tensor, reduce: str = "sum") -> Tensor:
    return torch.segment_reduce(src, {"add": "sum"}.get(reduce, reduce), offsets=indptr, axis=0)


def scatter(src: Tensor, index: Tensor, dim: int = 0, reduce: str = "sum") -> Tensor:
    kind = {"add": "sum", "max": "amax", "min": "amin"}.get(reduce, reduce)
    out = src.new_zeros((int(index.max()) + 1, *src.shape[1:]))
    return out.scatter_reduce(0, index.view(-1, *[1] * (src.ndim - 1)).expand_as(src), src, kind, include_self=False)


def scatter_min(src: Tensor, index: Tensor, dim: int = 0) -> tuple[Tensor, None]:
    return scatter(src, index, dim, "min"), None


def knn_query(k: int, xyz: Tensor, offset: Tensor, new_xyz: Tensor, new_offset: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of one cloud, (M, 1), as the evaluator asks."""
    distance, index = cKDTree(xyz.numpy()).query(new_xyz.numpy())
    return torch.from_numpy(index)[:, None], torch.from_numpy(distance)[:, None]


STAND_INS = {"torch_scatter": (segment_csr, scatter, scatter_min), "pointops": (knn_query,)}


class Mocks(MetaPathFinder, Loader):
    """Packages that are not there, with all their modules: most are imported and never called."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = {name for name in names if importlib.util.find_spec(name) is None}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        named = any(f"{fullname}.".startswith(f"{name}.") for name in self.names)
        return ModuleSpec(fullname, self, is_package=True) if named else None

    def create_module(self, spec: ModuleSpec) -> Any:
        module = MagicMock(__path__=[], __spec__=spec)
        for function in STAND_INS.get(spec.name, ()):
            setattr(module, function.__name__, function)
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def put_in_place(names: Iterable[str]) -> None:
    """Mocks for those packages that are not there, with what is written above."""
    sys.meta_path.append(Mocks(names))


def spconv_in_torch() -> None:
    """spconv's convolutions as above; the rest of it, its tensors and modules, is its own."""
    import spconv.pytorch.conv

    spconv.pytorch.conv.SparseConvolution.forward = conv_forward


def torchvision_without_its_operators() -> None:
    """A torchvision that was built for another torch has none; its networks need none, its import asks for two."""
    if importlib.util.find_spec("torchvision") is not None:
        try:
            import torchvision  # noqa: F401
        except RuntimeError:
            sys.modules.pop("torchvision", None)
            for name in ("nms", "qnms"):
                LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def numpy_names_of_before() -> None:
    """What numpy 2.4 has no longer."""
    for name, value in {"in1d": np.isin, "float": float, "bool": bool}.items():
        setattr(np, name, value)
