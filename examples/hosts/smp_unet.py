"""segmentation_models.pytorch: any of its decoders gives the features, `classes` is their number.

pip install segmentation-models-pytorch              # brings torchvision, which must fit your torch
python examples/hosts/smp_unet.py
"""

from __future__ import annotations

import argparse

import segmentation_models_pytorch as smp
import torch

from probemb_lib import (
    CenterAwareLoss,
    DenseHead,
    ProbabilisticEmbeddingLoss,
    dense_targets,
    greedy_cluster,
    label_image,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    torch.manual_seed(0)
    masks = torch.zeros(2, 64, 64, dtype=torch.int64)
    masks[:, 8:24, 8:24], masks[:, 36:56, 30:52] = 1, 2
    images = (masks > 0).float()[:, None] + 0.1 * torch.randn(2, 1, 64, 64)

    unet = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=16)
    head = DenseHead.probabilistic(16, 2, offset_scale=15.0, hidden=(32,))  # pixels
    loss_function = ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True))
    optimizer = torch.optim.Adam([*unet.parameters(), *head.parameters()], lr=3e-3)
    for step in range(args.steps):
        output = head(unet(images))
        loss = loss_function(output, *dense_targets(masks, output.shape), output.batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (0, args.steps - 1):
            print(f"step {step + 1}: loss {loss.item():.3f}")
    found = greedy_cluster(output.embedding, output.probabilities, batch=output.batch, min_points=20)
    print(f"{len(found)} objects in {len(label_image(found, output.shape))} images")


if __name__ == "__main__":
    main()
