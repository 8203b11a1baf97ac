"""Crops of images, the objective and the training."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from probemb_adapters.experiments.duration import seconds_a_step, told_duration
from probemb_adapters.experiments.images.model import CENTER, FOREGROUND, Model, Network, magnification, usual_diameter
from probemb_adapters.experiments.images.options import Options, Settings
from probemb_adapters.experiments.run import learning_rate_schedule, run_epochs, seeded_loader, start_from
from probemb_adapters.images import LabelledImage, normalize
from probemb_adapters.images.augment import (
    random_crop,
    random_flips,
    random_intensity,
    random_quarter_turn,
    random_warp,
)
from probemb_adapters.training import Training
from probemb_adapters.training.options import chosen
from probemb_lib import (
    HeadOutput,
    LearnableMarginLoss,
    ProbabilisticEmbeddingLoss,
    SeedMSELoss,
    dense_targets,
    index_instances,
)


class Crops(NamedTuple):
    """image (B, 1, H, W) float32, label (B, H, W) int64."""

    image: Tensor
    label: Tensor

    def to(self, device: torch.device | str) -> Crops:
        return Crops(self.image.to(device), self.label.to(device))


class AugmentedCrops(Dataset[tuple[Tensor, Tensor]]):
    """One random crop of each image, magnified, warped, turned and of another exposure.

    Args:
        size: of the crops, in pixels.
        diameters: least and greatest that the usual object of the image has in the crop, even in the logarithm; by at
            most ``MAGNIFIED`` from what the image has.
    """

    def __init__(self, images: Sequence[LabelledImage], size: int, diameters: tuple[float, float]) -> None:
        self.size, self.diameters = size, diameters
        self.images = [
            (torch.from_numpy(normalize(image.image)), torch.from_numpy(image.label.astype("int64")))
            for image in images
            if image.label is not None
        ]
        self.usual = [usual_diameter(label.numpy()) for _, label in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        low, high = (math.log(d) for d in self.diameters)
        factor = magnification(self.usual[index], math.exp(low + (high - low) * float(torch.rand(()))))
        # As much of the image as the crop shows after it is magnified.
        size = min(round(self.size / factor), 2 * min(self.images[index][0].shape))
        image, label = random_quarter_turn(*random_flips(*random_crop(*self.images[index], size)))
        image, label = random_warp(image, label, scale=(factor, factor), size=self.size)
        return random_intensity(image), label


def collate(items: Sequence[tuple[Tensor, Tensor]]) -> Crops:
    return Crops(torch.stack([image for image, _ in items])[:, None], torch.stack([label for _, label in items]))


class PixelObjective(nn.Module):
    """The loss of the embedding, with its score on the map of centres, and that of the foreground map.

    The score map of the paper says both where objects are and where their centres are. For pixels the two part: a
    border pixel is certainly of an object and certainly far from its centre.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if settings.embedding == "margin":
            self.instances: nn.Module = LearnableMarginLoss()
        else:
            self.instances = ProbabilisticEmbeddingLoss(SeedMSELoss(), per_instance_dice=True)

    def forward(self, network: nn.Module, crops: Crops) -> Mapping[str, Tensor]:
        output = network(crops.image)
        instance, semantic = dense_targets(crops.label, output.shape)
        index = index_instances(instance, output.batch)
        center = _one_column(output.logits, CENTER)
        terms = self.instances(HeadOutput(output.embedding, center), index, semantic, output.batch)
        foreground = foreground_loss(output.logits[:, FOREGROUND], (semantic > 0).to(output.logits))
        return {**terms, "foreground": foreground, "loss": terms["loss"] + foreground}


def foreground_loss(logits: Tensor, inside: Tensor) -> Tensor:
    """Binary cross entropy plus Dice of a map: 1 − (2 Σ p y + 1) / (Σ p + Σ y + 1), over all pixels of the batch."""
    p = logits.sigmoid()
    dice = 1 - (2 * (p * inside).sum() + 1) / (p.sum() + inside.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, inside) + dice


def _one_column(logits: Tensor, column: int) -> Tensor:
    """Logits of background and one class whose softmax is the sigmoid of one column."""
    return F.pad(logits[:, column : column + 1], (1, 0))


def new_model(options: Options, fabric: Fabric) -> Model:
    """With weights of the seed, or those of ``options.start_from``."""
    fabric.seed_everything(options.seed, verbose=False)
    settings = Settings.of(options)
    network = Network(settings)
    if options.start_from is not None:
        start_from(network, Model.load(options.start_from).network, options.start_from)
    return Model(network, settings)


def train_model(
    model: Model, images: Sequence[LabelledImage], objective: nn.Module, options: Options, fabric: Fabric
) -> list[dict[str, float]]:
    """Train the model's network in place; the mean of each term in each epoch."""
    data = AugmentedCrops(images, options.crop, options.diameters)
    loader = seeded_loader(data, options, fabric, draws=options.epoch_crops, collate=collate)
    epochs, rate = chosen(options.epochs), chosen(options.learning_rate)
    optimizer = torch.optim.AdamW(model.network.parameters(), rate, weight_decay=1e-4)
    schedule = learning_rate_schedule(optimizer, options, epochs * len(loader), rise=0.2)
    # Of the many fingerprints one suffices to know the data again, and to be read in a message.
    seen = model.settings.seen
    same = model.settings.stored() | {"seen": (len(seen), zlib.crc32(repr(seen).encode()))}
    training = Training(model.network, optimizer, schedule, settings=same)
    text = f"{len(images)} images; {epochs} epochs of {len(loader)} steps of {options.batch_size} crops"
    if not options.resume:
        first = [i % len(data) for i in range(chosen(options.batch_size))]
        step = seconds_a_step(model.network, lambda: collate([data[i] for i in first]), objective, fabric.device)
        text += f", about {told_duration(epochs * len(loader) * step)} on this {fabric.device.type}"
    history = run_epochs(training, loader, objective, options, fabric, text, options.output)
    model.network.eval()
    return history
