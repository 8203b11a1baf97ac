"""From points to voxels, through a network of MinkowskiEngine, and back to the points.

    backbone = MinkowskiBackbone(MinkUNet34C(in_channels=3), voxel_size=0.02)
    head = ProbabilisticHead(backbone.out_channels, num_classes=19, offset_scale=2.0)
    output = head(backbone(colors, positions, batch), positions, batch)

The engine is an extra of its own that compiles from source: ``python -m probemb_adapters.networks.minkowski_build``.

Voxels are found by :func:`~probemb_adapters.networks.voxels.voxelize` and not by the engine's `TensorField` and
`slice`. The engine quantizes in float32, where positions in float64 would lose their digits, and numbers the voxels by
the order in which its hash table met them; on CUDA threads race for that. Sorted by coordinate, the numbers depend on
the voxels alone, and it takes less than half the time. The engine keeps the order of distinct coordinates that it is
given, on CPU and CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from probemb_adapters.networks._minkowski_engine import BUILD, ME
from probemb_adapters.networks.minkunet import MinkUNet, MinkUNet14A, MinkUNet18A, MinkUNet34C
from probemb_adapters.networks.voxels import Voxels, check_voxel_size, voxelize

__all__ = ["MinkUNet", "MinkUNet14A", "MinkUNet18A", "MinkUNet34C", "MinkowskiBackbone", "Voxels", "voxelize"]


class MinkowskiBackbone(nn.Module):
    """Features of points through a sparse network: mean over the points of a voxel, network, back to the points.

    Points of one voxel get the same features. The order of points, and of clouds in ``batch``, is free.

    The engine computes in float32 or float64 alone and fails under autocast, so the network runs without it, in the
    dtype of its parameters: mixed precision is for what comes after. On one thread two runs give the same bits; with
    more, or on CUDA, the engine's sums have no fixed order.

    Args:
        network: from `MinkowskiEngine.SparseTensor` to one on the same voxels, such as :class:`MinkUNet34C` without its
            final layer, with the number of channels as ``network.out_channels``.
        voxel_size: edge of a voxel in the unit of the positions; the published networks take 0.02 or 0.05 m.

    Attributes:
        out_channels: channels of the features that come out.

    Raises:
        TypeError: the network has no integer ``out_channels``.
        ValueError: voxel_size is not positive.

    >>> backbone = MinkowskiBackbone(MinkUNet14A(in_channels=3), voxel_size=0.05).eval()
    >>> backbone(torch.rand(200, 3), torch.rand(200, 3)).shape
    torch.Size([200, 96])
    """

    def __init__(self, network: nn.Module, voxel_size: float = 0.02) -> None:
        super().__init__()
        out_channels: Any = getattr(network, "out_channels", None)
        if not isinstance(out_channels, int):
            raise TypeError(
                f"expected a network with an int out_channels, got {out_channels}: set network.out_channels"
            )
        check_voxel_size(voxel_size)
        self.network = network
        self.voxel_size = voxel_size
        self.out_channels = out_channels

    def extra_repr(self) -> str:
        return f"voxel_size={self.voxel_size}"

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> Tensor:
        """
        Args:
            features: (N, C), any floating dtype, N ≥ 0.
            positions: (N, 3), as in :func:`voxelize`.
            batch: (N,) any integer type, the cloud of each point; None is one cloud.

        Returns:
            (N, out_channels) in the dtype of the network's parameters. Gradients flow to these and to ``features``.

        Raises:
            TypeError: features are not floating point, the parameters are of half precision, or as :func:`voxelize`.
            ValueError: other shapes; a device that the engine was not built for; a network that changes the voxels; as
                :func:`voxelize`; in training, as :class:`MinkUNet`.
        """
        dtype = self._check(features, positions)
        voxels = voxelize(positions, self.voxel_size, batch)
        features = features.to(dtype)
        if len(features) == 0:  # the engine divides by the number of voxels
            unused = sum((p[:0].sum() for p in self.network.parameters()), features.sum())
            return features.new_zeros((0, self.out_channels)) + unused
        with torch.autocast(features.device.type, enabled=False):
            x = ME.SparseTensor(_mean(features, voxels), voxels.coordinates)
            y = self.network(x)
            if y.coordinate_map_key != x.coordinate_map_key:
                raise ValueError(
                    "expected a network that returns features on the voxels of its input, got the tensor stride "
                    f"{y.tensor_stride} after {x.tensor_stride}"
                )
            on_points: Tensor = y.F.index_select(0, voxels.index)
        return on_points

    def _check(self, features: Tensor, positions: Tensor) -> torch.dtype:
        """The dtype of the network's parameters."""
        if features.ndim != 2 or positions.ndim != 2 or len(features) != len(positions):
            raise ValueError(
                f"expected features (N, C) and positions (N, 3), got {tuple(features.shape)} and "
                f"{tuple(positions.shape)}"
            )
        if not features.is_floating_point():
            raise TypeError(f"features: expected floating point, got {features.dtype}")
        built_for = ("cpu", "cuda") if ME.is_cuda_available() else ("cpu",)
        if features.device.type not in built_for:
            raise ValueError(
                f"expected features on {' or '.join(built_for)}, which MinkowskiEngine was built for, got "
                f"{features.device}. To build it again, where torch.cuda.is_available(): {BUILD}"
            )
        dtype = next((p.dtype for p in self.network.parameters()), torch.float32)
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"expected a network in float32 or float64, as MinkowskiEngine computes in, got {dtype}: for mixed "
                "precision keep the parameters in float32"
            )
        return dtype


def _mean(features: Tensor, voxels: Voxels) -> Tensor:
    """(N, C) of points → (V, C) of voxels."""
    count = torch.bincount(voxels.index, minlength=len(voxels.coordinates))[:, None]
    total = features.new_zeros((len(count), features.shape[1])).index_add(0, voxels.index, features)
    return total / count
