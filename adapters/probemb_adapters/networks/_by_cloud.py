"""The geometry of `point_geometry` cloud by cloud: the way on CPU, where calls are cheap and the cache is small.

Most comparisons are left out: patches of centres look at the points near their box, and a k-d tree finds neighbours.
Everything is given checked and without gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from probemb_adapters.networks._squares import covariance_of, squared_distance, squared_norm

PATCH = 128  # centres of a ball query that are taken together
CACHED = 2**16  # points, of several clouds, that farthest-point sampling goes through at a time


def farthest(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """Farthest points (B, count) from positions (B, N, 3) and the first samples (B,)."""
    size = max(1, CACHED // positions.shape[1])
    parts = zip(positions.split(size), first.split(size), strict=True)
    return torch.cat([_farthest(part, start, count) for part, start in parts])


def _farthest(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """On arrays, whose calls cost a fraction of torch's; arrays and tensors share their memory."""
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


def balls(centers: Tensor, positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """The first points in each ball: (B, M, 3), (B, N, 3) -> (B, M, count)."""
    return torch.stack([_balls(c, p, radius, count, tile) for c, p in zip(centers, positions, strict=True)])


def _balls(centers: Tensor, positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """One cloud: (M, 3), (N, 3) -> (M, count)."""
    planes = positions.t().contiguous()
    limit = torch.tensor(radius * radius, dtype=planes.dtype)
    index, found = _first_inside_by_patch(centers, planes, limit, count, tile)
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
        for near in squared_norm(gap).numpy() <= limit.numpy():
            yield torch.from_numpy(np.flatnonzero(near))


def _first_inside(centers: Tensor, planes: Tensor, limit: Tensor, count: int, tile: int) -> tuple[Tensor, Tensor]:
    """The first points inside, the first of all repeated where they are too few, (A, count), and how many, (A,).

    Walks along the points block by block and drops the balls that are full: most are long before the end.
    """
    index = torch.zeros(len(centers), count, dtype=torch.int64)
    found = torch.zeros_like(index[:, 0])
    slot = torch.arange(count)
    rows: Tensor | slice = slice(None)  # balls that still have room
    start, room = 0, len(centers)
    while start < planes.shape[1] and room > 0:
        block = planes[:, start : start + max(1, tile // room)]
        hits = _less(squared_distance(centers[rows], block), limit)  # sorted by ball, then point
        if len(hits) > 0:
            first = torch.arange(room + 1) * block.shape[1]  # place of each ball's row
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


def nearest(queries: Tensor, positions: Tensor, k: int, tile: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices of the nearest: (B, N, 3), (B, M, 3) -> (B, N, k) twice."""
    pairs = zip(queries, positions, strict=True)
    squares, indices = zip(*[_nearest(q, p.t().contiguous(), k, tile) for q, p in pairs], strict=True)
    return torch.stack(squares), torch.stack(indices)


def _nearest(queries: Tensor, planes: Tensor, k: int, tile: int) -> tuple[Tensor, Tensor]:
    """One cloud: (N, 3), (3, M) -> (N, k) twice."""
    if k == planes.shape[1]:
        return _least(queries, planes, k, tile)
    tree = cKDTree(planes.t().numpy())  # computes in float64
    distance, near = tree.query(queries.numpy(), list(range(1, k + 2)), workers=torch.get_num_threads())
    index = torch.from_numpy(np.sort(near[:, :k]))
    square, order = squared_norm(planes[:, index] - queries.t()[..., None]).sort(stable=True)
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
        closeness = squared_distance(block, planes).clamp_max_(torch.finfo(planes.dtype).max).neg_()
        found, index = [], []
        for _ in range(k):
            index.append(_argmax(closeness)[:, None])
            found.append(closeness.gather(1, index[-1]))
            closeness.scatter_(1, index[-1], -torch.inf)
        squares.append(torch.cat(found, 1).neg_())
        indices.append(torch.cat(index, 1))
    return torch.cat(squares), torch.cat(indices)


def covariance(positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """Of the neighbours of each point: (B, N, 3) -> (B, N, 6)."""
    index = balls(positions, positions, radius, count, tile)
    pairs = zip(positions, index, strict=True)
    return torch.stack([covariance_of(x.t().contiguous(), x, i, radius) for x, i in pairs])


def _less(values: Tensor, limit: Tensor) -> Tensor:
    """Places in the flattened values that are less, ascending. torch takes several times as long."""
    return torch.from_numpy(np.flatnonzero(values.numpy() < limit.numpy()))


def _argmax(values: Tensor) -> Tensor:
    """(A, W) -> (A,), of equal values the first. torch takes several times as long."""
    return torch.from_numpy(values.numpy().argmax(1))
