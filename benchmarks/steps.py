"""What a training step of both examples and the prediction of a large scene spend their time on.

A step is taken apart at the features and at the head's output, so each stage has its forward and its backward pass.
The networks are untrained, as that does not change their time; it does change that of the clustering, which
therefore gets embeddings such as a trained network gives (large_scene.py). One thread of a CPU: data loading is not
hidden behind the network, as it is with workers.

    python benchmarks/steps.py              some minutes
    python benchmarks/steps.py --quick      small clouds, for CI
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import Results, Shares, run_alone

# isort: split
import torch
from large_scene import MIN_POINTS, THRESHOLD, build
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Batch, Data

from probemb_adapters.networks.pointnet2 import PointNet2
from probemb_adapters.partnet import PartNetInstances, upright_augmentation
from probemb_adapters.scannet import INSTANCE_CLASSES, INSTANCE_IDS, ScanNetScenes
from probemb_adapters.scannet.augment import scene_augmentation
from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    Instances,
    ProbabilisticEmbeddingLoss,
    ProbabilisticHead,
    greedy_cluster,
)
from probemb_lib.metrics import ScanNetAP
from probemb_shapes.families import write_generated
from probemb_shapes.rooms import write_rooms

PROJECT = Path(__file__).resolve().parents[1]
CLOUDS = 4  # a batch
VOXEL_SIZE = 0.05  # metres, as the example takes for its rooms
LOSSES, LOSSES_BACK = "aggregation and losses", "losses, backward"

Backbone = Callable[[Data], Tensor]


class Step:
    """One training step in stages, of which each hands leaves of the graph to the next."""

    def __init__(self, backbone: nn.Module, features: Backbone, head: ProbabilisticHead, data: Dataset[Data]) -> None:
        self.features, self.head = features, head
        self.loss = ProbabilisticEmbeddingLoss()
        self.optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()])
        self.loader = DataLoader(data, CLOUDS, shuffle=True, drop_last=True, collate_fn=Batch.from_data_list)
        self.batches: Iterator[Data] = iter(self.loader)

    def __call__(self) -> dict[str, float]:
        """Seconds of each stage."""
        laps: dict[str, float] = {}
        clock = time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal clock
            now = time.perf_counter()
            laps[stage], clock = now - clock, now

        data = self.next_batch()
        lap("data loading")
        features = self.features(data)
        lap("backbone")
        leaf = features.detach().requires_grad_()
        output = self.head(leaf, data.pos, data.batch)
        lap("head")
        tensors = [output.embedding.mean, output.embedding.log_std, output.logits]
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        losses = self.loss(
            HeadOutput(GaussianEmbedding(*leaves[:2]), leaves[2]), data.instance, data.semantic, data.batch
        )
        lap(LOSSES)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        lap(LOSSES_BACK)
        torch.autograd.backward(tensors, [tensor.grad for tensor in leaves])
        lap("head, backward")
        features.backward(leaf.grad)
        lap("backbone, backward")
        self.optimizer.step()
        lap("optimizer")
        return laps

    def next_batch(self) -> Data:
        batch = next(self.batches, None)
        if batch is None:  # the epoch is over
            self.batches = iter(self.loader)
            batch = next(self.batches)
        return batch


def shares(title: str, run: Callable[[], dict[str, float]], library: tuple[str, ...], rounds: int) -> Shares:
    """Medians of the stages; the first run is not counted."""
    run()
    laps = [run() for _ in range(rounds)]
    return Shares(title, {stage: statistics.median(lap[stage] for lap in laps) for stage in laps[0]}, library)


def partnet_step(points: int, width: float, rounds: int) -> Shares:
    """As examples/partnet_pointnet2.py trains on generated chairs, classes of the finest level."""
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        write_generated(folder, "Chair", train=2 * CLOUDS, val=1, test=1)
        data = PartNetInstances(folder, "Chair", 3, "train", num_points=points, transform=upright_augmentation())
        backbone = PointNet2(width=width)
        head = ProbabilisticHead(128, data.num_classes, offset_scale=1.0)

        def features(batch: Data) -> Tensor:
            on_points: Tensor = backbone(batch.pos.view(CLOUDS, -1, 3)).flatten(0, 1)
            return on_points

        step = Step(backbone, features, head, data)
        title = f"Training step on PartNet: PointNet++ of width {width:g}, {CLOUDS} × {points:,} points"
        return shares(title, step, (LOSSES, LOSSES_BACK), rounds)


def minkowski(num_classes: int) -> tuple[Any, ProbabilisticHead]:
    from probemb_adapters.networks.minkowski import MinkowskiBackbone
    from probemb_adapters.networks.minkunet import MinkUNet14A

    torch.manual_seed(0)
    backbone = MinkowskiBackbone(MinkUNet14A(in_channels=3), VOXEL_SIZE)
    return backbone, ProbabilisticHead(backbone.out_channels, num_classes, offset_scale=2.0)


def scannet_step(points: int, spacing: float, rounds: int) -> Shares:
    """As examples/scannet_minkowski.py trains on open rooms."""
    with TemporaryDirectory() as folder:
        root = Path(folder) / "rooms"
        write_rooms(PROJECT / "data" / "scan_objects", root, scenes=5, cameras=6, spacing=spacing)
        data = ScanNetScenes(root, "train", transform=scene_augmentation(points, VOXEL_SIZE, around_instances=True))
        backbone, head = minkowski(len(INSTANCE_CLASSES) + 1)
        step = Step(backbone, lambda batch: backbone(batch.x, batch.pos, batch.batch), head, data)
        title = f"Training step on rooms: MinkUNet14A, {CLOUDS} crops of up to {points:,} voxels of 5 cm"
        return shares(title, step, (LOSSES, LOSSES_BACK), rounds)


def scene_prediction(points: int, rounds: int) -> Shares:
    """A room of so many points: network, clustering, and one update of the metric."""
    floor = build(1, points)
    colours = torch.rand(points, 3, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor(INSTANCE_IDS)
    target = torch.where(
        floor.object_of > 0, ids[floor.kind[floor.object_of.long()] - 1] * 1000 + floor.object_of, 1000
    )
    embedding, probabilities = floor.predict(torch.arange(points))
    backbone, head = minkowski(probabilities.shape[1])
    backbone.eval()

    @torch.no_grad()
    def run() -> dict[str, float]:
        laps: dict[str, float] = {}

        def lap(stage: str, call: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            result = call()
            laps[stage] = time.perf_counter() - start
            return result

        features = lap("backbone", lambda: backbone(colours, floor.positions))
        lap("head", lambda: head(features, floor.positions).probabilities)
        found: Instances = lap(
            "clustering",
            lambda: greedy_cluster(embedding, probabilities, threshold=THRESHOLD, min_points=MIN_POINTS),
        )
        metric = ScanNetAP()
        lap("metric", lambda: metric.update_labels(found.label, ids[found.semantic - 1], found.score, target))
        lap("metric, all scenes", metric.compute)
        return laps

    title = f"Prediction of a scene of {points:,} points: MinkUNet14A, voxels of 5 cm"
    return shares(title, run, ("clustering", "metric", "metric, all scenes"), rounds)


def benchmark(quick: bool) -> Results:
    results = Results()
    results.add(partnet_step(512 if quick else 2_048, 0.5 if quick else 1.0, 2 if quick else 9))
    results.add(scannet_step(300 if quick else 3_000, 0.08 if quick else 0.03, 2 if quick else 9))
    results.add(scene_prediction(5_000 if quick else 150_000, 1 if quick else 5))
    return results


if __name__ == "__main__":
    run_alone("steps", __doc__, benchmark)
