"""Clustering of scenes too large for the network: overlapping tiles, instances stitched by their Gaussians.

Means of embeddings are absolute coordinates, so the Gaussians of what two tiles found can be compared as they are.
Stitching is the clustering of Eq. 11 once more, with the instances of all tiles as its points.

The order of points and of tiles has no influence: the grid is anchored at the origin, every point belongs to one cell,
whose tile alone labels it, and ties are broken by values, never by the number of a row or a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from probemb_lib.clustering.greedy import _cluster_cloud, greedy_cluster
from probemb_lib.clustering.inputs import best_foreground, check_clustering, check_join, check_limits, check_threshold
from probemb_lib.clustering.join import join_instances
from probemb_lib.clustering.refine import SIZE_EXPONENT
from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding, plain_tensor
from probemb_lib.head import HeadOutput
from probemb_lib.instances import Instances
from probemb_lib.similarity import log_bhattacharyya_paired

Integers = NDArray[np.int64]

REMAPPED_AT_ONCE = 1 << 20  # a second array of all labels could be larger than a tile
FINEST = 2.0**-10  # of a tile, the coarsest steps of float32 coordinates
SOME = 10  # points of a tile, of which all are asked whether their means lie near; fewer may be odd
MAX_CELL = 2.0**53  # beyond, float64 does not tell neighbouring cells apart


@torch.no_grad()
def cluster_tiles(
    positions: Tensor,
    predict: Callable[[Tensor], tuple[GaussianEmbedding, Tensor]],
    *,
    tile_size: float,
    overlap: float,
    axes: Sequence[int] | None = None,
    threshold: float = 0.35,
    min_score: float = 0.0,
    min_points: int = 1,
    background: int | None = 0,
    class_aware: bool = False,
    stitch_threshold: float | None = None,
    refine: bool = False,
    join: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Instances:
    """Predict and cluster a scene tile by tile: what :func:`~probemb_lib.greedy_cluster` is for a scene that fits.

    A tile is a cell of a regular grid, its borders at multiples of ``tile_size``, with ``overlap`` on every side. All
    its points are predicted and clustered, then only those of its cell are labelled. Instances of different tiles are
    one if κ of their seeds, against the best-scored of them, reaches ``stitch_threshold``. One tile around everything
    gives the labels of ``greedy_cluster``; only ties of scores are broken by position (then by Gaussian and class,
    lower first) instead of by row, so that points may come in any order.

    Choose ``overlap`` of at least half the extent of the largest object, so that the tile with its centre sees all of
    it. With the whole extent every tile that labels a part of an object sees all of it, the best-scored point
    included; ``min_score`` needs that, as a tile that sees no point above it finds no instance.

    Beyond the positions, memory is that of one tile, and about 24 bytes a point for labels and the sorting into cells.

    Args:
        positions: (N, D) coordinates of the points of one scene, floating point or integer, on any device.
        predict: the network. From row numbers of ``positions``, (n,) int64 on their device, to the embedding and the
            probabilities (n, L) of these points in this order. Called once for each cell that holds points, without
            gradients; rows come cell by cell and sorted by position. Means must be absolute coordinates.
        tile_size: edge of a cell, in the unit of the positions.
        overlap: what a tile sees beyond its cell, on each side.
        axes: axes to cut; the others are not cut. None: the first two, horizontal in rooms with z upwards.
        threshold, background, class_aware: see :func:`~probemb_lib.greedy_cluster`. With ``class_aware`` instances are
            stitched only if their classes agree.
        min_score: no instance of a tile starts from a point below it, and none is kept whose own points all are.
        min_points: drop instances with fewer points, counted over the whole scene.
        stitch_threshold: like ``threshold`` in (0, 1], for the seeds of instances; None: the same. A lower one also
            joins instances that one tile told apart.
        refine: let the members of each instance decide which points, class and score it has, within each tile as
            :func:`~probemb_lib.refine_instances`; class and score then come from the labelled members in all tiles.
        join: then make one of instances whose Gaussians have at least this κ, see
            :func:`~probemb_lib.join_instances`; those of the tile with most of their points are compared.
        progress: called after each tile with the number of tiles done and of all.

    Returns:
        Instances of the scene, on the device of the positions; rows by score, highest first. The seed of an instance
        is its best-scored point, score, class and embedding are what the tile that labels this point predicted for it;
        with ``refine`` they are those of its members, the embedding that of the tile with most of them.

    Raises:
        TypeError, ValueError: shapes, dtypes, options out of range, NaN or infinity, float32 coordinates so far from
            the origin that their steps are coarse against ``tile_size``, or means that are no absolute coordinates, as
            all of a tile lie farther from their points than ``tile_size + 2 overlap``; the tile is named where it is
            the prediction that is wrong.

    >>> x = torch.tensor([[0.9, 0.0], [1.1, 0.0], [5.0, 0.0]])  # the border between the first two is at 1
    >>> embedding, probabilities = GaussianEmbedding(x, torch.zeros(3, 1)), torch.tensor([[0.2, 0.8]] * 3)
    >>> def network(index):
    ...     return embedding.select(index), probabilities[index]
    >>> cluster_tiles(x, network, tile_size=1.0, overlap=0.0).label
    tensor([0, 0, 1])
    """
    positions = plain_tensor(positions, "positions")
    axes = _check_grid(positions, tile_size, overlap, axes)
    stitch_threshold = threshold if stitch_threshold is None else stitch_threshold
    check_threshold(threshold)
    check_threshold(stitch_threshold, "stitch_threshold")
    check_limits(min_score, min_points)
    check_join(join, refine)
    cluster = partial(
        greedy_cluster,
        threshold=threshold,
        min_score=min_score,
        background=background,
        class_aware=class_aware,
        refine=refine,
    )

    tiles = _Tiles(at_least_float32(positions.detach()).cpu().numpy(), axes, tile_size, overlap)
    _check_steps(positions, tile_size, "positions")
    label = torch.full((positions.shape[0],), -1, dtype=torch.int64)  # counts the tiles' instances until the end
    found: list[_TileInstances] = []
    count = 0
    for tile in tiles:
        number, instances = _cluster_tile(tile, tiles, positions, predict, background, cluster, refine)
        if found and instances.columns != found[0].columns:
            raise ValueError(
                f"{tile}: expected as many columns of mean, log_std and probabilities as for the tiles before, "
                f"{found[0].columns}, got {instances.columns}"
            )
        label[torch.from_numpy(tile.rows[: tile.core])] = torch.where(number >= 0, number + count, -1)
        found.append(instances)
        count += instances.size.numel()
        if progress is not None:
            progress(len(found), len(tiles))
    del tiles  # its order of the points is as large as the labels

    whole = _concatenate(found, positions)
    least = min_points if join is None else 1  # parts of an object may be small
    row, best = _stitch(whole, stitch_threshold, min_score, least, class_aware)
    if refine and len(best.row):
        row, best = _refined(row, best, whole, background, len(positions))
    row = torch.cat([row, row.new_tensor([-1])])  # −1 takes the last, and stays −1
    for some in label.split(REMAPPED_AT_ONCE):
        some.copy_(row[some])
    best = best.to(positions.device)
    scene = Instances(
        label=label.to(positions.device),
        semantic=best.semantic,
        score=best.score,
        seed=best.row,
        batch=torch.zeros_like(best.row),
        embedding=best.embedding,
        point_batch=torch.zeros(label.shape, dtype=torch.int64, device=positions.device),
    )
    if join is None:
        return scene
    scene = join_instances(scene, join, class_aware=class_aware)
    return _best_first(scene.keep(scene.size >= min_points))


def _best_first(found: Instances) -> Instances:
    """The same instances, rows by score."""
    order = found.score.argsort(descending=True, stable=True)
    place = torch.full((len(order) + 1,), -1, device=order.device)  # −1 takes the last, and stays −1
    place[order] = torch.arange(len(order), device=order.device)
    return replace(
        found,
        label=place[found.label],
        semantic=found.semantic[order],
        score=found.score[order],
        seed=found.seed[order],
        batch=found.batch[order],
        embedding=found.embedding.select(order),
    )


class _Tile(NamedTuple):
    """The rows of its points, those of the cell first, and how many these are; the cell's low corner, for errors."""

    rows: Integers
    core: int
    corner: tuple[float, ...]

    def __str__(self) -> str:
        return f"prediction for the tile at ({', '.join(f'{c:g}' for c in self.corner)})"


