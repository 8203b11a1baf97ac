"""Weights that number kernel offsets in another order: converted, found out by their statistics, or refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from probemb_adapters.networks.kernel_order import (
    ORDERS,
    KernelOrder,
    find_kernel_order,
    hybrid_offsets,
    in_order_of_this_library,
    largest_tap,
)
from probemb_adapters.networks.minkowski import MinkowskiBackbone, MinkUNet
from probemb_adapters.networks.pretrained import load_pretrained
from probemb_adapters.training.checkpoint import save_checkpoint


class TinyUNet(MinkUNet):
    PLANES = (4, 6, 8, 10, 8, 6, 5, 4)
    LAYERS = (1, 1, 1, 1, 1, 1, 1, 1)


def older(weights: Mapping[str, Tensor], order: KernelOrder) -> dict[str, Tensor]:
    """The same network's weights as an older version numbers them, spelled out by offsets."""
    cube = {2: list(itertools.product((0, 1), repeat=3)), 3: list(itertools.product((-1, 0, 1), repeat=3))}
    now = {size: [offset[::-1] for offset in offsets] for size, offsets in cube.items()}  # x fastest
    then = {2: cube[2] if order == "0.3" else now[2], 3: now[3] if order == "0.5" else hybrid_offsets()}
    result = {}
    for name, tensor in weights.items():
        size = {8: 2, 27: 3}.get(len(tensor)) if tensor.ndim == 3 else None
        result[name] = tensor if size is None else tensor[[now[size].index(offset) for offset in then[size]]]
    return result


def room(seed: int) -> tuple[Tensor, Tensor]:
    """A floor, two walls and boxes, coloured by place: no two axes are alike."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2500, 3, generator=generator) * torch.tensor([4.0, 3.0, 2.0])
    x[:1000, 2] = 0.02
    x[1000:1500, 1] = 0.02
    x[1500:2000] = x[1500:2000] * torch.tensor([0.2, 0.5, 0.4]) + 0.5
    return torch.sin(x * torch.tensor([1.0, 2.0, 3.0])) + 0.2 * torch.rand(2500, 3, generator=generator), x


@pytest.fixture(scope="module")
def trained() -> MinkowskiBackbone:
    """Random weights, and the running statistics of some rooms."""
    torch.manual_seed(0)
    backbone = MinkowskiBackbone(TinyUNet(3), 0.1, engine="torch").train()
    for norm in backbone.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.momentum = None  # the mean of all
    for seed in range(4):
        backbone(*room(seed))
    return backbone.eval()


def with_centre(weights: Mapping[str, Tensor], factor: float = 4.0) -> dict[str, Tensor]:
    """The centre of each kernel of three larger, as long trainings make it."""
    result = {name: tensor.clone() for name, tensor in weights.items()}
    for tensor in result.values():
        if tensor.ndim == 3 and len(tensor) == 27:
            tensor[13] *= factor
    return result


def test_offsets_of_hybrid_kernels() -> None:
    """The centre, ±x, then all of these with ±y, then all nine with ±z."""
    offsets = hybrid_offsets()
    assert len(set(offsets)) == 27
    assert offsets[:9] == [
        *((0, 0, 0), (-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0)),
        *((-1, -1, 0), (-1, 1, 0), (1, -1, 0), (1, 1, 0)),
    ]
    assert offsets[9::2] == [(x, y, -1) for x, y, _ in offsets[:9]]


@pytest.mark.parametrize("order", ORDERS)
def test_conversion_gives_the_network_back(trained: MinkowskiBackbone, order: KernelOrder) -> None:
    weights = trained.network.state_dict()
    old = older(weights, order)
    assert (order == "0.5") == all(torch.equal(old[name], weights[name]) for name in weights)
    network = TinyUNet(3)
    load_pretrained(network, old, kernel_order=order)
    assert all(torch.equal(network.state_dict()[name], weights[name]) for name in weights)
    stem = torch.randn(27, 3, 32)  # of size three: no block's, and never hybrid
    assert in_order_of_this_library("conv0p1s1.kernel", stem, order) is stem


@pytest.mark.parametrize("order", ORDERS)
def test_statistics_on_a_scene_tell_the_order(trained: MinkowskiBackbone, order: KernelOrder) -> None:
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    assert find_kernel_order(trained, older(trained.network.state_dict(), order), *room(9)) == order
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.state_dict().items())


def test_statistics_of_another_world_do_not(trained: MinkowskiBackbone) -> None:
    features, positions = room(9)
    with pytest.raises(ValueError, match=r"expected one order with the batch norms' statistics, got .*0\.5: "):
        find_kernel_order(trained, trained.network.state_dict(), 50 * features.exp(), positions)


def test_large_centres_tell_it_or_refuse(trained: MinkowskiBackbone) -> None:
    weights = with_centre(trained.network.state_dict())
    assert largest_tap(weights) == 13
    assert not load_pretrained(TinyUNet(3), weights).missing
    old = older(weights, "0.4")
    assert largest_tap(old) == 0
    network = TinyUNet(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"the largest weights at the first one.*kernel_order=\"0.5\", \"0.4\" or"):
        load_pretrained(network, {"state_dict": {f"module.{name}": tensor for name, tensor in old.items()}})
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_trained_weights_that_tell_nothing_are_refused(trained: MinkowskiBackbone, tmp_path: Path) -> None:
    weights = trained.network.state_dict()
    with pytest.raises(ValueError, match="whose largest weights show their centre, got none: pass kernel_order"):
        load_pretrained(TinyUNet(3), weights)
    assert not load_pretrained(TinyUNet(3), weights, kernel_order="0.5").missing
    assert not load_pretrained(TinyUNet(3), TinyUNet(3).state_dict()).missing  # nothing is trained yet
    save_checkpoint(tmp_path / "own.safetensors", {"model": trained.state_dict(), "about": {}})
    assert not load_pretrained(TinyUNet(3), tmp_path / "own.safetensors").missing
