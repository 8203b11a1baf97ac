"""PyTorch Geometric from end to end: its Data, transforms, loader and PointNetConv, our geometry, head and clustering.

PyG's own fps, radius and knn_interpolate need pyg-lib, which is not on the package index; those of
`probemb_adapters.networks.point_geometry` are plain torch. Generated shapes, one minute on a laptop's processor.

    python examples/pyg_pointnet2.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MLP, PointNetConv
from torch_geometric.transforms import Compose, FixedPoints, RandomJitter, RandomRotate

from probemb_adapters.networks.point_geometry import ball_query, farthest_point_sample, interpolate
from probemb_lib import HeadOutput, ProbabilisticEmbeddingLoss, ProbabilisticHead, greedy_cluster
from probemb_lib.metrics import PartNetAP


class SetAbstraction(nn.Module):
    """PointNetConv from the points of a ball to its centre, on clouds of equal length."""

    def __init__(self, ratio: float, radius: float, channels: list[int]) -> None:
        super().__init__()
        self.ratio, self.radius = ratio, radius
        self.conv = PointNetConv(MLP(channels), add_self_loops=False)

    def forward(self, x: Tensor | None, positions: Tensor) -> tuple[Tensor, Tensor]:
        clouds, points = positions.shape[:2]
        index = farthest_point_sample(positions, int(self.ratio * points))
        centers = positions.gather(1, index[..., None].expand(-1, -1, 3))
        near = ball_query(centers, positions, self.radius, 32)  # (B, M, 32)
        source = near + points * torch.arange(clouds)[:, None, None]
        target = torch.arange(clouds * index.shape[1])[:, None].expand(-1, near.shape[2])
        edges = torch.stack([source.flatten(), target.flatten()])
        x = self.conv((x, None), (positions.flatten(0, 1), centers.flatten(0, 1)), edges)
        return x, centers


class PointNet2(nn.Module):
    """Two levels down, two up, features of all points: PyG's segmentation example in short, with our head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.sa1 = SetAbstraction(0.25, 0.3, [3, 32, 64])
        self.sa2 = SetAbstraction(0.25, 0.6, [64 + 3, 64, 128])
        self.fp2, self.fp1 = MLP([128 + 64, 128]), MLP([128 + 3, 64, 64])
        self.head = ProbabilisticHead(64, num_classes, hidden=(64,))

    def forward(self, data: Batch) -> HeadOutput:
        positions = data.pos.view(data.num_graphs, -1, 3)
        x1, centers1 = self.sa1(None, positions)
        x2, centers2 = self.sa2(x1, centers1)
        up = interpolate(centers1, centers2, x2.view(*centers2.shape[:2], -1))
        x1 = self.fp2(torch.cat([up.flatten(0, 1), x1], 1))
        up = interpolate(positions, centers1, x1.view(*centers1.shape[:2], -1))
        features = self.fp1(torch.cat([up.flatten(0, 1), data.pos], 1))
        output: HeadOutput = self.head(features, data.pos, data.batch)
        return output


def shape(generator: torch.Generator) -> Data:
    """A board on legs: class 1 and 2, 600 points."""
    legs = int(torch.randint(2, 5, (), generator=generator))
    part = torch.randint(0, legs + 1, (600,), generator=generator)
    corner = torch.tensor([[0.0, 0, 0.6], [-0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0], [0.5, -0.5, 0]])
    size = torch.tensor([[0.6, 0.6, 0.05], *[[0.08, 0.08, 0.5]] * 4])
    pos = corner[part] + size[part] * (2 * torch.rand((600, 3), generator=generator) - 1)
    return Data(pos=pos, instance=part, semantic=1 + (part > 0).long())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    transform = Compose([RandomRotate(180, axis=2), RandomJitter(0.01), FixedPoints(512, replace=False)])
    train = [shape(generator) for _ in range(args.shapes)]
    test = DataLoader([FixedPoints(512, replace=False)(shape(generator)) for _ in range(16)], batch_size=8)

    network, loss_function = PointNet2(num_classes=3), ProbabilisticEmbeddingLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for epoch in range(args.epochs):
        for batch in DataLoader([transform(data.clone()) for data in train], batch_size=8, shuffle=True):
            losses = loss_function(network(batch), batch.instance, batch.semantic, batch.batch)
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {losses['loss'].item():.3f}")

    network.eval()
    metric = PartNetAP(num_classes=2)
    for batch in test:
        with torch.no_grad():
            output = network(batch)
        found = greedy_cluster(output.embedding, output.probabilities, batch=batch.batch, min_points=10)
        for graph, instances in zip(batch.to_data_list(), found.split(batch.num_graphs), strict=True):
            graph.found, graph.found_class = instances.label, instances.semantic_map()  # of its own points
            truth = torch.tensor([1, *[2] * int(graph.instance.max())]) - 1
            metric.update_labels(graph.found, instances.semantic - 1, instances.score, graph.instance, truth)
    for iou, value in zip(metric.iou_thresholds, metric.part_map(), strict=True):
        print(f"AP of parts at IoU {iou:g}: {100 * value:.1f} %")


if __name__ == "__main__":
    main()
