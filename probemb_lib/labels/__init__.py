"""Between the label conventions of hosts and that of this library.

Here ``instance`` is int64: ≥ 0 an instance (any id, distinct within its cloud), −1 no instance (background: a
point outside every instance, which teaches the embedding what to keep out), −100 ignored (teaches nothing).
``semantic`` is int64: ≥ 0 a class, −100 ignored. The two are apart: a point without a class may still belong
to an instance.

A :class:`LabelConvention` says what a host's values mean; the constants are those of the hosts, read from their code.
What depends on the data set, above all which classes have no instances and which column is the background, is added
with :func:`for_scannet`, :func:`for_s3dis`, or ``dataclasses.replace``.
"""

from probemb_lib.labels.convention import LabelConvention
from probemb_lib.labels.encodings import split_cityscapes, split_scannet
from probemb_lib.labels.masks import labels_from_masks
from probemb_lib.labels.presets import (
    CELLPOSE,
    CITYSCAPES,
    EMBEDSEG,
    MASK3D,
    PASCAL_VOC,
    POINTCEPT,
    POINTGROUP,
    SOFTGROUP,
    STARDIST,
    TORCH_POINTS3D,
    for_s3dis,
    for_scannet,
    mmdetection3d,
    mmdetection3d_instances,
)
from probemb_lib.labels.results import to_host_labels
from probemb_lib.labels.values import IGNORED, NO_INSTANCE

__all__ = [
    "CELLPOSE",
    "CITYSCAPES",
    "EMBEDSEG",
    "IGNORED",
    "MASK3D",
    "NO_INSTANCE",
    "PASCAL_VOC",
    "POINTCEPT",
    "POINTGROUP",
    "SOFTGROUP",
    "STARDIST",
    "TORCH_POINTS3D",
    "LabelConvention",
    "for_s3dis",
    "for_scannet",
    "labels_from_masks",
    "mmdetection3d",
    "mmdetection3d_instances",
    "split_cityscapes",
    "split_scannet",
    "to_host_labels",
]
