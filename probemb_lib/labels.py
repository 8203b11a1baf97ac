"""Between the label conventions of hosts and that of this library.

Here ``instance`` is int64: ≥ 0 an instance (any id, distinct within its cloud), −1 no instance (background: a
point outside every instance, which teaches the embedding what to keep out), −100 ignored (teaches nothing).
``semantic`` is int64: ≥ 0 a class, −100 ignored. The two are apart: a point without a class may still belong
to an instance.

A :class:`LabelConvention` says what a host's values mean; the constants below are those of the hosts, read
from their code. What depends on the data set, above all which classes are stuff, is added with
``dataclasses.replace``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NO_INSTANCE = -1
"""``instance`` of a point outside every instance."""

IGNORED = -100
"""``instance`` or ``semantic`` of a point that takes no part; the ``ignore_index`` of ``torch``'s losses."""


@dataclass(frozen=True)
class LabelConvention:
    """What the values of a host's label arrays mean. The defaults are the convention of this library.

    Attributes:
        no_instance: values of ``instance`` on points outside every instance.
        ignored_instance: values of ``instance`` on points to ignore.
        ignored_semantic: values of ``semantic`` on points to ignore.
        stuff_classes: classes without instances, such as wall and floor: their points become −1 whatever
            their id. Class numbers are those of the host, before conversion, here and below.
        thing_classes: classes whose points all belong to instances: those without one (a crowd drawn as one
            region) become −100, where they would else count as background.
        ignored_semantic_ignores_instance: whether points with an ignored class are ignored as instances too.

    Raises:
        TypeError: a value is not an int.
        ValueError: a value has two meanings.

    >>> from dataclasses import replace
    >>> scannet = replace(POINTCEPT, stuff_classes=(0, 1))  # wall, floor
    >>> instance, semantic = scannet.convert(torch.tensor([-1, 0, 1, 1]), torch.tensor([-1, 0, 2, 2]))
    >>> instance, semantic
    (tensor([-1, -1,  1,  1]), tensor([-100,    0,    2,    2]))
    """

    no_instance: tuple[int, ...] = (NO_INSTANCE,)
    ignored_instance: tuple[int, ...] = (IGNORED,)
    ignored_semantic: tuple[int, ...] = (IGNORED,)
    stuff_classes: tuple[int, ...] = ()
    thing_classes: tuple[int, ...] = ()
    ignored_semantic_ignores_instance: bool = False

    def __post_init__(self) -> None:
        for field in fields(self)[:5]:
            values = getattr(self, field.name)
            if not isinstance(values, tuple) or any(type(value) is not int for value in values):
                raise TypeError(f"{field.name}: expected a tuple of int, got {values!r}")
        for one, other in (
            ("no_instance", "ignored_instance"),
            ("stuff_classes", "thing_classes"),
            ("stuff_classes", "ignored_semantic"),
            ("thing_classes", "ignored_semantic"),
        ):
            both = set(getattr(self, one)) & set(getattr(self, other))
            if both:
                raise ValueError(f"expected one meaning for a value, got {sorted(both)} in {one} and {other}")

    def convert(
        self, instance: Tensor | NDArray[Any], semantic: Tensor | NDArray[Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The host's labels in the convention of this library; ids and classes stay as they are.

        A point is ignored where any rule says so, else it is outside every instance where any rule says so.

        Args:
            instance: any shape, any integer type, torch or numpy.
            semantic: likewise, of the same shape. ``None`` where the host has objects of one class only, as
                label images have: then 1 on instances, 0 outside, −100 where the instance is ignored.

        Returns:
            ``instance`` and ``semantic``, new int64 tensors on the device of the input.

        Raises:
            TypeError: the labels are not integers; float and bool labels are to be cast by who knows them.
            ValueError: the shapes differ; or a value is negative and has no meaning here; or a value is what
                a narrow type made of one of this convention's values (255 for −1 in uint8): −1 and the
                instance 255 cannot be told apart any more, so read the labels as int64 from the start.

        >>> EMBEDSEG.convert(np.array([[0, 7], [7, 9]], dtype=np.uint8))
        (tensor([[-1,  7],
                [ 7,  9]]), tensor([[0, 1],
                [1, 1]]))
        """
        ids = _as_int64(instance, "instance", self.no_instance + self.ignored_instance)
        none, ignored = _isin(ids, self.no_instance), _isin(ids, self.ignored_instance)
        _check_meaning(ids, none | ignored, "instance")
        if semantic is None:
            class_of = torch.where(ignored, IGNORED, (~none).long())
            return ids.masked_fill(none, NO_INSTANCE).masked_fill(ignored, IGNORED), class_of

        class_of = _as_int64(semantic, "semantic", self.ignored_semantic)
        if class_of.shape != ids.shape:
            raise ValueError(
                f"semantic: expected the shape of instance, {tuple(ids.shape)}, got {tuple(class_of.shape)}"
            )
        unclassed = _isin(class_of, self.ignored_semantic)
        _check_meaning(class_of, unclassed, "semantic")
        ignored = ignored | (none & _isin(class_of, self.thing_classes))
        if self.ignored_semantic_ignores_instance:
            ignored = ignored | unclassed
        none = none | _isin(class_of, self.stuff_classes)
        ids = ids.masked_fill(none, NO_INSTANCE).masked_fill(ignored, IGNORED)
        return ids, class_of.masked_fill(unclassed, IGNORED)


POINTCEPT = LabelConvention(no_instance=(-1,), ignored_instance=(), ignored_semantic=(-1,))
"""Pointcept (041f5f6): ``instance_ignore_index=-1`` and ``semantic_ignore_index=-1`` in the PointGroup
configurations (configs/scannet/insseg-pointgroup-v1m1-0-spunet-base.py). Its −1 of ``instance`` is a point
without an instance: the ``InstanceParser`` transform puts it on the classes of ``segment_ignore_index=(-1, 0,
1)``, that is on wall and floor too. Where this transform has not run, add ``stuff_classes=(0, 1)`` for
ScanNet."""

POINTGROUP = LabelConvention(no_instance=(-100,), ignored_instance=(), ignored_semantic=(-100,))
"""PointGroup (c6ccbe2): ``ignore_label: -100`` for both arrays (dataset/scannetv2/prepare_data_inst.py,
config/pointgroup_default_scannet.yaml). Its −100 of ``instance`` is what −1 is here: it is written on walls
and floors, which are outside every instance, as well as on what nobody annotated. The files keep the labels
as float64: cast them to int64."""

SOFTGROUP = POINTGROUP
"""SoftGroup (b14350d): as PointGroup, ``ignore_label: -100`` (configs/softgroup/softgroup_scannet.yaml)."""

EMBEDSEG = LabelConvention(no_instance=(0,), ignored_instance=(), ignored_semantic=())
"""EmbedSeg (4720e8d): label images, 0 is background (EmbedSeg/criterions/my_loss.py). No classes: give no
``semantic``."""

CELLPOSE = EMBEDSEG
"""Cellpose 3: ``masks``, 0 is no region (docs/outputs.rst)."""

STARDIST = LabelConvention(no_instance=(0,), ignored_instance=(-1,), ignored_semantic=())
"""StarDist 0.9: label images, 0 is background (README.md); −1, new in 0.9, marks pixels that nobody annotated
(stardist/stardist issue 300)."""

PASCAL_VOC = LabelConvention(no_instance=(0,), ignored_instance=(255,), ignored_semantic=(255,))
"""Pascal VOC 2012: SegmentationObject and SegmentationClass, 0 is background, 255 the void at the borders of objects
(VOC2012 development kit, section 2.2). Any label image of at most 254 objects with 255 for what nobody annotated."""

CITYSCAPES = LabelConvention(
    no_instance=(-1,),
    ignored_instance=(),
    ignored_semantic=(255, -1),
    thing_classes=tuple(range(11, 19)),
    ignored_semantic_ignores_instance=True,
)
"""Cityscapes with train ids, after :func:`split_cityscapes` (cityscapesScripts 324df1e, helpers/labels.py):
255 and −1 are void, of which nothing is known; train ids 11 (person) to 18 (bicycle) have instances, and a
region of one of them without an instance is a group, in which the persons or cars could not be told apart."""


def mmdetection3d(num_classes: int) -> LabelConvention:
    """mmdetection3d 1.x: 0 in ``pts_instance_mask``, ``num_classes`` in ``pts_semantic_mask``.

    Source: data/scannet/load_scannet_data.py and data/s3dis/indoor3d_util.py (ids from 1, 0 unannotated), and
    ``PointSegClassMapping``, which maps what is not a class to ``num_classes``, with ``ignore_index`` equal
    to it in configs/_base_/datasets/scannet-seg.py. In ScanNet walls and floors are instances here: add
    ``stuff_classes=(0, 1)``.

    Args:
        num_classes: the number of classes, 20 for ScanNet, 13 for S3DIS.

    Raises:
        ValueError: ``num_classes`` is not positive.

    >>> mmdetection3d(20).convert(torch.tensor([0, 1, 2]), torch.tensor([20, 4, 4]))
    (tensor([-1,  1,  2]), tensor([-100,    4,    4]))
    """
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    return LabelConvention(no_instance=(0,), ignored_instance=(), ignored_semantic=(num_classes,))


def split_scannet(encoded: Tensor | NDArray[Any]) -> tuple[Tensor, Tensor]:
    """ScanNet's ground truth for evaluation, label · 1000 + instance, to instance and semantic.

    The whole number stays as the id: in files that count instances anew in each class, only it is unique.
    Classes stay nyu40 ids; 1 is wall and 2 is floor, which have instances in the files of the official
    exporter.

    Source: BenchmarkScripts/3d_helpers/export_train_mesh_for_evaluation.py and util_3d.py of ScanNet/ScanNet.

    Args:
        encoded: any shape, any integer type; instances count from 1, and 0 is unannotated.

    Returns:
        ``instance``: the encoded number, or −1 where its instance is 0; ``semantic``: the label, or −100
        where it is 0. New int64 tensors.

    Raises:
        TypeError: ``encoded`` is not of an integer type.
        ValueError: a number is negative.

    >>> split_scannet(torch.tensor([0, 5001, 5002, 1000]))
    (tensor([  -1, 5001, 5002,   -1]), tensor([-100,    5,    5,    1]))
    """
    number = _as_int64(encoded, "encoded", ())
    _check_meaning(number, torch.zeros_like(number, dtype=torch.bool), "encoded")
    label = number // 1000
    return number.masked_fill(number % 1000 == 0, NO_INSTANCE), label.masked_fill(label == 0, IGNORED)


def split_cityscapes(encoded: Tensor | NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Cityscapes' ``*_instanceIds`` and ``*_instanceTrainIds`` images to instance and semantic.

    A number ≥ 1000 is class · 1000 + instance with instance ≥ 0, a smaller one the class of a pixel without
    an instance (cityscapesscripts/preparation/json2instanceImg.py). The whole number stays as the id, as
    instances are counted anew in each class. For train ids go on with ``CITYSCAPES.convert``. Class 0 (road,
    in train ids) has no instances, so that nothing is ambiguous.

    Args:
        encoded: any shape, any integer type.

    Returns:
        ``instance``: the encoded number, or −1; ``semantic``: the class as it stands in the image, void
        classes included. New int64 tensors.

    Raises:
        TypeError: ``encoded`` is not of an integer type.
        ValueError: a number is negative.

    >>> instance, semantic = split_cityscapes(torch.tensor([0, 13000, 13001, 13, 255]))
    >>> instance, semantic
    (tensor([   -1, 13000, 13001,    -1,    -1]), tensor([  0,  13,  13,  13, 255]))
    >>> CITYSCAPES.convert(instance, semantic)[0]
    tensor([   -1, 13000, 13001,  -100,  -100])
    """
    number = _as_int64(encoded, "encoded", ())
    _check_meaning(number, torch.zeros_like(number, dtype=torch.bool), "encoded")
    alone = number < 1000
    return number.masked_fill(alone, NO_INSTANCE), torch.where(alone, number, number // 1000)


def to_host_labels(
    label: Tensor | NDArray[Any], *, none: int = 0, start: int = 1, dtype: torch.dtype = torch.int64
) -> Tensor:
    """A label map of results, −1 outside every instance, in a host's convention.

    host = none where label = −1, else label + start. The defaults are those of label images (EmbedSeg,
    StarDist, Cellpose, scikit-image); Pointcept wants ``none=-1, start=0``.

    Args:
        label: any shape, any integer type, ≥ −1, such as ``Instances.label``.
        none: the host's value outside every instance.
        start: the host's id of instance 0.
        dtype: an integer type of torch, e.g. ``torch.uint16`` for an image file.

    Returns:
        A new tensor of the shape of ``label``.

    Raises:
        TypeError: ``label`` or ``dtype`` is not an integer type.
        ValueError: a label is below −1, an instance gets the value ``none``, or a value does not fit into
            ``dtype``, where a cast would wrap around and merge instances.

    >>> to_host_labels(torch.tensor([-1, 0, 1]))
    tensor([0, 1, 2])
    """
    if not _is_integer(dtype):
        raise TypeError(f"dtype: expected an integer type of torch, got {dtype}")
    ids = _as_int64(label, "label", (NO_INSTANCE,))
    outside = ids == NO_INSTANCE
    _check_meaning(ids, outside, "label")
    host = (ids + start).masked_fill(outside, none)
    if (host[~outside] == none).any():
        raise ValueError(f"none: expected a value that no instance has, got {none}, the id of instance {none - start}")
    limits = torch.iinfo(dtype)
    if host.numel():
        low, high = int(host.min()), int(host.max())
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"dtype: expected one that holds {low} .. {high}, got {dtype} with {limits.min} .. {limits.max}"
            )
    return host.to(dtype)


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _as_int64(x: Tensor | NDArray[Any], name: str, codes: tuple[int, ...]) -> Tensor:
    """Labels as int64, in which none of the convention's ``codes`` was wrapped around by a narrower type."""
    if isinstance(x, Tensor):
        if not _is_integer(x.dtype):
            raise TypeError(f"{name}: expected an integer type, got {x.dtype}; cast it to int64 if it is whole")
        low, bits = torch.iinfo(x.dtype).min, torch.iinfo(x.dtype).bits
        wide = x.to(torch.int64)
    else:
        if x.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected an integer type, got {x.dtype}; cast it to int64 if it is whole")
        low, bits = int(np.iinfo(x.dtype).min), np.iinfo(x.dtype).bits
        wide = torch.from_numpy(x.astype(np.int64, order="C"))  # a copy, in native byte order
    if low == 0 and (wide < 0).any():
        raise ValueError(f"{name}: expected values below 2**63, got larger ones in {x.dtype}")
    for code in codes:
        wrapped = (code - low) % 2**bits + low
        if wrapped != code and wrapped not in codes and (wide == wrapped).any():
            raise ValueError(
                f"{name}: expected a type that holds {code}, got {x.dtype}, where {code} becomes {wrapped}, "
                "which occurs; read the labels as int64 from the start"
            )
    return wide


def _isin(x: Tensor, values: tuple[int, ...]) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    for value in values:  # a handful: each comparison is cheaper than torch.isin's sort
        found |= x == value
    return found


def _check_meaning(x: Tensor, known: Tensor, name: str) -> None:
    unknown = x[(x < 0) & ~known]
    if unknown.numel():
        raise ValueError(
            f"{name}: expected values >= 0 or with a meaning in this convention, got "
            f"{sorted(set(unknown.tolist()))[:5]}; is it another convention, or did a narrow type "
            "wrap around?"
        )
