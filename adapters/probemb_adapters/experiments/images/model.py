"""A U-Net with a head a pixel, in one file with its settings; from an image to its objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probemb_adapters.experiments.images.options import Settings
from probemb_adapters.experiments.run import brief, distinct_names
from probemb_adapters.files import missing_extra
from probemb_adapters.images import normalize
from probemb_adapters.images.pairs import Array
from probemb_adapters.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from probemb_lib import (
    DenseHead,
    DenseOutput,
    DeterministicHead,
    GaussianEmbedding,
    Instances,
    LearnableMarginHead,
    MarginInstances,
    ProbabilisticHead,
    greedy_cluster,
    margin_cluster,
    refine_instances,
)

try:
    from monai.networks.nets.basic_unet import BasicUNet
except ImportError as error:
    raise missing_extra("the U-Net comes from MONAI", "images", error) from error

FACTOR = 16  # the U-Net halves four times
FOREGROUND, CENTER = 0, 1  # columns of the logits
HIDDEN = (32,)
MAGNIFIED = (0.5, 2.5)  # by so much at most


def usual_diameter(label: Array) -> float:
    """Of a disc with the pixels of the object in the middle by size; NaN where there is none."""
    pixels = np.bincount(label.ravel())[1:]
    pixels = pixels[pixels > 0]
    return 2 * math.sqrt(float(np.median(pixels)) / math.pi) if len(pixels) else math.nan


def magnification(usual: float, diameter: float | None) -> float:
    """To make of the usual diameter another one, by `MAGNIFIED` at most; 1 where either is unknown."""
    if diameter is None or math.isnan(usual):
        return 1.0
    return min(max(diameter / usual, MAGNIFIED[0]), MAGNIFIED[1])


class Network(nn.Module):
    """MONAI's BasicUNet, whose features at full resolution go into the head of a pixel.

    The head has two score maps, each a sigmoid of its own: whether the pixel is of any object, and how similar it is
    to its object as a whole, which is high near the centre.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.width
        self.unet = BasicUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            features=(width, width, 2 * width, 4 * width, 8 * width, width),
            act=("relu", {"inplace": True}),
            norm="batch",  # statistics of a crop with a single object would differ from those of the whole image
            upsample="nontrainable",
        )
        self.unet.final_conv = nn.Identity()
        self.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on the CPU
        scale, std = settings.offset_scale, settings.initial_std
        if settings.embedding == "margin":
            margin = LearnableMarginHead(width, 2, dim=2, offset_scale=scale, initial_margin=2 * std, hidden=HIDDEN)
            self.head = DenseHead(margin)
        elif settings.embedding == "deterministic":
            self.head = DenseHead(DeterministicHead(width, 2, dim=2, offset_scale=scale, hidden=HIDDEN))
        else:
            own = ProbabilisticHead(width, 2, dim=2, offset_scale=scale, initial_std=std, hidden=HIDDEN)
            self.head = DenseHead(own)

    def forward(self, image: Tensor) -> DenseOutput:
        """(B, 1, H, W), H and W multiples of 16."""
        features = self.unet(image.contiguous(memory_format=torch.channels_last))
        with torch.autocast(image.device.type, enabled=False):  # eight bits are a tenth of a pixel
            output: DenseOutput = self.head(features.float())
        return output


