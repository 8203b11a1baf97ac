"""Augmentation of ScanNet's scenes, as codebases for them have it: positions in metres, colours in −1 … 1.

Each is a transform of torch-geometric for items of `ScanNetScenes`. It changes ``pos`` or the colours ``x``, or drops
points; ``rgb`` stays that of the file, and the item that was passed in stays as it is. All random numbers come from
torch's global generator (``torch.manual_seed``; `probemb_adapters.training.batches` gives each item a seed of its own).

Sources: elastic distortion is that of Simard et al., "Best practices for convolutional neural networks" (ICDAR 2003),
on a grid in space; contrast, shift and jitter of colours and their sizes are those of 4D Spatio-Temporal ConvNets
(Choy et al., CVPR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from probemb_adapters.files import missing_extra
from probemb_adapters.networks.voxels import voxelize

try:
    from torch_geometric.data import Data
    from torch_geometric.transforms import BaseTransform, Compose
except ImportError as error:
    raise missing_extra("augmentation needs torch-geometric", "scannet", error) from error

MAX_NODES = 2**26
"""Largest grid of an elastic distortion; that of a room of 10 × 10 × 3 m has 50,000 nodes."""


class _Augmentation(BaseTransform):  # type: ignore[misc]  # torch-geometric ships no types
    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in vars(self).items())})"


class CenterScene(_Augmentation):
    """Moves the middle of the bounding box to x = y = 0 and the lowest point to z = 0.

    >>> CenterScene()(Data(pos=torch.tensor([[2.0, 4.0, 1.0], [4.0, 4.0, 3.0]]))).pos
    tensor([[-1.,  0.,  0.],
            [ 1.,  0.,  2.]])
    """

    def forward(self, data: Data) -> Data:
        low, high = data.pos.aminmax(dim=0)
        origin = (low + high) / 2
        origin[2] = low[2]
        data.pos = data.pos - origin
        return data


class RandomAffine(_Augmentation):
    """Rotates, mirrors, scales and moves a whole scene, about the origin; in this order, each drawn anew.

    Args:
        degrees: bound of the rotation about z, the vertical.
        tilt: bound of the rotations about x and y, in degrees.
        mirror: probability to mirror x, and independently y.
        scale: range of the one factor for all axes.
        translation: bound of the displacement per axis, in metres.

    Raises:
        ValueError: a bound is negative, ``mirror`` is no probability, or ``scale`` no range of positive numbers.
    """

    def __init__(
        self,
        *,
        degrees: float = 180.0,
        tilt: float = 0.0,
        mirror: float = 0.5,
        scale: tuple[float, float] = (0.9, 1.1),
        translation: float = 0.2,
    ) -> None:
        for name, value in (("degrees", degrees), ("tilt", tilt), ("translation", translation)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite bound >= 0, got {value}")
        _check_probability("mirror", mirror)
        if not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError(f"scale: expected a range of positive numbers, got {scale}")
        self.degrees, self.tilt, self.mirror, self.scale, self.translation = degrees, tilt, mirror, scale, translation

    def forward(self, data: Data) -> Data:
        # All are drawn whatever the settings, in float64: switching one off leaves the others as they are.
        angles = _symmetric(3) * torch.tensor([self.tilt, self.tilt, self.degrees]).deg2rad()
        mirrored = torch.rand(2, dtype=torch.float64) < self.mirror
        low, high = self.scale
        factor = low + (high - low) * torch.rand((), dtype=torch.float64)
        matrix = factor * torch.diag(torch.cat([1 - 2 * mirrored.double(), torch.ones(1)]))  # (3, 3)
        for axis, angle in enumerate(angles.tolist()):
            matrix = matrix @ _rotation(axis, angle)
        shift = _symmetric(3) * self.translation
        data.pos = data.pos @ matrix.T.to(data.pos) + shift.to(data.pos)
        return data


class ElasticDistortion(_Augmentation):
    """Bends a scene by smooth random displacements, coarse after fine.

    For each (g, m): Gaussian noise on a grid of spacing g over the scene, averaged twice over 3 × 3 × 3 nodes, taken
    linearly between nodes, times m. The standard deviation of the displacement is up to 0.11·m per axis.

    Args:
        steps: (granularity, magnitude) of each distortion, in metres.
        p: probability to distort at all.

    Raises:
        ValueError: a granularity is not positive, a magnitude negative, or ``p`` no probability; or, on a scene, the
            grid would have more than 2²⁶ nodes.
    """

    def __init__(self, steps: Sequence[tuple[float, float]] = ((0.2, 0.4), (0.8, 1.6)), p: float = 0.95) -> None:
        for granularity, magnitude in steps:
            if not (0 < granularity < math.inf and 0 <= magnitude < math.inf):
                raise ValueError(f"steps: expected granularities > 0 and magnitudes >= 0, got {list(steps)}")
        _check_probability("p", p)
        self.steps, self.p = tuple(steps), p

    def forward(self, data: Data) -> Data:
        if torch.rand(()) < self.p:
            for granularity, magnitude in self.steps:
                data.pos = data.pos + magnitude * _smooth_noise(data.pos, granularity)
        return data


class RandomColorContrast(_Augmentation):
    """Stretches each channel of ``x`` to −1 … 1 and blends the result with what it was, in random proportion.

    Args:
        p: probability to do so.

    Raises:
        ValueError: ``p`` is no probability.
    """

    def __init__(self, p: float = 0.2) -> None:
        _check_probability("p", p)
        self.p = p

    def forward(self, data: Data) -> Data:
        apply, blend = torch.rand(2).tolist()
        if apply < self.p:
            low, high = data.x.aminmax(dim=0)
            stretched = torch.where(high > low, 2 * (data.x - low) / (high - low) - 1, data.x)
            data.x = data.x.lerp(stretched, blend)
        return data


class RandomColorShift(_Augmentation):
    """Adds one number to each channel of ``x``, the same for all points; the result stays in −1 … 1.

    Args:
        limit: bound of the number, as a share of the whole range: 0.1 is 25.5 of 255.
        p: probability to do so.

    Raises:
        ValueError: ``limit`` is negative or ``p`` no probability.
    """

    def __init__(self, limit: float = 0.1, p: float = 0.95) -> None:
        _check_share("limit", limit)
        _check_probability("p", p)
        self.limit, self.p = limit, p

    def forward(self, data: Data) -> Data:
        if torch.rand(()) < self.p:
            shift = _symmetric(data.x.shape[1]) * self.limit * 2  # x has a range of 2
            data.x = (data.x + shift.to(data.x)).clamp(-1, 1)
        return data


class RandomColorJitter(_Augmentation):
    """Adds Gaussian noise to each channel of each point of ``x``; the result stays in −1 … 1.

    Args:
        std: standard deviation, as a share of the whole range: 0.05 is 12.75 of 255.
        p: probability to do so.

    Raises:
        ValueError: ``std`` is negative or ``p`` no probability.
    """

    def __init__(self, std: float = 0.05, p: float = 0.95) -> None:
        _check_share("std", std)
        _check_probability("p", p)
        self.std, self.p = std, p

    def forward(self, data: Data) -> Data:
        if torch.rand(()) < self.p:
            data.x = (data.x + 2 * self.std * torch.randn(data.x.shape).to(data.x)).clamp(-1, 1)
        return data


class SphereCrop(_Augmentation):
    """Keeps the points nearest to a random one, in their order; scenes with no more than ``max_points`` stay whole.

    Instances keep their ids, so that some ids may be gone afterwards, and may be cut.

    Args:
        max_points: as many points are kept.
        around_instances: take the random point from a random instance, so that small crops show as many small objects
            as large ones, and few bare walls; from all points where there is no instance.

    Raises:
        ValueError: ``max_points`` is less than 1.
    """

    def __init__(self, max_points: int, *, around_instances: bool = False) -> None:
        if max_points < 1:
            raise ValueError(f"max_points: expected at least 1, got {max_points}")
        self.max_points, self.around_instances = max_points, around_instances

    def forward(self, data: Data) -> Data:
        if data.num_nodes <= self.max_points:
            return data
        candidates = data.pos
        if self.around_instances and (data.instance >= 0).any():
            ids = data.instance[data.instance >= 0].unique()
            candidates = data.pos[data.instance == ids[int(torch.randint(len(ids), ()))]]
        squared = (data.pos - _random_point(candidates)).square().sum(dim=1)
        return _keep(data, squared.topk(self.max_points, largest=False).indices.sort().values)


class VoxelSample(_Augmentation):
    """Keeps one random point of each voxel, in their order.

    For networks on voxels: what comes after the network costs less, and points where the scanner saw much count as
    often as others. Instances keep their ids, so that small ones may be gone afterwards.

    Args:
        voxel_size: edge of the voxels, in metres; the grid has a corner at the origin.

    Raises:
        ValueError: ``voxel_size`` is not positive.
    """

    def __init__(self, voxel_size: float) -> None:
        if not 0 < voxel_size < math.inf:
            raise ValueError(f"voxel_size: expected a positive number of metres, got {voxel_size}")
        self.voxel_size = voxel_size

    def forward(self, data: Data) -> Data:
        voxels = voxelize(data.pos, self.voxel_size)
        rank = torch.randperm(data.num_nodes)
        best = torch.zeros(len(voxels.coordinates), dtype=torch.int64)
        best = best.scatter_reduce(0, voxels.index, rank, "amax", include_self=False)
        return _keep(data, (rank == best[voxels.index]).nonzero().squeeze(1))


def scene_augmentation(
    max_points: int | None = None,
    voxel_size: float | None = None,
    *,
    around_instances: bool = False,
    elastic: bool = True,
) -> Compose:
    """The usual augmentation of a scene for training: centre, rotate …, distort, sample, crop, change colours.

    Args:
        max_points: crop to as many points around a random one; None leaves the scene whole.
        voxel_size: keep one point of each voxel, before the crop; None keeps all.
        around_instances: of the crop, see :class:`SphereCrop`.
        elastic: distort.

    >>> scene_augmentation(max_points=3)(Data(pos=torch.rand(5, 3), x=torch.zeros(5, 3))).pos.shape
    torch.Size([3, 3])
    """
    sample = [] if voxel_size is None else [VoxelSample(voxel_size)]
    crop = [] if max_points is None else [SphereCrop(max_points, around_instances=around_instances)]
    colors = [RandomColorContrast(), RandomColorShift(), RandomColorJitter()]
    bend = [ElasticDistortion()] if elastic else []
    return Compose([CenterScene(), RandomAffine(tilt=180 / 64), *bend, *sample, *crop, *colors])


def _symmetric(count: int) -> Tensor:
    """(count,) float64, uniform in −1 … 1."""
    return 2 * torch.rand(count, dtype=torch.float64) - 1


def _rotation(axis: int, angle: float) -> Tensor:
    """(3, 3) float64, counterclockwise by ``angle`` about an axis that points at the viewer."""
    matrix = torch.eye(3, dtype=torch.float64)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def _smooth_noise(pos: Tensor, granularity: float) -> Tensor:
    """(N, 3) the noise of ElasticDistortion for magnitude 1."""
    low, high = pos.aminmax(dim=0)
    extent = (high - low).tolist()
    counts = [math.ceil(length / granularity) + 3 for length in extent]  # a node around on each side
    if math.prod(counts) > MAX_NODES:
        raise ValueError(
            f"expected positions in metres, got an extent of {extent}: a grid of spacing {granularity} would have "
            f"{math.prod(counts)} nodes"
        )
    noise = torch.randn(1, 3, *counts).to(pos)
    for _ in range(2):
        noise = F.avg_pool3d(noise, kernel_size=3, stride=1, padding=1)  # zeros outside
    cell = (pos - low) / granularity + 1  # (N, 3), where node 0 is at 0
    place = 2 * cell / (cell.new_tensor(counts) - 1) - 1
    grid = place.flip(1).view(1, -1, 1, 1, 3)  # grid_sample wants the last axis first
    return F.grid_sample(noise, grid, mode="bilinear", align_corners=True).view(3, -1).T


def _random_point(pos: Tensor) -> Tensor:
    return pos[int(torch.randint(len(pos), ()))]


def _keep(data: Data, index: Tensor) -> Data:
    """The points of ``index`` with all that an item has of each point."""
    count = data.num_nodes
    for name, value in data.to_dict().items():
        if isinstance(value, Tensor) and value.dim() and len(value) == count:
            data[name] = value[index]
    return data


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability, got {value}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a finite share >= 0, got {value}")
