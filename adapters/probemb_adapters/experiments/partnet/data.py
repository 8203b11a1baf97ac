"""The splits of PartNet, or of what has its layout, as the experiment reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lightning_fabric import Fabric
from torch.utils.data import ConcatDataset, Dataset, Subset
from torch_geometric.data import Data

from probemb_adapters.experiments.partnet.options import Options
from probemb_adapters.partnet import (
    PartNetInstances,
    evaluation_targets,
    paper_augmentation,
    read_classes,
    upright_augmentation,
)
from probemb_adapters.partnet.detection import PartNetDetection
from probemb_adapters.training import share_of
from probemb_adapters.training.options import chosen


def read_split(root: Path, options: Options, split: str, category: str | None = None, level: int = 0) -> Dataset[Data]:
    augmentation = upright_augmentation() if options.augmentation == "upright" else paper_augmentation()
    # PartNet's network-ready files are read where the raw ones are not there.
    ready = (root / "ins_seg_h5_for_detection").is_dir() and not (root / "ins_seg_h5").is_dir()
    reader = PartNetDetection if ready else PartNetInstances
    data = reader(
        root,
        category or options.category,
        level or options.level,
        split,
        num_points=chosen(options.train_points) if split == "train" else options.points,
        transform=augmentation if split == "train" else None,
        class_agnostic=chosen(options.class_agnostic),
    )
    return data if options.max_shapes is None else Subset(data, range(min(options.max_shapes, len(data))))


def training_data(
    root: Path, options: Options, generated: Mapping[str, Path] = MappingProxyType({})
) -> tuple[Dataset[Data], list[float] | None]:
    """The training shapes and, where generated ones are added, how often each is drawn.

    Args:
        generated: folders of generated shapes by category, with ``options.add_generated`` alone.

    Raises:
        ValueError: folders without that option, or none with it.
    """
    if options.add_generated != bool(generated):
        raise ValueError(f"expected folders of generated shapes with add_generated alone, got {dict(generated)}")
    own = read_split(root, options, "train")
    if not generated:
        return own, None
    others = [read_split(folder, options, "train", name, level=3) for name, folder in generated.items()]
    added: ConcatDataset[Data] = ConcatDataset(others)
    count = len(own)  # type: ignore[arg-type]
    weights = [options.real_share / count] * count + [(1 - options.real_share) / len(added)] * len(added)
    return ConcatDataset([own, added]), weights


def read_classes_of(root: Path, options: Options) -> tuple[str, ...]:
    return ("part",) if options.class_agnostic else read_classes(root, options.category, options.level)


class Split:
    """This process's share of a split, read once."""

    def __init__(self, root: Path, options: Options, split: str, fabric: Fabric) -> None:
        data = read_split(root, options, split)
        self.shapes = [data[i] for i in share_of(fabric, len(data))]  # type: ignore[arg-type]
        self.targets = [evaluation_targets(shape) for shape in self.shapes]
