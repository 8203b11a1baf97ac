"""PointNet++ with single-scale grouping in plain PyTorch, and the four geometric functions that it stands on.

Source: Qi et al., "PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space", NeurIPS
2017; the widths are those of the PartNet instance segmentation network. Everything is dense, (B, N, ...),
runs on CPU and GPU alike, and works tile by tile: a (B, M, N) tensor of distances never exists.

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

from probemb_lib.gaussian import at_least_float32

__all__ = ["PointNet2", "ball_query", "farthest_point_sample", "interpolate", "local_covariance", "nearest_neighbors"]


# --- geometry: indices and distances, none of which carries a gradient ---


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
    positions = _checked(positions, "positions")
    batch, points, _ = positions.shape
    if not 1 <= count <= points:
        raise ValueError(f"count: expected 1 to N = {points} points to sample, got {count}")
    # argmax is slow over long rows, amax is not: rows are folded, (B, R, W), so that one amax finds the row
    # of the fold that holds the maximum and two short argmax the place. Folding keeps the order of indices.
    width = max(1, round(points**0.5))
    folds = -(-points // width)
    planes = F.pad(positions.permute(2, 0, 1), (0, folds * width - points))  # (3, B, R*W)
    distance = torch.full_like(planes[0], torch.inf)  # squared, to the nearest sample so far
    distance[:, points:] = -torch.inf
    square, difference = torch.empty_like(distance), torch.empty_like(distance)
    samples = torch.zeros(batch, count, dtype=torch.int64, device=positions.device)
    if generator is not None:
        samples[:, 0] = torch.randint(points, (batch,), generator=generator, device=positions.device)
    for i in range(1, count):
        last = planes.gather(2, samples[:, i - 1, None].expand(3, batch, 1))  # (3, B, 1)
        torch.sub(planes[0], last[0], out=square).square_()
        for plane, coordinate in zip(planes[1:], last[1:], strict=True):
            torch.sub(plane, coordinate, out=difference)
            square.addcmul_(difference, difference)
        torch.minimum(distance, square, out=distance)
        folded = distance.view(batch, folds, width)
        fold = folded.amax(2).argmax(1)[:, None, None]  # (B, 1, 1)
        place = folded.gather(1, fold.expand(batch, 1, width)).argmax(2)  # (B, 1)
        torch.add(place[:, 0], fold[:, 0, 0], alpha=width, out=samples[:, i])
    return samples


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
        tile: most distances held at once; by default 1 MB of float32 on CPU (cache) and 64 MB elsewhere.

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
    tile = _checked_tile(tile, centers.device)
    return torch.stack([_balls(c, p, radius, count, tile) for c, p in zip(centers, positions, strict=True)])


def _balls(centers: Tensor, positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """One cloud of ball_query: (M, 3), (N, 3) -> (M, count)."""
    return torch.cat([_full_balls(c, positions, radius, count, tile) for c in torch.split(centers, tile)])


def _full_balls(centers: Tensor, positions: Tensor, radius: float, count: int, tile: int) -> Tensor:
    """Walk along the points block by block and drop the balls that are full: most are long before the end."""
    index = centers.new_zeros(len(centers), count, dtype=torch.int64)
    found = index.new_zeros(len(centers))
    active = torch.arange(len(centers), device=centers.device)  # balls that still have room
    planes = positions.t().contiguous()
    start = 0
    while start < len(positions) and len(active) > 0:
        block = planes[:, start : start + max(1, tile // len(active))]
        inside = _squared_distance(centers[active], block) < radius**2  # (A, W)
        row, column = inside.nonzero(as_tuple=True)  # sorted by row, then column
        hits = torch.bincount(row, minlength=len(active))
        rank = torch.arange(len(row), device=row.device) + (found[active] - hits.cumsum(0) + hits)[row]
        room = rank < count
        index[active[row[room]], rank[room]] = column[room] + start
        found[active] += hits
        active = active[found[active] < count]
        start += block.shape[1]
    empty = (found == 0).nonzero()[:, 0]
    if len(empty) > 0:
        index[empty, 0] = _nearest(centers[empty], planes, 1, tile)[1][:, 0]
    slot = torch.arange(count, device=index.device)
    return torch.where(slot < found[:, None], index, index[:, :1])


@torch.no_grad()
def nearest_neighbors(queries: Tensor, positions: Tensor, k: int, *, tile: int | None = None) -> tuple[Tensor, Tensor]:
    """The k points nearest to each query, nearest first, from exact differences of coordinates.

    Args:
        queries: (B, N, 3).
        positions: (B, M, 3).
        k: 1 to M.
        tile: most distances held at once, as in `ball_query`.

    Returns:
        Squared distances and indices into M, both (B, N, k). Which of equally far points comes first is open.

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
    tile = _checked_tile(tile, queries.device)
    found = [_nearest(q, p.t().contiguous(), k, tile) for q, p in zip(queries, positions, strict=True)]
    distances, indices = zip(*found, strict=True)
    return torch.stack(distances), torch.stack(indices)


