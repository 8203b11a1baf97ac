"""Squared distances, on whose rounding all choices of `point_geometry` rest: one definition for every way to get there.

fma(dz, dz, fma(dy, dy, dx dx)): dx² is rounded, dy² and dz² are each added with one rounding, in the dtype of the
positions. Torch's addcmul does so on CUDA and on every CPU since 2013; the Triton kernel says so. An older CPU rounds
products too, and then takes other points where only rounding decides.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squared_norm(planes: Tensor) -> Tensor:
    """(3, ...) -> (...), written over the first plane."""
    square, dy, dz = planes.unbind(0)
    return square.square_().addcmul_(dy, dy).addcmul_(dz, dz)


def squared_distance(points: Tensor, planes: Tensor) -> Tensor:
    """(..., A, 3) points, (3, ..., W) coordinates of others -> (..., A, W), with two tensors of that size at most."""
    square = (points[..., 0, None] - planes[0].unsqueeze(-2)).square_()
    for axis in (1, 2):
        difference = points[..., axis, None] - planes[axis].unsqueeze(-2)
        square.addcmul_(difference, difference)
    return square


def in_all_clouds(index: Tensor, points: int) -> Tensor:
    """Indices (B, ...) into the points of each cloud -> indices into the rows of all clouds, flattened."""
    first = torch.arange(len(index), device=index.device) * points
    return index + first.view(-1, *[1] * (index.ndim - 1))


def covariance_of(planes: Tensor, centers: Tensor, index: Tensor, radius: float) -> Tensor:
    """Of the points around each centre, in units of radius²: (3, W), (..., 3), neighbours (..., S) -> (..., 6)."""
    weight = torch.ones_like(index, dtype=planes.dtype)
    weight[..., 1:] = index[..., 1:] != index[..., :1]  # not the repetitions of the first
    weight /= weight.sum(-1, keepdim=True)
    offsets = []
    for plane, center in zip(planes, centers.unbind(-1), strict=True):
        offset = plane.take(index).sub_(center[..., None]).div_(radius)
        offsets.append(offset.sub_((offset * weight).sum(-1, keepdim=True)))
    (x, y, z), (wx, wy, wz) = offsets, [offset * weight for offset in offsets]
    pairs = [(wx, x), (wy, y), (wz, z), (wx, y), (wx, z), (wy, z)]
    return torch.stack([(first * second).sum(-1) for first, second in pairs], -1)