class _Tiles:
    """The cells with points, in lexicographic order, each with the points that its tile sees."""

    def __init__(self, positions: NDArray[np.generic], axes: Sequence[int], size: float, overlap: float) -> None:
        self.positions, self.axes, self.size, self.overlap = positions, list(axes), size, overlap
        # By position within a cell, as what a network predicts may depend on the order of its points.
        keys = [_from_zero(_cells(positions[:, axis], size)) for axis in self.axes]
        self.order = np.lexsort((*positions.T[::-1], *keys[::-1]))
        first = np.zeros(len(positions), dtype=bool)  # of the points of a cell
        first[:1] = True
        for key in keys:
            key = key[self.order]
            first[1:] |= key[1:] != key[:-1]
        self.ptr = np.append(np.flatnonzero(first), len(positions))
        self.cell = np.stack([_cells(positions[self.order[first], axis], size) for axis in self.axes], axis=1)  # (T, A)

    def __len__(self) -> int:
        return len(self.cell)

    def __iter__(self) -> Iterator[_Tile]:
        return map(self.tile, range(len(self)))

    def tile(self, t: int) -> _Tile:
        cell = self.cell[t]
        low, high = cell * self.size - self.overlap, (cell + 1) * self.size + self.overlap
        reach = math.ceil(min(self.overlap / self.size, 2 * MAX_CELL))  # in cells
        a, b = np.searchsorted(self.cell[:, 0], (cell[0] - reach, cell[0] + reach + 1))
        near = a + np.flatnonzero((np.abs(self.cell[a:b] - cell) <= reach).all(axis=1))
        core = self._points(t)
        seen = [core]
        for rows in (self._points(n) for n in near if n != t):
            x = self.positions[rows][:, self.axes]
            seen.append(rows[((x >= low) & (x < high)).all(axis=1)])
        return _Tile(np.concatenate(seen), len(core), tuple((cell * self.size).tolist()))

    def _points(self, t: int) -> Integers:
        return self.order[self.ptr[t] : self.ptr[t + 1]]


