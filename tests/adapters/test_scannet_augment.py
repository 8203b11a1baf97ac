"""Augmentation of scenes: what each transform does to a point, by other means, and what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import correlate1d
from torch import Tensor
from torch.testing import assert_close
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from probemb_adapters.scannet.augment import (
    CenterScene,
    ElasticDistortion,
    RandomAffine,
    RandomColorContrast,
    RandomColorJitter,
    RandomColorShift,
    SphereCrop,
    VoxelSample,
    scene_augmentation,
)
from probemb_adapters.training.batches import Draw, SeededItems

POINTS = 500
EVERY = [
    CenterScene(),
    RandomAffine(tilt=3),
    ElasticDistortion(p=1),
    RandomColorContrast(p=1),
    RandomColorShift(p=1),
    RandomColorJitter(p=1),
    SphereCrop(100),
    SphereCrop(100, around_instances=True),
    VoxelSample(2.0),
    scene_augmentation(200),
    scene_augmentation(200, voxel_size=0.5),
]
RANDOM = EVERY[1:]


def scene(points: int = POINTS, dtype: torch.dtype = torch.float32) -> Data:
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(0, 256, (points, 3), generator=generator).to(torch.uint8)
    data = Data(
        pos=(torch.rand(points, 3, generator=generator, dtype=torch.float64) * 5 + 1).to(dtype),
        rgb=rgb,
        x=(rgb / 127.5 - 1).to(dtype),
        instance=torch.arange(points) % 7 - 1,
        vertex=torch.arange(points),
    )
    data.num_vertices, data.scene_id = points, "scene0000_00"
    return data


def apply(transform: BaseTransform, seed: int, data: Data | None = None) -> Data:
    torch.manual_seed(seed)
    return transform(scene() if data is None else data)


def affine_of(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix and the shift that least squares finds."""
    homogeneous = torch.cat([before, torch.ones(len(before), 1)], 1).double()
    solution = torch.linalg.lstsq(homogeneous, after.double()).solution
    assert_close(homogeneous @ solution, after.double(), atol=1e-5, rtol=0)
    return solution[:3].T, solution[3]


name_of = pytest.mark.parametrize("transform", EVERY, ids=lambda t: type(t).__name__)


@name_of
def test_input_stays_as_it_is(transform: BaseTransform) -> None:
    data, kept = scene(), scene()
    result = apply(transform, 0, data)
    assert data.keys() == kept.keys()
    for key, value in kept.items():
        assert torch.equal(data[key], value) if isinstance(value, Tensor) else data[key] == value
    assert any(not torch.equal(result[key], kept[key]) for key in ("pos", "x"))
    assert torch.equal(result.rgb, kept.rgb[result.vertex])
    assert torch.equal(result.instance, kept.instance[result.vertex])
    assert (result.num_vertices, result.scene_id) == (POINTS, "scene0000_00")


@pytest.mark.parametrize("transform", RANDOM, ids=lambda t: type(t).__name__)
def test_torch_s_generator_decides(transform: BaseTransform) -> None:
    """The same seed, the same result; other seeds, others. Nothing is drawn from numpy or Python."""
    one, two, other = apply(transform, 3), apply(transform, 3), apply(transform, 4)
    assert torch.equal(one.pos, two.pos)
    assert torch.equal(one.x, two.x)
    assert not (torch.equal(one.pos, other.pos) and torch.equal(one.x, other.x))


class Augmented:
    """A data set of one scene."""

    def __getitem__(self, index: int) -> Data:
        return scene_augmentation(200)(scene())


def test_items_with_seeds_of_their_own() -> None:
    items = SeededItems(Augmented())
    first = items[Draw(0, 5)]
    assert not torch.equal(items[Draw(0, 6)].pos, first.pos)
    torch.manual_seed(1)
    assert torch.equal(items[Draw(0, 5)].pos, first.pos)


@name_of
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(transform: BaseTransform, dtype: torch.dtype) -> None:
    result = apply(transform, 0, scene(dtype=dtype))
    assert result.pos.dtype == result.x.dtype == dtype
    other = apply(transform, 0, scene(dtype=torch.float32))
    assert_close(result.pos.float(), other.pos, atol=1e-4, rtol=0)
    assert_close(result.x.float(), other.x, atol=1e-4, rtol=0)


@name_of
def test_one_point(transform: BaseTransform) -> None:
    result = apply(transform, 0, scene(1))
    assert result.pos.shape == result.x.shape == (1, 3)
    assert torch.isfinite(result.pos).all()
    assert torch.isfinite(result.x).all()


