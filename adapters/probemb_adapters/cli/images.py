"""Whether a command is about images; what it does with them is in `experiments/images/folders.py`."""

from __future__ import annotations

from pathlib import Path

from probemb_adapters.cli.labels import Labels

SUBFOLDERS = (".", "train", "val", "test")
_OF_CLOUDS = ("--instance", "--semantic", "--background", "--ignored")
PICTURES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")  # no clouds, as .npy may be


def has_images(folder: Path, labels: Labels) -> bool:
    """Whether the folder has a folder `images`, itself or in train, val or test.

    Raises:
        ValueError: options of clouds with images, or the other way round; images without a folder of their own.
    """
    if not any((folder / name / "images").is_dir() for name in SUBFOLDERS):
        if labels.channel is not None:
            raise ValueError(f"{folder}: --channel is for images: expected the folders images and labels in it")
        bare = [p.name for p in sorted(folder.iterdir()) if p.suffix.lower() in PICTURES] if folder.is_dir() else []
        if bare and len(bare) == sum(p.is_file() and p.name[0] != "." for p in folder.iterdir()):
            raise ValueError(
                f"{folder}: expected images in a folder images and label images of the same names in a folder labels "
                f"beside it, both in {folder}, got {', '.join(bare[:3])}"
            )
        return False
    if labels.instance is not None or labels.semantic is not None or labels.background or labels.ignored:
        raise ValueError(f"{folder} has images: their label images need no {', '.join(_OF_CLOUDS)}")
    return True


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
