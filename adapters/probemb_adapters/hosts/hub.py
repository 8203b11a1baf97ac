"""Models that are saved as a folder and shared on the Hugging Face Hub: ``save_pretrained``, ``from_pretrained``.

The mixin writes ``config.json`` with what the model was made with, and ``model.safetensors`` with the weights and
the scales of the head. For a network of your own derive from ``PyTorchModelHubMixin`` in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from probemb_adapters.networks.pointnet2 import PointNet2
from probemb_lib import HeadOutput, Instances, ProbabilisticHead, greedy_cluster
from probemb_lib.convert import pack_dense

try:
    from huggingface_hub import PyTorchModelHubMixin
except ImportError as error:
    raise ImportError(
        f"probemb_adapters.hosts.hub needs huggingface_hub ({error}): pip install huggingface_hub safetensors"
    ) from error


class PointNet2Segmentor(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="probemb-lib",
    tags=["point-cloud", "instance-segmentation", "probabilistic-embedding"],
):
    """PointNet++ with the probabilistic head, and what was chosen with it.

    Args:
        num_classes: columns of the scores, the background counted.
        in_channels: of features beside the positions, 0 none.
        width: of the network, 1 in the paper.
        offset_scale, initial_std, hidden: of :class:`~probemb_lib.ProbabilisticHead`.
        threshold, min_points, refine: of the clustering; the paper does not refine.

    >>> import torch
    >>> model = PointNet2Segmentor(num_classes=4, min_points=8).eval()  # model.save_pretrained("folder")
    >>> model.segment(torch.rand(1, 256, 3)).label.shape
    torch.Size([256])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 0,
        *,
        width: float = 1.0,
        offset_scale: float = 1.0,
        initial_std: float | None = None,
        hidden: Sequence[int] = (256, 128, 128),
        threshold: float = 0.35,
        min_points: int = 1,
        refine: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = PointNet2(in_channels=in_channels, width=width)
        self.head = ProbabilisticHead(
            128, num_classes, offset_scale=offset_scale, initial_std=initial_std, hidden=tuple(hidden)
        )
        self.threshold, self.min_points, self.refine = threshold, min_points, refine

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        """The mixin's, but strict: by default weights that the file lacks would stay random."""
        return super()._load_as_safetensor(model, model_file, map_location, True)

    def forward(self, positions: Tensor, features: Tensor | None = None) -> HeadOutput:
        """Clouds (B, N, 3) and features (B, N, C) → the packed output of B · N points."""
        packed, batch = pack_dense(self.backbone(positions, features), "BNC")
        output: HeadOutput = self.head(packed, positions.flatten(0, 1), batch)
        return output

    def segment(self, positions: Tensor, features: Tensor | None = None) -> Instances:
        """The instances of clouds (B, N, 3)."""
        output = self(positions, features)
        batch = pack_dense(positions, "BNC")[1]
        return greedy_cluster(
            output.embedding,
            output.probabilities,
            batch=batch,
            threshold=self.threshold,
            min_points=self.min_points,
            refine=self.refine,
        )