def _nearest(queries: Tensor, planes: Tensor, k: int, tile: int) -> tuple[Tensor, Tensor]:
    """One cloud of nearest_neighbors: (N, 3), (3, M) -> (N, k) twice."""
    points = planes.shape[1]
    # topk is slow over long rows. The k least values lie in the k columns of least minimum of the folded row.
    width = 32
    if points > 4 * width and k <= 4:
        planes = F.pad(planes, (0, -points % width), value=torch.inf)
    else:
        width = 0
    distances, indices = [], []
    for block in torch.split(queries, max(1, tile // planes.shape[1])):
        distance = _squared_distance(block, planes)
        if width == 0:
            least, index = distance.topk(k, largest=False)
        else:
            folded = distance.view(len(block), -1, width)  # (A, M/W, W)
            column = folded.amin(1).topk(k, largest=False, sorted=False)[1]  # (A, k)
            candidates = folded.gather(2, column[:, None].expand(-1, folded.shape[1], -1))
            least, place = candidates.flatten(1).topk(k, largest=False)
            index = place // k * width + column.gather(1, place % k)
        distances.append(least)
        indices.append(index)
    return torch.cat(distances), torch.cat(indices)


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
        tile: most distances held at once, as in `ball_query`.

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
        _rows(index, sources).flatten(0, 1),
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
    positions = _checked(positions, "positions")
    index = ball_query(positions, positions, radius, count)  # (B, N, S)
    counted = torch.ones_like(index, dtype=positions.dtype)
    counted[..., 1:] = (index[..., 1:] != index[..., :1]).to(positions.dtype)  # not the repetitions of the first
    counted /= counted.sum(-1, keepdim=True)
    offsets = F.embedding(_rows(index, positions.shape[1]), positions.flatten(0, 1)) - positions[:, :, None]
    offsets /= radius
    offsets -= (offsets * counted[..., None]).sum(2, keepdim=True)
    first, second = offsets[..., [0, 1, 2, 0, 0, 1]], offsets[..., [0, 1, 2, 1, 2, 2]]
    return (first * second * counted[..., None]).sum(2)


def _squared_distance(points: Tensor, planes: Tensor) -> Tensor:
    """(A, 3) points, (3, W) coordinates of others -> (A, W), from differences: |x|² - 2xy + |y|² cancels."""
    square = (points[:, 0, None] - planes[0]).square_()
    for axis in (1, 2):
        difference = points[:, axis, None] - planes[axis]
        square.addcmul_(difference, difference)
    return square


def _rows(index: Tensor, points: int) -> Tensor:
    """Indices (B, ...) into the points of each cloud -> indices into the rows of all clouds, flattened."""
    first = torch.arange(len(index), device=index.device) * points
    return index + first.view(-1, *[1] * (index.ndim - 1))


def _checked(positions: Tensor, name: str) -> Tensor:
    if not positions.is_floating_point():
        raise TypeError(f"{name}: expected floating point, got {positions.dtype}")
    if positions.ndim != 3 or positions.shape[2] != 3 or positions.numel() == 0:
        raise ValueError(f"{name}: expected shape (B, N, 3) with B, N >= 1, got {tuple(positions.shape)}")
    if not positions.isfinite().all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity; clean the cloud in the loader")
    return at_least_float32(positions.detach())


def _checked_pair(first: Tensor, second: Tensor, first_name: str, second_name: str) -> tuple[Tensor, Tensor]:
    first, second = _checked(first, first_name), _checked(second, second_name)
    if len(first) != len(second):
        raise ValueError(f"{first_name} and {second_name}: expected one batch size, got {len(first)} and {len(second)}")
    dtype = torch.promote_types(first.dtype, second.dtype)
    return first.to(dtype), second.to(dtype)


def _checked_tile(tile: int | None, device: torch.device) -> int:
    if tile is None:
        return 2**18 if device.type == "cpu" else 2**24
    if tile < 1:
        raise ValueError(f"tile: expected at least 1 distance, got {tile}")
    return tile


# --- the network ---


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
            TypeError: positions or features are not floating point.
            ValueError: positions are not (B, N, 3), empty or not finite; features missing, unasked for
                or of another shape; training on a single point (batch norm needs two).
        """
        positions = _checked(positions, "positions")
        self._check_features(features, positions)
        samples = farthest_point_sample(positions, min(512, positions.shape[1]))
        centers1 = positions.gather(1, samples[..., None].expand(-1, -1, 3))
        centers2 = centers1[:, :128]  # of farthest-point samples, the first are the farthest-point samples

        features1 = _abstract(self.sa1, centers1, 0.2, positions, features)
        features2 = _abstract(self.sa2, centers2, 0.4, centers1, features1)
        whole = self.sa3.pool(self.sa3.first(centers2, self.sa3.project(features2)))[:, None]  # (B, 1, 1024)

        carried = self.fp3.project(whole).expand(-1, centers2.shape[1], -1)
        features2 = self.fp3(self.fp3.first(features2, carried))
        carried = interpolate(centers1, centers2, self.fp2.project(features2))
        features1 = self.fp2(self.fp2.first(features1, carried))
        carried = interpolate(positions, centers1, self.fp1.project(features1))
        direct = positions if features is None else torch.cat([positions, features.to(positions.dtype)], -1)
        out: Tensor = self.fp1(self.fp1.first(direct, carried))
        return out

    def _check_features(self, features: Tensor | None, positions: Tensor) -> None:
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
    rows = _rows(ball_query(centers, positions, radius), positions.shape[1])  # (B, M, S)
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
            rate = 1 / int(steps) if norm.momentum is None else norm.momentum
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
        for tile in torch.split(rows, max(1, _checked_tile(None, z.device) // rows.shape[1])):
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
