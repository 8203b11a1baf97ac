"""MinkUNet: residual U-Nets of sparse convolutions on voxels, with the names and shapes of the public checkpoints.

Source: Choy, Gwak, Savarese, "4D Spatio-Temporal ConvNets: Minkowski Convolutional Neural Networks", CVPR 2019. Weights
trained on ScanNet, S3DIS or by contrastive pretraining go in with
:func:`probemb_adapters.networks.pretrained.load_pretrained`.

The offsets of a kernel are numbered with x fastest. Those of an odd size are centred, −(k//2) … k//2; those of size 2
are 0 and 1, so that a strided convolution gathers the 2×2×2 voxels that its transpose spreads again.

This is the numbering of MinkowskiEngine 0.5. Weights that were trained with an older one are refused or converted, see
:mod:`probemb_adapters.networks.kernel_order`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from probemb_adapters.networks.engines import AnySparse, convolution, with_features

__all__ = ["MinkUNet", "MinkUNet14A", "MinkUNet18A", "MinkUNet34C"]

_STEM = 32


class _Convolution(nn.Module):
    """A kernel, for whichever engine the voxels come from; it can be copied and pickled.

    MinkowskiEngine's own modules keep what they are in `__slots__`, which `copy.deepcopy` and `pickle` lose: averaged
    copies of a network (EMA) and `torch.save(network)` would fail.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        transposed: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.transposed = kernel_size, stride, transposed
        volume = kernel_size**3
        shape = (in_channels, out_channels) if volume == 1 else (volume, in_channels, out_channels)
        self.kernel = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(1, out_channels)) if bias else None
        nn.init.normal_(self.kernel, std=math.sqrt(2 / (volume * out_channels)))  # Kaiming for ReLU, fan out

    def forward(self, x: AnySparse) -> AnySparse:
        if self.kernel_size == 1:
            x = with_features(x, x.F @ self.kernel)
        else:
            x = convolution(x, self.kernel, self.kernel_size, self.stride, self.transposed)
        return x if self.bias is None else with_features(x, x.F + self.bias)

    def extra_repr(self) -> str:
        in_channels, out_channels = self.kernel.shape[-2:]
        return (
            f"{in_channels}, {out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"transposed={self.transposed}, bias={self.bias is not None}"
        )


class _BatchNorm(nn.Module):
    """Batch norm over all voxels; it stands under `bn`, as in the published weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, x: AnySparse) -> AnySparse:
        return with_features(x, self.bn(x.F))


class _BasicBlock(nn.Module):
    """Two 3×3×3 convolutions and the way around them, a 1×1×1 convolution where the width changes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _Convolution(in_channels, out_channels, 3)
        self.norm1 = _BatchNorm(out_channels)
        self.conv2 = _Convolution(out_channels, out_channels, 3)
        self.norm2 = _BatchNorm(out_channels)
        self.downsample: nn.Module | None = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(_Convolution(in_channels, out_channels, 1), _BatchNorm(out_channels))

    def forward(self, x: AnySparse) -> AnySparse:
        y = _relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        around = x if self.downsample is None else self.downsample(x)
        return _relu(with_features(y, y.F + around.F))


def _relu(x: AnySparse) -> AnySparse:
    """In place: no derivative before it, of a sum or of batch norm, needs the value that it overwrites."""
    return with_features(x, torch.relu_(x.F))


