"""Geometry of point clouds side by side, (B, N, 3): samples, neighbours, and what the neighbours tell.

Nothing here carries a gradient to positions. All runs on CPU and GPU alike and without a (B, M, N) tensor of distances.
Squared distances alone decide who is nearest, inside or farthest: dx² + dy² + dz² in the dtype of the positions, added
from the left with one rounding a term, from differences of coordinates, as |x|² - 2xy + |y|² cancels. Of equal ones the
lowest index comes first. So the answer is that of comparing everything with everything in that arithmetic, ties
included. On CPU clouds are taken one by one and most comparisons are left out; elsewhere all clouds go at once, on CUDA
in a Triton kernel an operation, and a call waits for the device once, to see that values are finite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from probemb_adapters.networks import _all_clouds as all_clouds
from probemb_adapters.networks import _by_cloud as by_cloud
from probemb_adapters.networks._squares import in_all_clouds
from probemb_lib.gaussian import at_least_float32

__all__ = ["ball_query", "farthest_point_sample", "interpolate", "local_covariance", "nearest_neighbors"]


@torch.no_grad()
def farthest_point_sample(positions: Tensor, count: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Greedy farthest-point sampling: each next point is the one farthest from all those taken before.

    The first is point 0, or a random one of each cloud where a generator is given. Of equally far points the
    lowest index is taken. Where a cloud has fewer than ``count`` distinct positions, all distances are 0
    after those and index 0 repeats. The first m samples are also what sampling m of the samples would give.

    Args:
        positions: (B, N, 3); half precision is computed in float32.
        count: number of points to take, 1 to N.
        generator: on the device of the positions; draws the first point.

    Returns:
        Indices into N, shape (B, count), int64.

    Raises:
        TypeError: positions are not floating point.
        ValueError: positions are not (B, N, 3), empty or not finite, or count is outside 1 to N.

    >>> line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 0, 0]]])
    >>> farthest_point_sample(line, 3)
    tensor([[0, 3, 2]])
    """
    positions = checked_positions(positions, "positions")
    batch, points, _ = positions.shape
    if not 1 <= count <= points:
        raise ValueError(f"count: expected 1 to N = {points} points to sample, got {count}")
    first = torch.zeros(batch, dtype=torch.int64, device=positions.device)
    if generator is not None:
        first = torch.randint(points, (batch,), generator=generator, device=positions.device)
    return farthest(positions, first, count)


