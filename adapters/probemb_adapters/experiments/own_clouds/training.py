"""PointNet++ with probabilistic embeddings, trained on anybody's clouds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

from lightning_fabric import Fabric
from torch_geometric.data import Batch, Data

from probemb_adapters.experiments.duration import seconds_a_step, told_duration
from probemb_adapters.experiments.own_clouds.data import TrainingClouds
from probemb_adapters.experiments.own_clouds.model import Model
from probemb_adapters.experiments.own_clouds.options import Options, Settings, steps_of_epoch
from probemb_adapters.experiments.partnet import Network
from probemb_adapters.experiments.run import losses_of, train_network
from probemb_adapters.experiments.variants import SCORE_LOSSES
from probemb_adapters.training.options import chosen
from probemb_lib import ProbabilisticEmbeddingLoss, suggest_settings

_MEASURED = 16  # clouds that the lengths of the head are read from


def with_lengths(options: Options, clouds: Sequence[Data]) -> Options:
    """The options with the head's lengths and the score loss that suit the training clouds.

    With one class and no point of none, the score can only tell points near a centre from those far from it.
    """
    some = Batch.from_data_list(list(clouds[:: max(1, -(-len(clouds) // _MEASURED))]))
    lengths = suggest_settings(some.pos, some.instance, some.batch)
    alone = len(options.class_values) < 2 and not any((cloud.semantic == 0).any() for cloud in clouds)
    return replace(
        options,
        offset_scale=lengths.offset_scale,
        initial_std=lengths.initial_std,
        score_loss="complement" if alone else "center-aware",
    )


def new_model(options: Options, fabric: Fabric) -> Model:
    """With weights of the seed; nothing is fitted yet."""
    fabric.seed_everything(options.seed, verbose=False)
    settings = Settings.of(options)
    return Model(Network(1 + max(1, len(settings.class_values)), settings), settings)


def train_model(model: Model, clouds: Sequence[Data], options: Options, fabric: Fabric) -> list[dict[str, float]]:
    """Train the model's network in place, with a checkpoint after each epoch; says beforehand how long it may take.

    Returns:
        The mean of each term in each epoch.
    """
    losses = losses_of(ProbabilisticEmbeddingLoss(SCORE_LOSSES[chosen(options.score_loss)]()))
    data = TrainingClouds(clouds, model.points)

    if not options.resume:
        first = [i % len(data) for i in range(chosen(options.batch_size))]
        step = seconds_a_step(
            model.network, lambda: Batch.from_data_list([data[i] for i in first]), losses, fabric.device
        )
        fabric.print(
            f"about {told_duration(chosen(options.steps) * step)} on this {fabric.device.type}: {options.steps} steps "
            f"of {options.batch_size} clouds x {model.points} points; Ctrl-C stops, --resume goes on from the last "
            f"checkpoint, one every {steps_of_epoch(options, len(clouds))} steps"
        )
    # Of the many fingerprints one suffices to know the data again, and to be read in a message.
    same = {name: value for name, value in model.settings.stored().items() if name not in ("seen", "measured")}
    same["clouds"] = f"{len(model.settings.seen)} ({zlib.crc32(repr(model.settings.seen).encode()):08x})"
    history = train_network(
        model.network,
        data,
        losses,
        options,
        fabric,
        settings=same,
        num_classes=1 + len(model.classes),
        draws=steps_of_epoch(options, len(clouds)) * chosen(options.batch_size),
    )
    model.network.eval()
    return history
