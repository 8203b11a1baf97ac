"""Competing methods on the U-Net of the nuclei: pixels are points, at their row and column.

Those whose cost grows with the points; others compare all pairs of points, or keep a mask for each candidate, and an
image has a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from probemb_adapters.baselines import DiscriminativeEmbedding, SemiConvolutionalEmbedding
from probemb_adapters.experiments.competitors import BANDWIDTHS, THRESHOLDS_OF_K, AnyMethod, Competitor
from probemb_adapters.experiments.images.model import HIDDEN, Network, _padded
from probemb_adapters.experiments.images.options import Settings
from probemb_adapters.experiments.images.training import Crops
from probemb_adapters.images import normalize
from probemb_adapters.images.pairs import Array
from probemb_lib import dense_targets, index_instances

SIZES = (10, 30)  # least pixels of an object
SCALE = 8.0  # pixels, in which the semi-convolutional embedding measures

PIXELS: Mapping[str, Competitor] = MappingProxyType(
    {
        f"{name}{kind}": Competitor(
            partial(make, probabilistic=bool(kind), hidden=HIDDEN), {**grid, "min_points": SIZES}
        )
        for name, make, grid in (
            ("discriminative", DiscriminativeEmbedding, {"bandwidth": BANDWIDTHS}),
            ("semi-convolutional", partial(SemiConvolutionalEmbedding, scale=SCALE), {"threshold": THRESHOLDS_OF_K}),
        )
        for kind in ("", ", probabilistic")
    }
)
"""By name."""


class PixelNetwork(nn.Module):
    """The U-Net's features of each pixel into the head of a method."""

    def __init__(self, method: AnyMethod, unet: nn.Module) -> None:
        super().__init__()
        self.unet, self.head = unet, method.head

    def forward(self, image: Tensor) -> Any:
        """(B, 1, H, W), H and W multiples of 16: the output for B · H · W pixels, row after row."""
        features = self.unet(image.contiguous(memory_format=torch.channels_last))
        b, _, h, w = features.shape
        grid = torch.cartesian_prod(torch.arange(float(h)), torch.arange(float(w))).to(features)  # (H W, 2)
        batch = torch.arange(b, device=image.device).repeat_interleave(h * w)
        return self.head(features.permute(0, 2, 3, 1).flatten(0, 2), grid.repeat(b, 1), batch)


def new_pixel_method(name: str, settings: Settings) -> tuple[AnyMethod, PixelNetwork]:
    """A method of :data:`PIXELS`, and its network with the U-Net that the settings say."""
    method = PIXELS[name].make(settings.width, 2)
    return method, PixelNetwork(method, Network(settings).unet)


def pixel_loss(method: AnyMethod, network: nn.Module, crops: Crops) -> Tensor:
    """The method's total loss on crops."""
    b, _, h, w = crops.image.shape
    instance, semantic = dense_targets(crops.label, (b, h, w))
    batch = torch.arange(b, device=crops.image.device).repeat_interleave(h * w)
    return method.loss(network(crops.image), index_instances(instance, batch), semantic)["loss"]


@torch.no_grad()
def segment(method: AnyMethod, network: PixelNetwork, image: Array, settings: Mapping[str, Any]) -> Array:
    """The label image (H, W) of an image, 0 the background, with settings of the method's grouping."""
    for attribute, value in settings.items():
        setattr(method, attribute, value)
    x = torch.from_numpy(normalize(image)).to(next(network.parameters()).device)
    padded = _padded(x)
    found = method.group(network(padded)).to("cpu")
    label: Array = (found.label + 1).view(padded.shape[2:])[: x.shape[0], : x.shape[1]].numpy()
    return label
