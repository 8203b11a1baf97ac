"""PointNet++ with single-scale grouping in plain PyTorch; what it stands on is in `point_geometry`.

Source: Qi et al., "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space", NeurIPS
2017; the widths are those of the PartNet instance segmentation network. Everything is dense, (B, N, ...), and
runs on CPU and GPU alike.

The neighbours in a ball are its *first* 64 points by index, so shuffle the points of a cloud in the loader.

On CPU a good part of a training step is the operating system handing out pages for large tensors; huge pages
(``THP_MEM_ALLOC_ENABLE=1`` in the environment) shorten it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from probemb_adapters.networks._squares import in_all_clouds
from probemb_adapters.networks.point_geometry import (
    ball_query,
    balls,
    carry,
    checked_positions,
    farthest,
    farthest_point_sample,
    interpolate,
    local_covariance,
    nearest_neighbors,
    tile_size,
)
from probemb_lib.gaussian import at_least_float32

__all__ = ["PointNet2", "ball_query", "farthest_point_sample", "interpolate", "local_covariance", "nearest_neighbors"]


class PointNet2(nn.Module):
    """PointNet++ for a feature a point: three set abstractions, three feature propagations.

    SA(512 centres, radius 0.2, [64, 64, 128]), SA(128, 0.4, [128, 128, 256]), SA(all, [256, 512, 1024]),
    FP(256, 256), FP(256, 128), FP(128, out_channels): 1.36 million parameters. Every layer is a linear map
    without bias, batch norm and ReLU. The finest propagation sees the raw input, positions and features,
    beside the interpolated features. Clouds with fewer points than centres take all their points as centres.
    The radii suit clouds scaled to the unit sphere.

    The geometry is computed in float32 or better whatever the autocast dtype; positions carry no gradient.

    Args:
        in_channels: C, features a point beside its position (colour, normal); 0 for none.
        out_channels: width of the output.
        width: factor of all other widths; 0.5 has a quarter of the parameters and of the arithmetic.

    Raises:
        ValueError: in_channels < 0, out_channels < 1, or width too small for a channel a layer.

    >>> net = PointNet2(in_channels=3)
    >>> net(torch.rand(2, 100, 3), torch.rand(2, 100, 3)).shape
    torch.Size([2, 100, 128])
    """

    def __init__(self, in_channels: int = 0, out_channels: int = 128, *, width: float = 1.0) -> None:
        super().__init__()
        if in_channels < 0 or out_channels < 1:
            raise ValueError(f"expected in_channels >= 0 and out_channels >= 1, got {in_channels} and {out_channels}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        w64, w128, w256, w512, w1024 = (round(channels * width) for channels in (64, 128, 256, 512, 1024))
        if w64 < 1:
            raise ValueError(f"width: expected at least 1/64, for a channel a layer, got {width}")
        self.sa1 = _SharedMLP(3 + in_channels, [w64, w64, w128])
        self.sa2 = _SharedMLP(3 + w128, [w128, w128, w256])
        self.sa3 = _SharedMLP(3 + w256, [w256, w512, w1024])
        self.fp3 = _SharedMLP(w256 + w1024, [w256, w256])
        self.fp2 = _SharedMLP(w128 + w256, [w256, w128])
        self.fp1 = _SharedMLP(3 + in_channels + w128, [w128, out_channels])

    def forward(self, positions: Tensor, features: Tensor | None = None) -> Tensor:
        """Features (B, N, out_channels) from positions (B, N, 3) and features (B, N, in_channels).

        Raises:
            TypeError: positions or features are not floating point, or the parameters are of half precision.
            ValueError: positions are not (B, N, 3), empty or not finite; features missing, unasked for
                or of another shape; training on a single point (batch norm needs two).
        """
        positions = checked_positions(positions, "positions")
        self._check_features(features, positions)
        start = torch.zeros(len(positions), dtype=torch.int64, device=positions.device)
        samples = farthest(positions, start, min(512, positions.shape[1]))
        centers1 = positions.gather(1, samples[..., None].expand(-1, -1, 3))
        centers2 = centers1[:, :128]  # of farthest-point samples, the first are the farthest-point samples

        tile = tile_size(None, positions.device)
        features1 = _abstract(self.sa1, centers1, 0.2, positions, features)
        features2 = _abstract(self.sa2, centers2, 0.4, centers1, features1)
        whole = self.sa3.pool(self.sa3.first(centers2, self.sa3.project(features2)))[:, None]  # (B, 1, 1024)

        carried = self.fp3.project(whole).expand(-1, centers2.shape[1], -1)
        features2 = self.fp3(self.fp3.first(features2, carried))
        carried = carry(centers1, centers2, self.fp2.project(features2), 3, tile)
        features1 = self.fp2(self.fp2.first(features1, carried))
        carried = carry(positions, centers1, self.fp1.project(features1), 3, tile)
        direct = positions if features is None else torch.cat([positions, features.to(positions.dtype)], -1)
        out: Tensor = self.fp1(self.fp1.first(direct, carried))
        return out

    def _check_features(self, features: Tensor | None, positions: Tensor) -> None:
        if self.sa1.weight.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"expected parameters in float32 or float64, got {self.sa1.weight.dtype}: for mixed precision keep "
                "them in float32, under torch.autocast"
            )
        expected = (*positions.shape[:2], self.in_channels)
        if features is None:
            if self.in_channels > 0:
                raise ValueError(f"features: expected shape {expected}, got None")
            return
        if self.in_channels == 0:
            raise ValueError("features: expected None, as in_channels is 0; build PointNet2(in_channels=C)")
        if tuple(features.shape) != expected:
            raise ValueError(f"features: expected shape {expected}, got {tuple(features.shape)}")
        if not features.is_floating_point():
            raise TypeError(f"features: expected floating point, got {features.dtype}; colours: divide by 255")


def _abstract(mlp: _SharedMLP, centers: Tensor, radius: float, positions: Tensor, features: Tensor | None) -> Tensor:
    """Set abstraction: for each centre the maximum of the MLP over the points of its ball, (B, M, C)."""
    index = balls(centers, positions, radius, 64, tile_size(None, positions.device))
    rows = in_all_clouds(index, positions.shape[1])  # (B, M, S)
    offsets = F.embedding(rows, positions.flatten(0, 1)) - centers[:, :, None]  # (B, M, S, 3)
    # The map of the features is taken before they are gathered: once a point, not once a neighbour.
    carried = None if features is None else F.embedding(rows, mlp.project(features).flatten(0, 1))
    pooled = mlp.pool(mlp.first(offsets, carried).flatten(0, 1))  # (B*M, C)
    return pooled.view(*rows.shape[:2], -1)


class _SharedMLP(nn.Module):
    """Linear, batch norm, ReLU, repeated, for each point on its own.

    The input of the first layer is [direct, carried]: what is known where the layer acts, and features
    carried there by gathering or interpolation. Both commute with the linear map,
    W [d; carry(f)] = W_d d + carry(W_f f), so the caller projects first, where there are fewest rows, then
    carries, then calls `first`.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = [in_channels, *widths[:-1]]
        self.linears = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in zip(inputs, widths, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(o) for o in widths)

    @property
    def weight(self) -> Tensor:
        """Of the first linear map: [W_d, W_f]."""
        return cast(Tensor, self.linears[0].weight)

    def project(self, features: Tensor) -> Tensor:
        """W_f f: (..., C) -> (..., widths[0]) in the parameters' dtype."""
        weight = self.weight[:, -features.shape[-1] :]
        return F.linear(features.to(weight.dtype), weight).to(weight.dtype)

    def first(self, direct: Tensor, carried: Tensor | None) -> Tensor:
        """W_d d + carried, (..., d) -> (..., widths[0]), in the parameters' dtype also under autocast."""
        rows = direct.flatten(0, -2).to(self.weight.dtype)
        if carried is None:
            out = rows.new_zeros(len(rows), len(self.weight))
        else:
            out = carried.flatten(0, -2).contiguous()
        # in place: autocast leaves that alone, and no second large tensor is made
        out.addmm_(rows, self.weight[:, : rows.shape[1]].t())
        return out.view(*direct.shape[:-1], -1)

    def forward(self, z: Tensor) -> Tensor:
        """The rest of the layers for the output of the first map, (..., widths[0]) -> (..., widths[-1])."""
        x = self.norms[-1](self.linears[-1](self._hidden(z)))
        return F.relu(x, inplace=True).view(*z.shape[:-1], -1)

    def pool(self, z: Tensor) -> Tensor:
        """The same and the maximum over a group of points, (G, S, widths[0]) -> (G, widths[-1])."""
        linear, norm = cast(nn.Linear, self.linears[-1]), cast(nn.BatchNorm1d, self.norms[-1])
        return _linear_norm_relu_max(self._hidden(z), linear, norm, z.shape[1])

    def _hidden(self, z: Tensor) -> Tensor:
        """(..., widths[0]) -> (rows, widths[-2]), the input of the last linear map."""
        x = F.relu(self.norms[0](z.flatten(0, -2)), inplace=True)
        for linear, norm in zip(self.linears[1:-1], self.norms[1:-1], strict=True):
            x = F.relu(norm(linear(x)), inplace=True)
        return x