def test_repr() -> None:
    assert repr(SphereCrop(5)) == "SphereCrop(max_points=5, around_instances=False)"
    assert repr(RandomColorShift(0.1, p=1)) == "RandomColorShift(limit=0.1, p=1)"


# --- positions


def test_center() -> None:
    pos = CenterScene()(scene()).pos
    low, high = pos.amin(0), pos.amax(0)
    assert_close(low[:2], -high[:2], atol=1e-6, rtol=0)
    assert low[2] == 0
    assert_close(pos.diff(dim=0), scene().pos.diff(dim=0), atol=1e-5, rtol=0)


def test_rotation_about_z() -> None:
    """Only that: heights stay, the angle is uniform within its bound."""
    rotate = RandomAffine(degrees=30, mirror=0, scale=(1, 1), translation=0)
    angles = []
    for seed in range(100):
        matrix, shift = affine_of(scene(20).pos, apply(rotate, seed, scene(20)).pos)
        angles.append(math.atan2(matrix[1, 0], matrix[0, 0]))
        c, s = math.cos(angles[-1]), math.sin(angles[-1])
        assert_close(matrix, torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]).double(), atol=1e-5, rtol=0)
        assert_close(shift, torch.zeros(3).double(), atol=1e-5, rtol=0)
    assert -30 <= np.rad2deg(min(angles)) < -27
    assert 27 < np.rad2deg(max(angles)) <= 30
    assert abs(np.mean(angles)) < np.deg2rad(4)


def test_tilt() -> None:
    """The vertical leans by no more than both angles together."""
    tilted = RandomAffine(degrees=180, tilt=10, mirror=0, scale=(1, 1), translation=0)
    leans = []
    for seed in range(100):
        matrix, _ = affine_of(scene(20).pos, apply(tilted, seed, scene(20)).pos)
        assert_close(matrix @ matrix.T, torch.eye(3).double(), atol=1e-5, rtol=0)
        assert_close(torch.linalg.det(matrix), torch.ones(()).double(), atol=1e-5, rtol=0)
        leans.append(math.degrees(math.acos(min(1.0, float(matrix[2, 2])))))
    assert 8 < max(leans) < 14.2


def test_mirror() -> None:
    mirror = RandomAffine(degrees=0, mirror=0.5, scale=(1, 1), translation=0)
    seen = []
    for seed in range(100):
        matrix, _ = affine_of(scene(20).pos, apply(mirror, seed, scene(20)).pos)
        assert_close(matrix, torch.diag(matrix.diagonal()), atol=1e-5, rtol=0)
        seen.append(tuple(round(float(x)) for x in matrix.diagonal()))
    assert set(seen) == {(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, 1)}
    assert 10 < seen.count((1, 1, 1)) < 45
    always = RandomAffine(degrees=0, mirror=1, scale=(1, 1), translation=0)
    assert torch.equal(apply(always, 0).pos, scene().pos * torch.tensor([-1.0, -1.0, 1.0]))


def test_scale_and_translation() -> None:
    moved = RandomAffine(degrees=0, mirror=0, scale=(0.5, 2.0), translation=0.3)
    factors, shifts = [], []
    for seed in range(100):
        matrix, shift = affine_of(scene(20).pos, apply(moved, seed, scene(20)).pos)
        assert_close(matrix, matrix[0, 0] * torch.eye(3).double(), atol=1e-5, rtol=0)
        factors.append(float(matrix[0, 0]))
        shifts.append(shift)
    assert 0.5 <= min(factors) < 0.6
    assert 1.9 < max(factors) <= 2
    extremes = torch.stack(shifts).abs().amax(0)
    assert (extremes > 0.27).all()
    assert (extremes < 0.3001).all()


def test_settings_do_not_change_each_other() -> None:
    """One switched off, the others are drawn as before."""
    none = RandomAffine(degrees=0, tilt=0, mirror=0, scale=(1, 1), translation=0)
    assert torch.equal(apply(none, 0).pos, scene().pos)
    turned = RandomAffine(degrees=90, mirror=0, scale=(1, 1), translation=0)
    both = RandomAffine(degrees=90, mirror=0, scale=(1, 1), translation=0.5)
    a, _ = affine_of(scene().pos, apply(turned, 1).pos)
    b, _ = affine_of(scene().pos, apply(both, 1).pos)
    assert_close(a, b, atol=1e-5, rtol=0)


