"""The scenes of ScanNet, or of what has its layout: for training, for picking parameters, for evaluation."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch.utils.data import Dataset, Subset
from torch_geometric.data import Data
from torch_geometric.transforms import Compose
from tqdm import tqdm

from probemb_adapters.experiments.scannet.options import Options
from probemb_adapters.scannet import INSTANCE_CLASSES, INSTANCE_IDS, ScanNetScenes
from probemb_adapters.scannet.augment import scene_augmentation
from probemb_adapters.training import share_of


def held_out_scenes(scene_ids: Sequence[str], share: float) -> list[int]:
    """Rows of the scenes for picking parameters: every so many rooms, with all scans of them."""
    rooms = list(dict.fromkeys(scene_id.split("_")[0] for scene_id in scene_ids))
    held_out = set(rooms[:: max(2, round(1 / share))])
    return [row for row, scene_id in enumerate(scene_ids) if scene_id.split("_")[0] in held_out]


def training_scenes(root: Path, options: Options) -> Dataset[Data]:
    augmentation = scene_augmentation(
        options.train_points,
        options.voxel_size,
        around_instances=options.crop == "instance",
        elastic=options.elastic is not False,
    )
    transform = Compose([augmentation, without_classes]) if options.class_agnostic else augmentation
    data = ScanNetScenes(root, "train", transform=transform)
    held_out = set(held_out_scenes(data.scene_ids, options.held_out))
    rows = [row for row in range(len(data)) if row not in held_out]
    if not rows:
        raise SystemExit(
            f"{root}: scannetv2_train.txt names scans of a single room: expected two at least, of which one is held out"
        )
    return Subset(data, rows[: options.max_scenes])


def fitting_scenes(root: Path, options: Options) -> Dataset[Data]:
    data = ScanNetScenes(root, "train")
    return Subset(data, held_out_scenes(data.scene_ids, options.held_out)[: options.max_scenes])


def evaluation_scenes(root: Path, options: Options) -> Dataset[Data]:
    data = ScanNetScenes(root, options.split)
    return Subset(data, range(len(data))[: options.max_scenes])


OBJECT = INSTANCE_CLASSES.index("otherfurniture") + 1
"""The column that stands for objects without classes in ScanNet's files."""


def without_classes(data: Data) -> Data:
    """A scene whose instances are all of one class, column 1; in ScanNet's ids "otherfurniture"."""
    data = copy.copy(data)
    data.semantic = data.semantic.clamp(max=1)
    data.label = torch.where(data.instance >= 0, INSTANCE_IDS[OBJECT - 1], data.label)
    return data


def shares(data: Dataset[Data], fabric: Fabric, what: str) -> Iterator[Data]:
    """The scenes of this process, with a progress bar."""
    rows = share_of(fabric, len(data))  # type: ignore[arg-type]
    for row in tqdm(rows, desc=what, unit="scene", disable=not fabric.is_global_zero):
        yield data[row]
