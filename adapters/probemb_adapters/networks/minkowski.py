"""From points to voxels, through a sparse network such as MinkUNet, and back to the points.

    backbone = MinkowskiBackbone(MinkUNet34C(in_channels=3), voxel_size=0.02)
    head = ProbabilisticHead(backbone.out_channels, num_classes=19, offset_scale=2.0)
    output = head(backbone(colors, positions, batch), positions, batch)

It runs as it is installed, in plain torch (:mod:`~probemb_adapters.networks.sparse`), and on MinkowskiEngine where that
has been compiled: ``python -m probemb_adapters.networks.minkowski_build``.

Voxels are found by :func:`~probemb_adapters.networks.voxels.voxelize` and not by MinkowskiEngine's `TensorField` and
`slice`. That quantizes in float32, where positions in float64 would lose their digits, and numbers the voxels by
the order in which its hash table met them; on CUDA threads race for that. Sorted by coordinate, the numbers depend on
the voxels alone, and it takes less than half the time. MinkowskiEngine keeps the order of distinct coordinates that it
is given, on CPU and CUDA.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from probemb_adapters.networks.engines import Engine, pick_engine, same_voxels, sparse_tensor
from probemb_adapters.networks.minkunet import MinkUNet, MinkUNet14A, MinkUNet18A, MinkUNet34C
from probemb_adapters.networks.voxels import Voxels, check_voxel_size, voxelize

__all__ = ["MinkUNet", "MinkUNet14A", "MinkUNet18A", "MinkUNet34C", "MinkowskiBackbone", "Voxels", "voxelize"]


class MinkowskiBackbone(nn.Module):
    """Features of points through a sparse network: mean over the points of a voxel, network, back to the points.

    Points of one voxel get the same features. The order of points, and of clouds in ``batch``, is free.

    In torch, autocast is used where it is on, and on a CPU two runs give the same bits; on CUDA torch has no fixed
    order for the sums over the points of a voxel. MinkowskiEngine computes in float32 or float64 alone and fails under
    autocast, so the network runs without it there, in the dtype of its parameters; on one thread two runs give the same
    bits, with more, or on CUDA, its sums have no fixed order.

    Args:
        network: from a sparse tensor of the engine to one on the same voxels, such as :class:`MinkUNet34C` without its
            final layer, with the number of channels as ``network.out_channels``.
        voxel_size: edge of a voxel in the unit of the positions; the published networks take 0.02 or 0.05 m.
        engine: `minkowski`, `torch`, or `auto`: MinkowskiEngine where it is installed for the device of the features,
            else torch. Both give the same up to rounding, from the same weights.

    Attributes:
        out_channels: channels of the features that come out.

    Raises:
        TypeError: the network has no integer ``out_channels``.
        ValueError: voxel_size is not positive, or an unknown engine.
        ImportError: MinkowskiEngine is asked for and not there.

    >>> backbone = MinkowskiBackbone(MinkUNet14A(in_channels=3), voxel_size=0.05).eval()
    >>> backbone(torch.rand(200, 3), torch.rand(200, 3)).shape
    torch.Size([200, 96])
    """

    def __init__(self, network: nn.Module, voxel_size: float = 0.02, *, engine: Engine = "auto") -> None:
        super().__init__()
        out_channels: Any = getattr(network, "out_channels", None)
        if not isinstance(out_channels, int):
            raise TypeError(
                f"expected a network with an int out_channels, got {out_channels}: set network.out_channels"
            )
        check_voxel_size(voxel_size)
        pick_engine(engine, "cpu")
        self.engine: Engine = engine
        self.network = network
        self.voxel_size = voxel_size
        self.out_channels = out_channels

    def extra_repr(self) -> str:
        return f"voxel_size={self.voxel_size}, engine={self.engine!r}"

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
            ValueError: other shapes; a device that MinkowskiEngine was asked for and not built for; a network that
                changes the voxels; as :func:`voxelize`; in training, as :class:`MinkUNet`.
        """
        dtype = self._check(features, positions)
        engine = pick_engine(self.engine, features.device.type)
        voxels = voxelize(positions, self.voxel_size, batch)
        features = features.to(dtype)
        if len(features) == 0:  # norms need a voxel
            unused = sum((p[:0].sum() for p in self.network.parameters()), features.sum())
            return features.new_zeros((0, self.out_channels)) + unused
        in_full = torch.autocast(features.device.type, enabled=False)
        with in_full if engine == "minkowski" else contextlib.nullcontext():
            x = sparse_tensor(_mean(features, voxels), voxels.coordinates, engine)
            y = self.network(x)
            if not same_voxels(x, y):
                raise ValueError(
                    "expected a network that returns features on the voxels of its input, got the tensor stride "
                    f"{y.tensor_stride} after {x.tensor_stride}"
                )
            on_points: Tensor = y.F.index_select(0, voxels.index).to(dtype)
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
        dtype = next((p.dtype for p in self.network.parameters()), torch.float32)
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"expected a network in float32 or float64, got {dtype}: for mixed precision keep the parameters in "
                "float32"
            )
        return dtype


def _mean(features: Tensor, voxels: Voxels) -> Tensor:
    """(N, C) of points → (V, C) of voxels."""
    count = torch.bincount(voxels.index, minlength=len(voxels.coordinates))[:, None]
    total = features.new_zeros((len(count), features.shape[1])).index_add(0, voxels.index, features)
    return total / count