def displacement(pos: np.ndarray, noise: np.ndarray, granularity: float) -> np.ndarray:
    """By scipy: noise (nx, ny, nz, 3) smoothed along each axis in turn, and taken between nodes."""
    for axis in (0, 1, 2, 0, 1, 2):
        noise = correlate1d(noise, np.full(3, 1 / 3), axis=axis, mode="constant")
    start = pos.min(0) - granularity
    axes = [start[i] + granularity * np.arange(noise.shape[i]) for i in range(3)]
    return RegularGridInterpolator(axes, noise)(pos)


@pytest.mark.parametrize("granularity", [0.2, 0.8, 10.0])
def test_elastic_distortion(granularity: float) -> None:
    data = scene(dtype=torch.float64)
    bent = apply(ElasticDistortion([(granularity, 0.4)], p=1), 5, data).pos
    pos = data.pos.numpy()
    counts = [math.ceil(x / granularity) + 3 for x in np.ptp(pos, axis=0)]
    torch.manual_seed(5)
    torch.rand(())
    noise = torch.randn(3, *counts).numpy().transpose(1, 2, 3, 0)
    expected = pos + 0.4 * displacement(pos, noise.astype(np.float64), granularity)
    np.testing.assert_allclose(bent.numpy(), expected, atol=1e-9)


def test_size_of_elastic_distortion() -> None:
    """As documented, at nodes away from the border: cubes of the granularity."""
    axis = torch.arange(30, dtype=torch.float64)
    data = Data(pos=torch.cartesian_prod(axis, axis, axis))
    moved = apply(ElasticDistortion([(1.0, 2.0)], p=1), 0, data).pos - data.pos
    inside = ((data.pos >= 2) & (data.pos <= 27)).all(1)
    assert_close(moved[inside].std(0), torch.full((3,), 0.1136 * 2).double(), atol=0.02, rtol=0)
    assert apply(ElasticDistortion([(1.0, 0.0)], p=1), 0, data).pos.equal(data.pos)


def test_positions_in_another_unit() -> None:
    data = Data(pos=torch.tensor([[0.0, 0.0, 0.0], [1000.0, 900.0, 250.0]]))
    with pytest.raises(ValueError, match=r"expected positions in metres, got an extent of \[1000\.0, 900\.0, 250\.0\]"):
        ElasticDistortion(p=1)(data)


# --- colours


def test_contrast() -> None:
    """A blend of before and stretched, the same for all points; a constant channel stays."""
    data = scene()
    data.x = data.x * torch.tensor([0.5, 0.1, 0.0]) + 0.2
    full = 2 * (data.x - data.x.amin(0)) / (data.x.amax(0) - data.x.amin(0)) - 1
    shares = []
    for seed in range(50):
        x = apply(RandomColorContrast(p=1), seed, data).x
        share = ((x - data.x) / (full - data.x))[0, 0]
        shares.append(float(share))
        assert_close(x[:, :2], (data.x + share * (full - data.x))[:, :2], atol=1e-4, rtol=0)
        assert torch.equal(x[:, 2], data.x[:, 2])
    assert min(shares) < 0.1
    assert max(shares) > 0.9


def test_shift() -> None:
    data = scene()
    data.x = data.x / 10
    shifts = []
    for seed in range(100):
        shift = apply(RandomColorShift(0.1, p=1), seed, data).x - data.x
        assert_close(shift, shift[:1].expand(POINTS, 3), atol=1e-6, rtol=0)
        shifts.append(shift[0])
    extremes = torch.stack(shifts).abs().amax(0)
    assert (extremes > 0.18).all()  # 25.5 of 255 is 0.2 of −1 … 1
    assert (extremes < 0.2001).all()


def test_jitter() -> None:
    data = scene()
    data.x = torch.zeros(POINTS, 3)
    noise = apply(RandomColorJitter(0.05, p=1), 0, data).x
    assert_close(noise.std(0), torch.full((3,), 0.1), atol=0.01, rtol=0)
    assert noise.mean().abs() < 0.01


@pytest.mark.parametrize("transform", [RandomColorShift(0.3, p=1), RandomColorJitter(1.0, p=1)], ids=repr)
def test_colours_stay_in_range(transform: BaseTransform) -> None:
    shown = torch.stack([apply(transform, seed).x for seed in range(10)])
    assert shown.min() == -1
    assert shown.max() == 1


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda p: ElasticDistortion(p=p), "pos"),
        (lambda p: RandomColorContrast(p), "x"),
        (lambda p: RandomColorShift(p=p), "x"),
        (lambda p: RandomColorJitter(p=p), "x"),
    ],
)
def test_probability(make: Callable[[float], BaseTransform], key: str) -> None:
    data = scene(20)
    for p, low, high in ((0.0, 0, 0), (0.3, 18, 45), (1.0, 100, 100)):
        changed = sum(not torch.equal(apply(make(p), seed, data)[key], data[key]) for seed in range(100))
        assert low <= changed <= high


