"""PointNet++ with probabilistic embeddings, trained as the options say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Batch

from probemb_adapters.experiments.partnet.data import read_classes_of, training_data
from probemb_adapters.experiments.partnet.model import Model, Network
from probemb_adapters.experiments.partnet.options import Options
from probemb_adapters.experiments.run import (
    settings_of,
    train_network,
)
from probemb_adapters.experiments.variants import SCORE_LOSSES
from probemb_lib import (
    ProbabilisticEmbeddingLoss,
)


def train_model(
    root: Path, options: Options, fabric: Fabric, generated: Mapping[str, Path] = MappingProxyType({})
) -> tuple[Model, list[dict[str, float]]]:
    """A network trained on a folder as PartNet's, and on ``generated`` ones by category beside it; its losses."""
    if options.add_generated != bool(generated):
        raise ValueError(f"expected folders of generated shapes with add_generated alone, got {dict(generated)}")
    data, weights = training_data(root, options, generated)
    classes = read_classes_of(root, options)
    fabric.seed_everything(options.seed, verbose=False)
    about = about_model(options)
    network = Network(len(classes) + 1, about)
    if options.start_from is not None:
        network.load_state_dict(Model.load(options.start_from).network.state_dict())
    assert options.score_loss is not None  # resolve chose it
    # With a single class the score map must tell centres from the rest by itself: see docs/decisions.md.
    loss_function = ProbabilisticEmbeddingLoss(
        SCORE_LOSSES[options.score_loss](),
        covariance=options.covariance,
        per_instance_dice=options.per_instance_dice,
        entropy_reduction=options.entropy,
        bce_weight=options.bce_weight,
    )

    def losses(network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        terms: Mapping[str, Tensor] = loss_function(network(batch), batch.instance, batch.semantic, batch.batch)
        return terms

    fabric.print(f"\n{options.category}, level {options.level}: {len(classes)} classes, {options.train_points} points")
    history = train_network(
        network, data, losses, options, fabric, settings=about, draws=options.epoch_shapes, weights=weights
    )
    return Model(network.eval(), classes, about), history


def about_model(options: Options) -> dict[str, Any]:
    return settings_of(options, leave_out=("baselines", "official_files", "up"))
