"""MinkowskiNet with probabilistic embeddings or learnable margins, trained as the options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_geometric.data import Batch, Data

from probemb_adapters.experiments.run import train_network
from probemb_adapters.experiments.scannet.model import Model, Network
from probemb_adapters.experiments.scannet.options import Method, Options, Settings
from probemb_adapters.networks.pretrained import load_pretrained
from probemb_adapters.scannet import INSTANCE_CLASSES
from probemb_adapters.training.options import chosen


def new_model(method: Method, options: Options, fabric: Fabric) -> Model:
    """With weights of the seed, the backbone's those of ``options.start_from``; its clustering is not fitted yet."""
    settings = replace(Settings.of(options), method=method)
    fabric.seed_everything(options.seed, verbose=False)
    network = Network(len(INSTANCE_CLASSES) + 1, settings)
    if options.start_from is not None:
        fabric.print(load_pretrained(network.backbone.network, options.start_from))
    return Model(network, INSTANCE_CLASSES, settings)


def train_model(
    model: Model, data: Dataset[Data], loss_function: nn.Module, options: Options, fabric: Fabric
) -> list[dict[str, float]]:
    """Train the model's network in place; the mean of each term of the loss in each epoch."""

    def losses(network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        terms: Mapping[str, Tensor] = loss_function(network(batch), batch.instance, batch.semantic, batch.batch)
        return terms

    fabric.print(f"\n{model.method}: MinkUNet{options.backbone}, voxels of {100 * chosen(options.voxel_size):g} cm")
    compared = {name: v for name, v in model.settings.stored().items() if name != "setting"}  # fitted afterwards
    folder = options.output / model.method
    history = train_network(
        model.network,
        data,
        losses,
        options,
        fabric,
        settings=compared,
        num_classes=len(model.classes) + 1,
        folder=folder,
    )
    model.network.eval()
    return history
