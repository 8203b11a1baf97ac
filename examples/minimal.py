"""The whole method on one screen: data, network, head, loss, clustering, average precision.

Generated chairs, parts without names, two minutes on a laptop's processor: a start of a training, not its result.

    python examples/minimal.py
"""

from __future__ import annotations

import torch
from torch import nn
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from probemb_adapters.networks.pointnet2 import PointNet2
from probemb_adapters.partnet import PartNetInstances, evaluation_targets, upright_augmentation
from probemb_lib import CenterAwareLoss, ProbabilisticEmbeddingLoss, ProbabilisticHead, greedy_cluster
from probemb_lib.metrics import PartNetAP
from probemb_shapes.demo_data import generated_folder

torch.manual_seed(0)
root = generated_folder("Chair", generated_shapes=160)
train = PartNetInstances(
    root, "Chair", 3, "train", num_points=1024, transform=upright_augmentation(), class_agnostic=True
)
test = PartNetInstances(root, "Chair", 3, "test", num_points=2048, class_agnostic=True)

backbone = PointNet2(width=0.5)  # or your own: anything that gives a feature a point
head = ProbabilisticHead(128, num_classes=2, initial_std=0.1)  # background and part
network = nn.ModuleList([backbone, head])
loss_function = ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True))  # the score map finds the centres alone
optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)

for epoch in range(10):
    loader = DataLoader(train, batch_size=8, shuffle=True)
    for batch in (bar := tqdm(loader, desc=f"epoch {epoch + 1}", unit="step")):
        features = backbone(batch.pos.view(batch.num_graphs, -1, 3)).flatten(0, 1)
        output = head(features, batch.pos, batch.batch)
        losses = loss_function(output, batch.instance, batch.semantic, batch.batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        bar.set_postfix(loss=f"{losses['loss'].item():.3f}")

network.eval()
metric = PartNetAP(num_classes=1)
for shape in test:
    with torch.no_grad():
        output = head(backbone(shape.pos[None])[0], shape.pos)
    probabilities = output.probabilities[:, 1:]
    found = greedy_cluster(output.embedding, probabilities, threshold=0.35, background=None, refine=True)
    metric.update_labels(found.label, found.semantic, found.score, *evaluation_targets(shape))
for iou, value in zip(metric.iou_thresholds, metric.part_map(), strict=True):
    print(f"AP of parts at IoU {iou:g}: {100 * value:.1f} %")
