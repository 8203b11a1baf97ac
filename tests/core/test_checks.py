"""check_batch: each mix-up made on purpose, in a batch that has no finding without it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from probemb_lib import Finding, check_batch, index_instances
from probemb_lib._labelled import as_array


class Batch(NamedTuple):
    positions: Any
    instance: Any
    semantic: Any = None
    batch: Any = None


def good(clouds: int = 3, n: int = 600, dim: int = 3) -> Batch:
    """Balls around the corners of a box in the unit sphere, in random order; every fifth point is background."""
    g = torch.Generator().manual_seed(0)
    parts = []
    for c in range(clouds):
        of = torch.randint(0, 4, (n,), generator=g)
        centers = 0.48 * torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])[:, :dim]
        positions = centers[of] + 0.04 * torch.randn(n, dim, generator=g)
        nothing = torch.arange(n) % 5 == 0
        positions[nothing] = (
            0.3 * torch.randn(int(nothing.sum()), dim, generator=g).clamp(-1, 1) * torch.tensor([1.0, 1.0, 0.1][:dim])
        )
        instance = torch.where(nothing, -1, of)
        parts.append((positions, instance, torch.where(nothing, 0, 1 + of % 2), torch.full((n,), c)))
    return Batch(*(torch.cat(x) for x in zip(*parts, strict=True)))


OPTIONS: dict[str, Any] = {"num_classes": 3, "unit": "sphere", "offset_scale": 0.2}


def findings(batch: Batch, **options: Any) -> list[str]:
    found = check_batch(*batch, **{**OPTIONS, **options})
    assert [f.level for f in found] == sorted(f.level for f in found)
    assert all("\n" not in str(f) and isinstance(f, Finding) for f in found)
    return [str(f) for f in found]


def only(batch: Batch, start: str, *parts: str, **options: Any) -> None:
    """One finding, which begins and says so."""
    found = findings(batch, **options)
    assert len(found) == 1, found
    assert found[0].startswith(start)
    for part in parts:
        assert part in found[0]


@pytest.mark.parametrize("clouds", [1, 3, 40])
@pytest.mark.parametrize("dim", [2, 3])
def test_good_batches_have_no_finding(clouds: int, dim: int) -> None:
    assert findings(good(clouds, dim=dim)) == []
    batch = good(clouds, dim=dim)
    assert findings(batch._replace(semantic=None)) == []
    order = torch.randperm(len(batch.instance), generator=torch.Generator().manual_seed(1))
    assert findings(Batch(*(t[order] for t in batch))) == []


def test_nothing_is_changed() -> None:
    batch, before = good(), good()
    findings(batch)
    for one, other in zip(batch, before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


# --- kinds, types, shapes


@pytest.mark.parametrize("name", Batch._fields)
def test_arrays_are_named_and_looked_at(name: str) -> None:
    batch = good()
    array = batch._replace(**{name: getattr(batch, name).numpy()})
    only(array, f"error: {name}: expected a torch.Tensor, got ndarray: torch.from_numpy")
    instance = as_array(array.instance).copy()
    instance[instance == 3] = 255
    both = array._replace(instance=instance if name == "instance" else torch.from_numpy(instance))
    assert any("255 on" in line for line in findings(both))


@pytest.mark.parametrize(
    ("change", "start"),
    [
        ({"positions": None}, "error: positions: expected a torch.Tensor, got None"),
        ({"instance": [1, 2]}, "error: instance: expected a torch.Tensor, got list"),
        ({"positions": torch.zeros(2, 3, 600)}, "error: positions: expected (N, D), one row a point, got (2, 3, 600)"),
        ({"instance": torch.zeros(7)}, "error: instance: expected (1800,), one number a point, got (7,)"),
        (
            {"batch": torch.tensor([600, 1800])},
            "error: batch: expected (1800,), one number a point, got (2,): are these",
        ),
        (
            {"instance": good().instance.double()},
            "error: instance: expected integers, got float64: -100 where it is NaN",
        ),
        (
            {"instance": torch.full((1800,), math.nan)},
            "error: instance: expected integers, got float32 with NaN on 1800",
        ),
        ({"semantic": good().semantic > 0}, "error: semantic: expected integers, got bool"),
        ({"positions": good().positions.long()}, "error: positions: expected floating point, got int64: pass"),
    ],
)
def test_other_kinds(change: dict[str, Any], start: str) -> None:
    only(good()._replace(**change), start)


def test_no_points() -> None:
    only(Batch(*(t[:0] for t in good())), "error: positions: expected points, got none")


def test_error_of_unit() -> None:
    with pytest.raises(ValueError, match="expected unit \"sphere\" or None, got 'metres'"):
        check_batch(*good(), unit="metres")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_subclasses(dtype: torch.dtype) -> None:
    class Carrying(Tensor):
        pass

    batch = good()
    for x in (batch.positions.as_subclass(Carrying), torch.nn.Parameter(batch.positions)):
        assert findings(batch._replace(positions=x)) == []
    only(batch._replace(positions=batch.positions.to(dtype) + 8), "error: positions: expected numbers", unit=None)


# --- values


def test_not_finite() -> None:
    batch = good()
    batch.positions[5, 1], batch.positions[9, 0] = math.nan, math.inf
    only(batch, "error: positions: expected finite numbers, got NaN or infinity at 2 of 1800 points, the first 5")
    batch.positions[:] = math.nan
    only(batch, "error: positions: expected finite numbers, got NaN or infinity at 1800 of 1800")


def test_other_negative_ids() -> None:
    batch = good()
    batch.instance[batch.instance == 2] = -2
    only(batch, "error: instance: expected ids >= 0, -1 (none) or -100 (ignored), got -2")


def test_numbers_that_losses_refuse() -> None:
    """A mask is no label, ids beyond int64 do not come back negative, and clouds are not named by numbers of scenes."""
    batch = good()
    mask = "error: instance: expected integers, got bool: probemb_lib.labels.labels_from_masks makes them"
    only(batch._replace(instance=batch.instance > 0), mask)
    far = torch.from_numpy(np.where(batch.instance == 1, np.uint64(2**63 + 3), np.uint64(5)))
    only(batch._replace(instance=far), f"error: instance: expected numbers below 2^63, got {2**63 + 3}: number them")
    for number, level in ((70_000, "warning"), (2**31, "error")):
        start = f"{level}: batch: expected clouds numbered from 0, at most one a point, got {2 * number} for 1800"
        only(batch._replace(batch=number * batch.batch), start)
    with pytest.raises(ValueError, match="expected cloud numbers"):
        index_instances(batch.instance, 2**30 * batch.batch)


@pytest.mark.parametrize(
    ("to", "classes", "start"),
    [
        (
            3,
            3,
            "error: semantic: expected classes in [0, 3), or -100 (ignored), got 3: num_classes counts the background",
        ),
        (-1, 3, "error: semantic: expected classes in [0, 3), or -100 (ignored), got -1"),
        (-1, None, "error: semantic: expected classes >= 0, or -100 (ignored), got -1"),
        (255, None, "warning: semantic: expected classes that follow each other, got 255: is it -1 in uint8, ignored?"),
    ],
)
def test_classes_out_of_range(to: int, classes: int | None, start: str) -> None:
    batch = good()
    only(batch._replace(semantic=torch.where(batch.semantic == 2, to, batch.semantic)), start, num_classes=classes)


@pytest.mark.parametrize(("code", "kind"), [(255, "-1 in uint8"), (156, "-100 in uint8"), (65535, "-1 in uint16")])
def test_wrapped_ids(code: int, kind: str) -> None:
    batch = good()
    instance = torch.where(batch.instance < 0, code, batch.instance)
    count = int((batch.instance < 0).sum())
    found = findings(batch._replace(instance=instance, semantic=None))
    assert found[0].startswith(f"warning: instance: expected ids that follow each other, or -1, got {code} on {count} ")
    assert f"beside ids up to 3: is it {kind}?" in found[0]


def test_255_among_other_ids_is_an_id_unless_it_is_the_last_of_its_type() -> None:
    x = torch.rand(256 * 12, 1).sort(0).values
    ids = torch.arange(256).repeat_interleave(12)
    assert check_batch(x, ids) == []
    assert "255 on 12 points" in str(check_batch(x, ids.to(torch.uint8))[0])


def test_cloud_numbers() -> None:
    batch = good()
    only(batch._replace(batch=batch.batch - 1), "error: batch: expected cloud numbers >= 0, got -1")
    found = findings(batch._replace(batch=torch.arange(1800), semantic=None))
    assert any(line.startswith("warning: batch: expected the cloud of each point, got 1800 clouds") for line in found)


# --- labels


def test_all_ignored() -> None:
    batch = good()
    some = batch._replace(instance=torch.where(batch.batch == 1, -100, batch.instance))
    only(some, "warning: instance: expected labels in each cloud, got 1 of 3 clouds with all points ignored")
    only(
        batch._replace(instance=torch.full_like(batch.instance, -100)),
        "error: instance: expected labels in each cloud, got all clouds with all points ignored",
    )
    only(
        batch._replace(semantic=torch.full_like(batch.semantic, -100)),
        "error: semantic: expected classes, got -100 (ignored) everywhere",
    )


def test_no_instances() -> None:
    batch = good()
    some = batch._replace(instance=torch.where(batch.batch == 1, -1, batch.instance))
    only(some, "warning: instance: expected instances in each cloud, got 1 of 3 clouds without any")
    only(
        batch._replace(instance=torch.full_like(batch.instance, -1)),
        "error: instance: expected instances in each cloud, got all clouds without any",
    )


def test_one_instance_over_most() -> None:
    batch = good()
    one = torch.where((batch.batch == 2) & (torch.arange(1800) % 30 > 0), 3, batch.instance)
    only(
        batch._replace(instance=one, semantic=None),
        "warning: instance: expected several instances in a cloud, got 1 of 3 clouds with more than 90% of the points",
        "(instance 3 of cloud 2: 97%)",
        offset_scale=None,
    )


def test_instances_of_the_background_class() -> None:
    batch = good()
    zero = torch.where(batch.instance < 0, 9, batch.instance)
    start = "error: instance: expected -1 on points of class 0, the background, got 3 of 15 instances of that class"
    options = {"offset_scale": None}
    only(batch._replace(instance=zero), start, "(instance 9 of cloud 0)", "background=None", **options)
    assert findings(batch._replace(instance=zero), background=None, **options) == []


def test_background_0_as_an_instance() -> None:
    batch = good()
    instance = torch.where(batch.instance < 0, 0, batch.instance + 1)
    background = batch.instance < 0
    batch.positions[background] = torch.rand(int(background.sum()), 3) * 1.24 - 0.62
    start = (
        "warning: instance: expected -1 on the background, got none and an instance 0 that spans the whole cloud in 3"
    )
    only(batch._replace(instance=instance, semantic=None), start, unit=None, offset_scale=None)


def test_background_0_as_an_instance_in_a_slice() -> None:
    """Of a volume, in a plane of space, where nothing has a height."""
    g = torch.Generator().manual_seed(0)
    places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij"), -1).reshape(-1, 2) * 4 + 3
    positions = torch.cat([torch.rand(2_700, 2, generator=g) * torch.tensor([20.0, 16.0]), torch.zeros(2_700, 1)], 1)
    distance, nearest = torch.cdist(positions[:, :2], places.float()).min(dim=1)
    cells = Batch(positions, torch.where(distance < 1.5, 1 + nearest, 0))
    start = (
        "warning: instance: expected -1 on the background, got none and an instance 0 that spans the whole cloud in 1"
    )
    only(cells, start, "or the ground?", unit=None, offset_scale=None)
    assert findings(cells._replace(instance=cells.instance - 1), unit=None, offset_scale=None) == []


def test_mixed_classes() -> None:
    batch = good()
    mixed = torch.where((batch.instance == 2) & (torch.arange(1800) % 3 == 0), 2, batch.semantic)
    only(
        batch._replace(semantic=mixed),
        "warning: semantic: expected one class an instance, got 3 of 12 instances with several",
        "are ids counted anew in each class? Then class * 1000 + id is unique",
    )


def test_tiny_instances() -> None:
    batch = good()
    batch.instance[7], batch.semantic[7] = 50, 1
    only(batch, "warning: instance: expected instances of many points, got 1 of 13 with fewer than 5 (instance 50 of")


# --- neighbours


def test_repeated_points() -> None:
    batch = good()
    padded = Batch(*(torch.cat([t, t[-300:]]) for t in batch))
    only(padded, "warning: positions: expected each point once, got", "at the place of another: padding")


def test_labels_in_another_order() -> None:
    batch = good()
    order = torch.randperm(1800, generator=torch.Generator().manual_seed(0))
    shuffled = batch._replace(instance=batch.instance[order], semantic=batch.semantic[order])
    start = "warning: instance: expected neighbouring points to share an instance, got 20% of them, and 20% would by"
    only(shuffled, start, "are the labels in the order of the points?", offset_scale=None)


def rotated(x: Tensor, angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return x @ torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def test_clouds_in_one_place_without_batch() -> None:
    """Their points lie between each other; the order of the points gives them away."""
    batch = good()
    turned = torch.cat([rotated(x, 0.3 * i) for i, x in enumerate(batch.positions.split(600))])
    found = findings(batch._replace(positions=turned, batch=None), offset_scale=None)
    assert found[0].startswith("warning: batch: expected one cloud without it, got neighbours that lie together")
    assert findings(batch._replace(positions=turned)) == []


@pytest.mark.parametrize("order", ["x", "instance"])
def test_one_cloud_in_an_order_is_one_cloud(order: str) -> None:
    batch = good(1)._replace(batch=None)
    key = batch.positions[:, 0] if order == "x" else batch.instance
    rows = key.argsort(stable=True)
    assert findings(Batch(*(t if t is None else t[rows] for t in batch))) == []


@pytest.mark.parametrize(("dim", "clouds", "groups"), [(2, 2, 2), (2, 3, 3), (3, 3, 5)])
def test_clouds_apart_without_batch(dim: int, clouds: int, groups: int) -> None:
    batch = good(dim=dim)
    batch = Batch(*(t[batch.batch < clouds] for t in batch))
    apart = batch.positions + 4 * batch.batch[:, None]
    options: dict[str, Any] = {"unit": None, "offset_scale": None}
    start = "warning: batch: expected one cloud without it, got {} groups of points far apart with the same ids"
    order = torch.randperm(len(apart), generator=torch.Generator().manual_seed(0))
    only(
        Batch(*(t[order] for t in (apart, batch.instance, batch.semantic))),
        start.format(groups),
        **options,
    )
    own = torch.where(batch.instance < 0, -1, batch.instance + 10 * batch.batch)
    assert findings(batch._replace(positions=apart, instance=own, batch=None), **options) == []


def test_six_dimensions_and_lone_points() -> None:
    batch = good(1)
    assert findings(batch._replace(positions=torch.cat([batch.positions] * 2, 1) / 2, batch=None)) == []
    assert findings(Batch(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)), unit=None) != []


# --- geometry


@pytest.mark.parametrize(("offset", "coarse"), [(1e3, False), (5e6, True)])
def test_coarse_positions(offset: float, coarse: bool) -> None:
    batch = good()
    start = "error: positions: expected numbers much finer than the distance of neighbours"
    for x, bad in ((batch.positions + offset, coarse), (batch.positions.double() + offset, False)):
        found = findings(batch._replace(positions=x), unit=None, offset_scale=None)
        assert [line.startswith(start) for line in found] == [True] * bad
    numbers = batch._replace(positions=(batch.positions + offset).numpy())
    assert sum(line.startswith(start) for line in findings(numbers, unit=None, offset_scale=None)) == coarse


def test_unit_sphere() -> None:
    batch = good()
    batch.positions[batch.batch == 1] *= 2
    start = "error: positions: expected clouds in the unit sphere, got 1 of 3 outside, as far as"
    only(batch, start, "centre each cloud", offset_scale=None)
    small = batch._replace(positions=0.1 * batch.positions)
    only(small, "warning: positions: expected clouds that fill the unit sphere, got none beyond", offset_scale=None)
    assert findings(batch, unit=None, offset_scale=None) == []


@pytest.mark.parametrize("scale", [0.02, 3.0])
def test_offset_scale(scale: float) -> None:
    start = "warning: offset_scale: expected about the radius of the largest instances, 0.1"
    only(good(), start, f"got {scale:g}: probemb_lib.suggest_settings", offset_scale=scale)


def test_stray_points() -> None:
    batch = good()
    batch.positions[3] = torch.tensor([1e3, 0, 0])
    start = "warning: positions: expected no stray points, got 1 more than 20 times as far from the middle as 99 %"
    only(batch, start, "the farthest (1000, 0, 0): leave them out", unit=None, offset_scale=None)


@pytest.mark.parametrize("make", [lambda: np.array([1, 2]), lambda: torch.tensor([1, 2]), lambda: [1, 2]])
def test_as_array(make: Callable[[], Any]) -> None:
    np.testing.assert_array_equal(as_array(make()), [1, 2])
