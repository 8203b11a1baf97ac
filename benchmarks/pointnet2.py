"""What PointNet++ spends its time on: its sampling and grouping against the plain way, and the stages of a step.

Generated chairs, shuffled. A training step is taken apart at the features and at the head's output, so each stage has
its forward and its backward pass; sampling and grouping have none of their own. Shares are those of the processor's
time for this process, the least of several rounds, which other load changes least.

    python benchmarks/pointnet2.py              about two minutes
    python benchmarks/pointnet2.py --quick      small clouds, for CI
"""

from __future__ import annotations

import time

from harness import Results, Shares, Table, run_alone, timed

# isort: split
import torch
from torch import Tensor

from probemb_adapters.networks.pointnet2 import (
    PointNet2,
    ball_query,
    farthest_point_sample,
    local_covariance,
    nearest_neighbors,
)
from probemb_lib import GaussianEmbedding, HeadOutput, ProbabilisticEmbeddingLoss, ProbabilisticHead
from probemb_shapes.families.write import sample

CLASSES = 39  # of chairs at PartNet's finest level
LOSSES = "aggregation and losses"


def chairs(clouds: int, points: int) -> tuple[Tensor, Tensor]:
    """Positions (B, N, 3) and the parts (B * N,), which are the instances."""
    drawn = [sample("Chair", 0, index, points)[1:] for index in range(clouds)]
    positions = torch.stack([torch.from_numpy(position) for position, _ in drawn])
    return positions, torch.cat([torch.from_numpy(leaf) for _, leaf in drawn]).long() - 1


# --- operations, the plain way


def plain_samples(x: Tensor, count: int) -> Tensor:
    clouds = torch.arange(len(x))
    samples = [torch.zeros(len(x), dtype=torch.int64)]
    distance = torch.full(x.shape[:2], torch.inf)
    for _ in range(1, count):
        distance = torch.minimum(distance, (x - x[clouds, samples[-1], None]).square().sum(-1))
        samples.append(distance.argmax(1))
    return torch.stack(samples, 1)


def plain_balls(centers: Tensor, x: Tensor, radius: float, count: int) -> Tensor:
    outside = (centers[:, :, None] - x[:, None]).square().sum(-1) >= radius**2  # (B, M, N)
    index = torch.arange(x.shape[1]).masked_fill(outside, x.shape[1]).sort().values[..., :count]
    return torch.where(index == x.shape[1], index[..., :1], index)


def plain_nearest(queries: Tensor, x: Tensor, k: int) -> Tensor:
    return (queries[:, :, None] - x[:, None]).square().sum(-1).topk(k, largest=False).indices


def operations(results: Results, x: Tensor, rounds: int) -> None:
    """As the network calls them."""
    size = f"{len(x)} × {x.shape[1]:,} points"
    samples = farthest_point_sample(x, 512)
    centers = x.gather(1, samples[..., None].expand(-1, -1, 3))
    peers = {
        "Farthest-point sampling, 512": (
            lambda: plain_samples(x, 512),
            lambda: farthest_point_sample(x, 512),
        ),
        "Ball query, 64 within 0.2 of 512 centres": (
            lambda: plain_balls(centers, x, 0.2, 64),
            lambda: ball_query(centers, x, 0.2),
        ),
        "Three nearest of 512": (
            lambda: plain_nearest(x, centers, 3),
            lambda: nearest_neighbors(x, centers, 3),
        ),
    }
    for title, (plain, ours) in peers.items():
        rows = timed({"plain torch": plain, "point_geometry": ours}, rounds, seconds=10)
        results.add(Table(f"{title}, {size}", rows, "plain torch", "point_geometry"))
    name = "local_covariance"
    rows = timed({name: lambda: local_covariance(x)}, rounds)
    results.add(Table(f"Local covariance, not part of the network, {size}", rows, name, name))


# --- a step


