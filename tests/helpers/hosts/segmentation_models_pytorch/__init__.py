"""The interface of segmentation_models_pytorch 0.6.0: a decoder whose `classes` are the channels of its output.

It needs torchvision, whose wheel of the package index is for one torch and for CUDA.
"""

from __future__ import annotations

from torch import Tensor, nn


class Unet(nn.Module):
    """(B, in_channels, H, W) → (B, classes, H, W), H and W multiples of 32."""

    def __init__(
        self,
        encoder_name: str = "resnet34",
        encoder_depth: int = 5,
        encoder_weights: str | None = "imagenet",
        in_channels: int = 3,
        classes: int = 1,
    ) -> None:
        super().__init__()
        if encoder_weights is not None:
            raise ValueError("tests download no weights")
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % 32 or x.shape[3] % 32:
            raise RuntimeError("Wrong input shape height and width")
        return self.layers(x)
