"""A ``LightningModule`` around a network that gives a ``HeadOutput``, for those whose training is Lightning's.

    module = ProbEmbModule(network)                 # network(batch) -> HeadOutput
    lightning.Trainer(max_epochs=100).fit(module, train_loader, val_loader)

Batches have ``batch`` and, but in prediction, ``instance`` and ``semantic`` by attribute, as a PyG ``Batch`` does; for
others override :meth:`ProbEmbModule.clouds` and :meth:`ProbEmbModule.targets`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from probemb_lib import HeadOutput, Instances, ProbabilisticEmbeddingLoss, greedy_cluster

try:
    from lightning import LightningModule
except ImportError as error:
    raise ImportError(f"probemb_adapters.hosts.lightning needs Lightning ({error}): pip install lightning") from error


class ProbEmbModule(LightningModule):
    """
    Args:
        network: takes a batch as the loader gives it, returns a :class:`~probemb_lib.HeadOutput`.
        loss: by default the whole objective.
        learning_rate: of Adam; for another optimizer override ``configure_optimizers``.
        threshold, min_points, refine: of the clustering in :meth:`predict_step`; the paper does not refine.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: ProbabilisticEmbeddingLoss | None = None,
        *,
        learning_rate: float = 1e-3,
        threshold: float = 0.35,
        min_points: int = 1,
        refine: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = ProbabilisticEmbeddingLoss() if loss is None else loss
        self.learning_rate = learning_rate
        self.threshold, self.min_points, self.refine = threshold, min_points, refine

    def forward(self, batch: Any) -> HeadOutput:
        """The network's."""
        output: HeadOutput = self.network(batch)
        return output

    def clouds(self, batch: Any) -> Tensor | None:
        """The cloud of each point; None: all are of one."""
        clouds: Tensor | None = batch.batch
        return clouds

    def targets(self, batch: Any) -> tuple[Tensor, Tensor]:
        """``instance`` and ``semantic``, in the convention of this library; not asked for in prediction."""
        return batch.instance, batch.semantic

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The total; it and its parts are logged as "train/loss", "train/bce" and so on."""
        return self._step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """As :meth:`training_step`, under "val/"."""
        return self._step(batch, "val")

    def predict_step(self, batch: Any, batch_idx: int) -> list[Instances]:
        """One :class:`~probemb_lib.Instances` a cloud, the last ones without a point left out."""
        output, clouds = self(batch), self.clouds(batch)
        found = greedy_cluster(
            output.embedding,
            output.probabilities,
            batch=clouds,
            threshold=self.threshold,
            min_points=self.min_points,
            refine=self.refine,
        )
        return found.split()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def _step(self, batch: Any, stage: str) -> Tensor:
        (instance, semantic), clouds = self.targets(batch), self.clouds(batch)
        parts: dict[str, Tensor] = self.loss(self(batch), instance, semantic, clouds)
        size = 1 if clouds is None else int(clouds.max()) + 1
        self.log_dict({f"{stage}/{name}": value for name, value in parts.items()}, batch_size=size)
        return parts["loss"]
