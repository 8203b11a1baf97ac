"""Whether a command is about images; what it does with them is in `experiments/images/folders.py`."""

from __future__ import annotations

from pathlib import Path

from probemb_adapters.cli.labels import Labels

SUBFOLDERS = (".", "train", "val", "test")
_OF_CLOUDS = ("--instance", "--semantic", "--background", "--ignored")
PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")  # no clouds, as .npy may be


def has_images(folder: Path, labels: Labels) -> bool:
    """Whether the folder, or one of its train, val and test, has a folder `images` or nothing but pictures.

    Raises:
        ValueError: options of clouds with images, or the other way round.
    """
    if not any((folder / name / "images").is_dir() or _pictures_alone(folder / name) for name in SUBFOLDERS):
        if labels.channel is not None:
            raise ValueError(
                f"{folder}: --channel is for images: expected the folders images and labels in it, or images alone"
            )
        return False
    if labels.instance is not None or labels.semantic is not None or labels.background or labels.ignored:
        raise ValueError(f"{folder} has images: their label images need no {', '.join(_OF_CLOUDS)}")
    return True


def _pictures_alone(folder: Path) -> bool:
    files = [p for p in folder.iterdir() if p.is_file() and p.name[0] != "."] if folder.is_dir() else []
    return bool(files) and all(path.suffix.lower() in PICTURES for path in files)


def is_of_images(model: Path, channel: int | None) -> bool:
    """Whether the file, or the folder of a training, has a model of images.

    Raises:
        ValueError: a channel of images for a model of clouds.
    """
    file = model / "model.safetensors" if model.is_dir() else model
    if not file.is_file():
        return False  # the message about it is the same for both
    from probemb_adapters.training.checkpoint import load_checkpoint

    if "crop" not in load_checkpoint(file).get("about", {}):
        if channel is not None:
            raise ValueError(f"{file} is a model of clouds: --channel {channel} is for images, leave it out")
        return False
    return True
