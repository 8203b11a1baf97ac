"""PointNet++ on a device: its geometry, a training step of the paper's setting, and whether the readers keep up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from gpu_clock import Peer, table, timed
from harness import Results, missing
from torch import Tensor

from probemb_adapters.networks.pointnet2 import (
    PointNet2,
    ball_query,
    farthest_point_sample,
    local_covariance,
    nearest_neighbors,
)
from probemb_lib import GaussianEmbedding, HeadOutput, ProbabilisticEmbeddingLoss, ProbabilisticHead, index_instances

CLASSES = 39  # of chairs at PartNet's finest level
READERS = 4  # processes


class Setting(NamedTuple):
    """Of a training step; the paper's is 16 clouds of 10,000 points at width 1."""

    clouds: int
    points: int
    width: float
    instances: int = 20  # of a cloud


def clouds_of(setting: Setting, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (B, N, 3) on spheres in the unit ball, the instances (B N,), and the clouds (B N,)."""
    g = torch.Generator().manual_seed(0)
    instance = torch.randint(0, setting.instances, (setting.clouds, setting.points), generator=g)
    centers = 0.7 * torch.nn.functional.normalize(torch.randn(setting.clouds, setting.instances, 3, generator=g), dim=2)
    around = torch.nn.functional.normalize(torch.randn(setting.clouds, setting.points, 3, generator=g), dim=2)
    positions = centers.gather(1, instance[..., None].expand(-1, -1, 3)) + 0.2 * around
    batch = torch.arange(setting.clouds).repeat_interleave(setting.points)
    return positions.to(device), instance.flatten().to(device), batch.to(device)


def geometry(results: Results, setting: Setting, device: torch.device, rounds: int, seconds: float) -> None:
    """As the network's first level calls it."""
    x, _, _ = clouds_of(setting, device)
    count = min(512, setting.points)
    samples = farthest_point_sample(x, count)
    centers = x.gather(1, samples[..., None].expand(-1, -1, 3))
    peers: dict[str, Peer] = {
        f"farthest points, {count}": lambda: farthest_point_sample(x, count),
        "ball query, 64 within 0.2": lambda: ball_query(centers, x, 0.2),
        "three nearest": lambda: nearest_neighbors(x, centers, 3),
        "local covariance": lambda: local_covariance(x),
    }
    times = timed(peers, rounds, device, seconds=seconds)
    title = f"Geometry of PointNet++, {setting.clouds} x {setting.points:,} points"
    print(table(title, times, next(iter(peers))), flush=True)
    results.numbers[f"geometry_{setting.clouds}_{setting.points}"] = times


class Step:
    """A training step in stages; each stage may be called again by itself."""

    def __init__(self, setting: Setting, device: torch.device, dtype: torch.dtype | None) -> None:
        torch.manual_seed(0)
        self.x, instance, self.batch = clouds_of(setting, device)
        self.semantic = 1 + instance % CLASSES
        self.index = index_instances(instance, self.batch)
        self.backbone = PointNet2(width=setting.width).to(device)
        self.head = ProbabilisticHead(128, CLASSES + 1).to(device)
        self.loss = ProbabilisticEmbeddingLoss()
        self.optimizer = torch.optim.Adam([*self.backbone.parameters(), *self.head.parameters()])
        self.dtype, self.device = dtype, device

    def precision(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self.device.type, self.dtype) if self.dtype else contextlib.nullcontext()

    def features(self) -> Tensor:
        with self.precision():
            return self.backbone(self.x).flatten(0, 1)

    def output(self, features: Tensor) -> HeadOutput:
        with self.precision():
            return self.head(features, self.x.flatten(0, 1), self.batch)

    def objective(self, output: HeadOutput) -> Tensor:
        return self.loss(output, self.index, self.semantic)["loss"]

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.objective(self.output(self.features())).backward()
        self.optimizer.step()

    def stages(self) -> dict[str, Peer]:
        """Each stage alone, from leaves, forward and backward where it has one."""
        features = self.features().detach()
        output = self.output(features)
        leaves = [t.detach().requires_grad_() for t in (*output.embedding, output.logits)]

        def forward_backward(total: Callable[[], Tensor]) -> Peer:
            return lambda: total().backward()

        def loss() -> Tensor:
            return self.objective(HeadOutput(GaussianEmbedding(*leaves[:2]), leaves[2]))

        def head() -> Tensor:
            found = self.output(features)
            return found.embedding.mean.sum() + found.embedding.log_std.sum() + found.logits.sum()

        return {
            "whole step": self,
            "backbone": forward_backward(lambda: self.features().float().sum()),
            "head": forward_backward(head),
            "loss": forward_backward(loss),
            "Adam": self.optimizer.step,
        }


def training_step(results: Results, setting: Setting, device: torch.device, rounds: int, seconds: float) -> None:
    """In float32 and under autocast to bfloat16."""
    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        step = Step(setting, device, dtype)
        step()
        times = timed(step.stages(), rounds, device, seconds=seconds)
        title = f"Training step, {name}, {setting.clouds} x {setting.points:,} points, width {setting.width:g}"
        print(table(title, times, "whole step"), flush=True)
        results.numbers[f"step_{name}_{setting.clouds}_{setting.points}_{setting.width:g}"] = times


def reading(results: Results, folder: Path, setting: Setting, device: torch.device) -> None:
    """Milliseconds a batch from PartNet's files through reader processes and pinned copies to the device."""
    lacking = missing(["h5py", "torch_geometric", "tqdm"])
    if lacking is not None:
        results.lack("Reading", lacking)
        return
    from torch.utils.data import DataLoader
    from torch_geometric.data import Batch

    from probemb_adapters.partnet import PartNetInstances, upright_augmentation
    from probemb_adapters.training.batches import SeededBatches, SeededItems
    from probemb_shapes.families import write_generated

    shapes = 2 * setting.clouds
    write_generated(folder, "Chair", train=shapes, val=4, test=4)
    data = PartNetInstances(
        folder, "Chair", 3, "train", num_points=setting.points, transform=upright_augmentation(), random_points=True
    )
    batches = SeededBatches(shapes, setting.clouds, seed=0, draws=12 * setting.clouds)
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        SeededItems(data),
        batch_sampler=batches,
        num_workers=READERS if on_gpu else 0,
        pin_memory=on_gpu,
        collate_fn=Batch.from_data_list,
    )
    taken = []
    last = time.perf_counter()
    for batch in loader:
        batch.to(device, non_blocking=True)
        if on_gpu:
            torch.cuda.synchronize()
        now = time.perf_counter()
        taken.append(now - last)
        last = now
    steady = sorted(taken[len(taken) // 3 :])  # the first wait for the processes to start
    milliseconds = 1e3 * sum(steady) / len(steady)
    print(
        f"\nReading {setting.clouds} x {setting.points:,} points with {loader.num_workers} processes: "
        f"{milliseconds:.1f} ms a batch",
        flush=True,
    )
    results.numbers["reading"] = {"ms_a_batch": milliseconds, "processes": loader.num_workers}