def _cells(x: NDArray[np.generic], size: float) -> NDArray[np.float64]:
    """Number of the cell along one axis: one for each point, also where rounding puts it on a border."""
    cell = x.astype(np.float64)
    with np.errstate(over="ignore"):
        cell /= size
    np.floor(cell, out=cell)
    if cell.size and not max(-cell.min(), cell.max()) < MAX_CELL:
        raise ValueError(
            f"expected a tile_size that leaves less than 2^53 tiles from the origin to any point, got {size} "
            f"for coordinates from {x.min()} to {x.max()}"
        )
    return cell


def _from_zero(cell: NDArray[np.float64]) -> NDArray[np.unsignedinteger]:
    """In as few bytes as will do: numpy sorts up to two in linear time. In place."""
    if cell.size:
        cell -= cell.min()
    return cell.astype(np.min_scalar_type(int(cell.max(initial=0))))


class _Points(NamedTuple):
    """Predicted points: row in the scene (n,), position, best foreground score and its class (n,), Gaussian."""

    row: Tensor
    position: Tensor
    score: Tensor
    semantic: Tensor
    mean: Tensor
    log_std: Tensor

    @property
    def embedding(self) -> GaussianEmbedding:
        return GaussianEmbedding(self.mean, self.log_std)

    def select(self, rows: Tensor) -> _Points:
        return _Points(*(t[rows] for t in self))

    def to(self, device: torch.device | str) -> _Points:
        return _Points(*(t.to(device) for t in self))

    def best_first(self) -> Tensor:
        """Rows by score; of equal scores by position, then Gaussian, then class. What still is equal is the same."""
        order = self.score.argsort(descending=True, stable=True)
        equal = _like_next(self.score[order])
        keys = (self.position, self.mean, self.log_std, self.semantic[:, None])
        for column in (c for key in keys for c in key.unbind(1)):
            if not equal.any():
                break
            run = pad(~equal, (1, 0)).cumsum(0)  # of rows that are equal so far
            tied = (pad(equal, (1, 0)) | pad(equal, (0, 1))).nonzero().squeeze(1)
            rows, run = order[tied], run[tied]
            by_column = column[rows].argsort(stable=True)
            order[tied] = rows[by_column[run[by_column].argsort(stable=True)]]
            equal &= _like_next(column[order])
        return order


