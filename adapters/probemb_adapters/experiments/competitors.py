"""The competing methods of :mod:`probemb_adapters.baselines` on PointNet++, trained and evaluated as the PartNet
experiment does with its own: the same data, steps, validation and metric.

What a method's grouping depends on is picked on validation, from a small grid as τ is. Rooms, with MinkUNet, are in
:mod:`probemb_adapters.experiments.competitors_rooms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import Dataset
from torch_geometric.data import Data
from tqdm import tqdm

from probemb_adapters.baselines import (
    ASIS,
    MTML,
    SGPN,
    DiscriminativeEmbedding,
    LearnableMargin,
    Method,
    PartNetMasks,
    PointGroup,
    ProbabilisticEmbedding,
    SemiConvolutionalEmbedding,
)
from probemb_adapters.experiments.partnet import Options, Settings, Split, score, score_grouping
from probemb_adapters.experiments.partnet.model import THRESHOLDS
from probemb_adapters.experiments.run import losses_of, train_network
from probemb_adapters.networks.pointnet2 import PointNet2, local_covariance
from probemb_lib.clustering import best_of
from probemb_lib.metrics import PartNetAP, ScanNetAP

FEATURES = 128  # of PointNet++
AnyMethod = Method[Any]


class Competitor(NamedTuple):
    """How a method is made, ``make(in_channels, num_classes)``, and what of it is picked on validation.

    ``grid`` has the values of its grouping to try by the name of the attribute, all combinations of them; ``trials``
    other arguments of ``make`` that a training may be tried with.
    """

    make: Callable[..., AnyMethod]
    grid: Mapping[str, Sequence[Any]]
    trials: Sequence[Mapping[str, Any]] = ()

    @property
    def settings(self) -> list[dict[str, Any]]:
        """All combinations of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


SIZES = (5, 20)  # least points of an instance
BANDWIDTHS = (0.3, 0.5, 0.8)
THRESHOLDS_OF_K = (0.2, 0.3, 0.4, 0.5, 0.6)
OURS = "probabilistic embedding"
# Grids and trials of methods that come in several kinds.
RECOMMENDED = (
    {"threshold": THRESHOLDS["probabilistic"], "min_points": (1, *SIZES)},
    ({"initial_std": 0.05}, {"initial_std": 0.2}),
)
DISCRIMINATIVE = ({"bandwidth": BANDWIDTHS, "min_points": SIZES}, ({"dim": 4}, {"delta_v": 0.25}))
OF_ASIS = ({"bandwidth": (0.4, 0.6, 1.0), "min_points": SIZES}, ({"dim": 8}, {"delta_v": 0.25}))
SEMI_CONVOLUTIONAL = (
    {"threshold": THRESHOLDS_OF_K, "min_points": SIZES},
    ({"scale": 0.1}, {"mask_weight": 4.0}),
)
COMPETITORS: Mapping[str, Competitor] = MappingProxyType(
    {
        OURS: Competitor(
            ProbabilisticEmbedding,
            {"threshold": THRESHOLDS["probabilistic"]},
            ({"initial_std": 0.1}, {"initial_std": 0.3}),
        ),
        "probabilistic embedding, recommended": Competitor(
            partial(ProbabilisticEmbedding, initial_std=0.1, refine=True), *RECOMMENDED
        ),
        "probabilistic embedding, recommended, 6-D": Competitor(
            partial(ProbabilisticEmbedding, dim=6, initial_std=0.1, refine=True), *RECOMMENDED
        ),
        "probabilistic embedding, recommended, weighed": Competitor(
            partial(ProbabilisticEmbedding, initial_std=0.1, refine=True, score_weight=None), *RECOMMENDED
        ),
        "probabilistic embedding, recommended, cross entropy": Competitor(
            partial(ProbabilisticEmbedding, initial_std=0.1, refine=True, cross_entropy=True, score_weight=None),
            *RECOMMENDED,
        ),
        "deterministic embedding": Competitor(
            partial(ProbabilisticEmbedding, probabilistic=False),
            {"threshold": THRESHOLDS["deterministic"]},
            ({"dim": 6}, {"offset_scale": 0.5}),
        ),
        "learnable margin": Competitor(
            LearnableMargin,
            {"min_score": (0.3, 0.5, 0.7), "min_points": SIZES},
            ({"initial_margin": 0.1}, {"initial_margin": 0.5}),
        ),
        "discriminative": Competitor(DiscriminativeEmbedding, *DISCRIMINATIVE),
        "discriminative, probabilistic": Competitor(
            partial(DiscriminativeEmbedding, probabilistic=True), *DISCRIMINATIVE
        ),
        "ASIS": Competitor(ASIS, *OF_ASIS),
        "ASIS, probabilistic": Competitor(partial(ASIS, probabilistic=True), *OF_ASIS),
        "semi-convolutional": Competitor(SemiConvolutionalEmbedding, *SEMI_CONVOLUTIONAL),
        "semi-convolutional, probabilistic": Competitor(
            partial(SemiConvolutionalEmbedding, probabilistic=True), *SEMI_CONVOLUTIONAL
        ),
        "MTML": Competitor(
            MTML,
            {"bandwidths": ((0.5, 1.0, 1.5), (0.3, 0.5, 0.8)), "min_points": SIZES},
            ({"dim": 4}, {"delta_v": 0.25}),
        ),
        "PartNet": Competitor(PartNetMasks, {"min_points": (1, *SIZES)}, ({"num_masks": 50}, {"num_masks": 100})),
        "SGPN": Competitor(
            SGPN,
            {"radius": (5.0, 10.0), "min_points": SIZES},
            ({"alpha": 10.0}, {"margin": 1.0, "class_margin": 8.0}),
        ),
        "PointGroup": Competitor(
            partial(PointGroup, radius=0.1, min_cluster=20),
            {"radius": (0.05, 0.1, 0.15), "min_cluster": SIZES},
            ({"radius": 0.05}, {"radius": 0.15}),
        ),
    }
)
"""By name. Lengths are for shapes in the unit sphere with about 2,048 points: PointGroup's radius is three spacings."""


