"""Geometry of point clouds side by side, (B, N, 3): samples, neighbours, and what the neighbours tell.

Nothing here carries a gradient to positions. All runs on CPU and GPU alike and without a (B, M, N) tensor of distances.
Squared distances alone decide who is nearest, inside or farthest: (dx² + dy²) + dz² in the dtype of the positions, from
differences of coordinates, as |x|² - 2xy + |y|² cancels. Of equal ones the lowest index comes first. So the answer is
that of comparing everything with everything in that arithmetic, ties included; on CPU most comparisons are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from probemb_lib.gaussian import at_least_float32

__all__ = ["ball_query", "farthest_point_sample", "interpolate", "local_covariance", "nearest_neighbors"]

PATCH = 128  # centres of a ball query that are taken together on CPU
CACHED = 2**16  # points, of several clouds, that farthest-point sampling on CPU goes through at a time


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
    if positions.device.type != "cpu":
        return _farthest(positions, first, count)
    size = max(1, CACHED // points)
    parts = zip(positions.split(size), first.split(size), strict=True)
    return torch.cat([_farthest_on_cpu(part, start, count) for part, start in parts])


def _farthest(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """(B, N, 3), first samples (B,) -> (B, count)."""
    batch, points, _ = positions.shape
    planes = positions.permute(2, 0, 1).contiguous()
    columns, cloud = planes.flatten(1), torch.arange(batch, device=positions.device) * points
    difference = torch.empty_like(planes)
    distance = torch.full_like(planes[0], torch.inf)  # squared, to the nearest sample so far
    samples = [first]
    for _ in range(1, count):
        last = columns.index_select(1, cloud + samples[-1])  # (3, B)
        torch.sub(planes, last[..., None], out=difference)
        torch.minimum(distance, _squared_norm(difference), out=distance)
        samples.append(_argmax(distance))
    return torch.stack(samples, 1)


def _farthest_on_cpu(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """The same on arrays, whose calls cost a fraction of torch's; arrays and tensors share their memory."""
    planes = positions.permute(2, 0, 1).contiguous()
    square, dy, dz = difference = torch.empty_like(planes)
    points, differences, squares = planes.numpy(), difference.numpy(), square.numpy()
    distance = np.full_like(squares, np.inf)
    cloud = np.arange(len(positions))
    samples = np.empty((count, len(positions)), dtype=np.int64)
    samples[0] = first.numpy()
    for i in range(1, count):
        np.subtract(points, points[:, cloud, samples[i - 1], None], out=differences)
        np.multiply(squares, squares, out=squares)
        square.addcmul_(dy, dy).addcmul_(dz, dz)  # numpy has none, and its two operations would round twice
        np.minimum(distance, squares, out=distance)
        distance.argmax(1, out=samples[i])
    return torch.from_numpy(samples.T.copy())


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
        tile: about the most distances held at once; by default 1 MB of float32 on CPU (cache), 64 MB elsewhere.

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
    if not 0 < radius < float("inf"):
        raise ValueError(f"radius: expected a positive finite number, got {radius}")
    if count < 1:
        raise ValueError(f"count: expected at least 1 neighbour, got {count}")
    tile = tile_size(tile, centers.device)
    return torch.stack([_balls(c, p, radius, count, tile) for c, p in zip(centers, positions, strict=True)])


