"""PointNet++ with the head of a variant, in one file with its classes and settings."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import tyro
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data

from probemb_adapters.experiments.partnet.options import Options, Settings, resolve
from probemb_adapters.experiments.run import distinct_names, load_model, save_model
from probemb_adapters.experiments.variants import DETERMINISTIC, HEADS, Embedding
from probemb_adapters.networks.pointnet2 import PointNet2, local_covariance
from probemb_lib import GaussianEmbedding, HeadOutput, Instances, greedy_cluster


class NetworkSettings(Protocol):
    """What of an experiment's settings the network is built from."""

    @property
    def width(self) -> float: ...
    @property
    def local_geometry(self) -> bool: ...
    @property
    def embedding(self) -> Embedding: ...
    @property
    def offset_scale(self) -> float: ...
    @property
    def initial_std(self) -> float | None: ...


class Network(nn.Module):
    """PointNet++ features into the head."""

    def __init__(self, num_classes: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.local_geometry = settings.local_geometry
        self.backbone = PointNet2(in_channels=6 if self.local_geometry else 0, width=settings.width)
        own = {} if settings.initial_std is None else {"initial_std": settings.initial_std}
        self.head = HEADS[settings.embedding](128, num_classes, offset_scale=settings.offset_scale, **own)

    def forward(self, data: Data) -> HeadOutput:
        clouds = data.num_graphs if data.batch is not None else 1
        positions = data.pos.view(clouds, -1, 3)  # shapes of a batch have equally many points
        features = self.backbone(positions, local_covariance(positions) if self.local_geometry else None)
        output: HeadOutput = self.head(features.flatten(0, 1), data.pos, data.batch)
        return output


@dataclass(frozen=True)
class Model:
    """A trained network and what is needed to use it."""

    network: Network
    classes: tuple[str, ...]
    settings: Settings

    @property
    def background(self) -> int | None:
        # Trained with complement=True, the background column tells points far from a centre, not points of no part:
        # then all points are clustered, by the foreground columns alone (docs/decisions.md).
        return None if self.settings.class_agnostic or self.settings.score_loss == "complement" else 0

    @property
    def first_class(self) -> int:
        """The number that the first of ``classes`` has in :attr:`Instances.semantic`; evaluators count from 0."""
        return 0 if self.background is None else 1

    @property
    def clustering(self) -> dict[str, Any]:
        """What :func:`~probemb_lib.greedy_cluster` is told beside the threshold."""
        return {
            "background": self.background,
            "class_aware": self.settings.class_aware,
            "refine": self.settings.refine,
            "min_points": self.settings.min_points,
        }

    @property
    def threshold(self) -> float:
        """That was fitted on validation.

        Raises:
            ValueError: none was: the model was not evaluated yet.
        """
        if self.settings.threshold is None:
            raise ValueError("expected a model with a threshold, got one that was not evaluated: pass a threshold")
        return self.settings.threshold

    def with_threshold(self, threshold: float, shown_score: float | None = None) -> Model:
        """The same network with what was fitted, to be saved or used."""
        return replace(self, settings=replace(self.settings, threshold=threshold, shown_score=shown_score))

    def with_clustering(self, options: Settings) -> Model:
        """The same network, refined, without small parts and with a least score to show where the options ask for it.

        Refined scores are other numbers: a least score that was fitted without refinement is not kept.
        """
        made = self.settings
        refine, min_points = made.refine or options.refine, max(made.min_points, options.min_points)
        fitted = made.shown_score if made.refine == refine else None
        shown_score = fitted if options.shown_score is None else options.shown_score
        return replace(self, settings=replace(made, refine=refine, min_points=min_points, shown_score=shown_score))

    def options(self, points: int) -> Options:
        """Those of the data that it was trained on, with as many points a shape."""
        made = self.settings
        return resolve(
            Options(
                category=made.category,
                level=made.level,
                class_agnostic=made.class_agnostic,
                generated_shapes=made.generated_shapes,
                points=points,
            )
        )

    def save(self, path: Path) -> Path:
        return save_model(path, self.network, self.classes, self.settings)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model of a file of :meth:`save`, for inference."""
        return cls(*load_model(Path(path), Settings, lambda classes, settings: Network(classes + 1, settings)))

    @torch.no_grad()
    def predict(self, data: Data, fabric: Fabric | None = None) -> tuple[GaussianEmbedding, Tensor]:
        """Embeddings (N, D) and probabilities of the columns that are clustered (N, L).

        Computed where ``fabric`` says; by default where the network is.
        """
        device = next(self.network.parameters()).device if fabric is None else fabric.device
        output = self.network.to(device).eval()(copy(data).to(device))  # which moves a Data in place
        return output.embedding, output.probabilities[:, 1:] if self.background is None else output.probabilities

    def cluster(self, embedding: GaussianEmbedding, probabilities: Tensor, threshold: float | None = None) -> Instances:
        """The parts in what :meth:`predict` gives, by the threshold that was fitted on validation if none is given."""
        if threshold is None:
            threshold = self.threshold
        return greedy_cluster(embedding, probabilities, threshold=threshold, **self.clustering)

    def shown(self, found: Instances, score: float | None = None) -> Instances:
        """Those of :meth:`cluster` that predictions and pictures show: all, if no least score was fitted or given."""
        score = self.settings.shown_score if score is None else score
        return found if score is None else found.keep(found.score >= score)


def named_models(paths: Sequence[Path]) -> dict[str, Model]:
    """Models by their embedding, and by their file where two have the same."""
    models = {path: Model.load(path) for path in paths}
    names = distinct_names(list(models), [model.settings.embedding for model in models.values()])
    return dict(zip(names, models.values(), strict=True))


def parse_options(description: str | None, arguments: Sequence[str] | None = None) -> Options:
    """Those of the command line. With ``--evaluate`` the category, level and points that are not given are those of
    the first model, and what else is not given is chosen for the data."""
    options = tyro.cli(Options, description=description, args=arguments)
    if options.evaluate:
        made = Model.load(options.evaluate[0]).settings
        own = Options(
            category=made.category, level=made.level, points=made.points, generated_shapes=made.generated_shapes
        )
        options = tyro.cli(Options, description=description, args=arguments, default=own)
    return resolve(options)


THRESHOLDS = {  # the deterministic kernel exp(-distance^2) is near one for all points of a shape
    "probabilistic": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8),
    "deterministic": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99),
}


def threshold_grid(model: Model) -> tuple[float, ...]:
    return THRESHOLDS["deterministic" if model.settings.embedding in DETERMINISTIC else "probabilistic"]