def _like_next(x: Tensor) -> Tensor:
    return x[:-1] == x[1:]


class _TileInstances(NamedTuple):
    """Instances of tiles, as far as they own points, on the CPU: what is stitched, what is reported, and the size.

    The seed may lie in the overlap, where another tile labels it. So it cannot stand for the instance in the result;
    the best of the labelled points can, and where tiles agree the seed of the whole instance is among these.
    """

    seed: _Points
    best: _Points
    size: Tensor  # labelled points
    columns: tuple[int, int, int]  # of mean, log_std and probabilities
    members: Tensor  # over the labelled points, float64: sums of the probabilities and, last, of κ; else no column
    center: _Points  # the Gaussian that κ is with


def _cluster_tile(
    tile: _Tile,
    tiles: _Tiles,
    positions: Tensor,
    predict: Callable[[Tensor], tuple[GaussianEmbedding, Tensor]],
    background: int | None,
    cluster: Callable[[GaussianEmbedding, Tensor], Instances],
    refine: bool,
) -> tuple[Tensor, _TileInstances]:
    """Which instance each point of the cell is in, −1 none; and the instances that own any of these points."""
    index = torch.from_numpy(tile.rows).to(positions.device)
    x, probabilities = _check_predicted(predict(index), tile, background)
    _check_steps(x.mean, tiles.size, f"{tile}: mean")
    device = x.mean.device
    points = _Points(index.to(device), positions[index].to(device), *best_foreground(probabilities, background), *x)
    _check_absolute(points, tiles, f"{tile}: mean")
    order = points.best_first()
    points = points.select(order)
    found = cluster(points.embedding, probabilities[order])  # its ties go to the lowest row: the first in our order

    rank = ((order < tile.core) & (found.label >= 0)).nonzero().squeeze(1)
    owner = found.label[rank]
    size = torch.bincount(owner, minlength=len(found))
    best_rank = torch.full_like(found.seed, len(order)).scatter_reduce(0, owner, rank, "amin")
    kept = size > 0
    number = torch.full((tile.core,), -1, dtype=torch.int64, device=device)
    number[order[rank]] = (kept.cumsum(0) - 1)[owner]
    seed, best = (points.select(row[kept]).to("cpu") for row in (found.seed, best_rank))
    columns = (x.mean.shape[1], x.log_std.shape[1], probabilities.shape[1])
    members = torch.zeros((len(found), columns[2] + 1 if refine else 0), dtype=torch.float64)
    if refine:
        kappa = log_bhattacharyya_paired(points.embedding.select(rank), found.embedding.select(owner)).exp()
        of_points = torch.cat((probabilities[order[rank]], kappa[:, None]), 1).double().cpu()
        members.index_add_(0, owner.cpu(), of_points)
    center = best._replace(mean=found.embedding.mean[kept].cpu(), log_std=found.embedding.log_std[kept].cpu())
    return number.cpu(), _TileInstances(seed, best, size[kept].cpu(), columns, members[kept.cpu()], center)