@dataclass(frozen=True)
class Model:
    """A trained network and what is needed to use it."""

    network: Network
    settings: Settings

    def save(self, path: Path) -> Path:
        save_checkpoint(path, {"model": self.network.state_dict(), "about": self.settings.stored()})
        return path

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model of a file of :meth:`save`, for inference.

        Raises:
            FileNotFoundError, ValueError: no file, a damaged one, or one of something else.
        """
        state = load_checkpoint(path)
        if not {"model", "about"} <= set(state):
            raise ValueError(f"{path} holds {', '.join(state)}: expected a model.safetensors of {Settings.MADE_BY}")
        try:
            settings = Settings.read(state["about"])
            network = Network(settings)
            load_weights(network, state["model"])
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is no model of {Settings.MADE_BY}: {brief(error)}") from error
        return cls(network.eval(), settings)

    def with_settings(self, settings: Settings) -> Model:
        """The same network, used with what was fitted on validation."""
        return replace(self, settings=settings)

    def to(self, device: torch.device | str) -> Model:
        """The same model, its network moved to a device."""
        return replace(self, network=self.network.to(device))

    @property
    def fitted(self) -> dict[str, float | None]:
        """What is chosen on validation."""
        s = self.settings
        own = {} if s.embedding == "margin" else {"threshold": s.threshold, "refine": s.refine, "join": s.join}
        return {**own, "min_score": s.min_score, "min_pixels": s.min_pixels, "diameter": s.diameter}

    @torch.no_grad()
    def predict(self, image: Array) -> tuple[GaussianEmbedding, Tensor]:
        """Embeddings (N, 2) and probabilities (N, 2) of the pixels of an image (H, W), row after row.

        The first column is 1 outside of objects and 0 inside, the second is 0 outside and the score of a centre
        inside, so that the clustering takes all pixels of objects, the surest centres first.
        """
        x = torch.from_numpy(normalize(image)).to(next(self.network.parameters()).device)
        means, log_stds, logits = zip(*self._views(x, self._magnification(image)), strict=True)
        mean, log_std, maps = (torch.stack(parts).mean(0) for parts in (means, log_stds, logits))
        foreground, center = maps.sigmoid().unbind(1)
        inside = foreground > 0.5
        probabilities = torch.stack([(~inside).to(center), inside * foreground * center], 1)
        return GaussianEmbedding(mean, log_std), probabilities

    def _magnification(self, image: Array) -> float:
        """From the objects that are found in the image as it is."""
        if self.settings.diameter is None:
            return 1.0
        plain = self.with_settings(replace(self.settings, diameter=None, flips=False))
        label = plain.cluster(*plain.predict(image)).label + 1
        return magnification(usual_diameter(label.cpu().numpy()), self.settings.diameter)

    def _views(self, x: Tensor, factor: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Means, ln σ and logits of the pixels, from the magnified image and, if asked for, its mirror images."""
        large = _resized(x[None], [round(n * factor) for n in x.shape])[0]
        ratio = torch.tensor([n / m for n, m in zip(x.shape, large.shape, strict=True)], device=x.device)
        for flipped in product((False, True), repeat=2) if self.settings.flips else ((False, False),):
            axes = [axis for axis, flip in enumerate(flipped) if flip]
            output = self.network(_padded(large.flip(axes)))
            maps = [
                output.dense(part)[0, :, : large.shape[0], : large.shape[1]].flip([axis + 1 for axis in axes])
                for part in (*output.embedding, output.logits)
            ]  # (C, H, W)
            # Gaussians are taken from the nearest pixel: between two objects their mean is of neither.
            mean, log_std = (_resized(part, x.shape, "nearest-exact").flatten(1).T.clone() for part in maps[:2])
            for axis in axes:  # the flipped image counts from its other end
                mean[:, axis] = large.shape[axis] - 1 - mean[:, axis]
            yield (mean + 0.5) * ratio - 0.5, log_std + ratio.log(), _resized(maps[2], x.shape).flatten(1).T

    def cluster(self, embedding: GaussianEmbedding, probabilities: Tensor) -> Instances:
        """The objects in what :meth:`predict` gives."""
        return self.finish(self.proposals(embedding, probabilities), embedding, probabilities)

    def proposals(self, embedding: GaussianEmbedding, probabilities: Tensor, min_score: float = 0.0) -> Instances:
        """The clustering before anything is decided on its objects."""
        if self.settings.embedding == "margin":
            return margin_cluster(embedding, probabilities, foreground=0.0, min_score=min_score, min_points=1)
        return greedy_cluster(embedding, probabilities, threshold=self.settings.threshold, min_score=min_score)

    def finish(self, found: Instances, embedding: GaussianEmbedding, probabilities: Tensor) -> Instances:
        """Proposals of enough score; refined, joined and refined again, as the settings say; of enough pixels.

        Seeds come in the order of their score, so that a higher least score drops the last ones and changes no other.
        """
        s = self.settings
        found = found.keep(found.score >= s.min_score)
        if not isinstance(found, MarginInstances):
            if s.refine:
                found = refine_instances(embedding, probabilities, found)
            if s.join is not None:
                found = refine_instances(embedding, probabilities, join_similar(found, s.join))
        return found.keep(found.size >= s.min_pixels)


def _resized(x: Tensor, shape: Sequence[int], mode: str = "bilinear") -> Tensor:
    """(C, H, W) of another height and width; smaller ones are smoothed first."""
    if x.shape[1:] == tuple(shape):
        return x
    smooth = mode == "bilinear"
    return F.interpolate(x[None], tuple(shape), mode=mode, antialias=smooth)[0]


def _padded(x: Tensor) -> Tensor:
    """(1, 1, H, W) of an image (H, W), to multiples of 16; mirrored where it can be, less foreign than black."""
    bottom, right = (-n % FACTOR for n in x.shape)
    mode = "reflect" if bottom < x.shape[0] and right < x.shape[1] else "constant"
    return F.pad(x[None, None], (0, right, 0, bottom), mode)


def join_similar(found: Instances, threshold: float) -> Instances:
    """Objects of one image whose Gaussians as a whole are similar become one.

    A large nucleus may have two seeds whose small sigmas keep them apart, while their members agree on its centre. It
    is the clustering once more, with objects in the place of pixels: the best object takes those similar to it.
    """
    group = greedy_cluster(found.embedding, found.score[:, None], threshold=threshold, background=None)
    first = group.seed
    return replace(
        found,
        label=torch.where(found.label >= 0, group.label[found.label.clamp_min(0)], -1) if len(found) else found.label,
        semantic=found.semantic[first],
        score=found.score[first],
        seed=found.seed[first],
        batch=found.batch[first],
        embedding=group.embedding,
    )


def named_models(paths: Sequence[Path]) -> dict[str, Model]:
    """Models by their embedding, and by their file where two have the same."""
    models = {path: Model.load(path) for path in paths}
    names = distinct_names(list(models), [model.settings.embedding for model in models.values()])
    return dict(zip(names, models.values(), strict=True))
