"""spconv/pytorch: what a sparse tensor is made of, and layers that keep the voxels of their input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SparseConvTensor:
    """features (V, C), indices (V, 1 + D) int32, the cloud first, each voxel once; the shape and number of clouds."""

    def __init__(self, features: Tensor, indices: Tensor, spatial_shape: Sequence[int], batch_size: int) -> None:
        if indices.dtype != torch.int32 or indices.shape != (len(features), 1 + len(spatial_shape)):
            raise ValueError("indices: int32, (V, 1 + D)")
        if not isinstance(batch_size, int) or not all(isinstance(size, int) for size in spatial_shape):
            raise TypeError("spatial_shape, batch_size: int")
        low, high = indices.amin(0), indices.amax(0)
        if (low < 0).any() or high[0] >= batch_size or (high[1:] >= torch.tensor(spatial_shape)).any():
            raise ValueError("indices beyond spatial_shape or batch_size")
        if len(torch.unique(indices, dim=0)) != len(indices):
            raise ValueError("a voxel is there twice")
        self.features, self.indices, self.spatial_shape, self.batch_size = features, indices, spatial_shape, batch_size

    def replace_feature(self, features: Tensor) -> SparseConvTensor:
        return SparseConvTensor(features, self.indices, self.spatial_shape, self.batch_size)


class SubMConv3d(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True, indice_key: str | None = None
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(in_channels, out_channels, bias=bias)

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        return x.replace_feature(self.layer(x.features))


class SparseSequential(nn.Sequential):
    """Layers on sparse tensors, and those of torch on their features."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        for layer in self:
            x = layer(x) if isinstance(layer, SubMConv3d) else x.replace_feature(layer(x.features))
        return x
