"""MinkowskiNet with probabilistic embeddings or learnable margins, trained as the options say."""

from __future__ import annotations

from dataclasses import replace

from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import Dataset
from torch_geometric.data import Data

from probemb_adapters.experiments.run import losses_of, train_network
from probemb_adapters.experiments.scannet.model import Model, Network
from probemb_adapters.experiments.scannet.options import Method, Options, Settings
from probemb_adapters.networks.engines import ENGINES, pick_engine
from probemb_adapters.networks.pretrained import load_pretrained
from probemb_adapters.scannet import INSTANCE_CLASSES
from probemb_adapters.training.options import chosen
from probemb_lib import CenterAwareLoss, LearnableMarginLoss, ProbabilisticEmbeddingLoss

OF_CLUSTERING = ("setting", "shown_score", "refine", "join")  # after the training, which may go on with others


def new_model(method: Method, options: Options, fabric: Fabric) -> Model:
    """With weights of the seed, the backbone's those of ``options.start_from``; its clustering is not fitted yet."""
    settings = replace(Settings.of(options), method=method)
    fabric.seed_everything(options.seed, verbose=False)
    classes = ("object",) if options.class_agnostic else INSTANCE_CLASSES
    network = Network(len(classes) + 1, settings)
    if options.start_from is not None:
        report = load_pretrained(network.backbone.network, options.start_from, kernel_order=options.kernel_order)
        fabric.print(report)
    return Model(network, classes, settings).on_engine(options.engine)


def loss_of(model: Model, options: Options) -> nn.Module:
    """The objective of a model's method."""
    if model.method == "learnable-margin":
        return LearnableMarginLoss()
    if options.score_loss == "complement":
        return ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True, complement_column=len(model.classes) + 1))
    return ProbabilisticEmbeddingLoss()


def train_model(
    model: Model, data: Dataset[Data], loss_function: nn.Module, options: Options, fabric: Fabric
) -> list[dict[str, float]]:
    """Train the model's network in place; the mean of each term of the loss in each epoch."""
    engine = pick_engine(options.engine, fabric.device.type)
    voxels = f"voxels of {100 * chosen(options.voxel_size):g} cm, convolutions by {ENGINES[engine]}"
    fabric.print(f"\n{model.method}: MinkUNet{options.backbone} of width {chosen(options.width):g}, {voxels}")
    compared = {name: v for name, v in model.settings.stored().items() if name not in OF_CLUSTERING}
    folder = options.output / model.method
    history = train_network(
        model.network,
        data,
        losses_of(loss_function),
        options,
        fabric,
        settings=compared,
        num_classes=len(model.classes) + 1,
        folder=folder,
    )
    model.network.eval()
    return history
