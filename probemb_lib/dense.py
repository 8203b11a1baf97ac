"""Images and volumes: a pixel is a point at x = index · spacing, so heads, losses and clustering serve as they are.

    head = DenseHead.probabilistic(32, num_classes=2, layout="BCHW", spacing=0.5, offset_scale=8.0)  # micrometres
    output = head(unet(image))
    instance, semantic = dense_targets(labels, output.shape)
    loss = ProbabilisticEmbeddingLoss()(output, instance, semantic, output.batch)["loss"]
    found = greedy_cluster(output.embedding, output.probabilities, batch=output.batch, min_points=20)
    masks, table = label_image(found, output.shape), object_csv(found, output.shape, spacing=0.5)

What is too large for the network goes through :func:`~probemb_lib.cluster_tiles` in windows
(:func:`window_predictor`).

Nothing here computes a loss or a cluster: it is the packed form of ``probemb_lib.convert``, and the way back.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probemb_lib.convert import grid_positions, pack_dense
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.head import Head, HeadOutput, ProbabilisticHead
from probemb_lib.instances import Instances
from probemb_lib.labels import EMBEDSEG, IGNORED, NO_INSTANCE, LabelConvention, labels_from_masks
from probemb_lib.margin.head import MarginOutput

DenseLayout = Literal["BCHW", "BCZYX"]
"""The axes of features in order: of images, or of volumes. Z, Y and X are only names: where a host keeps
(B, C, X, Y, Z), as MONAI may, positions and ``spacing`` come in that order."""

Spacing: TypeAlias = float | Sequence[float]
"""Distance between neighbouring pixels: one number, or one an axis in the order of the layout."""

Labels: TypeAlias = Tensor | NDArray[Any]

_AXES: dict[DenseLayout, int] = {"BCHW": 2, "BCZYX": 3}


class DenseOutput(NamedTuple):
    """What a :class:`DenseHead` predicts: N = B · Π size pixels in the packed form, and the way back to images.

    Losses and clustering take it, or its parts, as they take the output of any head.

    Attributes:
        packed: what the wrapped head predicts, its rows image after image, each row-major.
        batch: (N,) int64, the image of each pixel.
        shape: (B, H, W) or (B, Z, Y, X).
    """

    packed: HeadOutput | MarginOutput
    batch: Tensor
    shape: tuple[int, ...]

    @property
    def embedding(self) -> GaussianEmbedding:
        """N Gaussians."""
        return self.packed.embedding

    @property
    def logits(self) -> Tensor:
        """(N, L), before softmax or sigmoid."""
        return self.packed.logits

    @property
    def probabilities(self) -> Tensor:
        """(N, L) score maps."""
        return self.packed.probabilities

    def dense(self, x: Tensor) -> Tensor:
        """One value or vector a pixel as images, for example a map of σ from ``output.embedding.std``.

        Args:
            x: (N,) or (N, C).

        Returns:
            (B, H, W) or (B, C, H, W), and likewise for volumes.

        Raises:
            ValueError: ``x`` is neither (N,) nor (N, C).
        """
        if x.ndim not in (1, 2) or len(x) != len(self.batch):
            raise ValueError(f"x: expected shape ({len(self.batch)},) or ({len(self.batch)}, C), got {tuple(x.shape)}")
        return x.reshape(self.shape) if x.ndim == 1 else x.reshape(*self.shape, x.shape[1]).movedim(-1, 1)


class DenseHead(nn.Module):
    """A head on dense features: images (B, C, H, W) or volumes (B, C, Z, Y, X).

    It wraps any head, since what differs between points and pixels is the layout and where positions come from, not
    what is predicted: positions x = index · spacing, and features in the packed form. :meth:`probabilistic` makes a
    head that suits the usual case.

    Args:
        head: :class:`~probemb_lib.ProbabilisticHead`, :class:`~probemb_lib.DeterministicHead`,
            :class:`~probemb_lib.LearnableMarginHead`, with ``dim`` at least the number of axes.
        layout: the axes of the features in order.
        spacing: distance between neighbouring pixels, one number or one an axis: 1 for pixels, or micrometres. The
            lengths of the head (``offset_scale``, ``initial_std``) and σ are in its unit. With the true spacing of an
            anisotropic volume a distance means the same along all axes.

    Raises:
        ValueError: the layout is none of these, ``spacing`` is not positive or not one an axis, or ``head.dim`` is less
            than the number of axes.

    >>> head = DenseHead(ProbabilisticHead(16, num_classes=2, dim=2, offset_scale=8.0, hidden=(32,)), "BCHW")
    >>> output = head(torch.randn(2, 16, 12, 10))
    >>> output.embedding.mean.shape, output.logits.shape, output.shape
    (torch.Size([240, 2]), torch.Size([240, 2]), (2, 12, 10))
    >>> output.dense(output.embedding.std).shape
    torch.Size([2, 2, 12, 10])
    """

    def __init__(self, head: Head, layout: DenseLayout = "BCHW", *, spacing: Spacing = 1.0) -> None:
        super().__init__()
        axes = _axes(layout)
        if head.dim < axes:
            raise ValueError(f"head: expected dim >= {axes}, as many as axes in {layout}, got {head.dim}")
        self.head, self.layout, self.spacing = head, layout, _spacing(spacing, axes)

    @classmethod
    def probabilistic(
        cls,
        in_channels: int,
        num_classes: int,
        layout: DenseLayout = "BCHW",
        *,
        offset_scale: float,
        initial_std: float | None = None,
        spacing: Spacing = 1.0,
        anisotropic: bool = True,
        heteroscedastic: bool = True,
        hidden: Sequence[int] = (32,),
    ) -> DenseHead:
        """With a :class:`~probemb_lib.ProbabilisticHead` of as many dimensions as the layout has axes.

        Args:
            in_channels: C, channels of the features.
            num_classes: L, the background counted: 2 for nuclei.
            layout, spacing: see :class:`DenseHead`.
            offset_scale: the farthest that a centre can lie from its pixel, in the unit of ``spacing``: about the
                radius of the largest instance.
            initial_std, anisotropic, heteroscedastic: see :class:`~probemb_lib.ProbabilisticHead`.
            hidden: widths of each branch's hidden layers. The paper's (256, 128, 128) are for points: on pixels they
                cost many times what a small U-Net does.

        >>> head = DenseHead.probabilistic(8, num_classes=2, layout="BCZYX", spacing=(2.0, 0.5, 0.5), offset_scale=6.0)
        >>> head(torch.randn(1, 8, 4, 6, 6)).shape
        (1, 4, 6, 6)
        """
        head = ProbabilisticHead(
            in_channels,
            num_classes,
            _axes(layout),
            anisotropic=anisotropic,
            heteroscedastic=heteroscedastic,
            offset_scale=offset_scale,
            initial_std=initial_std,
            hidden=hidden,
        )
        return cls(head, layout, spacing=spacing)

    def extra_repr(self) -> str:
        return f"layout={self.layout!r}, spacing={self.spacing}"

    def forward(self, features: Tensor, spacing: Spacing | None = None) -> DenseOutput:
        """
        Args:
            features: (B, C, H, W) or (B, C, Z, Y, X) after ``layout``, any floating dtype; subclasses of tensors, such
                as MONAI's MetaTensor, are taken as the tensors that they are.
            spacing: of these images, where it is another than the head's.

        Raises:
            TypeError: the features are not floating point.
            ValueError: other axes or channels than these, a spacing that is none, or training with a single pixel.
        """
        features = _plain(features)
        if features.ndim != len(self.layout):
            raise ValueError(f"expected features with the axes {self.layout}, got shape {tuple(features.shape)}")
        packed, batch = pack_dense(features, self.layout)
        positions = grid_positions(
            features.shape[2:],
            batch_size=len(features),
            spacing=self.spacing if spacing is None else spacing,
            dtype=torch.float64 if features.dtype == torch.float64 else torch.float32,
            device=features.device,
        )
        return DenseOutput(self.head(packed, positions, batch), batch, (len(features), *features.shape[2:]))


def dense_targets(
    labels: Labels | Sequence[Labels],
    shape: Sequence[int],
    convention: LabelConvention = EMBEDSEG,
    *,
    semantic: Labels | Sequence[Labels] | None = None,
) -> tuple[Tensor, Tensor]:
    """Label images, one-hot images or stacks of masks to the ``instance`` and ``semantic`` that losses take.

    Args:
        labels: one of

            - label images, integers of ``shape``, or of it with a channel axis of 1: (B, 1, H, W);
            - one-hot images (B, K, H, W), bool, channel k the mask of instance k. Background has no channel;
            - stacks of masks, a sequence of B times (K_b, H, W), bool; K_b may be 0.

            Integers of 0 and 1 could be label images of one instance: they become masks by ``.bool()``. A pixel of
            several masks is ignored, as nobody knows which of them it teaches.
        shape: of the images, (B, H, W) or (B, Z, Y, X): ``output.shape``.
        convention: what the numbers of label images and of ``semantic`` mean. By default 0 is background and nothing
            is ignored (:data:`~probemb_lib.labels.EMBEDSEG`); −1 is ignored with
            :data:`~probemb_lib.labels.STARDIST`, 255 with :data:`~probemb_lib.labels.PASCAL_VOC`.
        semantic: the class of each pixel, of the shapes that label images have; or, with masks, of each mask, (B, K)
            or B times (K_b,), where background is class 0. None: there is one class, 1, and background 0.

    Returns:
        ``instance`` (N,): ≥ 0 an instance, −1 none, −100 ignored; ``semantic`` (N,): a class, −100 ignored. Both int64,
        on the device of the labels, in the order of :class:`DenseOutput`.

    Raises:
        TypeError: label images or classes are not integers, or masks are not bool.
        ValueError: shapes that do not fit ``shape``, or numbers without a meaning in ``convention``.

    >>> masks = torch.tensor([[[0, 7, 7], [0, 0, 2]]], dtype=torch.uint8)
    >>> dense_targets(masks, (1, 2, 3))
    (tensor([-1,  7,  7, -1, -1,  2]), tensor([0, 1, 1, 0, 0, 1]))
    >>> stack = torch.stack([masks[0] == 7, masks[0] == 2])
    >>> dense_targets([stack], (1, 2, 3), semantic=[torch.tensor([3, 4])])
    (tensor([-1,  0,  0, -1, -1,  1]), tensor([0, 3, 3, 0, 0, 4]))
    """
    shape = _shape(shape)
    if not isinstance(labels, Sequence) and not _is_bool(labels):
        image = _image("labels", labels, shape)
        if semantic is not None:
            semantic = _image("semantic", _one("semantic", semantic), shape)
        ids, class_of = convention.convert(image, semantic)
        return ids.flatten(), class_of.flatten()

    stacks = _stacks(labels, shape)
    image = torch.stack([labels_from_masks(stack)[0] for stack in stacks])
    of_masks = replace(
        convention,
        no_instance=(NO_INSTANCE,),
        ignored_instance=(IGNORED,),
        ignored_semantic=(*convention.ignored_semantic, IGNORED),
    )
    if semantic is None:
        per_pixel: Labels | None = None
    elif isinstance(semantic, Sequence) or semantic.ndim == 2:
        per_pixel = _classes_of_masks(image, stacks, semantic)
    else:
        per_pixel = _image("semantic", semantic, shape)
    ids, class_of = of_masks.convert(image, per_pixel)
    return ids.flatten(), class_of.flatten()


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

    >>> from probemb_lib import greedy_cluster
    >>> pixels = GaussianEmbedding(grid_positions((1, 3), batch_size=2, spacing=9.0), torch.zeros(6, 1))
    >>> p = torch.tensor([0.9, 0.1, 0.8, 0.2, 0.2, 0.7])
    >>> found = greedy_cluster(pixels, torch.stack([1 - p, p], 1), batch=torch.tensor([0, 0, 0, 1, 1, 1]))
    >>> label_image(found, (2, 1, 3))
    tensor([[[1, 0, 2]],
    <BLANKLINE>
            [[0, 0, 1]]], dtype=torch.int32)
    """
    shape = _shape(shape)
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

    >>> from probemb_lib import greedy_cluster
    >>> pixels = GaussianEmbedding(torch.tensor([[0.0], [0.0], [9.0], [9.0]]), torch.zeros(4, 1))
    >>> found = greedy_cluster(pixels, torch.tensor([[0.25, 0.75]]).expand(4, 2))
    >>> object_table(found, (1, 1, 4), spacing=0.5)[1]["centroid-1"]
    1.25
    """
    shape = _shape(shape)
    steps = _spacing(spacing, len(shape) - 1)
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

    >>> from probemb_lib import greedy_cluster
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


def window_predictor(
    image: Tensor,
    network: Callable[[Tensor], DenseOutput],
    *,
    spacing: Spacing = 1.0,
    multiple_of: int | Sequence[int] = 1,
) -> Callable[[Tensor], tuple[GaussianEmbedding, Tensor]]:
    """The ``predict`` of :func:`~probemb_lib.cluster_tiles` for an image or volume too large for the network.

    It runs the network on the window around a tile's pixels, and moves the means to where the window lies. Memory is
    that of one window, and of ``cluster_tiles`` about 45 bytes a pixel of the image, positions included.

    Args:
        image: (1, C, H, W) or (1, C, Z, Y, X), on any device; a window of it at a time is given to the network.
        network: from a window (1, C, h, w), or a volume's, to the output of a :class:`DenseHead`:
            ``lambda window: head(unet(window.to(device)))``, in evaluation mode.
        spacing: that of the head.
        multiple_of: sizes that the network takes, one number or one an axis: 16 for a U-Net that halves four times.
            Windows grow to the next multiple, inside the image as long as there is room, then by repeating its border.

    Raises:
        ValueError: ``image`` is not one image, ``multiple_of`` is below 1 or not one an axis, or ``spacing`` is not
            positive or not one an axis; when predicting, pixels beyond the image, or an output of another shape than
            the window.
        TypeError: when predicting, an output that is no :class:`DenseOutput`.

    >>> from probemb_lib import cluster_tiles
    >>> volume, unet = torch.rand(1, 1, 4, 20, 20), nn.Conv3d(1, 8, 3, padding=1)
    >>> head = DenseHead.probabilistic(8, num_classes=2, layout="BCZYX", spacing=(2.0, 0.5, 0.5), offset_scale=2.0)
    >>> _ = head.eval()
    >>> predict = window_predictor(volume, lambda window: head(unet(window)), spacing=head.spacing, multiple_of=4)
    >>> positions = grid_positions(volume.shape[2:], spacing=head.spacing)
    >>> found = cluster_tiles(positions, predict, tile_size=5.0, overlap=2.0, axes=(0, 1, 2))
    >>> label_image(found, (1, 4, 20, 20)).shape
    torch.Size([1, 4, 20, 20])
    """
    if image.ndim not in (4, 5) or len(image) != 1:
        raise ValueError(f"image: expected shape (1, C, H, W) or (1, C, Z, Y, X), got {tuple(image.shape)}")
    image, sizes = _plain(image), tuple(image.shape[2:])
    steps = _spacing(spacing, len(sizes))
    multiples = (multiple_of,) * len(sizes) if isinstance(multiple_of, int) else tuple(multiple_of)
    if len(multiples) != len(sizes) or min(multiples) < 1:
        raise ValueError(
            f"multiple_of: expected a number >= 1, or one for each of {len(sizes)} axes, got {multiple_of}"
        )

    def predict(rows: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        index, rest = (
            rows.new_empty((len(sizes), len(rows))),
            rows,
        )  # torch.unravel_index takes a second to import sympy
        for axis in reversed(range(len(sizes))):
            index[axis], rest = rest % sizes[axis], rest.div(sizes[axis], rounding_mode="floor")
        if bool(rest.any()):
            raise ValueError(
                f"rows: expected those of an image {sizes}, got {int(rows.max())}: the positions of cluster_tiles are "
                "grid_positions(image.shape[2:], spacing=spacing)"
            )
        low, high = index.amin(1).tolist(), index.amax(1).tolist()
        wanted = [-(-(b + 1 - a) // m) * m for a, b, m in zip(low, high, multiples, strict=True)]
        first = [max(0, min(a, size - w)) for a, size, w in zip(low, sizes, wanted, strict=True)]
        window = image
        for axis, (a, size, w) in enumerate(zip(first, sizes, wanted, strict=True), 2):
            window = window.narrow(axis, a, min(w, size))
        beyond = [w - size for w, size in zip(wanted, window.shape[2:], strict=True)]
        if any(beyond):
            padding = [n for extra in reversed(beyond) for n in (0, extra)]
            window = nn.functional.pad(window, padding, mode="replicate")
        output = network(window)
        if not isinstance(output, DenseOutput):
            raise TypeError(f"network: expected the DenseOutput of a DenseHead, got {type(output).__name__}")
        if output.shape != (1, *wanted):
            raise ValueError(f"network: expected an output of shape {(1, *wanted)}, as the window, got {output.shape}")

        place = torch.zeros_like(rows)
        for axis, origin, size in zip(index, first, wanted, strict=True):
            place = place * size + axis - origin
        place = place.to(output.batch.device)
        mean, log_std = output.embedding.select(place)
        corner = [a * step for a, step in zip(first, steps, strict=True)]
        shift = mean.new_tensor([*corner, *(0.0,) * (mean.shape[1] - len(corner))])
        return GaussianEmbedding(mean + shift, log_std), output.probabilities[place]

    return predict


def _columns(axes: int) -> list[str]:
    return [
        *("image", "label", "class", "score", "sigma", "pixels", "area" if axes == 2 else "volume"),
        *(f"centroid-{axis}" for axis in range(axes)),
        *(f"bbox-{side}" for side in range(2 * axes)),
    ]


def _axes(layout: DenseLayout) -> int:
    if layout not in _AXES:
        raise ValueError(f"layout: expected one of {', '.join(_AXES)}, got {layout!r}")
    return _AXES[layout]


def _spacing(spacing: Spacing, axes: int) -> tuple[float, ...]:
    """One number an axis, checked where positions are made."""
    grid_positions((0,) * axes, spacing=spacing)
    return (float(spacing),) * axes if isinstance(spacing, (int, float)) else tuple(float(step) for step in spacing)


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(shape)
    if len(shape) not in (3, 4) or min(shape) < 0:
        raise ValueError(f"shape: expected (B, H, W) or (B, Z, Y, X), got {shape}")
    return shape


def _plain(x: Tensor) -> Tensor:
    """Without a subclass that only carries something along, whose operators may be slow or refuse; those that replace
    what is computed (fake, distributed) stay."""
    carries = type(x) is not Tensor and type(x).__torch_dispatch__ is Tensor.__torch_dispatch__
    return x.as_subclass(Tensor) if carries else x


def _is_bool(x: Labels) -> bool:
    return x.dtype == torch.bool if isinstance(x, Tensor) else x.dtype.kind == "b"


def _one(name: str, x: Labels | Sequence[Labels]) -> Labels:
    if isinstance(x, Sequence):
        raise TypeError(f"{name}: expected one tensor, as labels is one, got a sequence of {len(x)}; stack them")
    return x


def _image(name: str, x: Labels, shape: tuple[int, ...]) -> Labels:
    """Label images without the channel axis."""
    if tuple(x.shape) not in (shape, (shape[0], 1, *shape[1:])):
        raise ValueError(
            f"{name}: expected label images {shape}, or with a channel axis of 1, got {tuple(x.shape)}; "
            "one-hot images become masks by .bool()"
        )
    return (_plain(x) if isinstance(x, Tensor) else x).reshape(shape)


def _stacks(labels: Labels | Sequence[Labels], shape: tuple[int, ...]) -> list[Tensor]:
    if len(labels) != shape[0]:
        raise ValueError(f"labels: expected masks of {shape[0]} images, got {len(labels)}")
    stacks = [_plain(torch.as_tensor(stack)) for stack in labels]
    for b, stack in enumerate(stacks):
        if stack.dtype != torch.bool:
            raise TypeError(f"labels[{b}]: expected masks of torch.bool, got {stack.dtype}; use masks > 0")
        if stack.ndim != len(shape) or tuple(stack.shape[1:]) != shape[1:]:
            sizes = ", ".join(map(str, shape[1:]))
            raise ValueError(f"labels[{b}]: expected masks (K, {sizes}), got {tuple(stack.shape)}")
    if not stacks:
        raise ValueError("labels: expected the masks of at least one image, got none")
    return stacks


def _classes_of_masks(image: Tensor, stacks: list[Tensor], semantic: Labels | Sequence[Labels]) -> Tensor:
    """The class of each pixel's mask, 0 in none, −100 in several."""
    if len(semantic) != len(stacks):
        raise ValueError(f"semantic: expected the classes of {len(stacks)} images, got {len(semantic)}")
    result = torch.where(image == IGNORED, IGNORED, 0)
    for b, stack in enumerate(stacks):
        classes = _plain(torch.as_tensor(semantic[b])).to(image.device)
        if classes.shape != stack.shape[:1]:
            raise ValueError(
                f"semantic[{b}]: expected a class for each of {len(stack)} masks, got {tuple(classes.shape)}"
            )
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise TypeError(f"semantic[{b}]: expected integers, got {classes.dtype}")
        inside = image[b] >= 0
        result[b][inside] = classes.long()[image[b][inside]]
    return result


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
