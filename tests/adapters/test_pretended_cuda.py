"""Networks, competing methods and predictions on tensors of a pretended CUDA device: no two devices in one operation,
and the values of the CPU. The ways of GPUs in plain torch are taken, as on a card without the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretend_cuda import DEVICE, PretendedCuda, pretended_cuda
from torch import Tensor
from torch_geometric.data import Data

from probemb_adapters import baselines
from probemb_adapters.experiments import partnet, scannet
from probemb_adapters.experiments.scannet.prediction import predict_cloud
from probemb_adapters.networks import _all_clouds as all_clouds
from probemb_adapters.networks.minkowski import MinkowskiBackbone, MinkUNet14A
from probemb_adapters.networks.pointnet2 import PointNet2, local_covariance
from probemb_lib import GaussianEmbedding


@pytest.fixture(autouse=True)
def cuda() -> Iterator[PretendedCuda]:
    with pretended_cuda() as mode:
        yield mode


pytestmark = pytest.mark.filterwarnings("ignore:the Triton kernels do not run here")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def same(call: Callable[[torch.device], list[Tensor]], tolerance: float = 1e-4) -> None:
    there, here = call(DEVICE), call(torch.device("cpu"))
    assert len(there) == len(here) > 0
    for a, b in zip(there, here, strict=True):
        assert a.device == DEVICE
        torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=tolerance, atol=tolerance)


def test_pointnet(cuda: PretendedCuda) -> None:
    """Forward, backward and running statistics; one wait, that positions are finite."""

    def call(device: torch.device) -> list[Tensor]:
        torch.manual_seed(0)
        net = PointNet2(width=1 / 16).to(device)
        x = drawn(2, 40, 3).to(device)
        cuda.waits.clear()
        out = net(x)
        assert sum(cuda.waits.values()) == (device.type == "cuda")
        out.square().mean().backward()
        return [
            out,
            local_covariance(x, 0.5),
            *(p.grad for p in net.parameters() if p.grad is not None),
            *net.buffers(),
        ]

    same(call)


def test_sparse_network() -> None:
    def call(device: torch.device) -> list[Tensor]:
        torch.manual_seed(0)
        backbone = MinkowskiBackbone(MinkUNet14A(width=1 / 16), 0.1, engine="torch").double().to(device)
        x = drawn(60, 3).double().to(device)
        out = backbone(x, 4 * x, (torch.arange(60) % 2).to(device))
        out.square().mean().backward()
        return [out, *(p.grad for p in backbone.parameters() if p.grad is not None)]

    same(call)


METHODS: dict[str, Any] = {
    "discriminative": baselines.DiscriminativeEmbedding,
    "asis": partial(baselines.ASIS, neighbours=5),
    "semi-convolutional": baselines.SemiConvolutionalEmbedding,
    "mtml": baselines.MTML,
    "partnet": partial(baselines.PartNetMasks, num_masks=6),
    "sgpn": partial(baselines.SGPN, margin=1.0, class_margin=2.0),
    "pointgroup": partial(baselines.PointGroup, radius=0.3, min_cluster=3),
    "margin": partial(baselines.LearnableMargin, min_points=2),
    "ours": baselines.ProbabilisticEmbedding,
}


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    instance = torch.arange(60) % 4 - 1
    positions = 0.1 * drawn(60, 3) + 4 * drawn(4, 3, seed=1)[instance]

    def call(device: torch.device) -> list[Tensor]:
        torch.manual_seed(0)
        method = METHODS[name](6, 4, hidden=(8,))
        method.head.to(device).eval()
        labels = [t.to(device) for t in (instance, instance + 1, torch.arange(60) % 2)]
        output = method.head(drawn(60, 6, seed=2).to(device), positions.to(device), labels[2])
        loss = method.loss(output, *labels)["loss"]
        loss.backward()
        found = method.group(output, labels[2])
        return [loss, found.label, found.score, *(p.grad for p in method.head.parameters() if p.grad is not None)]

    same(call, 1e-3)


def on_cuda() -> Any:
    return SimpleNamespace(device=DEVICE)


def test_a_prediction_leaves_the_cloud_where_it_is() -> None:
    """PyG's `Data.to` moves the cloud itself: evaluations and pictures would find it on the GPU, and keep it there."""
    shape = Data(pos=drawn(40, 3), instance=torch.arange(40) % 4)
    model = partnet.Model(
        partnet.Network(3, partnet.Settings(width=1 / 16)), ("a", "b"), partnet.Settings(width=1 / 16)
    )
    embedding, _ = model.predict(shape, on_cuda())
    assert embedding.mean.device == DEVICE
    assert shape.pos.device.type == shape.instance.device.type == "cpu"


@pytest.mark.parametrize("tile_size", [100.0, 0.5], ids=["at once", "in tiles"])
def test_scans_are_predicted_on_the_cpu(tile_size: float) -> None:
    settings = scannet.Settings(backbone="14A", width=1 / 16, voxel_size=0.1, offset_scale=1.0, setting=0.3)
    model = scannet.Model(scannet.Network(19, settings), tuple("abcdefghijklmnopqr"), settings)
    scan = Data(pos=drawn(80, 3) * torch.tensor([1.0, 0.4, 1.0]), x=drawn(80, 3, seed=1))
    options = SimpleNamespace(tile_size=tile_size, tile_overlap=0.1)
    found, embedding = predict_cloud(model, scan, options, on_cuda())  # type: ignore[arg-type]
    assert {t.device.type for t in (found.label, found.score, *embedding, *found.embedding, scan.pos)} == {"cpu"}
    assert isinstance(embedding, GaussianEmbedding)


@pytest.mark.parametrize("points", [5, 40])
def test_geometry_of_all_clouds(points: int) -> None:
    x = drawn(2, points, 3)
    centers = x[:, ::2] + 0.01

    def call(device: torch.device) -> list[Tensor]:
        place, of = x.to(device), centers.to(device)
        first = torch.zeros(2, dtype=torch.int64).to(device)
        squares, index = all_clouds.nearest(of, place, 3, 64)
        return [all_clouds.farthest(place, first, 4), all_clouds.balls(of, place, 0.3, 4, 64), squares, index]

    same(call)
