"""Images, volumes and label images from PNG, TIFF, OME-TIFF and npy files, and pairs of them from two folders.

    for image in read_pairs("images", "labels"):   # names without ending match
        ...
    for image in read_pairs("stacks"):             # a_raw.tif and a_labels.tif in one folder
        ...

TIFF goes through tifffile, which knows OME-TIFF, stacks, 16 bit and what microscopes write beside; PNG and the rest
through imageio. Volumes are (Z, Y, X).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probemb_adapters.files import check_claim, missing_extra, readable, replaced_file
from probemb_adapters.images.pairs import Array, LabelledImage

try:
    import imageio.v3 as imageio
    import tifffile
except ImportError as error:
    raise missing_extra("images need imageio and tifffile", "images", error) from error

TIFF = (".tif", ".tiff")
_PACKING = 10_000  # of an image of one colour, at most
ENDINGS = (*TIFF, ".png", ".npy", ".jpg", ".jpeg", ".bmp")
_OF_IMAGES = re.compile(r"[_-](raw|images?|img)$", re.IGNORECASE)  # ends of names
_OF_LABELS = re.compile(r"[_-](labels?|(cp_)?masks?|seg|gt)$", re.IGNORECASE)


def read_image(path: str | Path, *, channel: int | None = None) -> Array:
    """One grey image (H, W) or volume (Z, Y, X), in the number type of the file.

    Colour and several channels are a choice that nobody can make for the user: name the channel. RGB whose channels
    are equal is grey. Axes of size 1 beyond two are dropped.

    Args:
        path: .png, .tif, .tiff (OME-TIFF too), .npy, .jpg, .bmp.
        channel: of several, from 0; a file of one channel is taken as it is. TIFF names its axes. In npy files three
            axes are a volume, and channels are the last axis where one is asked for.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another ending, a damaged file, several channels and none named, a channel or axes that the file
            does not have, or numbers that are not finite, or neither integers nor floating point.
    """
    return _grey(Path(path), channel)


def _grey(path: Path, channel: int | None, *, numbers: bool = False) -> Array:
    """:func:`read_image`; with ``numbers`` those of a palette and not its colours."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected an image")
    image, axes = _read(path, channel, numbers)
    if image.dtype.kind not in "uif":
        raise ValueError(f"{path}: expected integers or floating point, got {image.dtype}")
    if not numbers and not np.isfinite(image).all():
        raise ValueError(
            f"{path}: expected finite numbers, got NaN or infinity; replace them, as numpy.nan_to_num does"
        )
    if (axis := next((i for i, name in enumerate(axes) if name in "CS"), None)) is not None:
        way = (
            "export the numbers of the objects instead of colours"
            if numbers
            else "name one, the first by --channel 0 (in Python channel=0)"
        )
        image = _one_channel(path, image, axis, channel, way)
    while image.ndim > 2 and 1 in image.shape:  # an image may have one row
        image = image.squeeze(image.shape.index(1))
    if image.ndim not in (2, 3):
        raise ValueError(
            f"{path}: expected an image (H, W) or a volume (Z, Y, X), got {image.shape}; save one time and position "
            "a file"
        )
    return image


def read_labels(path: str | Path) -> NDArray[np.int64]:
    """A label image: 0 background, 1 … n instances, (H, W) or (Z, Y, X). Of a palette the places count.

    Raises:
        FileNotFoundError, ValueError: as of :func:`read_image`, or numbers that are negative or not whole.
    """
    label = _grey(Path(path), None, numbers=True)
    if label.size and (not np.isfinite(label).all() or label.min() < 0 or (label != np.floor(label)).any()):
        raise ValueError(f"{path}: expected a label image of whole numbers >= 0, got {label.dtype} with others")
    return label.astype(np.int64)


