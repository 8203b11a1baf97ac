"""The data that the experiments take where nobody gives them a folder: written once, into `.cache` of the clone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lightning_fabric import Fabric
from tqdm import tqdm

from probemb_shapes.families import FAMILIES, write_generated
from probemb_shapes.furniture import write_furniture
from probemb_shapes.rooms import Models, write_rooms

PROJECT = Path(__file__).resolve().parents[2]


def partnet_folder(category: str, generated_shapes: int, fabric: Fabric) -> Path:
    """A folder as PartNet's: the open furniture, or a generated category; the first process writes it."""
    with fabric.rank_zero_first():
        if category in FAMILIES:
            return generated_folder(category, generated_shapes)
        root = PROJECT / ".cache" / "furniture"
        write_furniture(open_models("furniture_parts"), root)
    return root


def generated_folders(generated_shapes: int, fabric: Fabric) -> dict[str, Path]:
    """A folder for each generated category."""
    with fabric.rank_zero_first():
        return {name: generated_folder(name, generated_shapes) for name in FAMILIES}


def generated_folder(category: str, generated_shapes: int) -> Path:
    """Generated shapes, in a folder for each number of them; nothing to do where they are there."""
    root = PROJECT / ".cache" / "generated" / f"{category}-{generated_shapes}"
    others = max(4, generated_shapes // 10)
    bar = partial(tqdm, desc=f"writing {category}", unit="shape")
    write_generated(root, category, train=generated_shapes, val=others, test=others, progress=bar)
    return root


def scannet_folder(rooms: int, fabric: Fabric, objects: Path | None = None) -> Path:
    """A folder as ScanNet's: open rooms, each fifth one for validation; the first process writes it.

    With a file of other objects, the rooms for validation alone, furnished with these.
    """
    folder, only = PROJECT / ".cache", None
    source, root = (open_models("scan_objects") if objects is None else objects), folder / f"rooms-{rooms}"
    if objects is not None:
        root, only = folder / f"rooms-{rooms}-{Models(objects).checksum()[:12]}", "val"
    with fabric.rank_zero_first():
        bar = partial(tqdm, desc="writing rooms", unit="room", disable=not fabric.is_global_zero)
        write_rooms(source, root, scenes=rooms, seed=0, only=only, progress=bar)
    return root


def open_models(name: str) -> Path:
    """A folder of `data`, which comes with a clone of the project and not with the wheel."""
    folder = PROJECT / "data" / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not there: the open models come with a clone of the project, not with the installed "
            "package. Work in a clone, or give a folder of your own with --root"
        )
    return folder
