"""Data-parallel training in two processes, whose shares of a batch are ragged, or empty."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from probemb_lib import HeadOutput, ProbabilisticEmbeddingLoss, ProbabilisticHead

SHARES = [(30, 7), (12, 0), (0, 25), (9, 9)]
"""Points of both processes, step by step."""


class Network(nn.Module):
    """A layer and a head without batch norm's statistics, so that one process can repeat what two do."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 8)
        self.head = ProbabilisticHead(8, 4, hidden=(16,))

    def forward(self, positions: Tensor) -> HeadOutput:
        output: HeadOutput = self.head(self.backbone(positions).relu(), positions)
        return output


def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def share(step: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    n = SHARES[step][rank]
    positions = torch.rand(n, 3, generator=torch.Generator().manual_seed(10 * step + rank))
    instance = torch.arange(n) % 3
    return positions, instance, instance + 1


def train(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    net = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(len(SHARES)):
        positions, instance, semantic = share(step, rank)
        optimizer.zero_grad(set_to_none=True)
        ProbabilisticEmbeddingLoss()(net(positions), instance, semantic)["loss"].backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()
    torch.save(net.module.state_dict(), Path(folder) / f"{rank}.pt")
    destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch is built without torch.distributed")
def test_ragged_and_empty_shares_train_as_one_process(tmp_path: Path) -> None:
    spawn(train, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(len(SHARES)):
        optimizer.zero_grad()
        for rank in range(2):
            positions, instance, semantic = share(step, rank)
            (ProbabilisticEmbeddingLoss()(net(positions), instance, semantic)["loss"] / 2).backward()
        optimizer.step()
    for key, value in net.state_dict().items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-6)
    changed = [not torch.equal(a, b) for a, b in zip(network().parameters(), net.parameters(), strict=True)]
    assert all(changed)


def test_a_training_step_without_points_gives_every_parameter_a_gradient() -> None:
    net = Network().train()
    positions, instance, semantic = share(1, 1)
    ProbabilisticEmbeddingLoss()(net(positions), instance, semantic)["loss"].backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
