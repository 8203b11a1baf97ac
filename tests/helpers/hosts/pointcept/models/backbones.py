"""Backbones by their interfaces alone: they read the keys that the real ones read, and refuse a bare tensor.

- sparse_unet/spconv_unet_v1m1_base.py: `grid_coord`, `feat`, `offset` → features (N, channels[-1]).
- point_transformer_v3/point_transformer_v3m1_base.py: all that `Point`, `serialization` and `sparsify` read → `Point`.
- the same in `enc_mode`: a pooled `Point` with `pooling_parent` and `pooling_inverse`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pointcept.models.builder import MODELS
from pointcept.models.utils.structure import Point


def voxel_features(data_dict: dict[str, Any]) -> Tensor:
    """What a sparse tensor is made of: each voxel once, coordinates not negative, and one cloud after the other."""
    coord, feat, offset = data_dict["grid_coord"], data_dict["feat"], data_dict["offset"]
    if coord.is_floating_point() or (coord < 0).any() or len(feat) != len(coord) or offset[-1] != len(feat):
        raise ValueError("grid_coord")
    return feat


@MODELS.register_module("SpUNet-v1m1")
class SpUNetBase(nn.Module):
    def __init__(
        self, in_channels: int, num_classes: int, channels: tuple[int, ...] = (32, 96), layers: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        out = num_classes if num_classes > 0 else channels[-1]
        self.layer = nn.Linear(in_channels, out)

    def forward(self, input_dict: dict[str, Any]) -> Tensor:
        return self.layer(voxel_features(input_dict))


@MODELS.register_module("PT-v3m1")
class PointTransformerV3(nn.Module):
    def __init__(
        self,
        in_channels: int = 6,
        enc_channels: tuple[int, ...] = (32, 64),
        dec_channels: tuple[int, ...] = (64,),
        enc_mode: bool = False,
    ) -> None:
        super().__init__()
        self.enc_mode = enc_mode
        self.layer = nn.Linear(in_channels, enc_channels[0] if enc_mode else dec_channels[0])
        self.deeper = nn.Linear(enc_channels[0], enc_channels[1])

    def forward(self, data_dict: dict[str, Any]) -> Point:
        voxel_features(data_dict)
        point = Point(data_dict)
        point["feat"] = self.layer(point["feat"])
        if not self.enc_mode:
            return point
        inverse = torch.arange(len(point["feat"])) // 2
        pooled = (
            point["feat"].new_zeros((int(inverse[-1]) + 1, point["feat"].shape[1])).index_add(0, inverse, point["feat"])
        )
        deeper = Point({"offset": torch.tensor([len(pooled)]), "feat": self.deeper(pooled)})
        return Point({**deeper, "pooling_parent": point, "pooling_inverse": inverse})