def _linear_norm_relu_max(x: Tensor, linear: nn.Linear, norm: nn.BatchNorm1d, group: int) -> Tensor:
    """ReLU of the batch norm of a linear map, and its maximum over groups of rows: (G*S, C) -> (G, C').

    Batch norm and ReLU are monotone in each channel, so the maximum is taken first and they act on G rows.
    Where the norm's slope is negative it is the minimum that counts: that channel is negated, twice.
    """
    running_mean, running_var, steps = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if type(norm) is not nn.BatchNorm1d or running_mean is None or running_var is None or steps is None:
        return F.relu(norm(linear(x)).view(-1, group, linear.out_features).amax(1))  # SyncBatchNorm, say
    sign = torch.where(norm.weight < 0, -1.0, 1.0).to(norm.weight.dtype)
    z = F.linear(x, linear.weight * sign[:, None]).view(-1, group, linear.out_features)
    if norm.training:
        top, mean, variance = _MaxAndMoments.apply(z)
        with torch.no_grad():
            steps += 1
            rate = steps.to(mean.dtype).reciprocal() if norm.momentum is None else norm.momentum
            running_mean.lerp_(mean * sign, rate)
            running_var.lerp_(variance * (len(x) / (len(x) - 1)), rate)
    else:
        top, mean, variance = z.amax(1), running_mean * sign, running_var
    return F.relu((top - mean) * (norm.weight.abs() * (variance + norm.eps).rsqrt()) + norm.bias)


class _MaxAndMoments(torch.autograd.Function):
    """(G, S, C) -> maximum over S (G, C), mean and biased variance over G and S (C,)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        top, index = z.max(1)
        rows = z.flatten(0, 1)
        mean = rows.mean(0, dtype=at_least_float32(top).dtype)
        variance = torch.zeros_like(mean)
        for tile in torch.split(rows, max(1, tile_size(None, z.device) // rows.shape[1])):
            variance += (tile - mean).square_().sum(0)
        variance /= len(rows)
        ctx.save_for_backward(z, index, mean)
        return at_least_float32(top), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_top: Tensor, grad_mean: Tensor, grad_variance: Tensor) -> Tensor:
        # dmean/dz = 1/n, dvariance/dz = 2 (z - mean)/n; of equal maxima the first takes the gradient
        z, index, mean = ctx.saved_tensors
        n = z.shape[0] * z.shape[1]
        slope = grad_variance * (2 / n)
        grad = torch.addcmul(grad_mean / n - slope * mean, at_least_float32(z), slope)
        grad.scatter_add_(1, index[:, None], grad_top[:, None])
        return grad.to(z.dtype)
