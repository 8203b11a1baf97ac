"""PointNet++ with the head of a variant, in one file with its classes and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data

from probemb_adapters.experiments.partnet.options import Options, resolve
from probemb_adapters.experiments.run import (
    load_model,
    save_model,
)
from probemb_adapters.experiments.variants import DETERMINISTIC, HEADS
from probemb_adapters.networks.pointnet2 import PointNet2, local_covariance
from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    Instances,
    greedy_cluster,
)


class Network(nn.Module):
    """PointNet++ features into the head."""

    def __init__(self, num_classes: int, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.local_geometry = about["local_geometry"]
        self.backbone = PointNet2(in_channels=6 if self.local_geometry else 0, width=about["width"])
        own = {"initial_std": about["initial_std"]} if about.get("initial_std") is not None else {}
        self.head = HEADS[about["embedding"]](128, num_classes, offset_scale=about["offset_scale"], **own)

    def forward(self, data: Data) -> HeadOutput:
        clouds = data.num_graphs if data.batch is not None else 1
        positions = data.pos.view(clouds, -1, 3)  # shapes of a batch have equally many points
        features = self.backbone(positions, local_covariance(positions) if self.local_geometry else None)
        output: HeadOutput = self.head(features.flatten(0, 1), data.pos, data.batch)
        return output


@dataclass
class Model:
    """A trained network and what is needed to use it."""

    network: Network
    classes: tuple[str, ...]
    about: dict[str, Any]

    @property
    def class_agnostic(self) -> bool:
        return bool(self.about["class_agnostic"])

    @property
    def background(self) -> int | None:
        # Trained with complement=True, the background column tells points far from a centre, not points of no part:
        # then all points are clustered, by the foreground columns alone (docs/decisions.md).
        return None if self.class_agnostic or self.about.get("score_loss") == "complement" else 0

    @property
    def clustering(self) -> dict[str, Any]:
        """What :func:`~probemb_lib.greedy_cluster` is told beside the threshold."""
        chosen = {name: self.about.get(name, False) for name in ("class_aware", "refine")}  # older files do not say
        return {"background": self.background, **chosen}

    def options(self, points: int) -> Options:
        """Those of the data that it was trained on, with as many points a shape."""
        names = ("category", "level", "class_agnostic", "generated_shapes")
        return resolve(Options(**{name: self.about[name] for name in names if name in self.about}, points=points))

    def save(self, path: Path) -> Path:
        return save_model(path, self.network, self.classes, self.about)

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """The model of a file of :meth:`save`, for inference."""
        return cls(*load_model(Path(path), lambda classes, about: Network(classes + 1, about)))

    @torch.no_grad()
    def predict(self, data: Data, fabric: Fabric | None = None) -> tuple[GaussianEmbedding, Tensor]:
        """Embeddings (N, D) and probabilities of the columns that are clustered (N, L).

        Computed where ``fabric`` says; by default where the network is.
        """
        device = next(self.network.parameters()).device if fabric is None else fabric.device
        output = self.network.to(device).eval()(data.to(device))
        return output.embedding, output.probabilities[:, 1:] if self.background is None else output.probabilities

    def cluster(self, embedding: GaussianEmbedding, probabilities: Tensor, threshold: float | None = None) -> Instances:
        """The parts in what :meth:`predict` gives, by the threshold that was fitted on validation if none is given."""
        threshold = self.about["threshold"] if threshold is None else threshold
        return greedy_cluster(embedding, probabilities, threshold=threshold, **self.clustering)


THRESHOLDS = {  # the deterministic kernel exp(-distance^2) is near one for all points of a shape
    "probabilistic": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8),
    "deterministic": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99),
}


def threshold_grid(model: Model) -> tuple[float, ...]:
    return THRESHOLDS["deterministic" if model.about["embedding"] in DETERMINISTIC else "probabilistic"]
