"""Label images or masks, as hosts have them, as the instance and class of each pixel in the packed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor

from probemb_lib._dense_inputs import image_shape, plain
from probemb_lib.labels import EMBEDSEG, IGNORED, NO_INSTANCE, LabelConvention, labels_from_masks

Labels: TypeAlias = Tensor | NDArray[Any]


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
    shape = image_shape(shape)
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
    return (plain(x) if isinstance(x, Tensor) else x).reshape(shape)


def _stacks(labels: Labels | Sequence[Labels], shape: tuple[int, ...]) -> list[Tensor]:
    if len(labels) != shape[0]:
        raise ValueError(f"labels: expected masks of {shape[0]} images, got {len(labels)}")
    stacks = [plain(torch.as_tensor(stack)) for stack in labels]
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
        classes = plain(torch.as_tensor(semantic[b])).to(image.device)
        if classes.shape != stack.shape[:1]:
            raise ValueError(
                f"semantic[{b}]: expected a class for each of {len(stack)} masks, got {tuple(classes.shape)}"
            )
        if classes.is_floating_point() or classes.dtype == torch.bool:
            raise TypeError(f"semantic[{b}]: expected integers, got {classes.dtype}")
        inside = image[b] >= 0
        result[b][inside] = classes.long()[image[b][inside]]
    return result
