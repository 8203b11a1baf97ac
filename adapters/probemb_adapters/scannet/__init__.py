"""ScanNet's files for torch-geometric: scenes, augmentation, the benchmark's submission, and writing scenes."""

from probemb_adapters.scannet.scenes import (
    INSTANCE_CLASSES,
    INSTANCE_IDS,
    MAX_OBJECTS,
    SEMANTIC_IDS,
    STUFF_IDS,
    ScanNetScenes,
    check_whole,
    class_index,
    evaluation_target,
    scene_data,
)

__all__ = [
    "INSTANCE_CLASSES",
    "INSTANCE_IDS",
    "MAX_OBJECTS",
    "SEMANTIC_IDS",
    "STUFF_IDS",
    "ScanNetScenes",
    "check_whole",
    "class_index",
    "evaluation_target",
    "scene_data",
]