class CompetitorNetwork(nn.Module):
    """PointNet++ features into the head of a method."""

    def __init__(self, method: AnyMethod, *, width: float = 1.0, local_geometry: bool = False) -> None:
        super().__init__()
        self.local_geometry = local_geometry
        self.backbone = PointNet2(in_channels=6 if local_geometry else 0, width=width)
        self.head = method.head

    def forward(self, data: Data) -> Any:
        clouds = data.num_graphs if data.batch is not None else 1
        positions = data.pos.view(clouds, -1, 3)  # shapes of a batch have equally many points
        features = self.backbone(positions, local_covariance(positions) if self.local_geometry else None)
        return self.head(features.flatten(0, 1), data.pos, data.batch)


def new_competitor(
    name: str, num_classes: int, options: Options, fabric: Fabric, changes: Mapping[str, Any] = MappingProxyType({})
) -> tuple[AnyMethod, CompetitorNetwork]:
    """A method of :data:`COMPETITORS` and its network, with weights of the seed.

    Args:
        num_classes: without background.
        changes: arguments that the method is made with instead, such as one of its trials.
    """
    fabric.seed_everything(options.seed, verbose=False)
    method = COMPETITORS[name].make(FEATURES, num_classes + 1, **changes)
    return method, CompetitorNetwork(method, width=options.width, local_geometry=options.local_geometry)


def train_competitor(
    name: str,
    method: AnyMethod,
    network: CompetitorNetwork,
    data: Dataset[Data],
    num_classes: int,
    options: Options,
    fabric: Fabric,
) -> list[dict[str, float]]:
    """Train in place, on from the last checkpoint where the options ask to; the mean of each term in each epoch."""
    settings = {"method": name, **Settings.of(options).stored()}
    history = train_network(
        network,
        data,
        losses_of(method.loss),
        options,
        fabric,
        settings=settings,
        num_classes=num_classes + 1,
        draws=options.epoch_shapes,
    )
    network.eval()
    return history


class CompetitorResult(NamedTuple):
    """The settings of the grouping that were picked, the metric on validation with them in per cent, and on test."""

    settings: dict[str, Any]
    validation: float
    metric: PartNetAP | ScanNetAP


def pick_settings(
    name: str, method: AnyMethod, grid: Sequence[dict[str, Any]], value: Callable[[], float], fabric: Fabric
) -> tuple[dict[str, Any], float]:
    """The settings of the grouping with the highest ``value()``, which the method then has, and that value."""

    def apply(settings: Mapping[str, Any]) -> None:
        for attribute, setting in settings.items():
            if not hasattr(method, attribute):
                raise AttributeError(f"{name}: expected a setting of {type(method).__name__}, got {attribute!r}")
            setattr(method, attribute, setting)

    def values() -> Iterator[float]:
        for settings in tqdm(grid, desc=f"{name}, settings", unit="setting", disable=not fabric.is_global_zero):
            apply(settings)
            yield value()

    best, highest, *_ = best_of(grid, values(), "setting")
    apply(best)
    return best, highest


@torch.no_grad()
def evaluate_competitor(
    name: str,
    method: AnyMethod,
    network: CompetitorNetwork,
    val: Split,
    test: Split,
    num_classes: int,
    fabric: Fabric,
    *,
    without_classes: bool = False,
) -> CompetitorResult:
    """Pick the settings of the grouping on validation, then take the test split once.

    ``without_classes``: as if all parts were of one class, which shows the grouping apart from the names.
    """
    network.to(fabric.device).eval()

    def outputs(split: Split) -> list[Any]:
        return [network(copy(shape).to(fabric.device)) for shape in split.shapes]

    def measure(of: Sequence[Any], split: Split) -> PartNetAP:
        found = [method.group(output).to("cpu") for output in of]
        if without_classes:
            return score_grouping(found, split.targets, fabric)
        return score(found, split.targets, num_classes, 1, fabric)

    shown = outputs(val)
    settings, best = pick_settings(
        name, method, COMPETITORS[name].settings, lambda: float(measure(shown, val).part_map()[1]), fabric
    )
    return CompetitorResult(settings, 100 * best, measure(outputs(test), test))
