"""A network trained on anybody's clouds, in one file with all that is needed to use it on others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch_geometric.data import Data

from probemb_adapters.experiments.own_clouds.data import Frame
from probemb_adapters.experiments.own_clouds.options import Settings
from probemb_adapters.experiments.partnet import Network
from probemb_adapters.experiments.run import load_model, save_model
from probemb_adapters.training.options import chosen
from probemb_lib import GaussianEmbedding, Instances, greedy_cluster

FILE = "model.safetensors"
"""Of a model in the folder of its training."""


@dataclass(frozen=True)
class Model:
    """A trained network with its frame, its classes and what was fitted for its clustering."""

    network: Network
    settings: Settings

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, for tables and pages."""
        numbered = tuple(f"class {value}" for value in self.settings.class_values)
        return self.settings.class_names or numbered or ("instance",)

    @property
    def class_names(self) -> dict[int, str]:
        """By the numbers of the files, where there are names."""
        made = self.settings
        return dict(zip(made.class_values, made.class_names, strict=True)) if made.class_names else {}

    @property
    def background(self) -> int | None:
        """None where the score's column 0 tells points far from a centre, not points of no instance."""
        return None if self.settings.score_loss == "complement" else 0

    @property
    def first_class(self) -> int:
        """The number that the first class has in :attr:`Instances.semantic`."""
        return 0 if self.background is None else 1

    @property
    def columns(self) -> tuple[str, ...]:
        """A name for each number in :attr:`Instances.semantic`."""
        return self.classes if self.background is None else ("other", *self.classes)

    @property
    def frame(self) -> Frame:
        return Frame(self.settings.up, self.settings.unit)

    @property
    def points(self) -> int:
        """Of a cloud, at most, that the network sees."""
        return chosen(self.settings.points)

    @property
    def threshold(self) -> float:
        """That was fitted on validation.

        Raises:
            ValueError: the model was saved before.
        """
        if self.settings.threshold is None:
            raise ValueError(
                "expected a model with a threshold, got one whose training ended before it was fitted: "
                "probemb train FOLDER --output RUN --resume finishes it"
            )
        return self.settings.threshold

    @property
    def clustering(self) -> dict[str, Any]:
        """What :func:`~probemb_lib.greedy_cluster` is told beside the threshold and the smallest instance."""
        return {"background": self.background, "refine": self.settings.refine, "join": self.settings.join}

    def fitted(self, threshold: float, min_points: int, shown_score: float | None = None) -> Model:
        """The same network with what was fitted on validation."""
        made = replace(self.settings, threshold=threshold, min_points=min_points, shown_score=shown_score)
        return replace(self, settings=made)

    def save(self, path: Path) -> Path:
        return save_model(path, self.network, self.classes, self.settings)

    @classmethod
    def load(cls, path: Path) -> Model:
        """The model of a file of :meth:`save`, or of the folder of a training, for inference.

        Raises:
            FileNotFoundError, ValueError: no file, a damaged one, or one of something else.
        """
        file = path / FILE if path.is_dir() else path
        network, _, settings = load_model(file, Settings, lambda classes, made: Network(classes + 1, made))
        return cls(network, settings)

    @torch.no_grad()
    def predict(self, pos: Tensor, fabric: Fabric) -> tuple[GaussianEmbedding, Tensor]:
        """Embeddings and probabilities of the columns that are clustered, of positions (N, 3) in the model's frame."""
        output = self.network.to(fabric.device).eval()(Data(pos=pos).to(fabric.device))
        return output.embedding, output.probabilities[:, 1:] if self.background is None else output.probabilities

    def cluster(self, embedding: GaussianEmbedding, probabilities: Tensor) -> Instances:
        """The instances in what :meth:`predict` gives, by what was fitted on validation."""
        return greedy_cluster(
            embedding,
            probabilities,
            threshold=self.threshold,
            min_points=self.settings.min_points,
            **self.clustering,
        )

    def shown(self, found: Instances) -> Instances:
        """Those of :meth:`cluster` that predictions and pictures show; average precision ranks the others as well."""
        score = self.settings.shown_score
        return found if score is None else found.keep(found.score >= score)

    def class_numbers(self, found: Instances) -> Tensor:
        """(K,) classes as the files number them; 0 for all where the model knows none."""
        values = self.settings.class_values or (0,)
        return torch.tensor(values, device=found.semantic.device)[found.semantic - self.first_class]
