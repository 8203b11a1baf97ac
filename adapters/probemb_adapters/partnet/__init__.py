"""PartNet's files for torch-geometric: the raw layout, the network-ready one, augmentation, predictions."""

from probemb_adapters.partnet.augment import RandomStretch, RandomTranslate, paper_augmentation, upright_augmentation
from probemb_adapters.partnet.dataset import POINTS, PartNetDataset, PartNetShape, check_num_points, drop_empty
from probemb_adapters.partnet.files import check_enough, check_finite, read_classes, read_records, split_files
from probemb_adapters.partnet.instances import PartNetInstances
from probemb_adapters.partnet.targets import EvaluationTargets, evaluation_targets

__all__ = [
    "POINTS",
    "EvaluationTargets",
    "PartNetDataset",
    "PartNetInstances",
    "PartNetShape",
    "RandomStretch",
    "RandomTranslate",
    "check_enough",
    "check_finite",
    "check_num_points",
    "drop_empty",
    "evaluation_targets",
    "paper_augmentation",
    "read_classes",
    "read_records",
    "split_files",
    "upright_augmentation",
]
