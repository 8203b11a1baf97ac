"""In which order weights number the offsets of sparse kernels: neither names nor shapes tell, a wrong one is silent.

- "0.5": MinkowskiEngine 0.5 and this library: x fastest, then y, then z.
- "0.4": SpatioTemporalSegmentation on MinkowskiEngine 0.3.2 to 0.4: the same but for the blocks' 3 × 3 × 3 kernels
  (region type HYBRID), which start with the centre, then ±x, then those with ±y, then those with ±z.
- "0.3": the same before 0.3.2, where kernels of size 2 also have z fastest.

Two things tell them apart. In a long training the centre, the one tap that always has a voxel, becomes the largest; and
the running statistics of batch norm are those of the activations of the right order alone.

Sources: `Common.py` (0.3, 0.4) and `MinkowskiKernelGenerator.py` (0.5) of MinkowskiEngine generate the offsets;
`models/res16unet.py` of SpatioTemporalSegmentation names the region types.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

KernelOrder = Literal["0.5", "0.4", "0.3"]
ORDERS: tuple[KernelOrder, ...] = get_args(KernelOrder)

STEM = "conv0p1s1."
"""Its kernel is no block's, and never was of region type HYBRID."""

CLEARLY = 2.0
"""As many times closer to the running statistics than the next must the right order be."""


def hybrid_offsets() -> list[tuple[int, ...]]:
    """The 27 offsets of the region type HYBRID, in its order.

    >>> hybrid_offsets()[:4]
    [(0, 0, 0), (-1, 0, 0), (1, 0, 0), (0, -1, 0)]
    """
    offsets: list[tuple[int, ...]] = [(0, 0, 0)]
    for axis in range(3):
        offsets += [(*o[:axis], step, *o[axis + 1 :]) for o in offsets for step in (-1, 1)]
    return offsets


_HYBRID = torch.tensor([(x + 1) + 3 * (y + 1) + 9 * (z + 1) for x, y, z in hybrid_offsets()])
_Z_FASTEST = torch.tensor([4 * (i % 2) + 2 * (i // 2 % 2) + i // 4 for i in range(8)])


def in_order_of_this_library(name: str, tensor: Tensor, order: KernelOrder) -> Tensor:
    """A kernel (taps, C, C') with its taps in the order "0.5"; anything else as it is."""
    if order == "0.5" or tensor.ndim != 3 or not name.endswith("kernel"):
        return tensor
    if len(tensor) == 27 and STEM not in name:
        return torch.empty_like(tensor).index_copy_(0, _HYBRID.to(tensor.device), tensor)
    if len(tensor) == 8 and order == "0.3":
        return torch.empty_like(tensor).index_copy_(0, _Z_FASTEST.to(tensor.device), tensor)
    return tensor


def largest_tap(weights: Mapping[str, Tensor]) -> int | None:
    """The tap that is the largest in most of the blocks' kernels of 27; None where there is none, or no such kernel."""
    norms = [tensor.flatten(1).norm(dim=1) for tensor in _blocks(weights).values()]
    if not norms:
        return None
    tap, count = torch.stack(norms).argmax(1).unique(return_counts=True)
    return int(tap[count.argmax()]) if 2 * int(count.max()) > len(norms) else None


def check_kernel_order(weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights of a trained sparse network that are not of the order "0.5", or of which nothing says so.

    Raises:
        ValueError: the first tap is the largest in most kernels; or none stands out although batch norms are trained.
    """
    if not _blocks(weights):
        return
    tap = largest_tap(weights)
    how = (
        'pass kernel_order="0.5", "0.4" or "0.3" for the version of MinkowskiEngine that trained them, or what '
        "probemb_adapters.networks.kernel_order.find_kernel_order says of them on a scene"
    )
    if tap == 0:
        raise ValueError(
            f"{source}: expected kernels with their centre in the middle, as MinkowskiEngine 0.5 numbers offsets, got "
            f"the largest weights at the first one, where versions before have the centre: {how}"
        )
    trained = any(name.endswith("num_batches_tracked") and bool(count > 0) for name, count in weights.items())
    if tap != 13 and trained:
        raise ValueError(f"{source}: expected kernels whose largest weights show their centre, got none: {how}")


def find_kernel_order(
    backbone: nn.Module, weights: Mapping[str, Tensor], features: Tensor, positions: Tensor
) -> KernelOrder:
    """The order in which the activations on a scene have the statistics that batch norm has kept in training.

    Args:
        backbone: a `MinkowskiBackbone` of the right network; it stays as it is.
        weights: state dict of the network, with the names of ``backbone.network``.
        features, positions: of a scene such as those of the training, in their units.

    Raises:
        ValueError: none of the orders is clearly the closest.
    """
    distances = {order: _distance(backbone, weights, order, features, positions) for order in ORDERS}
    best, second = sorted(distances, key=lambda order: distances[order])[:2]
    if not distances[second] > CLEARLY * distances[best]:
        listed = ", ".join(f"{order}: {distance:.3g}" for order, distance in distances.items())
        raise ValueError(
            f"expected one order with the batch norms' statistics, got distances of {listed}: take a scene like those "
            "of the training, or pass the kernel_order that you know"
        )
    return best


@torch.no_grad()
def _distance(
    backbone: nn.Module, weights: Mapping[str, Tensor], order: KernelOrder, features: Tensor, positions: Tensor
) -> float:
    """Mean over the voxels and channels of all levels of squared differences between activations and batch norms.

    They are those of the mean, in σ, and of ln σ. Coarse levels have few voxels, and statistics that vary most.
    """
    trial: Any = copy.deepcopy(backbone).eval()
    trial.network.load_state_dict(
        {name: in_order_of_this_library(name, tensor, order) for name, tensor in weights.items()}
    )
    squares: list[Tensor] = []
    voxels: list[int] = []

    def compare(norm: nn.BatchNorm1d, inputs: tuple[Tensor]) -> None:
        mean, std = norm.running_mean, norm.running_var
        if mean is not None and std is not None:
            std = (std + norm.eps).sqrt()
            own = inputs[0].var(0, correction=0).add(norm.eps).sqrt()
            square = ((inputs[0].mean(0) - mean) / std).square() + (own / std).log().square()
            squares.append(square.mean() * len(inputs[0]))
            voxels.append(len(inputs[0]))

    norms = [module for module in trial.modules() if isinstance(module, nn.BatchNorm1d)]
    for norm in norms:
        norm.register_forward_pre_hook(compare)
    trial(features, positions)
    return float(torch.stack(squares).sum()) / sum(voxels)


def _blocks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The kernels of 27 taps outside the stem."""
    return {
        name: tensor
        for name, tensor in weights.items()
        if name.endswith("kernel") and tensor.ndim == 3 and len(tensor) == 27 and STEM not in name
    }
