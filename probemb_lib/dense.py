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

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from probemb_lib._dense_inputs import Spacing, plain
from probemb_lib.convert import _steps_of, grid_positions, pack_dense
from probemb_lib.gaussian import GaussianEmbedding
from probemb_lib.head import Head, HeadOutput, ProbabilisticHead
from probemb_lib.margin.head import MarginOutput

DenseLayout = Literal["BCHW", "BCZYX"]
"""The axes of features in order: of images, or of volumes. Z, Y and X are only names: where a host keeps
(B, C, X, Y, Z), as MONAI may, positions and ``spacing`` come in that order."""

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
        self.head, self.layout, self.spacing = head, layout, _steps_of(spacing, axes)

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
        features = plain(features)
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

    >>> from probemb_lib import cluster_tiles, label_image
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
    image, sizes = plain(image), tuple(image.shape[2:])
    steps = _steps_of(spacing, len(sizes))
    multiples = (multiple_of,) * len(sizes) if isinstance(multiple_of, (int, Integral)) else tuple(multiple_of)
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
            if w > size:  # by rows of any type, which torch's padding does not take
                window = window.index_select(axis, torch.arange(w, device=window.device).clamp_max(size - 1))
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


def _axes(layout: DenseLayout) -> int:
    if layout not in _AXES:
        raise ValueError(f"layout: expected one of {', '.join(_AXES)}, got {layout!r}")
    return _AXES[layout]
