"""What usually goes wrong with labelled clouds before a loss sees them: one call, one line a finding.

Losses refuse what they cannot compute. What is checked here can be computed, and teaches something else than was meant:
a 255 that was −1, clouds without ``batch``, labels in another order than the points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib._labelled import Integers, Labelled, as_array, labelled
from probemb_lib.aggregate import RANK_BITS
from probemb_lib.gaussian import plain_tensor
from probemb_lib.labels import IGNORED, NO_INSTANCE
from probemb_lib.positions import STRAY, coarse_step, stray_rows

MOST = 0.9  # of a cloud: more than one instance should hold
SEVERAL = 0.25  # of the clouds with such an instance; some have one by nature
PURE = 0.8  # of an instance: least share of its class
TINY = 5  # points of an instance that is hardly one
MANY = 0.05  # of the instances that are tiny; sampling leaves some
REPEATED = 0.05  # of the points at the place of another
SPHERE = 1.05  # radius that rounding and small augmentations leave of the unit sphere
GROUPS = 0.05  # of the points, in a group that is a cloud of its own
STRETCHES = 8  # of the order of points
CELLS = 32  # along the longest axis, to see groups that lie apart
MOST_CLOUDS = 2**RANK_BITS  # which losses refuse
FEW = 50  # points of a cloud too small to say anything of its neighbours
WRAPPED = {
    value % 2**bits: f"{value} in uint{bits}" for bits in (8, 16, 32) for value in (NO_INSTANCE, IGNORED)
}  # what unsigned types make of −1 and −100


class Finding(NamedTuple):
    """A line of :func:`check_batch`.

    Attributes:
        level: "error": the losses refuse it, or learn something else for sure; "warning": have a look.
        message: what was expected, what came, what to do.

    >>> print(Finding("warning", "expected this, got that: do so"))
    warning: expected this, got that: do so
    """

    level: Literal["error", "warning"]
    message: str

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


def check_batch(
    positions: Tensor,
    instance: Tensor,
    semantic: Tensor | None = None,
    batch: Tensor | None = None,
    *,
    num_classes: int | None = None,
    background: int | None = 0,
    unit: Literal["sphere"] | None = None,
    offset_scale: float | None = None,
) -> list[Finding]:
    """The usual mix-ups in a labelled batch, errors first; an empty list is good news.

    Call it once, on the first batch that goes to the loss; it takes about as long as a training step on a CPU. What is
    wrong with the batch is not raised, and nothing is changed. Large batches are looked at in samples.

    Args:
        positions: (N, D).
        instance: (N,) ids, −1 none, −100 ignored.
        semantic: (N,) classes, −100 ignored; None: there are none.
        batch: (N,) cloud of each point; None is one cloud.
        num_classes: columns of the score maps, the background counted.
        background: its column, or None; as in the losses.
        unit: "sphere" where each cloud is to lie in the unit sphere.
        offset_scale: of the head, to be compared with the instances.

    Raises:
        ValueError: ``unit`` is another.

    >>> import torch
    >>> x, instance = torch.rand(100, 3), torch.arange(100) // 50
    >>> instance[instance == 1] = 255
    >>> for finding in check_batch(x[x[:, 0].argsort()], instance.to(torch.uint8)):
    ...     print(finding)
    warning: instance: expected ids that follow each other, or -1, got 255 on 50 points beside ids up to 0: is it -1 in
    uint8? Read labels as int64, and convert them by a probemb_lib.LabelConvention
    """
    if unit not in (None, "sphere"):
        raise ValueError(f'expected unit "sphere" or None, got {unit!r}')
    found = list(_structure(positions, instance, semantic, batch))
    if not any(finding.level == "error" for finding in found if not finding.message.endswith(_CONVERTED)):
        if as_array(positions).shape[0] == 0:
            return [*found, Finding("error", "positions: expected points, got none")]
        found += _values(positions, instance, semantic, batch, num_classes)
        clouds = labelled(positions, instance, semantic, batch)
        if len(clouds.positions):
            found += _labels(clouds, background, unsigned=_is_unsigned(instance))
            coarse = list(_spacing(clouds, positions))
            found += coarse or _neighbours(clouds, batch is not None)
            found += _geometry(clouds, unit, offset_scale)
    return sorted(found, key=lambda finding: finding.level)


_CONVERTED = "torch.from_numpy or torch.as_tensor makes one"


def _structure(positions: Any, instance: Any, semantic: Any, batch: Any) -> Iterator[Finding]:
    """Kinds, types and shapes. Arrays are named and looked at further."""
    given = {"positions": positions, "instance": instance, "semantic": semantic, "batch": batch}
    given = {name: x for name, x in given.items() if x is not None or name in ("positions", "instance")}
    arrays: dict[str, NDArray[Any]] = {}
    for name, x in given.items():
        try:
            plain_tensor(x, name)
        except TypeError as error:
            yield Finding("error", str(error))
        if isinstance(x, Tensor) or hasattr(x, "__array__"):
            arrays[name] = as_array(x)
    if len(arrays) < len(given):
        return
    x = arrays.pop("positions")
    if x.ndim != 2 or x.shape[1] < 1:
        yield Finding("error", f"positions: expected (N, D), one row a point, got {x.shape}: see probemb_lib.convert")
        return
    if x.dtype.kind != "f":
        yield Finding(
            "error", f"positions: expected floating point, got {x.dtype}: pass positions.float(), times the voxel size"
        )
    for name, labels in arrays.items():
        if labels.shape != (len(x),):
            way = ": are these offsets? See probemb_lib.convert.batch_from_offset" if name == "batch" else ""
            yield Finding("error", f"{name}: expected ({len(x)},), one number a point, got {labels.shape}{way}")
        elif labels.dtype.kind not in "iu":
            nan = int(np.isnan(labels).sum()) if labels.dtype.kind == "f" else 0
            what = f"{labels.dtype} with NaN on {nan} points" if nan else str(labels.dtype)
            way = f"{IGNORED} where it is NaN, then .long()"
            if labels.dtype.kind == "b":
                way = "probemb_lib.labels.labels_from_masks makes them of one mask an instance"
            yield Finding("error", f"{name}: expected integers, got {what}: {way}")
        elif labels.dtype.kind == "u" and labels.size and labels.max() >= 2**63:
            yield Finding("error", f"{name}: expected numbers below 2^63, got {labels.max()}: number them anew")


def _is_unsigned(x: Any) -> bool:
    return as_array(x).dtype.kind == "u"


def _values(positions: Any, instance: Any, semantic: Any, batch: Any, num_classes: int | None) -> Iterator[Finding]:
    """Numbers that the losses refuse, or that make everything NaN."""
    x = as_array(positions)
    finite = np.isfinite(x).all(axis=1)
    if not finite.all():
        wrong = np.flatnonzero(~finite)
        yield Finding(
            "error",
            f"positions: expected finite numbers, got NaN or infinity at {len(wrong)} of {len(x)} points, the first "
            f"{wrong[0]}: leave these points out",
        )
    ids = as_array(instance).astype(np.int64)
    if len(wrong := np.unique(ids[(ids < 0) & (ids != NO_INSTANCE) & (ids != IGNORED)])):
        yield Finding(
            "error",
            f"instance: expected ids >= 0, {NO_INSTANCE} (none) or {IGNORED} (ignored), got {_some(wrong)}: convert "
            "them by a probemb_lib.LabelConvention",
        )
    if semantic is not None:
        classes = as_array(semantic).astype(np.int64)
        classes = np.unique(classes[classes != IGNORED])
        limit = math.inf if num_classes is None else num_classes
        if len(wrong := classes[(classes < 0) | (classes >= limit)]):
            upto = "classes >= 0" if num_classes is None else f"classes in [0, {num_classes})"
            yield Finding(
                "error",
                f"semantic: expected {upto}, or {IGNORED} (ignored), got {_some(wrong)}: num_classes counts the "
                "background column; a probemb_lib.LabelConvention converts what hosts use",
            )
        elif len(classes) and int(classes[-1]) in WRAPPED and (len(classes) == 1 or classes[-2] < 0.9 * classes[-1]):
            yield Finding(
                "warning",
                f"semantic: expected classes that follow each other, got {classes[-1]}: is it "
                f"{WRAPPED[int(classes[-1])]}, ignored? Convert it to {IGNORED} by a probemb_lib.LabelConvention",
            )
    if batch is not None:
        number = as_array(batch).astype(np.int64)
        if number.min() < 0:
            yield Finding("error", f"batch: expected cloud numbers >= 0, got {number.min()}")
        elif number.max() >= len(number):
            yield Finding(
                "error" if number.max() >= MOST_CLOUDS else "warning",
                f"batch: expected clouds numbered from 0, at most one a point, got {number.max()} for {len(number)} "
                f"points, and losses take each number below it for an empty cloud: number the clouds of a batch anew",
            )
        elif len(np.unique(number)) > 0.5 * len(number) and len(number) > FEW:
            yield Finding(
                "warning",
                f"batch: expected the cloud of each point, got {len(np.unique(number))} clouds for {len(number)} "
                "points",
            )


def _labels(clouds: Labelled, background: int | None, *, unsigned: bool) -> Iterator[Finding]:
    """What ids and classes say against each other, and how large instances are."""
    ids, table = clouds.instance, clouds.table
    count = len(clouds.clouds)
    counts = np.stack([np.bincount(clouds.cloud[some], minlength=count) for some in (ids >= 0, ids != IGNORED)])
    if not counts[1].all():
        all_of = "all" if not counts[1].any() else f"{(counts[1] == 0).sum()} of {count}"
        yield Finding(
            "warning" if counts[1].any() else "error",
            f"instance: expected labels in each cloud, got {all_of} clouds with all points ignored ({IGNORED}): they "
            "teach nothing",
        )
    empty = (counts[0] == 0) & (counts[1] > 0)
    if empty.any():
        all_of = "all" if empty.all() else f"{empty.sum()} of {count}"
        yield Finding(
            "error" if empty.all() else "warning",
            f"instance: expected instances in each cloud, got {all_of} clouds without any: is −1 in this data set what "
            "belongs to no instance?",
        )
    distinct = np.unique(ids[ids >= 0])
    plain = distinct[~np.isin(distinct, list(WRAPPED))]
    for code in distinct[np.isin(distinct, list(WRAPPED))].tolist():
        below = int(plain.max()) if len(plain) else -1
        if below < 0.9 * code or (unsigned and code in (2**8 - 1, 2**16 - 1)):
            yield Finding(
                "warning",
                f"instance: expected ids that follow each other, or {NO_INSTANCE}, got {code} on {(ids == code).sum()} "
                f"points beside ids up to {below}: is it {WRAPPED[code]}? Read labels as int64, and convert them by a "
                "probemb_lib.LabelConvention",
            )
    if not len(table.size):
        return

    share = table.size / np.maximum(counts[1][table.cloud], 1)
    most = np.flatnonzero((share > MOST) & (counts[1][table.cloud] > FEW))
    if len(most) > SEVERAL * count:
        yield Finding(
            "warning",
            f"instance: expected several instances in a cloud, got {len(most)} of {count} clouds with more than "
            f"{MOST:.0%} of the points in one ({_name(clouds, most[share[most].argmax()])}: {share[most].max():.0%}): "
            "is it background? Give that -1",
        )
    in_background = False
    if clouds.semantic is not None:
        classes, purity = _majority(clouds)
        if not (clouds.semantic != IGNORED).any():
            yield Finding("error", f"semantic: expected classes, got {IGNORED} (ignored) everywhere")
        wrong = np.flatnonzero(classes == background) if background is not None else np.zeros(0, dtype=np.int64)
        in_background = len(wrong) > 0
        if in_background:
            yield Finding(
                "error",
                f"instance: expected -1 on points of class {background}, the background, got {len(wrong)} of "
                f"{len(classes)} instances of that class ({_name(clouds, wrong[0])}): give these points -1, or pass "
                "background=None if classes are counted from 0 and there is none",
            )
        mixed = np.flatnonzero(purity < PURE)
        if len(mixed):
            worst = mixed[purity[mixed].argmin()]
            yield Finding(
                "warning",
                f"semantic: expected one class an instance, got {len(mixed)} of {len(classes)} instances with several "
                f"({_name(clouds, worst)}: {purity[worst]:.0%} of one): are ids counted anew in each class? Then class "
                "* 1000 + id is unique",
            )
    around = 0 if in_background or (ids == NO_INSTANCE).any() else _surrounding(clouds)
    if 2 * around >= count:
        yield Finding(
            "warning",
            f"instance: expected {NO_INSTANCE} on the background, got none and an instance 0 that spans the whole "
            f"cloud in {around} of {count} clouds: is 0 the background, or the ground? Convert labels by a "
            "probemb_lib.LabelConvention",
        )
    tiny = np.flatnonzero(table.size < TINY)
    if len(tiny) > MANY * len(table.size):
        yield Finding(
            "warning",
            f"instance: expected instances of many points, got {len(tiny)} of {len(table.size)} with fewer than {TINY} "
            f"({_name(clouds, tiny[table.size[tiny].argmin()])}: {table.size[tiny].min()}): give such points "
            f"{IGNORED} if they are crumbs",
        )


def _majority(clouds: Labelled) -> tuple[Integers, NDArray[np.float64]]:
    """(K,) class of most points of each instance, −1 without one, and its share among those with a class."""
    table, semantic = clouds.table, clouds.semantic
    if semantic is None:
        raise TypeError("expected clouds with classes, got none")
    voting = (table.of >= 0) & (semantic >= 0)
    classes, column = np.unique(semantic[voting], return_inverse=True)
    width = max(1, len(classes))
    votes = np.bincount(table.of[voting] * width + column, minlength=len(table.size) * width).reshape(-1, width)
    total = votes.sum(axis=1)
    own = classes[votes.argmax(axis=1)] if len(classes) else np.zeros(len(total), dtype=np.int64)
    return np.where(total > 0, own, -1), np.where(total > 0, votes.max(axis=1) / np.maximum(total, 1), 1.0)


def _surrounding(clouds: Labelled) -> int:
    """Clouds in which the box of instance 0 is that of the cloud, and the boxes of the others are not."""
    found = 0
    for rows in clouds.clouds:
        x, ids = clouds.positions[rows], clouds.instance[rows]
        x = x[:, np.ptp(x, axis=0) > 0]  # an image may lie in a plane of space
        if len(rows) <= FEW or not x.size:
            continue
        extent = np.ptp(x, axis=0)
        spans = [(np.ptp(x[ids == i], axis=0) / extent).min() > MOST for i in np.unique(ids[ids >= 0])]
        found += len(spans) > 2 and 0 in ids and spans[0] and not any(spans[1:])
    return found


def _neighbours(clouds: Labelled, batched: bool) -> Iterator[Finding]:
    """Points at the place of others, labels that neighbours do not share, groups that lie apart."""
    if not clouds.neighbours:
        return
    rows, near, distance = (np.concatenate(parts) for parts in zip(*clouds.neighbours, strict=True))
    way = "" if batched else "; or are these several clouds? Then pass batch"
    repeated = float((distance == 0).mean())
    if repeated > REPEATED:
        yield Finding(
            "warning",
            f"positions: expected each point once, got {repeated:.0%} at the place of another: padding, or a scan that "
            f"was rounded or read twice{way}",
        )
    sizes = clouds.table.size
    valid = (clouds.instance[rows] != IGNORED) & (clouds.instance[near] != IGNORED)
    if valid.sum() > FEW and len(sizes) and np.median(sizes) >= 2 * TINY:
        of, same = clouds.table.of, clouds.table.of[rows] == clouds.table.of[near]
        share = float(same[valid].mean())
        chance = _by_chance(clouds, of)
        if chance < MOST and share < 0.5 * (1 + chance):
            yield Finding(
                "warning",
                f"instance: expected neighbouring points to share an instance, got {share:.0%} of them, and "
                f"{chance:.0%} would by chance: are the labels in the order of the points{way or '?'}",
            )
    if not batched and _lie_on_each_other(clouds, rows, near):
        yield Finding(
            "warning",
            "batch: expected one cloud without it, got neighbours that lie together in the order of points although "
            "the points of each stretch of it are everywhere, as in clouds one after the other: pass batch, the cloud "
            "of each point",
        )
    if not batched and (groups := _groups_with_same_ids(clouds)):
        yield Finding(
            "warning",
            f"batch: expected one cloud without it, got {groups} groups of points far apart with the same ids: pass "
            "batch, the cloud of each point, or the ids of all clouds are one instance each",
        )


def _by_chance(clouds: Labelled, of: Integers) -> float:
    """How often two points of a cloud share a label, over the clouds."""
    sums = [(np.bincount(of[rows] + 1) / len(rows)) ** 2 for rows in clouds.clouds]
    return float(np.mean([s.sum() for s in sums]))


def _lie_on_each_other(clouds: Labelled, rows: Integers, near: Integers) -> bool:
    """Whether the order of points shows clouds one after the other, in the same place, that count ids anew.

    In any order that is no spatial one, a point is as far from its neighbour as from any other: 29 % of all at the
    median. In a spatial order the boxes of two stretches are apart. In an order by instance no id comes again.
    """
    x, n = clouds.positions, len(clouds.positions)
    if n < STRETCHES * FEW or not np.median(np.abs(rows - near)) < 0.2 * n:
        return False
    ids = np.unique(clouds.instance, return_inverse=True)[1]
    first, last = np.full(ids.max() + 1, n), np.zeros(ids.max() + 1, dtype=np.int64)
    np.minimum.at(first, ids, np.arange(n))
    np.maximum.at(last, ids, np.arange(n))
    again = (last - first > 0.5 * n) & (np.bincount(ids) < 0.5 * (last - first))
    if again[ids].mean() < 0.5:
        return False
    stretches = np.array_split(x, STRETCHES)
    low, high = (np.stack([f(some, axis=0) for some in stretches]) for f in (np.min, np.max))
    one, other = np.triu_indices(STRETCHES, 1)
    both = np.minimum(high[one], high[other]) - np.maximum(low[one], low[other])
    smaller = np.minimum((high - low)[one], (high - low)[other])
    share = np.divide(both.clip(0), smaller, out=np.ones_like(both), where=smaller > 0).prod(axis=1)
    return bool(np.median(share) > 0.5)


def _groups_with_same_ids(clouds: Labelled) -> int:
    """Groups of cells that do not touch, where most ids are in several of them; else 0."""
    from scipy import ndimage  # loaded by whom it serves: the package is imported without

    x, ids = clouds.positions, clouds.instance
    extent = float(np.ptp(x, axis=0).max())
    cell = max(extent / CELLS, 4 * clouds.spacing) if clouds.spacing > 0 else 0.0
    if x.shape[1] > 3 or not 0 < cell <= extent / 4:
        return 0
    at = ((x - x.min(axis=0)) / cell).astype(np.int64)
    occupied = np.zeros(at.max(axis=0) + 1, dtype=np.bool_)
    occupied[tuple(at.T)] = True
    groups, _ = ndimage.label(occupied, structure=np.ones((3,) * x.shape[1]))
    group = groups[tuple(at.T)]
    size = np.bincount(group)
    large = np.flatnonzero(size >= GROUPS * len(x))
    member = np.isin(group, large) & (ids >= 0)
    if len(large) < 2 or not member.any():
        return 0
    pairs = np.unique(np.stack([ids[member], group[member]]), axis=1)
    shared = np.unique(pairs[0], return_counts=True)[1] > 1
    return len(large) if len(shared) > 1 and shared.mean() >= 0.5 else 0


def _spacing(clouds: Labelled, positions: Any) -> Iterator[Finding]:
    """Coordinates so large that their type does not tell neighbours apart."""
    eps = torch.finfo(positions.dtype).eps if isinstance(positions, Tensor) else np.finfo(positions.dtype).eps
    farthest, extent = float(np.abs(clouds.positions).max()), float(np.ptp(clouds.positions, axis=0).max())
    spacing = extent / CELLS if math.isnan(clouds.spacing) else clouds.spacing  # all points may have fallen together
    step = coarse_step(float(eps), farthest, spacing, extent)
    if extent > 0 and step is not None:
        yield Finding(
            "error",
            f"positions: expected numbers much finer than the distance of neighbours, {spacing:.2g}, got "
            f"coordinates up to {farthest:g}, where {positions.dtype} has steps of {step:.2g}: subtract an offset in "
            "float64 before the cast (probemb_lib.positions.far_offset)",
        )


def _geometry(clouds: Labelled, unit: str | None, offset_scale: float | None) -> Iterator[Finding]:
    """Where the points lie, against what the head was told."""
    x, table = clouds.positions, clouds.table
    strays = x[stray_rows(x)]
    if len(strays):
        farthest = strays[np.linalg.norm(strays - np.median(x, axis=0), axis=1).argmax()]
        yield Finding(
            "warning",
            f"positions: expected no stray points, got {len(strays)} more than {STRAY} times as far from the middle as "
            f"99 % of the others, the farthest {_point(farthest)}: leave them out",
        )
    if unit == "sphere":
        reach = np.array([np.linalg.norm(x[rows], axis=1).max() for rows in clouds.clouds])
        if (reach > SPHERE).any():
            yield Finding(
                "error",
                f"positions: expected clouds in the unit sphere, got {(reach > SPHERE).sum()} of {len(reach)} outside, "
                f"as far as {reach.max():.3g}: centre each cloud and divide it by its largest distance from the centre",
            )
        elif reach.max() < 0.5:
            yield Finding(
                "warning",
                f"positions: expected clouds that fill the unit sphere, got none beyond {reach.max():.3g}: divide each "
                "by its largest distance from the centre",
            )
    if offset_scale is not None and len(table.radius):
        radius = float(np.quantile(table.radius, 0.95))
        if radius > 1.5 * offset_scale or 0 < radius < offset_scale / 20:
            yield Finding(
                "warning",
                f"offset_scale: expected about the radius of the largest instances, {radius:.3g}, got "
                f"{offset_scale:g}: probemb_lib.suggest_settings gives the lengths of a head from the data",
            )


def _name(clouds: Labelled, row: int) -> str:
    table = clouds.table
    return f"instance {table.id[row]} of cloud {clouds.cloud_number[table.cloud[row]]}"


def _some(values: NDArray[Any]) -> str:
    return ", ".join(map(str, values[:5].tolist())) + (", …" if len(values) > 5 else "")


def _point(x: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{value:g}' for value in x)})"
