"""What all methods are, and what most of them share: the interface, branches of a head, cross entropy, instances."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from probemb_lib import GaussianEmbedding, HeadOutput, InstanceIndex, Instances
from probemb_lib.functional import score_cross_entropy
from probemb_lib.gaussian import at_least_float32
from probemb_lib.head import EUCLIDEAN_LOG_STD, HIDDEN, branch

Output = TypeVar("Output", contravariant=True)


class Method(Protocol[Output]):
    """A head, its loss and its grouping; see the docstring of the package for tensors and labels."""

    @property
    def head(self) -> nn.Module:
        """``head(features (N, C), positions (N, D), batch (N,) | None)`` gives an ``Output``; holds all parameters."""
        ...

    def loss(
        self, output: Output, instance: Tensor | InstanceIndex, semantic: Tensor, batch: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The total under "loss", and its terms before weighting; scalars, each with a gradient."""
        ...

    def group(self, output: Output, batch: Tensor | None = None) -> Instances:
        """The instances of each cloud."""
        ...


class Branches(nn.Module):
    """Branches of Table 3 on the same features, (N, C) to (N, width) each, float32 or better.

    An empty batch gives empty outputs that still carry a gradient, 0, of every parameter.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], hidden: Sequence[int] = HIDDEN) -> None:
        super().__init__()
        self.in_channels, self.widths = in_channels, tuple(widths)
        self.layers = nn.ModuleList([branch(in_channels, width, hidden) for width in widths])

    def forward(self, features: Tensor) -> list[Tensor]:
        if features.ndim != 2 or features.shape[1] != self.in_channels:
            raise ValueError(f"expected features (N, {self.in_channels}), got {tuple(features.shape)}")
        if features.shape[0] == 0:
            tied = nothing(features, *self.parameters())
            return [at_least_float32(features.new_zeros((0, width)) + tied) for width in self.widths]
        return [at_least_float32(layers(features)) for layers in self.layers]


def nothing(*tensors: Tensor) -> Tensor:
    """The scalar 0, with a gradient of 0 by each of the tensors whatever they hold."""
    return sum(
        (at_least_float32(t).flatten()[:0].sum() for t in tensors), start=torch.zeros((), device=tensors[0].device)
    )


def mean_or_nothing(terms: Sequence[Tensor], *tensors: Tensor) -> Tensor:
    """The mean of the scalars of the clouds that have a term; :func:`nothing` where there is none."""
    return torch.stack(list(terms)).mean() if terms else nothing(*tensors)


def total(weights: dict[str, float], terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weighted sum as "loss", then the terms; a term without a weight counts once."""
    return {
        "loss": sum((weights.get(name, 1.0) * term for name, term in terms.items()), start=torch.zeros(())),
        **terms,
    }


def semantic_loss(logits: Tensor, index: InstanceIndex, semantic: Tensor, background: int | None) -> Tensor:
    """Cross entropy of the classes, mean over the points of a cloud and then over the clouds.

    The class of a point is that of its instance, and of a point of none the background's.
    """
    output = HeadOutput(GaussianEmbedding(logits, logits), logits)  # only the logits are read
    return logits.shape[1] * score_cross_entropy(output, index, semantic, background=background)


def clouds_of(index: InstanceIndex) -> list[Tensor]:
    """The rows of each cloud that are not ignored; clouds without one are left out."""
    return [rows for rows in index.order.tensor_split(index.ptr[1:-1].cpu()) if rows.numel()]


def cloud_numbers(like: Tensor, batch: Tensor | None) -> Tensor:
    """(N,) int64, the cloud of each point."""
    return torch.zeros(like.shape[0], dtype=torch.int64, device=like.device) if batch is None else batch.long()


def foreground_clouds(probabilities: Tensor, batch: Tensor, background: int | None) -> list[Tensor]:
    """The rows of each cloud that are not likeliest background, cloud after cloud."""
    inside = torch.ones_like(batch, dtype=torch.bool)
    if background is not None and len(batch):
        inside = probabilities.argmax(1) != background
    rows = inside.nonzero().squeeze(1)
    rows = rows[batch[rows].argsort(stable=True)]
    return list(rows.split(batch[rows].unique_consecutive(return_counts=True)[1].tolist()))


def best_first(probabilities: Tensor, background: int | None) -> Tensor:
    """Rows in descending order of their highest foreground probability: the order of seeds, whatever that of points."""
    columns = [c for c in range(probabilities.shape[1]) if c != background]
    return probabilities[:, columns].amax(1).argsort(descending=True, stable=True)


def instances_of(
    label: Tensor,
    probabilities: Tensor,
    points: Tensor | GaussianEmbedding,
    batch: Tensor | None = None,
    *,
    background: int | None = 0,
    score: Tensor | None = None,
    min_points: int = 1,
) -> Instances:
    """Instances of a label map. The class is that with the highest mean probability over the members.

    Args:
        label: (N,) numbers ≥ 0 that no two clouds share, −1 none; numbers may be missing.
        probabilities: (N, L).
        points: what stands for the points, (N, D) or Gaussians.
        background: a column that is no class.
        score: by number; None: the mean probability of the class over the members.
        min_points: drop instances with fewer points.

    Raises:
        ValueError: probabilities are not finite: groupings compare, and find little or nothing where all is NaN.
    """
    if not bool(probabilities.isfinite().all()):
        point = int((~probabilities.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"expected finite probabilities, got {probabilities[point].tolist()} at point {point}")
    batch = cloud_numbers(label, batch)
    member = (label >= 0).nonzero().squeeze(1)
    numbers, row, count = label[member].unique(return_inverse=True, return_counts=True)
    cloud = torch.zeros_like(numbers).index_copy_(0, row, batch[member])
    order = cloud.argsort(stable=True)
    numbers, cloud, count, row = numbers[order], cloud[order], count[order], order.argsort()[row]
    mean = probabilities.new_zeros((len(numbers), probabilities.shape[1])).index_add_(0, row, probabilities[member])
    mean = mean / count[:, None]
    if background is not None:
        mean[:, background] = -1
    own, semantic = mean.max(1) if len(numbers) else (mean.new_zeros(0), torch.zeros_like(numbers))
    likeliest = probabilities[member, semantic[row]].argsort(descending=True, stable=True)
    likeliest = likeliest[row[likeliest].argsort(stable=True)]  # by instance, the best first
    seed = member[likeliest[count.cumsum(0) - count]]
    if not isinstance(points, GaussianEmbedding):
        points = GaussianEmbedding(points, torch.full_like(points[:, :1], EUCLIDEAN_LOG_STD))
    found = Instances(
        label=torch.full_like(label, -1).index_copy_(0, member, row),
        semantic=semantic,
        score=own if score is None else score[numbers],
        seed=seed,
        batch=cloud,
        embedding=points.select(seed).detach(),
        point_batch=batch,
    )
    return found.keep(found.size >= min_points) if min_points > 1 else found


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between, without batch norm: for the few rows of clouds or clusters."""
    layers: list[Any] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
