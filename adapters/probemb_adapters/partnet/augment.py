"""Augmentation of PartNet's shapes: the paper's, and one for shapes that stand upright.

Each is a transform of torch-geometric for items of `PartNetInstances`; it changes ``pos``.
"""

from __future__ import annotations

from probemb_adapters.files import missing_extra

try:
    from torch_geometric.data import Data
    from torch_geometric.transforms import BaseTransform, Compose, RandomFlip, RandomJitter, RandomRotate
except ImportError as error:
    raise missing_extra("PartNet needs torch-geometric", "partnet", error) from error


class RandomTranslate(BaseTransform):  # type: ignore[misc]  # torch-geometric ships no types
    """Moves a whole cloud by one vector, uniform in ±``limit`` per axis, drawn from torch's global RNG.

    (torch-geometric's `RandomJitter` draws a vector for each point instead.)

    >>> import torch
    >>> data = RandomTranslate(0.01)(Data(pos=torch.zeros(4, 3)))
    >>> bool((data.pos == data.pos[0]).all()), bool((data.pos.abs() <= 0.01).all())
    (True, True)
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def forward(self, data: Data) -> Data:
        data.pos = data.pos + data.pos.new_empty(data.pos.shape[1]).uniform_(-self.limit, self.limit)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit})"


class RandomStretch(BaseTransform):  # type: ignore[misc]
    """Multiplies each axis by a factor of its own, e^u with u uniform in ±``limit``, drawn from torch's global RNG.

    >>> import torch
    >>> RandomStretch(0.2)(Data(pos=torch.ones(4, 3))).pos.shape
    torch.Size([4, 3])
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def forward(self, data: Data) -> Data:
        data.pos = data.pos * data.pos.new_empty(data.pos.shape[1]).uniform_(-self.limit, self.limit).exp()
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit})"


def paper_augmentation(*, jitter: float = 0.01, translation: float = 0.01, degrees: float = 15.0) -> Compose:
    """The augmentation of the PartNet experiments (A.2): rotation, translation and jitter of ``pos``.

    Args:
        jitter: bound of each point's own uniform displacement, per axis. The paper gives no size.
        translation: bound of the cloud's displacement, per axis; 0.01 in the paper.
        degrees: bound of the rotation about each of the three axes, in turn x, y, z; 15 in the paper.

    >>> import torch
    >>> paper_augmentation()(Data(pos=torch.rand(5, 3))).pos.shape
    torch.Size([5, 3])
    """
    rotations = [RandomRotate(degrees, axis=axis) for axis in range(3)]
    return Compose([*rotations, RandomTranslate(translation), RandomJitter(jitter)])


def upright_augmentation(*, stretch: float = 0.15, jitter: float = 0.005) -> Compose:
    """Mirrored left to right half of the time, stretched by up to e^±``stretch`` an axis, jittered; never rotated.

    For shapes that all stand upright and face one way, as PartNet's do: quicker to learn than rotated ones.

    >>> import torch
    >>> upright_augmentation()(Data(pos=torch.rand(5, 3))).pos.shape
    torch.Size([5, 3])
    """
    return Compose([RandomFlip(axis=0), RandomStretch(stretch), RandomJitter(jitter)])
