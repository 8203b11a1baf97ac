"""MinkowskiNet with probabilistic embeddings or learnable margins, trained as the options say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from probemb_adapters.experiments.run import (
    chosen,
    settings_of,
    train_network,
)
from probemb_adapters.experiments.scannet.model import Model, Network
from probemb_adapters.experiments.scannet.options import Method, Options
from probemb_adapters.networks.pretrained import load_pretrained
from probemb_adapters.scannet import INSTANCE_CLASSES
from probemb_lib import (
    LearnableMarginLoss,
    ProbabilisticEmbeddingLoss,
)


def train_method(method: Method, data: Dataset[Data], options: Options, fabric: Fabric) -> tuple[Model, list[Any]]:
    about = about_model(options) | {"method": method}
    fabric.seed_everything(options.seed, verbose=False)
    network = Network(len(INSTANCE_CLASSES) + 1, about)
    if options.start_from is not None:
        fabric.print(load_pretrained(network.backbone.network, options.start_from))
    loss_function = ProbabilisticEmbeddingLoss() if method == "probabilistic" else LearnableMarginLoss()

    def losses(network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        terms: Mapping[str, Tensor] = loss_function(network(batch), batch.instance, batch.semantic, batch.batch)
        return terms

    fabric.print(f"\n{method}: MinkUNet{options.backbone}, voxels of {100 * chosen(options.voxel_size):g} cm")
    folder = options.output / method
    history = train_network(network, data, losses, options, fabric, settings=about, folder=folder)
    return Model(network.eval(), INSTANCE_CLASSES, about), history


def about_model(options: Options) -> dict[str, Any]:
    running = ("methods", "split", "submission", "tile_size", "tile_overlap", "up")
    return settings_of(options, leave_out=running)