def farthest(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """`farthest_point_sample` of checked positions from the first samples (B,)."""
    if positions.is_cpu:
        return by_cloud.farthest(positions, first, count)
    return all_clouds.farthest(positions, first, count)


@torch.no_grad()
def ball_query(
    centers: Tensor, positions: Tensor, radius: float, count: int = 64, *, tile: int | None = None
) -> Tensor:
    """The first ``count`` points, by index, closer to each centre than ``radius``.

    A point is inside where its squared distance, from differences of coordinates in float32 or better, is
    strictly less than radius². A ball with fewer points repeats its first one; a ball with none holds the
    centre's nearest point.

    Args:
        centers: (B, M, 3).
        positions: (B, N, 3).
        radius: > 0, in the unit of the positions.
        count: number of neighbours, ≥ 1.
        tile: about the most distances held at once; by default 1 MB of float32 on CPU (cache), 64 MB elsewhere,
            of all clouds together. The Triton kernels hold none.

    Returns:
        Indices into N, shape (B, M, count), int64, ascending up to the repetitions.

    Raises:
        TypeError: centers or positions are not floating point.
        ValueError: shapes other than the above, different batches, values not finite, radius not positive and
            finite, count or tile below 1.

    >>> line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 0, 0]]])
    >>> ball_query(line[:, 1:], line, radius=1.5, count=3)
    tensor([[[0, 1, 2],
             [1, 2, 1],
             [3, 3, 3]]])
    """
    centers, positions = _checked_pair(centers, positions, "centers", "positions")
    _check_ball(radius, count)
    return balls(centers, positions, radius, count, tile_size(tile, centers.device))


def balls(centers: Tensor, positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """`ball_query` of checked positions."""
    if centers.is_cpu:
        return by_cloud.balls(centers, positions, radius, count, tile)
    return all_clouds.balls(centers, positions, radius, count, tile)


@torch.no_grad()
def nearest_neighbors(queries: Tensor, positions: Tensor, k: int, *, tile: int | None = None) -> tuple[Tensor, Tensor]:
    """The k points nearest to each query, nearest first, from exact differences of coordinates.

    Args:
        queries: (B, N, 3).
        positions: (B, M, 3).
        k: 1 to M.
        tile: as in `ball_query`.

    Returns:
        Squared distances and indices into M, both (B, N, k). Of equally far points the lowest index
        comes first.

    Raises:
        TypeError: queries or positions are not floating point.
        ValueError: shapes other than the above, different batches, values not finite, k outside 1 to M, tile
            below 1.

    >>> line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]])
    >>> nearest_neighbors(torch.tensor([[[1.2, 0, 0]]]), line, 2)[1]
    tensor([[[1, 0]]])
    """
    queries, positions = _checked_pair(queries, positions, "queries", "positions")
    if not 1 <= k <= positions.shape[1]:
        raise ValueError(f"k: expected 1 to M = {positions.shape[1]} neighbours, got {k}")
    return nearest(queries, positions, k, tile_size(tile, queries.device))


def nearest(queries: Tensor, positions: Tensor, k: int, tile: int) -> tuple[Tensor, Tensor]:
    """`nearest_neighbors` of checked positions."""
    if queries.is_cpu:
        return by_cloud.nearest(queries, positions, k, tile)
    return all_clouds.nearest(queries, positions, k, tile)


def interpolate(
    positions_to: Tensor, positions_from: Tensor, features: Tensor, k: int = 3, *, tile: int | None = None
) -> Tensor:
    """Features carried from some points to others: the mean over the k nearest, weighted by 1 / distance².

    A target that coincides with a source takes its features. Gradients flow to the features alone.

    Args:
        positions_to: targets, (B, N, 3).
        positions_from: sources, (B, M, 3).
        features: of the sources, (B, M, C); half precision is computed, and returned, in float32.
        k: ≥ 1; all sources where there are fewer than k.
        tile: as in `ball_query`.

    Returns:
        (B, N, C).

    Raises:
        TypeError: an input is not floating point.
        ValueError: shapes other than the above, different batches, positions not finite, k or tile below 1.

    >>> line = torch.tensor([[[0.0, 0, 0], [3, 0, 0]]])
    >>> interpolate(torch.tensor([[[1.0, 0, 0], [3, 0, 0]]]), line, torch.tensor([[[0.0], [5]]]))
    tensor([[[1.],
             [5.]]])
    """
    positions_to, positions_from = _checked_pair(positions_to, positions_from, "positions_to", "positions_from")
    sources = positions_from.shape[1]
    if features.ndim != 3 or features.shape[:2] != positions_from.shape[:2]:
        raise ValueError(
            f"features: expected shape ({len(positions_from)}, {sources}, C) to match positions_from, "
            f"got {tuple(features.shape)}"
        )
    if not features.is_floating_point():
        raise TypeError(f"features: expected floating point, got {features.dtype}")
    if k < 1:
        raise ValueError(f"k: expected at least 1 neighbour, got {k}")
    return carry(positions_to, positions_from, features, k, tile_size(tile, features.device))


def carry(positions_to: Tensor, positions_from: Tensor, features: Tensor, k: int, tile: int) -> Tensor:
    """`interpolate` of checked input."""
    sources = positions_from.shape[1]
    square, index = nearest(positions_to, positions_from, min(k, sources), tile)
    weight = 1 / square.clamp_min(1e-30)  # a coincident point outweighs all others, whatever the unit
    weight /= weight.sum(-1, keepdim=True)
    features = at_least_float32(features)
    # A bag is a weighted sum of rows: no (B, N, k, C) tensor, in neither direction.
    carried = F.embedding_bag(
        in_all_clouds(index, sources).flatten(0, 1),
        features.flatten(0, 1),
        mode="sum",
        per_sample_weights=weight.flatten(0, 1).to(features.dtype),
    )
    return carried.view(*index.shape[:2], features.shape[2])


@torch.no_grad()
def local_covariance(positions: Tensor, radius: float = 0.1, count: int = 32) -> Tensor:
    """How the points around each point spread: their covariance, an input feature made of the positions alone.

    On a plane it tells the normal, without a sign; on an edge, a rod or a rim it differs from that of a plane. It turns
    with the cloud, and depends on the density of the points only through chance.

    Args:
        positions: (B, N, 3).
        radius: of the neighbourhood, in the unit of the positions.
        count: neighbours at most, the first by index as in :func:`ball_query`.

    Returns:
        (B, N, 6) without gradient: xx, yy, zz, xy, xz, yz, in units of radius².

    Raises:
        TypeError, ValueError: as :func:`ball_query`.

    >>> flat = torch.tensor([[[0.0, 0, 0], [0.05, 0, 0], [0, 0.05, 0], [0.05, 0.05, 0]]])
    >>> local_covariance(flat)[0, 0]
    tensor([0.0625, 0.0625, 0.0000, 0.0000, 0.0000, 0.0000])
    """
    positions = checked_positions(positions, "positions")
    _check_ball(radius, count)
    tile = tile_size(None, positions.device)
    if positions.is_cpu:
        return by_cloud.covariance(positions, radius, count, tile)
    return all_clouds.covariance(positions, radius, count, tile)


def _check_ball(radius: float, count: int) -> None:
    if not 0 < radius < float("inf"):
        raise ValueError(f"radius: expected a positive finite number, got {radius}")
    if count < 1:
        raise ValueError(f"count: expected at least 1 neighbour, got {count}")


def checked_positions(positions: Tensor, name: str) -> Tensor:
    _check_shape(positions, name)
    if not positions.isfinite().all():
        raise _not_finite(name)
    return at_least_float32(positions.detach())


def _checked_pair(first: Tensor, second: Tensor, first_name: str, second_name: str) -> tuple[Tensor, Tensor]:
    _check_shape(first, first_name)
    _check_shape(second, second_name)
    if len(first) != len(second):
        raise ValueError(f"{first_name} and {second_name}: expected one batch size, got {len(first)} and {len(second)}")
    finite = first.isfinite().all()
    if not finite.logical_and(second.isfinite().all()):  # the only wait for a GPU
        raise _not_finite(second_name if finite else first_name)
    first, second = at_least_float32(first.detach()), at_least_float32(second.detach())
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def _check_shape(positions: Tensor, name: str) -> None:
    if not positions.is_floating_point():
        raise TypeError(f"{name}: expected floating point, got {positions.dtype}")
    if positions.ndim != 3 or positions.shape[2] != 3 or positions.numel() == 0:
        raise ValueError(f"{name}: expected shape (B, N, 3) with B, N >= 1, got {tuple(positions.shape)}")


def _not_finite(name: str) -> ValueError:
    return ValueError(f"{name}: expected finite values, got NaN or infinity; clean the cloud in the loader")


def tile_size(tile: int | None, device: torch.device) -> int:
    if tile is None:
        return 2**18 if device.type == "cpu" else 2**24
    if tile < 1:
        raise ValueError(f"tile: expected at least 1 distance, got {tile}")
    return tile