def _check_predicted(
    result: tuple[GaussianEmbedding, Tensor], tile: _Tile, background: int | None
) -> tuple[GaussianEmbedding, Tensor]:
    """Check what the network gives for a tile; return it in float32 or better."""
    if isinstance(result, HeadOutput):
        raise TypeError(f"{tile}: got HeadOutput, which holds logits; return output.embedding, output.probabilities")
    if not (
        isinstance(result, tuple)
        and len(result) == 2
        and isinstance(result[0], GaussianEmbedding)
        and isinstance(result[1], Tensor)
    ):
        raise TypeError(f"{tile}: expected a pair of GaussianEmbedding and Tensor, got {type(result).__name__}")
    try:
        x = check_embedding(result[0])
        if x.mean.shape[0] != len(tile.rows):
            raise ValueError(f"expected {len(tile.rows)} rows, one for each of index, got {x.mean.shape[0]}")
        probabilities, _ = check_clustering(x, result[1], background)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{tile}: {error}") from error
    return x, at_least_float32(probabilities)


def _concatenate(found: list[_TileInstances], positions: Tensor) -> _TileInstances:
    if not found:  # no tile at all
        x, row = positions[:0].to("cpu", torch.float32), torch.zeros(0, dtype=torch.int64)
        none = _Points(row, x, x.new_zeros(0), row, x, x)
        return _TileInstances(none, none, row, (0, 0, 0), x.new_zeros((0, 0)), none)
    seed = _Points(*(torch.cat(c) for c in zip(*(f.seed for f in found), strict=True)))
    best = _Points(*(torch.cat(c) for c in zip(*(f.best for f in found), strict=True)))
    center = _Points(*(torch.cat(c) for c in zip(*(f.center for f in found), strict=True)))
    members = torch.cat([f.members for f in found])
    return _TileInstances(seed, best, torch.cat([f.size for f in found]), found[0].columns, members, center)


def _stitch(
    found: _TileInstances, threshold: float, min_score: float, min_points: int, class_aware: bool
) -> tuple[Tensor, _Points]:
    """Which instance of the scene each instance of a tile is, −1 none; and the best point of these."""
    # Its seed stands for an instance, as in Eq. 11: seeds of one tile are less similar than the threshold, so that one
    # never takes what its own tile told apart from it. Averages over the members (Eq. 3) lack that, and with a rule
    # that forbids it they matched no better across borders in scenes with noise of the points and of the tiles.
    order = found.seed.best_first()
    seed = found.seed
    group = seed.semantic[order] if class_aware else None
    joined, seeds = _cluster_cloud(seed.embedding, order, seed.score[order], group, threshold, -math.inf)
    whole = torch.empty_like(order).index_copy(0, order, joined)

    ranked = found.best.best_first()
    rank = torch.empty_like(ranked).index_copy(0, ranked, torch.arange(len(ranked)))
    best_rank = torch.full_like(seeds, len(ranked)).scatter_reduce(0, whole, rank, "amin")
    size = torch.zeros_like(seeds).index_add(0, whole, found.size)
    best = found.best.select(ranked[best_rank])
    kept = ((size >= min_points) & (best.score >= min_score)).nonzero().squeeze(1)
    kept = kept[best_rank[kept].argsort()]
    row = torch.full_like(seeds, -1).index_copy(0, kept, torch.arange(len(kept)))
    return row[whole], best.select(kept)