class MinkUNet(nn.Module):
    """The U-Net that the variants share: a stem, four strides by 2 down to 16 voxels, and four up with skips.

    Use a variant: :class:`MinkUNet14A`, :class:`MinkUNet18A`, :class:`MinkUNet34C`.

    Args:
        in_channels: of the voxels' features, such as 3 for colours.
        out_channels: classes of the final 1×1×1 convolution. None leaves it out, for a head of one's own, and the
            features have the channels of the last block, 96 at full width.
        conv1_kernel_size: of the stem, 5; some published weights have 3.
        width: factor of the channels of all blocks; published weights have 1.

    Attributes:
        in_channels: as given.
        out_channels: channels of the features that come out.

    Raises:
        ValueError: a number of channels is below 1, the size of the stem is even or below 3, or a block would have no
            channel.
    """

    PLANES: ClassVar[tuple[int, ...]]
    """Channels of the eight blocks."""
    LAYERS: ClassVar[tuple[int, ...]]
    """Residual units in each of them."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int | None = None,
        *,
        conv1_kernel_size: int = 5,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels is not None and channels < 1:
                raise ValueError(f"expected {name} >= 1, got {channels}")
        if conv1_kernel_size < 3 or conv1_kernel_size % 2 == 0:
            raise ValueError(f"expected an odd conv1_kernel_size >= 3, got {conv1_kernel_size}")
        planes_of = [round(width * planes) for planes in self.PLANES]
        if min(planes_of) < 1:
            raise ValueError(f"width: expected a channel in each block, got {width} of {self.PLANES}")
        self.in_channels = in_channels
        self.out_channels = planes_of[-1] if out_channels is None else out_channels

        self.conv0p1s1 = _Convolution(in_channels, _STEM, conv1_kernel_size)
        self.bn0 = _BatchNorm(_STEM)
        channels, skips = _STEM, []
        self._down, self._up = [], []  # names of convolution, norm and block, from the input to the output
        for i, planes in enumerate(planes_of[:4], start=1):
            skips.append(channels)
            names = (f"conv{i}p{2 ** (i - 1)}s2", f"bn{i}", f"block{i}")
            self.add_module(names[0], _Convolution(channels, channels, 2, stride=2))
            self.add_module(names[1], _BatchNorm(channels))
            self.add_module(names[2], _blocks(channels, planes, self.LAYERS[i - 1]))
            self._down.append(names)
            channels = planes
        for i, planes in enumerate(planes_of[4:], start=4):
            names = (f"convtr{i}p{2 ** (8 - i)}s2", f"bntr{i}", f"block{i + 1}")
            self.add_module(names[0], _Convolution(channels, planes, 2, stride=2, transposed=True))
            self.add_module(names[1], _BatchNorm(planes))
            self.add_module(names[2], _blocks(planes + skips.pop(), planes, self.LAYERS[i]))
            self._up.append(names)
            channels = planes
        self.final = None if out_channels is None else _Convolution(channels, out_channels, 1, bias=True)

    def forward(self, x: AnySparse) -> AnySparse:
        """
        Args:
            x: `MinkowskiEngine.SparseTensor` or `probemb_adapters.networks.sparse.SparseTensor` with ``in_channels``
                channels and tensor stride 1; its engine computes.

        Returns:
            The same kind of tensor with ``out_channels`` channels on the same voxels in the same order.

        Raises:
            ValueError: another number of channels; in training, voxels of which batch norm can take no statistics
                because they all fall into one cell of 16×16×16.
        """
        if x.F.shape[1] != self.in_channels:
            raise ValueError(f"expected {self.in_channels} channels, got features {tuple(x.F.shape)}")
        if self.bn0.bn.training and _in_one_cell(x.C):
            raise ValueError(
                f"expected voxels in at least two cells of 16x16x16 voxels in training, got {len(x.C)} in one: batch "
                "norm needs a spread; leave the scene out or call .eval()"
            )
        x = _relu(self.bn0(self.conv0p1s1(x)))
        skips = []
        for conv, norm, blocks in self._stages(self._down):
            skips.append(x)
            x = blocks(_relu(norm(conv(x))))
        for conv, norm, blocks in self._stages(self._up):
            x = _relu(norm(conv(x)))
            x = blocks(with_features(x, torch.cat((x.F, skips.pop().F), 1)))
        return x if self.final is None else self.final(x)

    def _stages(self, names: list[tuple[str, str, str]]) -> list[tuple[nn.Module, ...]]:
        return [tuple(self.get_submodule(name) for name in stage) for stage in names]


def _blocks(in_channels: int, out_channels: int, count: int) -> nn.Sequential:
    widths = [in_channels] + [out_channels] * count
    return nn.Sequential(*(_BasicBlock(a, b) for a, b in pairwise(widths)))


def _in_one_cell(coordinates: Tensor) -> bool:
    """Whether (V, 4) voxels are one at the coarsest tensor stride."""
    cells = torch.cat((coordinates[:, :1], coordinates[:, 1:].div(16, rounding_mode="floor")), 1)
    return bool((cells == cells[:1]).all())


class MinkUNet14A(MinkUNet):
    """14 layers with a weight along the way down, the smallest; 8.0 million parameters.

    >>> network = MinkUNet14A(in_channels=3, out_channels=20)
    >>> network.out_channels, tuple(network.final.kernel.shape), MinkUNet14A().out_channels
    (20, (96, 20), 96)
    """

    PLANES = (32, 64, 128, 256, 128, 128, 96, 96)
    LAYERS = (1, 1, 1, 1, 1, 1, 1, 1)


class MinkUNet18A(MinkUNet):
    """As 14A with two residual units a block; 15.5 million parameters."""

    PLANES = MinkUNet14A.PLANES
    LAYERS = (2, 2, 2, 2, 2, 2, 2, 2)


class MinkUNet34C(MinkUNet):
    """The network of the published ScanNet results at 2 cm; 38.0 million parameters."""

    PLANES = (32, 64, 128, 256, 256, 128, 96, 96)
    LAYERS = (2, 3, 4, 6, 2, 2, 2, 2)
