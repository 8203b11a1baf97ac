"""The competing methods on MinkUNet, in rooms without classes: trained as the ScanNet experiment trains its own, on the
same crops, with the settings of the groupings picked on held-out rooms by AP50.

Rooms are predicted and grouped with one point a voxel, as in training, and the vertices of a voxel are of the instance
of its point: so methods that compare all pairs of points run too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_geometric.data import Data

from probemb_adapters.baselines import (
    LearnableMargin,
    PointGroup,
    ProbabilisticEmbedding,
    SemiConvolutionalEmbedding,
)
from probemb_adapters.experiments.competitors import (
    COMPETITORS,
    OURS,
    SIZES,
    THRESHOLDS_OF_K,
    AnyMethod,
    Competitor,
    CompetitorResult,
    pick_settings,
)
from probemb_adapters.experiments.run import losses_of, merged, train_network
from probemb_adapters.experiments.scannet import Options, Settings
from probemb_adapters.experiments.scannet.data import OBJECT, shares, without_classes
from probemb_adapters.experiments.scannet.model import BACKBONES, GRIDS
from probemb_adapters.experiments.variants import JOIN
from probemb_adapters.networks.minkowski import MinkowskiBackbone
from probemb_adapters.networks.voxels import voxelize
from probemb_adapters.scannet import INSTANCE_IDS, evaluation_target
from probemb_adapters.training.options import chosen
from probemb_lib.head import HIDDEN
from probemb_lib.metrics import ScanNetAP

OBJECT_ID = INSTANCE_IDS[OBJECT - 1]
REACH = 2.0  # metres, farthest offset to a centre: offset_scale of the experiment
SCALE = 0.5  # metres, in which the semi-convolutional embedding measures

_ours = partial(ProbabilisticEmbedding, offset_scale=REACH, initial_std=0.3, complement=True)
_STARTS = ({"initial_std": 0.15}, {"initial_std": 0.6})
IN_METRES: Mapping[str, Competitor] = MappingProxyType(
    {
        OURS: Competitor(
            _ours, {"threshold": GRIDS["probabilistic"], "refine": (False, True), "min_points": SIZES}, _STARTS
        ),
        **{
            f"probabilistic embedding, recommended{kind}": Competitor(
                partial(_ours, dim=6 if kind else 3, refine=True),
                {"threshold": GRIDS["probabilistic"], "join": (None, JOIN), "min_points": SIZES},
                _STARTS,
            )
            for kind in ("", ", 6-D")
        },
        "deterministic embedding": Competitor(
            partial(ProbabilisticEmbedding, probabilistic=False, offset_scale=REACH, complement=True),
            {"threshold": GRIDS["probabilistic"], "refine": (False, True), "min_points": SIZES},
            ({"dim": 6}, {"offset_scale": 1.0}),
        ),
        "learnable margin": Competitor(
            partial(LearnableMargin, offset_scale=REACH),
            {"min_score": GRIDS["learnable-margin"], "min_points": SIZES},
            ({"initial_margin": 0.25}, {"initial_margin": 1.0}),
        ),
        **{
            f"semi-convolutional{kind}": Competitor(
                partial(SemiConvolutionalEmbedding, scale=SCALE, probabilistic=bool(kind)),
                {"threshold": THRESHOLDS_OF_K, "min_points": SIZES},
                ({"scale": 0.25}, {"mask_weight": 4.0}),
            )
            for kind in ("", ", probabilistic")
        },
        "PointGroup": Competitor(
            partial(PointGroup, radius=0.2, min_cluster=20),
            {"radius": (0.1, 0.2, 0.3), "min_cluster": SIZES},
            ({"radius": 0.1}, {"radius": 0.3}),
        ),
    }
)
ROOMS: Mapping[str, Competitor] = MappingProxyType({name: IN_METRES.get(name, c) for name, c in COMPETITORS.items()})
"""As :data:`COMPETITORS`, with lengths in metres, for voxels of 8 cm; sizes are numbers of voxels."""


class RoomNetwork(nn.Module):
    """MinkUNet's features of each point into the head of a method."""

    def __init__(self, backbone: MinkowskiBackbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, data: Data) -> Any:
        return self.head(self.backbone(data.x, data.pos, data.batch), data.pos, data.batch)


