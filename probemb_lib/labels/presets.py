"""The conventions of hosts, read from their code, and what data sets add to them."""

from __future__ import annotations

from dataclasses import replace

from probemb_lib.labels.convention import LabelConvention

POINTCEPT = LabelConvention(no_instance=(-1,), ignored_instance=(), ignored_semantic=(-1,))
"""Pointcept (041f5f6): ``instance_ignore_index=-1`` and ``semantic_ignore_index=-1`` in the PointGroup
configurations (configs/scannet/insseg-pointgroup-v1m1-0-spunet-base.py). Its −1 of ``instance`` is a point
without an instance: the ``InstanceParser`` transform puts it on the classes of ``segment_ignore_index=(-1, 0,
1)``, that is on wall and floor too. With ``for_scannet(POINTCEPT)`` it does not matter whether it has run."""

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
    num_classes=19,
)
"""Cityscapes with train ids, after :func:`split_cityscapes` (cityscapesScripts 324df1e, helpers/labels.py):
255 and −1 are void, of which nothing is known; train ids 11 (person) to 18 (bicycle) have instances, and a
region of one of them without an instance is a group, in which the persons or cars could not be told apart."""


MASK3D = LabelConvention(no_instance=(-1,), ignored_instance=(), ignored_semantic=(255,))
"""Mask3D (11bd5ff): columns 0 and 1 of ``labels``, a class and an instance; ``ignore_label: 255``
(conf/data/indoor.yaml), and −1 of ``instance`` is skipped (datasets/utils.py, ``get_instance_masks``)."""

TORCH_POINTS3D = LabelConvention(no_instance=(0,), ignored_instance=(), ignored_semantic=(-1,))
"""torch-points3d (cf0061b): ``instance_labels`` count from 1, 0 is none (datasets/panoptic/utils.py), and
``IGNORE_LABEL = -1`` for classes (datasets/segmentation)."""


def mmdetection3d(num_classes: int) -> LabelConvention:
    """mmdetection3d 1.x, semantic sets: 0 in ``pts_instance_mask``, ``num_classes`` in ``pts_semantic_mask``.

    Source: data/scannet/load_scannet_data.py and data/s3dis/indoor3d_util.py (ids from 1, 0 unannotated), and
    ``PointSegClassMapping``, which maps what is not a class to ``num_classes``, with ``ignore_index`` equal
    to it in configs/_base_/datasets/scannet-seg.py. In ScanNet walls and floors are instances here: use
    ``for_scannet(mmdetection3d(20))``. For ``ScanNetInstanceSegDataset`` take :func:`mmdetection3d_instances`.

    Args:
        num_classes: the number of classes, 20 for ScanNet, 13 for S3DIS.

    Raises:
        ValueError: ``num_classes`` is not positive. Classes beyond it, such as the nyu40 ids 21 to 40, are refused
            on conversion.

    >>> import torch
    >>> mmdetection3d(20).convert(torch.tensor([0, 1, 2]), torch.tensor([20, 4, 4]))
    (tensor([-1,  1,  2]), tensor([-100,    4,    4]))
    """
    return LabelConvention(
        no_instance=(0,), ignored_instance=(), ignored_semantic=(num_classes,), num_classes=num_classes
    )


def mmdetection3d_instances(num_classes: int = 18) -> LabelConvention:
    """mmdetection3d 1.x, ``ScanNetInstanceSegDataset``: classes 0 … num_classes − 1 have instances, and
    ``num_classes`` is all else, with ids of its own: wall, floor and what nobody annotated (fe25f7a,
    datasets/scannet_dataset.py with ``PointSegClassMapping``). It becomes the background, and the others 1 and above.

    >>> import torch
    >>> convention = mmdetection3d_instances()
    >>> convention.convert(torch.tensor([1, 2, 3]), torch.tensor([18, 0, 17])), convention.num_columns
    ((tensor([-1,  2,  3]), tensor([ 0,  1, 18])), 19)
    """
    return LabelConvention(
        no_instance=(0,),
        ignored_instance=(),
        ignored_semantic=(),
        num_classes=num_classes,
        background_classes=(num_classes,),
        class_shift=1,
    )


def for_scannet(convention: LabelConvention) -> LabelConvention:
    """ScanNet's 20 classes, of which 0 and 1, wall and floor, are the background: 19 columns, 1 … 18 with instances.

    Raises:
        ValueError: the convention has other classes already, as ``mmdetection3d_instances`` does.

    >>> import torch
    >>> for_scannet(POINTCEPT).convert(torch.tensor([-1, 3, 4]), torch.tensor([-1, 1, 19]))
    (tensor([-1, -1,  4]), tensor([-100,    0,   18]))
    """
    return _with_classes(convention, num_classes=20, background_classes=(0, 1), class_shift=-1)


def for_s3dis(convention: LabelConvention) -> LabelConvention:
    """S3DIS's 13 classes, all of which have instances, ceiling (0) among them: 14 columns, of which 0 stays free.

    Raises:
        ValueError: the convention has other classes already.

    >>> import torch
    >>> for_s3dis(POINTCEPT).convert(torch.tensor([0, 5, -1]), torch.tensor([0, 12, -1]))
    (tensor([ 0,  5, -1]), tensor([   1,   13, -100]))
    """
    return _with_classes(convention, num_classes=13, background_classes=(), class_shift=1)


def _with_classes(
    convention: LabelConvention, *, num_classes: int, background_classes: tuple[int, ...], class_shift: int
) -> LabelConvention:
    own = convention.num_classes, convention.background_classes, convention.class_shift
    new = num_classes, background_classes, class_shift
    if own not in (new, (num_classes, (), 0), (None, (), 0)):
        raise ValueError(
            "convention: expected one of a host, without the classes of a data set, got num_classes, "
            f"background_classes and class_shift {own}, which are not those to be set, {new}; for ScanNet's instance "
            "set of mmdetection3d take mmdetection3d_instances() as it is"
        )
    return replace(convention, num_classes=num_classes, background_classes=background_classes, class_shift=class_shift)
