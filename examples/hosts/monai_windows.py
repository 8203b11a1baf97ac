"""MONAI: a U-Net on images or volumes, trained on crops, with MONAI's sliding windows over the whole afterwards.

pip install monai
python examples/hosts/monai_windows.py               # images
python examples/hosts/monai_windows.py --volumes
"""

from __future__ import annotations

import argparse

import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandSpatialCropd
from torch import Tensor, nn

from probemb_lib import CenterAwareLoss, DenseHead, ProbabilisticEmbeddingLoss, dense_targets, greedy_cluster
from probemb_lib import label_image as labels_of
from probemb_lib.metrics import LabelImageAP


def picture(axes: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Bright balls on a dark ground, one channel, and their label image."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(size)] * axes, indexing="ij"), -1).float()
    label = torch.zeros([size] * axes, dtype=torch.int64)
    for k in range((size // 10) ** axes // 2):
        center, radius = size * torch.rand(axes, generator=generator), 3 + 2 * torch.rand((), generator=generator)
        label[((grid - center).norm(dim=-1) < radius) & (label == 0)] = k + 1
    noise = 0.1 * torch.randn(label.shape, generator=generator)
    return {"image": ((label > 0) + noise)[None].float(), "label": label[None]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", action="store_true")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    axes, window, size = (3, 16, 24) if args.volumes else (2, 32, 64)
    keys = ["image", "label"]
    crop = Compose(
        [RandSpatialCropd(keys, [window] * axes, random_size=False), RandFlipd(keys, 0.5, 0), EnsureTyped(keys)]
    ).set_random_state(seed=0)
    pictures = [picture(axes, size, generator) for _ in range(4)]

    unet = UNet(axes, in_channels=1, out_channels=16, channels=(16, 32), strides=(2,), num_res_units=1)
    # The five lines: a head, labels, a loss; then windows of features, the head on all of them, instances.
    head = DenseHead.probabilistic(
        16, 2, layout="BCZYX" if args.volumes else "BCHW", offset_scale=6.0, hidden=(32,)
    )  # pixels
    loss_function = ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True))
    optimizer = torch.optim.Adam([*unet.parameters(), *head.parameters()], lr=3e-3)
    for step in range(args.steps):
        crops = [crop(pictures[i % len(pictures)]) for i in range(4 * step, 4 * step + 4)]
        output = head(unet(torch.stack([c["image"] for c in crops])))
        instance, semantic = dense_targets(torch.stack([c["label"] for c in crops]), output.shape)
        loss = loss_function(output, instance, semantic, output.batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (0, args.steps - 1):
            print(f"step {step + 1}: loss {loss.item():.3f}")

    nn.ModuleList([unet, head]).eval()
    windows = SlidingWindowInferer([window] * axes, sw_batch_size=4, overlap=0.25)
    metric = LabelImageAP(iou_thresholds=(0.5,))
    for _ in range(4):
        new = picture(axes, size, generator)
        with torch.no_grad():
            output = head(
                windows(new["image"][None], unet)
            )  # features of windows, blended; then positions of the whole
        found = greedy_cluster(output.embedding, output.probabilities, batch=output.batch, min_points=12)
        metric.update(labels_of(found, output.shape)[0], new["label"][0])
    print(f"AP of objects at IoU 0.5: {100 * metric.compute()['ap'][0]:.1f} %")


if __name__ == "__main__":
    main()
