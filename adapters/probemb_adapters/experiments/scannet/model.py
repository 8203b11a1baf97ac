"""MinkowskiNet with the head of a method, in one file with its classes and settings."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data

from probemb_adapters.experiments.run import load_model, save_model
from probemb_adapters.experiments.scannet.data import OBJECT, without_classes
from probemb_adapters.experiments.scannet.options import Method, Settings
from probemb_adapters.networks.engines import Engine
from probemb_adapters.networks.minkowski import MinkowskiBackbone
from probemb_adapters.networks.minkunet import MinkUNet14A, MinkUNet18A, MinkUNet34C
from probemb_adapters.scannet import INSTANCE_IDS
from probemb_adapters.training.options import chosen
from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    Instances,
    LearnableMarginHead,
    ProbabilisticHead,
    greedy_cluster,
    margin_cluster,
)
from probemb_lib.head import HIDDEN
from probemb_lib.margin.head import MarginOutput

BACKBONES = {"14A": MinkUNet14A, "18A": MinkUNet18A, "34C": MinkUNet34C}
MIN_POINTS = 100  # ScanNet leaves smaller instances out
MIN_SCORE = 0.05  # of a seed; walls and floors are background, so the search may end
Output = HeadOutput | MarginOutput


class Network(nn.Module):
    """MinkowskiNet's features of each point into the head of a method."""

    def __init__(self, num_classes: int, settings: Settings) -> None:
        super().__init__()
        self.num_classes = num_classes
        width = 1.0 if settings.width is None else settings.width
        unet = BACKBONES[chosen(settings.backbone)](in_channels=3, width=width)
        self.backbone = MinkowskiBackbone(unet, chosen(settings.voxel_size))
        hidden, scale = [round(width * channels) for channels in HIDDEN], settings.offset_scale
        self.head: ProbabilisticHead | LearnableMarginHead
        if settings.method == "probabilistic":
            columns = num_classes + (settings.score_loss == "complement")  # of the outer points of objects
            self.head = ProbabilisticHead(
                unet.out_channels, columns, offset_scale=scale, initial_std=settings.initial_std, hidden=hidden
            )
        else:
            self.head = LearnableMarginHead(
                unet.out_channels,
                num_classes,
                offset_scale=scale,
                initial_margin=settings.initial_margin,
                hidden=hidden,
            )

    def forward(self, data: Data) -> Output:
        output: Output = self.head(self.backbone(data.x, data.pos, data.batch), data.pos, data.batch)
        return output


@dataclass(frozen=True)
class Model:
    """A trained network and what is needed to use it."""

    network: Network
    classes: tuple[str, ...]
    settings: Settings

    @property
    def method(self) -> Method:
        return self.settings.method

    @property
    def class_ids(self) -> tuple[int, ...]:
        """ScanNet's id of each class; objects without classes are "otherfurniture"."""
        return INSTANCE_IDS if len(self.classes) > 1 else (INSTANCE_IDS[OBJECT - 1],)

    def columns(self, semantic: Tensor) -> Tensor:
        """Classes that were found, as columns of ScanNet's 18."""
        return semantic if len(self.classes) > 1 else torch.full_like(semantic, OBJECT)

    def labelled(self, scene: Data) -> Data:
        """A scene with the labels that the model has."""
        return scene if len(self.classes) > 1 or "instance" not in scene else without_classes(scene)

    @property
    def setting(self) -> float:
        """The clustering's parameter, picked on held-out scenes.

        Raises:
            ValueError: none was: the model was not evaluated yet.
        """
        if self.settings.setting is None:
            raise ValueError("expected a model whose clustering was fitted, got one without its parameter")
        return self.settings.setting

    def with_setting(self, setting: float, shown_score: float | None = None) -> Model:
        """The same network with what was fitted, to be saved or used."""
        return replace(self, settings=replace(self.settings, setting=setting, shown_score=shown_score))

    def on_engine(self, engine: Engine) -> Model:
        """The same model, its convolutions by an engine from now on."""
        self.network.backbone.engine = engine
        return self

    def save(self, path: Path) -> Path:
        return save_model(path, self.network, self.classes, self.settings)

    @classmethod
    def load(cls, path: Path) -> Model:
        return cls(*load_model(path, Settings, lambda classes, settings: Network(classes + 1, settings)))

    @torch.no_grad()
    def predict(self, data: Data, fabric: Fabric) -> tuple[GaussianEmbedding, Tensor]:
        """Embeddings (N, 3) and probabilities (N, classes + 1) of the points of a scene.

        Where outer points of objects have a column of their own, the background has 1 where it is likelier than all
        else together, and 0 elsewhere: so clusterings leave out these points alone.
        """
        output = self.network.to(fabric.device).eval()(copy(data).to(fabric.device))  # which moves a Data in place
        probabilities = output.probabilities
        if probabilities.shape[1] > self.network.num_classes:
            probabilities = probabilities[:, : self.network.num_classes].clone()
            probabilities[:, 0] = (probabilities[:, 0] > 0.5).to(probabilities)
        return output.embedding, probabilities

    def cluster(self, output: tuple[GaussianEmbedding, Tensor], setting: float | None = None) -> Instances:
        """The instances of a scene, by the parameter that was picked on held-out scenes if none is given."""
        if setting is None:
            setting = self.setting
        if self.method == "probabilistic":
            return greedy_cluster(
                *output,
                threshold=setting,
                min_score=MIN_SCORE,
                min_points=MIN_POINTS,
                refine=bool(self.settings.refine),
                join=self.settings.join,
            )
        return margin_cluster(*output, min_score=setting, min_points=MIN_POINTS)

    def shown(self, found: Instances) -> Instances:
        """Those of :meth:`cluster` that predictions and pictures show; average precision ranks the others as well."""
        score = self.settings.shown_score
        return found if score is None else found.keep(found.score >= score)


GRIDS: dict[Method, tuple[float, ...]] = {
    "probabilistic": (0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    "learnable-margin": (0.5, 0.6, 0.7, 0.8, 0.9),
}


def named_models(paths: Sequence[Path], engine: Engine = "auto") -> dict[str, Model]:
    """Models by their method, and by their file where two have the same."""
    models = [Model.load(path).on_engine(engine) for path in paths]
    methods = [model.method for model in models]
    names = [m if methods.count(m) == 1 else f"{m}-{i + 1}" for i, m in enumerate(methods)]
    return dict(zip(names, models, strict=True))
