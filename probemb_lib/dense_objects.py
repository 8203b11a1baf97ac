"""Found instances of images and volumes as label images and tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from probemb_lib._dense_inputs import Spacing, image_shape
from probemb_lib.convert import _steps_of
from probemb_lib.instances import Instances


def label_image(found: Instances, shape: Sequence[int], *, dtype: torch.dtype = torch.int32) -> Tensor:
    """Found instances as label images: 0 is background, and each image counts its own instances from 1.

    Args:
        found: of a clustering of N = B · Π size pixels in the order of :class:`DenseOutput`. Of instances that share
            pixels (:class:`~probemb_lib.MarginInstances`) the last one shows, and the number of one that is hidden
            does not occur.
        shape: (B, H, W) or (B, Z, Y, X): ``output.shape``.
        dtype: an integer type of torch. For files there is ``torch.uint16``, which torch can neither compare nor
            index with.

    Returns:
        The label images, of ``shape``, on the device of ``found``.

    Raises:
        TypeError: ``dtype`` is no integer type.
        ValueError: ``shape`` has another number of pixels or its images are not the clouds that were clustered, or
            ``dtype`` does not hold the numbers.

    >>> from probemb_lib import GaussianEmbedding, convert, greedy_cluster
    >>> pixels = GaussianEmbedding(convert.grid_positions((1, 3), batch_size=2, spacing=9.0), torch.zeros(6, 1))
    >>> p = torch.tensor([0.9, 0.1, 0.8, 0.2, 0.2, 0.7])
    >>> found = greedy_cluster(pixels, torch.stack([1 - p, p], 1), batch=torch.tensor([0, 0, 0, 1, 1, 1]))
    >>> label_image(found, (2, 1, 3))
    tensor([[[1, 0, 2]],
    <BLANKLINE>
            [[0, 0, 1]]], dtype=torch.int32)
    """
    shape = image_shape(shape)
    number = _numbers(found, shape)
    most = int(number.max()) if len(found) else 0
    if dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise TypeError(f"dtype: expected an integer type of torch, got {dtype}")
    if most > torch.iinfo(dtype).max:
        raise ValueError(f"dtype: expected one that holds {most}, got {dtype} up to {torch.iinfo(dtype).max}")
    number = torch.cat([number, number.new_zeros(1)])  # −1 takes the last
    return number[found.label].to(dtype).reshape(shape)


def object_table(found: Instances, shape: Sequence[int], *, spacing: Spacing = 1.0) -> list[dict[str, int | float]]:
    """One row an object of :func:`label_image`, in the order of the images and of their numbers.

    Columns, lengths in the unit of ``spacing``; ``-0``, ``-1`` … are the axes in order, as scikit-image has them:

    - ``image`` in [0, B), ``label`` its number in the label image, ``class`` the column of the probabilities;
    - ``score`` of the seed, ``sigma`` the geometric mean over the dimensions of σ of the object's Gaussian;
    - ``pixels``, their number; ``area``, or ``volume``, pixels · Π spacing;
    - ``centroid-0`` …, the mean position of the pixels, of which the first is at 0;
    - ``bbox-0`` …, in pixels: the first of each axis, then one beyond the last of each.

    Args:
        found, shape: as of :func:`label_image`. Hidden instances have no row.
        spacing: distance between neighbouring pixels, one number or one an axis.

    Raises:
        ValueError: ``shape`` as of :func:`label_image`, or ``spacing`` is not positive or not one an axis.

    >>> from probemb_lib import GaussianEmbedding, greedy_cluster
    >>> pixels = GaussianEmbedding(torch.tensor([[0.0], [0.0], [9.0], [9.0]]), torch.zeros(4, 1))
    >>> found = greedy_cluster(pixels, torch.tensor([[0.25, 0.75]]).expand(4, 2))
    >>> object_table(found, (1, 1, 4), spacing=0.5)[1]["centroid-1"]
    1.25
    """
    shape = image_shape(shape)
    steps = _steps_of(spacing, len(shape) - 1)
    number = _numbers(found, shape)
    found = found.to("cpu")  # whose numbers are float64 below
    index = (found.label >= 0).reshape(shape).nonzero()[:, 1:]  # (S, axes)
    owner = found.label[found.label >= 0]
    count = torch.bincount(owner, minlength=len(found))
    columns = owner[:, None].expand_as(index)
    zeros = index.new_zeros((len(found), index.shape[1]))
    total = zeros.double().index_add(0, owner, index.double())
    low = zeros.scatter_reduce(0, columns, index, "amin", include_self=False)
    high = zeros.scatter_reduce(0, columns, index, "amax", include_self=False) + 1
    centroid = total / count.clamp_min(1)[:, None] * total.new_tensor(steps)
    sigma = found.embedding.log_std.double().mean(1).exp()
    size = count.double() * math.prod(steps)
    parts = (found.batch, number, found.semantic, found.score, sigma, count, size, centroid, low, high)
    names = _columns(len(steps))
    rows: list[dict[str, int | float]] = []
    for image, label, semantic, score, std, n, extent, center, begin, end in zip(
        *(part.tolist() for part in parts), strict=True
    ):
        if n:
            values = (image, label, semantic, score, std, n, extent, *center, *begin, *end)
            rows.append(dict(zip(names, values, strict=True)))
    return rows


def object_csv(found: Instances, shape: Sequence[int], *, spacing: Spacing = 1.0) -> str:
    r"""The rows of :func:`object_table` as the text of a CSV file, its header included where there is no object.

    Arguments and errors as of :func:`object_table`. Write it with ``newline=""``.

    >>> from probemb_lib import GaussianEmbedding, greedy_cluster
    >>> pixels = GaussianEmbedding(torch.zeros(2, 1), torch.zeros(2, 1))
    >>> found = greedy_cluster(pixels, torch.tensor([[0.25, 0.75]]).expand(2, 2))
    >>> object_csv(found, (1, 1, 2)).splitlines()  # doctest: +NORMALIZE_WHITESPACE
    ['image,label,class,score,sigma,pixels,area,centroid-0,centroid-1,bbox-0,bbox-1,bbox-2,bbox-3',
     '0,1,1,0.75,1.0,2,2.0,0.0,0.5,0,0,1,2']
    """
    text = io.StringIO()
    rows = object_table(found, shape, spacing=spacing)
    writer = csv.DictWriter(text, _columns(len(shape) - 1))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _columns(axes: int) -> list[str]:
    return [
        *("image", "label", "class", "score", "sigma", "pixels", "area" if axes == 2 else "volume"),
        *(f"centroid-{axis}" for axis in range(axes)),
        *(f"bbox-{side}" for side in range(2 * axes)),
    ]


def _numbers(found: Instances, shape: tuple[int, ...]) -> Tensor:
    """(K,) the number of each instance in its image, from 1."""
    if found.label.numel() != math.prod(shape):
        raise ValueError(f"shape: expected one of {found.label.numel()} pixels, as many as were clustered, got {shape}")
    image = found.point_batch.reshape(shape[0], math.prod(shape[1:]))
    if bool((image != torch.arange(shape[0], device=image.device)[:, None]).any()):
        raise ValueError(
            f"found: expected pixels of {shape[0]} images, each a cloud of its own, got the pixels of an image in "
            "others: cluster with batch=output.batch, or take one of found.split() as one image"
        )
    first = torch.searchsorted(found.batch, found.batch)  # rows of an image lie together, in order of the images
    return torch.arange(1, len(found) + 1, device=first.device) - first
