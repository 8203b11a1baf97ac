"""mmdet3d/models/segmentors/base.py on mmengine's BaseModel: three modes, and what the training loop calls."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Base3DSegmentor(nn.Module, metaclass=ABCMeta):
    def __init__(self, data_preprocessor: Any = None, init_cfg: Any = None) -> None:
        super().__init__()

    @abstractmethod
    def extract_feat(self, batch_inputs: Tensor) -> Any: ...

    @abstractmethod
    def encode_decode(self, batch_inputs: Tensor, batch_data_samples: Any) -> Tensor: ...

    @abstractmethod
    def loss(self, batch_inputs: dict[str, Any], batch_data_samples: Any) -> dict[str, Tensor]: ...

    @abstractmethod
    def predict(self, batch_inputs: dict[str, Any], batch_data_samples: Any) -> Any: ...

    @abstractmethod
    def _forward(self, batch_inputs: dict[str, Any], batch_data_samples: Any = None) -> Any: ...

    def forward(self, inputs: dict[str, Any], data_samples: Any = None, mode: str = "tensor") -> Any:
        run = {"loss": self.loss, "predict": self.predict, "tensor": self._forward}[mode]
        return run(inputs, data_samples)

    def train_step(self, data: dict[str, Any], optim_wrapper: torch.optim.Optimizer) -> dict[str, Tensor]:
        """mmengine adds up every entry with "loss" in its name, and logs all as scalars."""
        losses = self(**data, mode="loss")
        means = {name: value.mean() for name, value in losses.items()}
        total = sum((value for name, value in means.items() if "loss" in name), torch.zeros(()))
        optim_wrapper.zero_grad()
        total.backward()
        optim_wrapper.step()
        return {**means, "loss": total}

    def val_step(self, data: dict[str, Any]) -> Any:
        return self(**data, mode="predict")