def new_in_rooms(
    name: str, options: Options, fabric: Fabric, changes: Mapping[str, Any] = MappingProxyType({})
) -> tuple[AnyMethod, RoomNetwork]:
    """A method of :data:`ROOMS` and its network, with weights of the seed; ``changes`` as for `new_competitor`."""
    fabric.seed_everything(options.seed, verbose=False)
    width = chosen(options.width)
    unet = BACKBONES[chosen(options.backbone)](in_channels=3, width=width)
    hidden = [round(width * channels) for channels in HIDDEN]
    method = ROOMS[name].make(unet.out_channels, 2, hidden=hidden, **changes)
    backbone = MinkowskiBackbone(unet, chosen(options.voxel_size), engine=options.engine)
    return method, RoomNetwork(backbone, method.head)


def train_in_rooms(
    name: str, method: AnyMethod, network: RoomNetwork, data: Dataset[Data], options: Options, fabric: Fabric
) -> list[dict[str, float]]:
    """Train in place, on from the last checkpoint where the options ask to; the mean of each term in each epoch."""
    settings = {"competitor": name, **Settings.of(options).stored()}
    history = train_network(network, data, losses_of(method.loss), options, fabric, settings=settings, num_classes=2)
    network.eval()
    return history


class Room(NamedTuple):
    """What the network gives for one point a voxel, the row of each vertex's voxel, and the evaluator's target."""

    output: Any
    row: Tensor  # (V,)
    target: Tensor  # (V,)


def one_point_a_voxel(scene: Data, voxel_size: float) -> tuple[Data, Tensor]:
    """The first vertex of each voxel, and for each vertex the row of its voxel's.

    >>> scene = Data(pos=torch.tensor([[0.7, 0, 0], [-0.1, 0, 0], [0.6, 0, 0]]), x=torch.zeros(3, 3))
    >>> points, row = one_point_a_voxel(scene, 0.5)
    >>> points.pos[:, 0], row
    (tensor([-0.1000,  0.7000]), tensor([1, 0, 1]))
    """
    row = voxelize(scene.pos, voxel_size).index
    first = torch.full((int(row.max()) + 1,), len(row)).scatter_reduce(0, row, torch.arange(len(row)), "amin")
    return Data(pos=scene.pos[first], x=scene.x[first], batch=torch.zeros_like(first)), row


@torch.no_grad()
def evaluate_in_rooms(
    name: str,
    method: AnyMethod,
    network: RoomNetwork,
    held_out: Dataset[Data],
    scenes: Dataset[Data],
    fabric: Fabric,
) -> CompetitorResult:
    """Pick the settings of the grouping on held-out rooms, then take the others once."""
    network.to(fabric.device).eval()

    def predicted(data: Dataset[Data], what: str) -> list[Room]:
        rooms = []
        for scene in shares(data, fabric, f"{name}, {what}"):
            points, row = one_point_a_voxel(scene, network.backbone.voxel_size)
            output = network(points.to(fabric.device))
            rooms.append(Room(output, row, evaluation_target(without_classes(scene))))
        return rooms

    def measure(rooms: list[Room]) -> ScanNetAP:
        metric = ScanNetAP((OBJECT_ID,))
        for room in rooms:
            found = method.group(room.output).to("cpu")
            ids = torch.full_like(found.semantic, OBJECT_ID)
            metric.update(found.masks()[:, room.row], ids, found.score, room.target)
        return merged(metric, fabric)

    shown = predicted(held_out, "held-out rooms")
    settings, best = pick_settings(
        name, method, ROOMS[name].settings, lambda: float(measure(shown).compute()["ap50"]), fabric
    )
    return CompetitorResult(settings, 100 * best, measure(predicted(scenes, "rooms")))
