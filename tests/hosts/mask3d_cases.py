"""The targets of Mask3D's own get_instance_masks through our converter."""

from __future__ import annotations

import importlib

import torch
from folders import folder_of
from in_torch import put_in_place

import probemb_adapters.networks.minkowski  # noqa: F401  # MinkowskiEngine as newer Pythons need it

folder_of("MASK3D", "JonasSchult/Mask3D")
put_in_place(("MinkowskiEngine", "volumentations", "albumentations"))

from probemb_adapters.hosts.mask3d import labels_of
from probemb_lib.labels import MASK3D, for_scannet


def test_targets_and_labels_say_the_same() -> None:
    utils = importlib.import_module("datasets.utils")
    labels = torch.tensor([[0, 5], [2, 0], [2, 0], [19, 3], [1, 2], [19, -1]])  # class and instance
    target = utils.get_instance_masks([labels], "instance_segmentation", filter_out_classes=[0, 1], label_offset=2)
    instance, semantic, _ = labels_of(target, [len(labels)])
    ours, class_of = for_scannet(MASK3D).convert(labels[:, 1], labels[:, 0])
    assert (instance >= 0).tolist() == (ours >= 0).tolist()
    assert semantic[instance >= 0].tolist() == class_of[ours >= 0].tolist() == [1, 1, 18]
    print("Mask3D's get_instance_masks and its labels give the same instances and classes")
