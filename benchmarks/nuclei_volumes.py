"""Nuclei in volumes: MONAI's U-Net with a probabilistic head, trained on generated volumes, then used in windows.

Nuclei touch in clumps and slices are twice as far apart as pixels. The network learns from small crops; test volumes,
and one of 128 x 512 x 512 voxels, go through it in windows (`window_predictor`, `cluster_tiles`), in a process of their
own whose peak memory above the volume is measured. One thread throughout.

    python benchmarks/nuclei_volumes.py              some minutes of training, then the volumes
    python benchmarks/nuclei_volumes.py --quick      a few steps and small volumes, for CI
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from harness import PeakMemory, Results, in_new_process, run_alone

# isort: split
import numpy as np
import torch
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from probemb_lib import (
    DenseHead,
    DenseOutput,
    Instances,
    ProbabilisticEmbeddingLoss,
    cluster_tiles,
    dense_targets,
    label_image,
    window_predictor,
)
from probemb_lib.convert import grid_positions
from probemb_lib.metrics import LabelImageAP
from probemb_shapes.nuclei import RADII, nuclei_volume

SPACING = (2.0, 1.0, 1.0)
CROP = (16, 48, 48)
TEST, LARGE = (32, 128, 128), (128, 512, 512)
TILE, OVERLAP = 64.0, 2 * RADII[1]  # an object at the border of one window is whole in the next
THRESHOLDS = (0.05, 0.1, 0.2, 0.35)
MIN_POINTS = 30
STEPS, BATCH, RATE = 400, 2, 3e-3


class Network(nn.Module):
    """MONAI's UNet, which halves y and x first and then all axes, and the head of a voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(3, 1, 16, channels=(16, 32, 64), strides=((1, 2, 2), (2, 2, 2)), num_res_units=1, norm="batch")
        self.head = DenseHead.probabilistic(
            16, 2, "BCZYX", spacing=SPACING, offset_scale=1.5 * RADII[1], initial_std=2.0, hidden=(32,)
        )

    def forward(self, volume: Tensor) -> DenseOutput:
        output: DenseOutput = self.head(self.unet(volume))
        return output


def train(steps: int, seed: int = 0) -> Network:
    """Random crops of a few volumes, mirrored; the learning rate rises and falls once."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    volumes = [nuclei_volume(rng, (32, 96, 96), spacing=SPACING) for _ in range(6)]
    network, objective = Network(), ProbabilisticEmbeddingLoss(per_instance_dice=True)
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        crops = [_crop(rng, *volumes[rng.integers(len(volumes))]) for _ in range(BATCH)]
        output = network(torch.stack([image for image, _ in crops])[:, None])
        instance, semantic = dense_targets(torch.stack([label for _, label in crops]), output.shape)
        loss = objective(output, instance, semantic, output.batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _crop(rng: np.random.Generator, image: np.ndarray, label: np.ndarray) -> tuple[Tensor, Tensor]:
    start = [int(rng.integers(n - c + 1)) for n, c in zip(image.shape, CROP, strict=True)]
    window = tuple(slice(s, s + c) for s, c in zip(start, CROP, strict=True))
    axes = [axis for axis in range(3) if rng.random() < 0.5]
    return tuple(torch.from_numpy(np.flip(a[window], axes).copy()) for a in (image, label))  # type: ignore[return-value]


def find(volume: Tensor, network: nn.Module, threshold: float) -> Instances:
    """In windows; a voxel of the volume (1, 1, Z, Y, X) costs the same however many there are."""
    positions = grid_positions(volume.shape[2:], spacing=SPACING)
    with torch.no_grad():
        predict = window_predictor(volume, network, spacing=SPACING, multiple_of=(2, 4, 4))
        return cluster_tiles(
            positions, predict, tile_size=TILE, overlap=OVERLAP, axes=(0, 1, 2), threshold=threshold,
            min_points=MIN_POINTS,
        )  # fmt: skip


def measure(weights: Path, shape: tuple[int, int, int], threshold: float, seed: int) -> dict[str, Any]:
    """Seconds, memory and what is found in a new volume."""
    network = Network()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    find(torch.zeros(1, 1, 8, 32, 32), network, threshold)  # code and buffers are loaded
    image, label = nuclei_volume(np.random.default_rng(seed), shape, spacing=SPACING)
    volume = torch.from_numpy(image)[None, None]
    with PeakMemory() as peak:
        start = time.process_time()
        found = find(volume, network, threshold)
        seconds = time.process_time() - start
    metric = LabelImageAP()
    metric.update(label_image(found, (1, *shape), dtype=torch.int32)[0].numpy(), label)
    values = metric.compute()
    return {
        "voxels": image.size,
        "nuclei": int(values["tp"][0] + values["fn"][0]),
        "ap50": float(values["ap"][0]),
        "ap75": float(values["ap"][5]),
        "pq": float(values["pq"][0]),
        "seconds": seconds,
        "peak_mb": peak.megabytes,
    }


def fitted_threshold(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """With the highest AP50 on one volume for validation."""
    image, label = nuclei_volume(np.random.default_rng(100), shape, spacing=SPACING)
    values = []
    for threshold in THRESHOLDS:
        metric = LabelImageAP((0.5,))
        found = find(torch.from_numpy(image)[None, None], network, threshold)
        metric.update(label_image(found, (1, *shape), dtype=torch.int32)[0].numpy(), label)
        values.append(float(metric.compute()["ap"][0]))
    return THRESHOLDS[int(np.argmax(values))]


def benchmark(quick: bool) -> Results:
    steps = 4 if quick else STEPS
    start = time.process_time()
    network = train(steps)
    minutes = (time.process_time() - start) / 60
    shapes = [(8, 40, 40), (8, 72, 40)] if quick else [TEST, TEST, TEST, TEST, LARGE]
    threshold = fitted_threshold(network, shapes[0])
    print(f"{steps} steps in {minutes:.1f} minutes of processor time, threshold {threshold:g}")
    print(f"{'volume':>16}{'nuclei':>8}{'AP50':>7}{'AP75':>7}{'PQ':>7}{'s':>8}{'MB':>8}{'bytes/voxel':>13}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        torch.save(network.state_dict(), weights)
        for seed, shape in enumerate(shapes, 200):
            row = in_new_process(measure, weights, shape, threshold, seed)
            rows.append({"shape": list(shape), **row})
            print(
                f"{' x '.join(map(str, shape)):>16}{row['nuclei']:8,}{100 * row['ap50']:7.1f}{100 * row['ap75']:7.1f}"
                f"{100 * row['pq']:7.1f}{row['seconds']:8.1f}{row['peak_mb']:8.0f}"
                f"{1e6 * row['peak_mb'] / row['voxels']:13.0f}",
                flush=True,
            )
    return Results(numbers={"steps": steps, "training_minutes": minutes, "threshold": threshold, "volumes": rows})


if __name__ == "__main__":
    run_alone("nuclei_volumes", __doc__, benchmark)
