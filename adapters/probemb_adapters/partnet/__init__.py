"""PartNet's files for torch-geometric: the raw layout, the network-ready one, augmentation, predictions."""

from probemb_adapters.partnet.instances import (
    POINTS,
    EvaluationTargets,
    PartNetDataset,
    PartNetInstances,
    PartNetShape,
    RandomStretch,
    RandomTranslate,
    evaluation_targets,
    paper_augmentation,
    read_classes,
    upright_augmentation,
)

__all__ = [
    "POINTS",
    "EvaluationTargets",
    "PartNetDataset",
    "PartNetInstances",
    "PartNetShape",
    "RandomStretch",
    "RandomTranslate",
    "evaluation_targets",
    "paper_augmentation",
    "read_classes",
    "upright_augmentation",
]