class Step:
    """A training step in stages, of which each hands leaves of the graph to the next."""

    def __init__(self, x: Tensor, instance: Tensor, width: float) -> None:
        torch.manual_seed(0)
        self.x, self.instance, self.semantic = x, instance, 1 + instance % CLASSES
        self.batch = torch.arange(len(x)).repeat_interleave(x.shape[1])
        self.backbone, self.head = PointNet2(width=width), ProbabilisticHead(128, CLASSES + 1)
        self.loss = ProbabilisticEmbeddingLoss()
        self.optimizer = torch.optim.Adam([*self.backbone.parameters(), *self.head.parameters()])

    def __call__(self) -> dict[str, float]:
        """Seconds of each stage."""
        laps: dict[str, float] = {}
        clock = time.process_time()

        def lap(stage: str) -> None:
            nonlocal clock
            now = time.process_time()
            laps[stage] = laps.get(stage, 0.0) + now - clock
            clock = now

        features = self.backbone(self.x)
        lap("network")
        leaf = features.detach().flatten(0, 1).requires_grad_()
        output = self.head(leaf, self.x.flatten(0, 1), self.batch)
        lap("head")
        tensors = [output.embedding.mean, output.embedding.log_std, output.logits]
        mean, log_std, logits = leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        detached = HeadOutput(GaussianEmbedding(mean, log_std), logits)
        loss = self.loss(detached, self.instance, self.semantic, self.batch)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        lap(LOSSES)
        torch.autograd.backward(tensors, [tensor.grad for tensor in leaves])
        lap("head")
        features.backward(leaf.grad.view_as(features))
        lap("network")
        self.optimizer.step()
        lap("optimizer")
        return laps


def sampling_and_grouping(x: Tensor) -> None:
    """All that the network asks of its positions alone."""
    samples = farthest_point_sample(x, min(512, x.shape[1]))
    centers = x.gather(1, samples[..., None].expand(-1, -1, 3))
    ball_query(centers, x, 0.2)
    ball_query(centers[:, :128], centers, 0.4)
    nearest_neighbors(centers, centers[:, :128], 3)
    nearest_neighbors(x, centers, 3)


def step(x: Tensor, instance: Tensor, width: float, rounds: int) -> Shares:
    run = Step(x, instance, width)
    run()
    laps = [run() for _ in range(rounds)]
    least = {stage: min(lap[stage] for lap in laps) for stage in laps[0]}
    grouping = timed({"": lambda: sampling_and_grouping(x)}, rounds)[""]["cpu_s"]
    seconds = {"sampling and grouping": grouping, "rest of the network": least.pop("network") - grouping, **least}
    title = f"Training step, {len(x)} × {x.shape[1]:,} points, width {width:g}, CPU time"
    return Shares(title, seconds, (LOSSES,))


def inference(x: Tensor, width: float, rounds: int) -> Shares:
    torch.manual_seed(0)
    backbone, head = PointNet2(width=width).eval(), ProbabilisticHead(128, CLASSES + 1).eval()
    with torch.no_grad():
        features = backbone(x).flatten(0, 1)
        calls = {
            "sampling and grouping": lambda: sampling_and_grouping(x),
            "network": lambda: backbone(x),
            "head": lambda: head(features, x.flatten(0, 1)),
        }
        seconds = {name: row["cpu_s"] for name, row in timed(calls, rounds).items()}
    grouping, network = seconds["sampling and grouping"], seconds.pop("network")
    title = f"Inference, {x.shape[1]:,} points, width {width:g}, CPU time"
    return Shares(
        title, {"sampling and grouping": grouping, "rest of the network": network - grouping, **seconds}, ("head",)
    )


def benchmark(quick: bool) -> Results:
    results = Results()
    clouds, sizes, widths, rounds = (2, (1024,), (0.5,), 2) if quick else (4, (2048, 10_000), (0.5, 1.0), 9)
    for points in sizes:
        x, instance = chairs(clouds, points)
        operations(results, x, rounds)
        for width in widths:
            results.add(step(x, instance, width, rounds))
            results.add(inference(x[:1], width, rounds))
    return results


if __name__ == "__main__":
    run_alone("pointnet2", __doc__, benchmark)
