"""PointNet++ with probabilistic embeddings, trained as the options say."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import Dataset
from torch_geometric.data import Data

from probemb_adapters.experiments.partnet.model import Model, Network
from probemb_adapters.experiments.partnet.options import Options, Settings
from probemb_adapters.experiments.run import losses_of, start_from, train_network
from probemb_adapters.experiments.variants import SCORE_LOSSES
from probemb_adapters.training.options import chosen
from probemb_lib import ProbabilisticEmbeddingLoss


def new_model(classes: Sequence[str], options: Options, fabric: Fabric) -> Model:
    """With weights of the seed, or those of ``options.start_from``; its threshold is not fitted yet."""
    fabric.seed_everything(options.seed, verbose=False)
    settings = Settings.of(options)
    network = Network(len(classes) + 1, settings)
    if options.start_from is not None:
        start_from(network, Model.load(options.start_from).network, options.start_from)
    return Model(network, tuple(classes), settings)


def objective(options: Options) -> ProbabilisticEmbeddingLoss:
    """The paper's objective (Eq. 15) with what the options change of it."""
    # With a single class the score map must tell centres from the rest by itself: see docs/decisions.md.
    return ProbabilisticEmbeddingLoss(
        SCORE_LOSSES[chosen(options.score_loss)](),
        covariance=options.covariance,
        per_instance_dice=options.per_instance_dice,
        entropy_reduction=options.entropy,
        bce_weight=options.bce_weight,
        score_weight=options.score_weight,
    )


def train_model(
    model: Model,
    data: Dataset[Data],
    loss_function: nn.Module,
    options: Options,
    fabric: Fabric,
    *,
    weights: Sequence[float] | None = None,
) -> list[dict[str, float]]:
    """Train the model's network in place.

    Args:
        model: of :func:`new_model`.
        data: training shapes.
        loss_function: of :func:`objective`.
        weights: how often each shape is drawn; None: all equally.

    Returns:
        The mean of each term in each epoch.
    """
    fabric.print(
        f"\n{options.category}, level {options.level}: {len(model.classes)} classes, {options.train_points} points"
    )
    history = train_network(
        model.network,
        data,
        losses_of(loss_function),
        options,
        fabric,
        settings=model.settings.stored(),
        num_classes=len(model.classes) + 1,
        draws=options.epoch_shapes,
        weights=weights,
    )
    model.network.eval()
    return history
