"""The competing methods of :mod:`probemb_adapters.baselines` on PointNet++, trained and evaluated as the PartNet
experiment does with its own: the same data, steps, validation and metric.

What a method's grouping depends on is picked on validation, from a small grid as τ is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data
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
from probemb_adapters.experiments.run import train_network
from probemb_adapters.networks.pointnet2 import PointNet2, local_covariance
from probemb_lib import Instances
from probemb_lib.clustering import best_of
from probemb_lib.metrics import PartNetAP

FEATURES = 128  # of PointNet++
AnyMethod = Method[Any]


class Competitor(NamedTuple):
    """How a method is made, ``make(in_channels, num_classes)``, and what of its grouping is picked on validation.

    ``grid`` has the values to try by the name of the attribute; all combinations are tried.
    """

    make: Callable[..., AnyMethod]
    grid: Mapping[str, Sequence[Any]]

    @property
    def settings(self) -> list[dict[str, Any]]:
        """All combinations of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


SIZES = (5, 20)  # least points of an instance
BANDWIDTHS = (0.3, 0.5, 0.8)
OURS = "probabilistic embedding"
COMPETITORS: Mapping[str, Competitor] = MappingProxyType(
    {
        OURS: Competitor(ProbabilisticEmbedding, {"threshold": THRESHOLDS["probabilistic"]}),
        "probabilistic embedding, recommended": Competitor(
            partial(ProbabilisticEmbedding, initial_std=0.1, refine=True), {"threshold": THRESHOLDS["probabilistic"]}
        ),
        "probabilistic embedding, recommended, 6-D": Competitor(
            partial(ProbabilisticEmbedding, dim=6, initial_std=0.1, refine=True),
            {"threshold": THRESHOLDS["probabilistic"]},
        ),
        "deterministic embedding": Competitor(
            partial(ProbabilisticEmbedding, probabilistic=False), {"threshold": THRESHOLDS["deterministic"]}
        ),
        "learnable margin": Competitor(LearnableMargin, {"min_score": (0.3, 0.5, 0.7), "min_points": SIZES}),
        "discriminative": Competitor(DiscriminativeEmbedding, {"bandwidth": BANDWIDTHS, "min_points": SIZES}),
        "discriminative, probabilistic": Competitor(
            partial(DiscriminativeEmbedding, probabilistic=True), {"bandwidth": BANDWIDTHS, "min_points": SIZES}
        ),
        "ASIS": Competitor(ASIS, {"bandwidth": (0.4, 0.6, 1.0), "min_points": SIZES}),
        "ASIS, probabilistic": Competitor(
            partial(ASIS, probabilistic=True), {"bandwidth": (0.4, 0.6, 1.0), "min_points": SIZES}
        ),
        "semi-convolutional": Competitor(
            SemiConvolutionalEmbedding, {"threshold": (0.2, 0.3, 0.4, 0.5, 0.6), "min_points": SIZES}
        ),
        "semi-convolutional, probabilistic": Competitor(
            partial(SemiConvolutionalEmbedding, probabilistic=True),
            {"threshold": (0.2, 0.3, 0.4, 0.5, 0.6), "min_points": SIZES},
        ),
        "MTML": Competitor(MTML, {"bandwidths": ((0.5, 1.0, 1.5), (0.3, 0.5, 0.8)), "min_points": SIZES}),
        "PartNet": Competitor(PartNetMasks, {"min_points": (1, *SIZES)}),
        "SGPN": Competitor(SGPN, {"radius": (5.0, 10.0), "min_points": SIZES}),
        "PointGroup": Competitor(
            partial(PointGroup, radius=0.1, min_cluster=20), {"radius": (0.05, 0.1, 0.15), "min_cluster": SIZES}
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
    name: str, num_classes: int, options: Options, fabric: Fabric
) -> tuple[AnyMethod, CompetitorNetwork]:
    """A method of :data:`COMPETITORS` and its network, with weights of the seed; ``num_classes`` without background."""
    fabric.seed_everything(options.seed, verbose=False)
    method = COMPETITORS[name].make(FEATURES, num_classes + 1)
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

    def losses(network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return method.loss(network(batch), batch.instance, batch.semantic, batch.batch)

    settings = {"method": name, **Settings.of(options).stored()}
    history = train_network(
        network,
        data,
        losses,
        options,
        fabric,
        settings=settings,
        num_classes=num_classes + 1,
        draws=options.epoch_shapes,
    )
    network.eval()
    return history


class CompetitorResult(NamedTuple):
    """The settings of the grouping that were picked, part mAP at IoU 0.5 on validation with them, and on test."""

    settings: dict[str, Any]
    validation: float
    metric: PartNetAP


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
        return [network(shape.to(fabric.device)) for shape in split.shapes]

    def grouped(of: Sequence[Any], settings: Mapping[str, Any]) -> list[Instances]:
        for attribute, value in settings.items():
            if not hasattr(method, attribute):
                raise AttributeError(f"{name}: expected a setting of {type(method).__name__}, got {attribute!r}")
            setattr(method, attribute, value)
        return [method.group(output).to("cpu") for output in of]

    def measure(found: Sequence[Instances], split: Split) -> PartNetAP:
        if without_classes:
            return score_grouping(found, split.targets, fabric)
        return score(found, split.targets, num_classes, 1, fabric)

    shown, grid = outputs(val), COMPETITORS[name].settings
    bar = tqdm(grid, desc=f"{name}, validation", unit="setting", disable=not fabric.is_global_zero)
    best = best_of(grid, (float(measure(grouped(shown, s), val).part_map()[1]) for s in bar), "setting")
    return CompetitorResult(best[0], 100 * best[1], measure(grouped(outputs(test), best[0]), test))
