"""Random crops, warps, flips, quarter turns and intensities of images with labels; torch's random numbers decide.

    image, label = random_crop(image, label, 128)          # of an image; for a volume (16, 128, 128)
    image, label = random_flips(image, label)
    image, label = random_quarter_turn(image, label)
    image, label = random_warp(image, label)               # images only: scale and a smooth displacement
    image = random_intensity(image)

Images are (…) float32 and labels of the same shape int64, both tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor]


def random_crop(image: Tensor, label: Tensor, size: int | Sequence[int], *, on_instances: float = 0.75) -> Pair:
    """A crop of a fixed size; where the image is smaller it is mirrored first.

    An object that the border cuts goes on in its mirror image; those away from the border are other objects there, and
    get ids above the greatest.

    Args:
        size: along all axes, or one for each.
        on_instances: how often the crop contains a random pixel of a random instance, however small; else it lies
            anywhere, which in images of few objects is mostly background.

    Raises:
        ValueError: label of another shape, sizes that do not fit the axes or more than double the image.
    """
    _check(image, label)
    sizes = (size,) * image.ndim if isinstance(size, int) else tuple(size)
    if len(sizes) != image.ndim or min(sizes) < 1:
        raise ValueError(f"expected a positive size, or one for each of {image.ndim} axes, got {size}")
    if any(s > 2 * n for s, n in zip(sizes, image.shape, strict=True)):
        raise ValueError(f"expected crops of at most twice the image {tuple(image.shape)}, got {sizes}")
    for axis, s in enumerate(sizes):
        if missing := max(0, s - image.shape[axis]):
            image = torch.cat([image, _tail(image, axis, missing).flip(axis)], axis)
            label = _mirrored_on(label, axis, missing, missing)
    spans = [n - s + 1 for s, n in zip(sizes, image.shape, strict=True)]
    starts = [_randint(0, span) for span in spans]
    if torch.rand(()) < on_instances and len(ids := label[label > 0].unique()):
        pixels = (label == ids[_randint(0, len(ids))]).nonzero()
        pixel = pixels[_randint(0, len(pixels))].tolist()
        starts = [
            _randint(max(0, p - s + 1), min(span - 1, p) + 1) for p, s, span in zip(pixel, sizes, spans, strict=True)
        ]
    window = tuple(slice(start, start + s) for start, s in zip(starts, sizes, strict=True))
    return image[window], label[window]


def random_flips(image: Tensor, label: Tensor) -> Pair:
    """Along each axis with probability one half."""
    _check(image, label)
    axes = [axis for axis in range(image.ndim) if torch.rand(()) < 0.5]
    return image.flip(axes), label.flip(axes)


def random_quarter_turn(image: Tensor, label: Tensor) -> Pair:
    """By 0, 90, 180 or 270 degrees in the plane of the last two axes, which changes places of unequal sizes."""
    _check(image, label)
    turns = _randint(0, 4)
    return image.rot90(turns, (-2, -1)), label.rot90(turns, (-2, -1))


def random_warp(
    image: Tensor,
    label: Tensor,
    *,
    scale: tuple[float, float] = (0.8, 1.25),
    size: int | None = None,
    displacement: float = 3.0,
    cell: int = 32,
) -> Pair:
    """Magnified about the middle, with a smooth random displacement; what lies outside is the mirrored image.

    Mirrored objects have ids as in :func:`random_crop`.

    Args:
        image, label: (H, W).
        scale: least and greatest magnification, even in the logarithm.
        size: of the result, along both axes; None: as the image.
        displacement: standard deviation of the displacement, in pixels of the result.
        cell: pixels between the places where it is drawn.

    Raises:
        ValueError: not two axes, or numbers out of range.
    """
    _check(image, label)
    if image.ndim != 2:
        raise ValueError(f"expected an image (H, W), got {tuple(image.shape)}")
    if not 0 < scale[0] <= scale[1] or displacement < 0 or cell < 1:
        raise ValueError(f"expected 0 < scale, displacement >= 0 and cell >= 1, got {scale}, {displacement}, {cell}")
    low, high = (math.log(s) for s in scale)
    factor = math.exp(low + (high - low) * float(torch.rand(())))
    height, width = image.shape if size is None else (size, size)
    coarse = displacement * torch.randn(1, 2, height // cell + 3, width // cell + 3)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0]
    y, x = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in (height, width)), indexing="ij")
    y, x = (y + smooth[0]) / factor, (x + smooth[1]) / factor
    # Of the image's outer edges, −1 and 1, as grid_sample counts.
    grid = torch.stack([2 * x / image.shape[1], 2 * y / image.shape[0]], -1)
    warped = F.grid_sample(image[None, None].float(), grid[None], "bilinear", "reflection", align_corners=False)
    pixels = ((grid.double() + 1) * torch.tensor(image.shape).flip(0) - 1) / 2
    across, down = pixels.round().long().unbind(-1)
    return warped[0, 0].to(image.dtype), _mirrored_at(label, [down, across])


def random_intensity(
    image: Tensor, *, gain: float = 0.3, gamma: float = 0.3, offset: float = 0.05, noise: float = 0.03
) -> Tensor:
    """x ↦ g · sign(x) |x|^γ + o + noise, for a normalized image.

    Args:
        gain, gamma: standard deviations of ln g and ln γ.
        offset: standard deviation of o.
        noise: greatest standard deviation of the noise of a pixel.
    """
    g, power = (math.exp(s * float(torch.randn(()))) for s in (gain, gamma))
    bent = g * image.sign() * image.abs() ** power + offset * torch.randn(())
    return bent + noise * torch.rand(()) * torch.randn_like(image)


def _mirrored_at(label: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Labels at indices that may lie outside, where the image is mirrored."""
    inside = []
    for axis, place in enumerate(places):
        size = label.shape[axis]
        before, after = max(0, -int(place.min())), max(0, int(place.max()) + 1 - size)
        label = _mirrored_on(label, axis, after, size).flip(axis)
        label = _mirrored_on(label, axis, before, size).flip(axis)
        inside.append(place + before)
    return label[tuple(inside)]


def _mirrored_on(label: Tensor, axis: int, count: int, size: int) -> Tensor:
    """Mirrored at the end of an axis, each ``size`` pixels anew.

    A copy under the same id would teach that two distant objects are one, unless they meet at the border.
    """
    while count > 0:
        copy = _tail(label, axis, min(count, size)).flip(axis)
        meets = torch.isin(copy, label.select(axis, -1).unique())
        label = torch.cat([label, torch.where((copy > 0) & ~meets, copy + label.max(), copy)], axis)
        count -= size
    return label


def _tail(x: Tensor, axis: int, count: int) -> Tensor:
    return x.narrow(axis, x.shape[axis] - count, count)


def _randint(low: int, high: int) -> int:
    return int(torch.randint(low, high, ()))


def _check(image: Tensor, label: Tensor) -> None:
    if image.ndim < 2 or image.shape != label.shape:
        raise ValueError(
            f"expected image and label of one shape with two axes or more, got {tuple(image.shape)} and "
            f"{tuple(label.shape)}"
        )