# --- crops


def test_sphere_crop() -> None:
    centres = set()
    for seed in range(20):
        data, kept = scene(), apply(SphereCrop(100), seed)
        inside = torch.zeros(POINTS, dtype=torch.bool)
        inside[kept.vertex] = True
        assert kept.vertex.tolist() == sorted(set(kept.vertex.tolist()))
        assert kept.num_nodes == 100
        torch.manual_seed(seed)
        centre = int(torch.randint(POINTS, ()))
        distance = (data.pos - data.pos[centre]).norm(dim=1)
        assert distance[inside].max() <= distance[~inside].min()
        assert torch.equal(kept.pos, data.pos[inside])
        centres.add(centre)
    assert len(centres) > 15


def test_crop_around_instances() -> None:
    """Every instance has its turn as often, whatever its size; without any, all points have."""
    data = scene()
    data.instance = torch.full((POINTS,), -1)
    data.instance[10], data.instance[100:400] = 3, 7  # one point, and three hundred
    chosen = [int(apply(SphereCrop(1, around_instances=True), seed, data).instance) for seed in range(100)]
    assert set(chosen) == {3, 7}
    assert 30 < chosen.count(3) < 70
    data.instance = torch.full((POINTS,), -1)
    assert apply(SphereCrop(9, around_instances=True), 0, data).num_nodes == 9


def test_one_point_of_each_voxel() -> None:
    data = scene()
    data.pos = data.pos - 3  # on both sides of the origin
    voxels = [tuple(v) for v in torch.floor(data.pos / 1.5).long().tolist()]
    chosen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        kept = VoxelSample(1.5)(data)
        assert kept.vertex.tolist() == sorted(kept.vertex.tolist())
        assert_close(kept.pos, data.pos[kept.vertex])
        assert sorted(voxels[v] for v in kept.vertex.tolist()) == sorted(set(voxels))
        chosen.update(kept.vertex.tolist())
    assert len(chosen) > 0.95 * POINTS  # each has its turn: 8 to 27 points a voxel


def test_crop_of_a_small_scene() -> None:
    data = scene()
    assert apply(SphereCrop(POINTS), 0, data).vertex.equal(data.vertex)


# --- settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomAffine(degrees=-1), "degrees: expected a finite bound >= 0, got -1"),
        (lambda: RandomAffine(tilt=math.nan), "tilt: expected a finite bound >= 0, got nan"),
        (lambda: RandomAffine(translation=math.inf), "translation: expected a finite bound >= 0, got inf"),
        (lambda: RandomAffine(mirror=1.5), r"mirror: expected a probability, got 1\.5"),
        (lambda: RandomAffine(scale=(1.1, 0.9)), r"scale: expected a range of positive numbers, got \(1\.1, 0\.9\)"),
        (lambda: RandomAffine(scale=(0.0, 1.0)), "scale: expected a range of positive numbers"),
        (lambda: ElasticDistortion([(0.0, 0.4)]), "steps: expected granularities > 0 and magnitudes >= 0"),
        (lambda: ElasticDistortion([(0.2, -1.0)]), "steps: expected granularities > 0 and magnitudes >= 0"),
        (lambda: ElasticDistortion(p=-0.1), r"p: expected a probability, got -0\.1"),
        (lambda: RandomColorContrast(p=2), "p: expected a probability, got 2"),
        (lambda: RandomColorShift(limit=-0.1), r"limit: expected a finite share >= 0, got -0\.1"),
        (lambda: RandomColorShift(p=math.nan), "p: expected a probability, got nan"),
        (lambda: RandomColorJitter(std=math.inf), "std: expected a finite share >= 0, got inf"),
        (lambda: RandomColorJitter(p=2), "p: expected a probability, got 2"),
        (lambda: SphereCrop(0), "max_points: expected at least 1, got 0"),
        (lambda: VoxelSample(0), "voxel_size: expected a positive number of metres, got 0"),
        (lambda: VoxelSample(math.inf), "voxel_size: expected a positive number of metres, got inf"),
    ],
)
def test_wrong_settings(make: Callable[[], BaseTransform], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
