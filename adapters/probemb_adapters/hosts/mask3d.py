"""Mask3D's batches and results (11bd5ff): ``VoxelizeCollate`` of datasets/utils.py, ``preds`` of trainer/trainer.py.

The loader gives ``data`` (coordinates with the batch column, features), ``target``, one dict a scene, and file names.
Points are distinct voxels already. Nothing of Mask3D is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib import Instances
from probemb_lib.convert import pack_list
from probemb_lib.labels import labels_from_masks


def labels_of(targets: Sequence[dict[str, Tensor]], lengths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """``instance``, ``semantic`` and ``batch`` (N,) of the targets of ``get_instance_masks``.

    Class c of Mask3D, after its ``label_offset``, is column c + 1: column 0 is the background, which has no mask there.

    Args:
        targets: {"labels": (K,), "masks": (K, N_b) bool} a scene. Mask3D gives an empty list for a batch in which one
            scene has no instance, and skips it.
        lengths: points of each scene.

    Raises:
        ValueError: not one target a scene, or masks of other lengths.

    >>> target = {"labels": torch.tensor([0, 17]), "masks": torch.tensor([[1, 0, 0], [0, 1, 0]]).bool()}
    >>> labels_of([target], [3])
    (tensor([ 0,  1, -1]), tensor([ 1, 18,  0]), tensor([0, 0, 0]))
    """
    sizes = [int(target["masks"].shape[1]) for target in targets]
    if sizes != list(lengths):
        raise ValueError(f"targets: expected masks of {list(lengths)} points, one target a scene, got {sizes}")
    pairs = [labels_from_masks(target["masks"].bool(), target["labels"].long() + 1) for target in targets]
    instance, batch = pack_list([pair[0] for pair in pairs])
    return instance, torch.cat([pair[1] for pair in pairs]), batch


def predictions_of(found: Instances, label_offset: int = 2) -> dict[str, NDArray[Any]]:
    """What ``eval_instance_epoch`` reads of one scene: masks (N, K), scores (K,) and classes (K,) with the offset.

    Args:
        found: in one scene, on all its points.
        label_offset: 2 for ScanNet, 0 for S3DIS. The trainer's own map from there to the data set's ids is still to
            come: ``validation_dataset._remap_model_output(classes)``.
    """
    return {
        "pred_masks": found.masks().T.cpu().numpy().astype(np.uint8),
        "pred_scores": found.score.detach().cpu().numpy(),
        "pred_classes": (found.semantic - 1 + label_offset).cpu().numpy(),
    }