def read_pairs(
    images: str | Path, labels: str | Path | None = None, *, channel: int | None = None
) -> Iterator[LabelledImage]:
    """Images of one folder with the label images of another, matched by name without ending, in the order of names.

    The folders are compared at once; files are read one after the other.

    Args:
        labels: None: they lie beside the images, as of :func:`match_names`.

    Raises:
        FileNotFoundError, ValueError: a folder is missing or holds no image, a name occurs twice in one, an image has
            no label image or the other way round, or, while reading, their shapes differ or a file is damaged.
    """
    pairs, alone = match_names(Path(images), None if labels is None else Path(labels))
    if alone:
        raise ValueError(f"expected images and label images in pairs, got {len(alone)} alone: {'; '.join(alone[:5])}")
    return (read_pair(image, label, channel=channel) for image, label in pairs)


def match_names(images: Path, labels: Path | None = None) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Images with the label image of the same name, in the order of names; and a sentence for each file that is alone.

    Where no name is in both folders, and in one folder of both, names are compared up to the word that says what a
    file holds: `cell_1_raw.tif`, `cell_1_image.tif` or `cell_1.tif` with `cell_1_labels.tif`, `cell_1_mask.png`,
    `cell_1_cp_masks.tif`, `cell_1_seg.tif` or `cell_1_gt.tif`.

    Raises:
        FileNotFoundError, ValueError: a folder is missing or holds no image, or a name occurs twice in one.
    """
    first = _images_in(images)
    if labels is None:
        second = [path for path in first if _OF_LABELS.search(name_of(path))]
        first = [path for path in first if path not in second]
    else:
        second = _images_in(labels)
    image, label = (_by_name(files, name_of) for files in (first, second))
    if not image.keys() & label.keys():
        image = _by_name(first, lambda path: _OF_IMAGES.sub("", name_of(path)))
        label = _by_name(second, lambda path: _OF_LABELS.sub("", name_of(path)))
    alone = [f"{images} has no match for {label[n].name}" for n in sorted(label.keys() - image.keys())]
    alone += [f"{labels or images} has no match for {image[n].name}" for n in sorted(image.keys() - label.keys())]
    return [(image[name], label[name]) for name in sorted(image.keys() & label.keys())], alone


def read_pair(image: Path, label: Path, *, channel: int | None = None) -> LabelledImage:
    """An image with its label image.

    Raises:
        ValueError: their shapes differ, or a file is damaged.
    """
    pair = LabelledImage(name_of(image), read_image(image, channel=channel), read_labels(label))
    _same_shape(image, pair.image.shape, label, pair.label)
    return pair


def write_labels(path: str | Path, label: Array, *, spacing: Sequence[float] | None = None) -> None:
    """Write a label image or volume as TIFF or npy, or, up to 65,535 in two axes, as PNG; unsigned, of 16 or 32 bit.

    Args:
        spacing: of the axes, which a TIFF keeps as OME-XML, so that it lies on its image in a viewer.

    Raises:
        ValueError: another ending, numbers that are not whole, negative or too large, a volume as PNG, or a spacing
            of other axes.
    """
    path = Path(path)
    if spacing is not None and len(spacing) != label.ndim:
        raise ValueError(f"{path}: expected a spacing for each of {label.ndim} axes, got {tuple(spacing)}")
    most = int(label.max(initial=0))
    if label.dtype.kind not in "ui" or label.min(initial=0) < 0 or most >= 2**32:
        raise ValueError(f"expected labels of integers from 0 to 4294967295, got {label.dtype} from {label.min()}")
    narrow = label.astype(np.uint16 if most < 2**16 else np.uint32)
    ending = path.suffix.lower()
    if ending not in (*TIFF, ".png", ".npy"):
        raise ValueError(f"{path}: expected the ending .tif, .tiff, .png or .npy")
    if ending == ".png" and (label.ndim != 2 or most >= 2**16):
        raise ValueError(f"{path}: PNG holds (H, W) up to 65535, got {label.shape} up to {most}; write a .tif")
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        if ending == ".npy":
            np.save(file, narrow)
        elif ending == ".png":
            imageio.imwrite(file, narrow, plugin="pillow", extension=".png")
        else:
            axes = "ZYX"[-narrow.ndim :]
            sizes = {f"PhysicalSize{axis}": size for axis, size in zip(axes, spacing or (), strict=False)}
            tifffile.imwrite(
                file,
                narrow,
                ome=bool(sizes),
                photometric="minisblack",
                compression="zlib",
                metadata={"axes": axes, **sizes},
            )


def _read(path: Path, channel: int | None, numbers: bool) -> tuple[Array, str]:
    """The array and a letter for each of its axes: C or S for channels."""
    ending = path.suffix.lower()
    with readable(path):
        if ending in TIFF:
            _check_pages(path)
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                check_claim(path, series.size, series.nbytes, packing=_PACKING, what="pixels")
                return series.asarray(), series.axes
        if ending == ".npy":
            image: Array = np.load(path, mmap_mode="r", allow_pickle=False)  # claims beyond the file are refused
            image = np.array(image)
            return image, "?" * (image.ndim - 1) + "S" if channel is not None and image.ndim > 2 else "?" * image.ndim
        if ending in ENDINGS:
            indexed = numbers and imageio.immeta(path, plugin="pillow")["mode"] == "P"
            image = np.asarray(imageio.imread(path, plugin="pillow", mode="P" if indexed else None))
            return image, "??S" if image.ndim == 3 else "?" * image.ndim
    raise ValueError(f"{path}: expected one of {', '.join(ENDINGS)}")


def _check_pages(path: Path) -> None:
    """The pages of a TIFF are a chain of places in it. One that leads back to itself would be followed for hours."""
    seen: set[int] = set()
    with path.open("rb") as file:
        start = file.read(16)
        order, large = "<" if start[:2] == b"II" else ">", start[2:4] in (b"+\0", b"\0+")
        place, tags, tag = ("Q", "Q", 20) if large else ("I", "H", 12)
        size = struct.calcsize(place)
        (at,) = struct.unpack(order + place, start[8:16] if large else start[4:8])
        while at and at not in seen:
            seen.add(at)
            file.seek(at)
            count = file.read(struct.calcsize(tags))
            if len(count) < struct.calcsize(tags):
                return
            file.seek(tag * struct.unpack(order + tags, count)[0], 1)
            following = file.read(size)
            if len(following) < size:
                return
            (at,) = struct.unpack(order + place, following)
    if at:
        raise ValueError(f"{path}: its chain of pages leads back to the page at byte {at}: damaged?")


def _one_channel(path: Path, image: Array, axis: int, channel: int | None, way: str) -> Array:
    channels = np.moveaxis(image, axis, 0)
    if channel is not None:
        if not 0 <= channel < len(channels):
            raise ValueError(f"{path}: expected channel {channel}, got channels 0 to {len(channels) - 1}")
        return np.asarray(channels[channel])
    opaque = len(channels) in (2, 4) and bool((channels[-1] == channels[-1].flat[0]).all())
    shown = channels[:-1] if opaque and path.suffix.lower() not in TIFF else channels
    if not all(np.array_equal(other, shown[0]) for other in shown[1:]):
        raise ValueError(f"{path}: expected one channel, got {len(channels)} that differ; {way}")
    return np.asarray(shown[0])


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: expected a folder of images ({', '.join(ENDINGS)})")
    found = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in ENDINGS and not p.name.startswith(".")]
    if not found:
        raise ValueError(f"{folder}: expected images ({', '.join(ENDINGS)}), got none")
    return found


def _by_name(files: Sequence[Path], name: Callable[[Path], str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files:
        if (key := name(path)) in found:
            raise ValueError(f"{path.parent}: expected each name once, got {found[key].name} and {path.name}")
        found[key] = path
    return found


def name_of(path: str | Path) -> str:
    """The name without folder and ending, `.ome.tif` being one.

    >>> name_of("folder/cell.01.ome.tif")
    'cell.01'
    """
    return Path(path).stem.removesuffix(".ome")


def _same_shape(image: Path, shape: Sequence[int], label: Path, labels: NDArray[Any] | None) -> None:
    if labels is None or labels.shape != tuple(shape):
        got = None if labels is None else labels.shape
        raise ValueError(f"expected image and labels of one shape, got {tuple(shape)} in {image} and {got} in {label}")