def _refined(
    row: Tensor, best: _Points, found: _TileInstances, background: int | None, points: int
) -> tuple[Tensor, _Points]:
    """Class, score and Gaussian of the scene's instances by their members, and the rows by this score."""
    part = (row >= 0).nonzero().squeeze(1)
    owner, size = row[part], found.size[part]
    total = torch.zeros((len(best.row), found.members.shape[1]), dtype=torch.float64)
    total.index_add_(0, owner, found.members[part])
    count = torch.zeros(len(best.row), dtype=torch.int64).index_add(0, owner, size)
    mean = total / count[:, None]
    probability, semantic = best_foreground(mean[:, :-1], background)
    score = probability * mean[:, -1] * (count / points) ** SIZE_EXPONENT
    by_size = part[size.argsort(stable=True)]
    rank = torch.arange(len(part))  # assigning in this order would not do: threads race for who is last
    largest = by_size[torch.zeros_like(best.row).scatter_reduce(0, row[by_size], rank, "amax", include_self=False)]
    center = found.center.select(largest)
    order = score.argsort(descending=True, stable=True)
    place = torch.empty_like(order).index_copy(0, order, torch.arange(len(order)))
    refined = best._replace(
        score=score.to(best.score.dtype), semantic=semantic, mean=center.mean, log_std=center.log_std
    )
    return torch.where(row >= 0, place[row], row), refined.select(order)


def _check_steps(x: Tensor, tile_size: float, what: str) -> None:
    """Refuse coordinates whose float32 neighbours are far apart: at a map's 5,000,000 m it is half a metre."""
    if x.dtype == torch.float32 and x.numel():
        spacing = float(x.abs().max()) * torch.finfo(torch.float32).eps
        if spacing > FINEST * tile_size:
            raise ValueError(
                f"{what}: expected float32 coordinates that are finer than 1/{1 / FINEST:.0f} of tile_size, "
                f"{tile_size:g}, got steps of {spacing:.2g} so far from the origin: subtract an offset, such as the "
                "lowest corner, in float64 before the cast"
            )


def _check_absolute(points: _Points, tiles: _Tiles, what: str) -> None:
    """Refuse means without what was subtracted from the positions of the tile: those of all tiles would lie together.

    With an overlap of half its extent no object has its centre as far from all of its points.
    """
    axes = [axis for axis in tiles.axes if axis < points.mean.shape[1]]
    if not axes or len(points.row) < SOME:
        return
    limit = tiles.size + 2 * tiles.overlap
    least = float((points.mean[:, axes] - points.position[:, axes]).abs().amin(0).max())
    if least > limit:
        raise ValueError(
            f"{what}: expected absolute coordinates, within {limit:g} (tile_size + 2 overlap) of the points, got all "
            f"{least:g} or farther along an axis: add what was subtracted from the positions"
        )


def _check_grid(positions: Tensor, tile_size: float, overlap: float, axes: Sequence[int] | None) -> Sequence[int]:
    if positions.is_complex() or positions.dtype == torch.bool:
        raise TypeError(f"positions: expected floating point or integers, got {positions.dtype}")
    if positions.ndim != 2 or positions.shape[1] < 1:
        raise ValueError(f"expected positions (N, D) with D >= 1, got {tuple(positions.shape)}")
    if positions.numel() and not all(math.isfinite(x) for x in positions.aminmax()):
        row = int((~positions.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(f"expected finite positions, got {positions[row].tolist()} at point {row}")
    if not 0 < tile_size < math.inf:
        raise ValueError(f"expected a finite tile_size > 0, in the unit of the positions, got {tile_size}")
    if not 0 <= overlap < math.inf:
        raise ValueError(f"expected a finite overlap >= 0, in the unit of the positions, got {overlap}")
    dim = positions.shape[1]
    if axes is None:
        return range(min(2, dim))
    if len(axes) == 0 or len(set(axes)) < len(axes) or not all(0 <= axis < dim for axis in axes):
        raise ValueError(f"expected distinct axes in [0, {dim}), at least one, got {tuple(axes)}")
    return axes
