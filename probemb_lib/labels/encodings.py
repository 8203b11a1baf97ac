"""Class and instance in one number, to two arrays."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib.labels.values import IGNORED, NO_INSTANCE, as_int64, check_meaning


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
    number = as_int64(encoded, "encoded", ())
    check_meaning(number, torch.zeros_like(number, dtype=torch.bool), "encoded")
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

    >>> from probemb_lib.labels import CITYSCAPES
    >>> instance, semantic = split_cityscapes(torch.tensor([0, 13000, 13001, 13, 255]))
    >>> instance, semantic
    (tensor([   -1, 13000, 13001,    -1,    -1]), tensor([  0,  13,  13,  13, 255]))
    >>> CITYSCAPES.convert(instance, semantic)[0]
    tensor([   -1, 13000, 13001,  -100,  -100])
    """
    number = as_int64(encoded, "encoded", ())
    check_meaning(number, torch.zeros_like(number, dtype=torch.bool), "encoded")
    alone = number < 1000
    return number.masked_fill(alone, NO_INSTANCE), torch.where(alone, number, number // 1000)