def _balls(centers: Tensor, positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """One cloud of ball_query: (M, 3), (N, 3) -> (M, count)."""
    planes = positions.t().contiguous()
    limit = torch.tensor(radius * radius, dtype=planes.dtype, device=planes.device)
    search = _first_inside_by_patch if planes.device.type == "cpu" else _first_inside
    index, found = search(centers, planes, limit, count, tile)
    empty = (found == 0).nonzero()[:, 0]
    if len(empty) > 0:
        index[empty] = _nearest(centers[empty], planes, 1, tile)[1]
    return index


def _first_inside_by_patch(
    centers: Tensor, planes: Tensor, limit: Tensor, count: int, tile: int
) -> tuple[Tensor, Tensor]:
    """_first_inside for patches of centres that lie together, each among the points near its box."""
    order = torch.from_numpy(np.asarray(cKDTree(centers.numpy(), leafsize=PATCH).indices, dtype=np.int64))
    patches = centers[order].split(PATCH)
    index, found = [], []
    for patch, near in zip(patches, _near_boxes(patches, planes, limit, tile), strict=True):
        place, hits = _first_inside(patch, planes.index_select(1, near), limit, count, tile)
        index.append(near.take(place) if len(near) > 0 else place)
        found.append(hits)
    back = order.argsort()
    return torch.cat(index)[back], torch.cat(found)[back]


def _near_boxes(patches: Sequence[Tensor], planes: Tensor, limit: Tensor, tile: int) -> Iterator[Tensor]:
    """For each patch the points, ascending, whose squared distance to the box around it is at most the limit.

    That distance is never more than the one to a centre in the box, rounding included: rounding keeps the order of
    numbers. So no margin is needed, and no point inside a ball is missed.
    """
    lower = torch.stack([patch.amin(0) for patch in patches], 1)[..., None]  # (3, G, 1)
    upper = torch.stack([patch.amax(0) for patch in patches], 1)[..., None]
    size = max(1, tile // planes.shape[1])
    for low, high in zip(lower.split(size, 1), upper.split(size, 1), strict=True):
        gap = torch.maximum(low - planes[:, None], planes[:, None] - high).clamp_min_(0)  # (3, g, N)
        for near in _squared_norm(gap).numpy() <= limit.numpy():
            yield torch.from_numpy(np.flatnonzero(near))


def _first_inside(centers: Tensor, planes: Tensor, limit: Tensor, count: int, tile: int) -> tuple[Tensor, Tensor]:
    """The first points inside, the first of all repeated where they are too few, (A, count), and how many, (A,).

    Walks along the points block by block and drops the balls that are full: most are long before the end.
    """
    index = torch.zeros(len(centers), count, dtype=torch.int64, device=centers.device)
    found = torch.zeros_like(index[:, 0])
    slot = torch.arange(count, device=centers.device)
    rows: Tensor | slice = slice(None)  # balls that still have room
    start, room = 0, len(centers)
    while start < planes.shape[1] and room > 0:
        block = planes[:, start : start + max(1, tile // room)]
        hits = _less(_squared_distance(centers[rows], block), limit)  # sorted by ball, then point
        if len(hits) > 0:
            first = torch.arange(room + 1, device=hits.device) * block.shape[1]  # place of each ball's row
            bounds = torch.searchsorted(hits, first)  # of its hits
            had = found[rows, None]
            place = bounds[:-1, None] - had + slot  # of the hit that goes into the slot
            fresh = (slot >= had) & (place < bounds[1:, None])
            point = hits.take(place.clamp_(0, len(hits) - 1)).sub_(first[:-1, None] - start)
            index[rows] = torch.where(fresh, point, index[rows])
            found[rows] += bounds.diff()
        start += block.shape[1]
        if start < planes.shape[1]:
            rows = (found < count).nonzero()[:, 0]
            room = len(rows)
    return torch.where(slot < found[:, None], index, index[:, :1]), found


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
    tile = tile_size(tile, queries.device)
    found = [_nearest(q, p.t().contiguous(), k, tile) for q, p in zip(queries, positions, strict=True)]
    distances, indices = zip(*found, strict=True)
    return torch.stack(distances), torch.stack(indices)


def _nearest(queries: Tensor, planes: Tensor, k: int, tile: int) -> tuple[Tensor, Tensor]:
    """One cloud of nearest_neighbors: (N, 3), (3, M) -> (N, k) twice."""
    if planes.device.type != "cpu" or k == planes.shape[1]:
        return _least(queries, planes, k, tile)
    tree = cKDTree(planes.t().numpy())  # computes in float64
    distance, near = tree.query(queries.numpy(), list(range(1, k + 2)), workers=torch.get_num_threads())
    index = torch.from_numpy(np.sort(near[:, :k]))
    square, order = _squared_norm(planes[:, index] - queries.t()[..., None]).sort(stable=True)
    index = index.gather(1, order)
    # The k found are the k least unless rounding puts the next one before the last of them: a square in float32 is off
    # by less than 4e-7 of itself, or by a few of the least normal numbers.
    last, following = torch.from_numpy(distance[:, k - 1 :]).square_().unbind(1)
    doubt = (following <= last * (1 + 2e-6) + 1e-36).nonzero()[:, 0]
    if len(doubt) > 0:
        square[doubt], index[doubt] = _least(queries[doubt], planes, k, tile)
    return square, index


def _least(queries: Tensor, planes: Tensor, k: int, tile: int) -> tuple[Tensor, Tensor]:
    """The same from all distances."""
    squares, indices = [], []
    for block in queries.split(max(1, tile // planes.shape[1])):
        closeness = _squared_distance(block, planes).clamp_max_(torch.finfo(planes.dtype).max).neg_()
        found, index = [], []
        for _ in range(k):
            index.append(_argmax(closeness)[:, None])
            found.append(closeness.gather(1, index[-1]))
            closeness.scatter_(1, index[-1], -torch.inf)
        squares.append(torch.cat(found, 1).neg_())
        indices.append(torch.cat(index, 1))
    return torch.cat(squares), torch.cat(indices)


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
    square, index = nearest_neighbors(positions_to, positions_from, min(k, sources), tile=tile)
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
    index = ball_query(positions, positions, radius, count)
    return torch.stack([_covariance(x, i, radius) for x, i in zip(positions, index, strict=True)])


def _covariance(positions: Tensor, index: Tensor, radius: float) -> Tensor:
    """One cloud of local_covariance: (N, 3), (N, S) -> (N, 6)."""
    weight = torch.ones_like(index, dtype=positions.dtype)
    weight[:, 1:] = index[:, 1:] != index[:, :1]  # not the repetitions of the first
    weight /= weight.sum(1, keepdim=True)
    offsets = []
    for plane in positions.t().contiguous():
        offset = plane.take(index).sub_(plane[:, None]).div_(radius)
        offsets.append(offset.sub_((offset * weight).sum(1, keepdim=True)))
    (x, y, z), (wx, wy, wz) = offsets, [offset * weight for offset in offsets]
    pairs = [(wx, x), (wy, y), (wz, z), (wx, y), (wx, z), (wy, z)]
    return torch.stack([(first * second).sum(1) for first, second in pairs], 1)


def _squared_distance(points: Tensor, planes: Tensor) -> Tensor:
    """(A, 3) points, (3, W) coordinates of others -> (A, W), with two tensors of that size at most."""
    square = (points[:, 0, None] - planes[0]).square_()
    for axis in (1, 2):
        difference = points[:, axis, None] - planes[axis]
        square.addcmul_(difference, difference)
    return square


def _squared_norm(planes: Tensor) -> Tensor:
    """(3, ...) -> (...), written over the first plane."""
    square, dy, dz = planes.unbind(0)
    return square.square_().addcmul_(dy, dy).addcmul_(dz, dz)


def _less(values: Tensor, limit: Tensor) -> Tensor:
    """Places in the flattened values that are less, ascending. torch takes several times as long on CPU as numpy."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(values.numpy() < limit.numpy()))
    return (values < limit).flatten().nonzero()[:, 0]


def _argmax(values: Tensor) -> Tensor:
    """(A, W) -> (A,), of equal values the first. torch takes several times as long on CPU as numpy."""
    if values.device.type == "cpu":
        return torch.from_numpy(values.numpy().argmax(1))
    return values.argmax(1)


def in_all_clouds(index: Tensor, points: int) -> Tensor:
    """Indices (B, ...) into the points of each cloud -> indices into the rows of all clouds, flattened."""
    first = torch.arange(len(index), device=index.device) * points
    return index + first.view(-1, *[1] * (index.ndim - 1))


def checked_positions(positions: Tensor, name: str) -> Tensor:
    if not positions.is_floating_point():
        raise TypeError(f"{name}: expected floating point, got {positions.dtype}")
    if positions.ndim != 3 or positions.shape[2] != 3 or positions.numel() == 0:
        raise ValueError(f"{name}: expected shape (B, N, 3) with B, N >= 1, got {tuple(positions.shape)}")
    if not positions.isfinite().all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity; clean the cloud in the loader")
    return at_least_float32(positions.detach())


def _checked_pair(first: Tensor, second: Tensor, first_name: str, second_name: str) -> tuple[Tensor, Tensor]:
    first, second = checked_positions(first, first_name), checked_positions(second, second_name)
    if len(first) != len(second):
        raise ValueError(f"{first_name} and {second_name}: expected one batch size, got {len(first)} and {len(second)}")
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def tile_size(tile: int | None, device: torch.device) -> int:
    if tile is None:
        return 2**18 if device.type == "cpu" else 2**24
    if tile < 1:
        raise ValueError(f"tile: expected at least 1 distance, got {tile}")
    return tile
