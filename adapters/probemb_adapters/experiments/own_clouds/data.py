"""Labelled clouds for the network: brought into one frame, drawn to a number of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.transforms import Compose, RandomRotate

from probemb_adapters.clouds import Array, Cloud, Up, check_digits, y_up
from probemb_adapters.clouds.cloud import centred, middle, radius
from probemb_adapters.clouds.split import fingerprint
from probemb_adapters.experiments.run import draw_order
from probemb_adapters.partnet import EvaluationTargets, upright_augmentation
from probemb_lib import GaussianEmbedding, index_instances
from probemb_lib.aggregate import instance_classes
from probemb_lib.labels import IGNORED, NO_INSTANCE


@dataclass(frozen=True)
class Frame:
    """Centred in float64, y up, and divided by a length that all clouds share."""

    up: Up
    unit: float

    def positions(self, pos: Array) -> torch.Tensor:
        """(N, 3) as in the file -> (N, 3) float32."""
        check_digits(pos, "positions")
        return torch.from_numpy((y_up(centred(pos), self.up) / self.unit).astype(np.float32))

    def lengths_of_file(
        self, pos: torch.Tensor, embedding: GaussianEmbedding
    ) -> tuple[torch.Tensor, GaussianEmbedding]:
        """Both in the unit of the file, but still centred and y up: for pictures."""
        return self.unit * pos, GaussianEmbedding(self.unit * embedding.mean, embedding.log_std + math.log(self.unit))

    def to_file(self, embedding: GaussianEmbedding, pos: Array) -> GaussianEmbedding:
        """Gaussians of a cloud that lies at ``pos`` in its file, back in the frame and the unit of the file; float64.

        >>> pos = np.array([[5e6, 1, 2], [5e6, 1, 3]])
        >>> frame = Frame("z", unit=0.5)
        >>> x = GaussianEmbedding(frame.positions(pos), torch.zeros(2, 3))
        >>> bool(torch.allclose(frame.to_file(x, pos).mean, torch.from_numpy(pos)))
        True
        """
        turn = torch.from_numpy(y_up(np.eye(3), self.up).T)
        mean = embedding.mean.double() @ turn * self.unit + torch.from_numpy(middle(pos))
        log_std = embedding.log_std.double().expand(-1, 3) @ turn.abs() + math.log(self.unit)
        return GaussianEmbedding(mean, log_std)


def common_unit(clouds: Sequence[Cloud]) -> float:
    """The radius of the largest cloud, to three digits; stray points do not count.

    Raises:
        ValueError: all points of each cloud lie at one place.
    """
    largest = max(map(radius, clouds))
    if largest == 0:
        raise ValueError("expected clouds with an extent, got all points of each at one place")
    return float(f"{largest:.3g}")


def labelled_data(cloud: Cloud, frame: Frame, classes: Sequence[int]) -> Data:
    """The cloud for the network: column 0 for points of no instance, column 1 + i for the i-th class.

    Without classes every instance is of column 1. Points of an instance without a class are −100, ignored.
    """
    if cloud.instance is None:
        raise ValueError(f"{cloud.name}: expected instances, got none")
    if classes and cloud.semantic is not None:
        place = np.searchsorted(classes, cloud.semantic).clip(0, len(classes) - 1)
        own = np.where(np.asarray(classes)[place] == cloud.semantic, 1 + place, IGNORED)
    else:
        own = np.ones_like(cloud.instance)
    semantic = np.where(cloud.instance >= 0, own, np.where(cloud.instance == NO_INSTANCE, 0, IGNORED))
    return Data(
        pos=frame.positions(cloud.pos),
        instance=torch.from_numpy(cloud.instance),
        semantic=torch.from_numpy(semantic),
    )


class TrainingClouds(Dataset[Data]):
    """Clouds drawn to ``points`` points by torch's random numbers, turned about y and augmented.

    Clouds with fewer points have some twice.
    """

    def __init__(self, clouds: Sequence[Data], points: int) -> None:
        self.clouds, self.points = clouds, points
        self.augmentation = Compose([RandomRotate(180, axis=1), upright_augmentation()])

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, row: int) -> Data:
        cloud = self.clouds[row]
        count = len(cloud.pos)
        some = torch.randperm(count)[: self.points]
        if count < self.points:
            some = torch.cat([some, torch.randint(count, (self.points - count,))])
        drawn = self.augmentation(_rows(cloud, some))
        if not isinstance(drawn, Data):
            raise TypeError(f"expected Data of the augmentation, got {type(drawn).__name__}")
        return drawn


def _rows(cloud: Data, rows: torch.Tensor) -> Data:
    return Data(pos=cloud.pos[rows], instance=cloud.instance[rows], semantic=cloud.semantic[rows])


class TestClouds:
    """Clouds of an evaluation, drawn once, with their ground truth.

    Attributes:
        names: of the clouds.
        clouds: Data with at most ``points`` points.
        targets: points that nobody labelled are taken out of what is found, those of no instance count in unions.
    """

    __test__ = False  # for pytest

    def __init__(self, clouds: Sequence[Cloud], frame: Frame, classes: Sequence[int], points: int) -> None:
        self.names = [cloud.name for cloud in clouds]
        self.clouds = []
        for cloud in clouds:
            data = labelled_data(cloud, frame, classes)
            self.clouds.append(_rows(data, draw_order(len(cloud.pos), points, fingerprint(cloud))))
        self.targets = [_targets(data, max(1, len(classes))) for data in self.clouds]


def _targets(data: Data, classes: int) -> EvaluationTargets:
    """The instances of a cloud, each with the class of most of its points; those without a class are ignored."""
    index = index_instances(data.instance)
    named_classes = torch.where(data.semantic > 0, data.semantic - 1, IGNORED)
    of_instance = instance_classes(named_classes, index, classes)
    named = of_instance >= 0
    row = torch.where(named, named.cumsum(0) - 1, NO_INSTANCE)
    of = torch.cat([row, row.new_tensor([NO_INSTANCE])])[index.index]  # -1 is the last
    other = (data.instance == IGNORED) | ((index.index >= 0) & (of < 0))
    return EvaluationTargets(of, of_instance[named], other)
