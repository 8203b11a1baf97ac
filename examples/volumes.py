"""Your own z-stacks: from files of volumes and label volumes to objects in new ones, with a 3-D U-Net of MONAI.

Volumes and labels lie in folders `images` and `labels` (or `masks`), or in one folder as `a_raw.tif` and
`a_labels.tif`. The size of a voxel is read from the files (Fiji, OME-TIFF), or is said: `--spacing 0.5 0.1 0.1`.

    python examples/volumes.py train stacks --output run       # 300 steps, minutes on two cores; Ctrl-C ends it earlier
    python examples/volumes.py predict run new --output found  # label stacks, tables of objects, a page
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from monai.networks.nets.unet import UNet
from torch import Tensor, nn
from tqdm import trange

from probemb_adapters.experiments.images.folders import split_images, usable_images
from probemb_adapters.images import LabelledImage, normalize
from probemb_adapters.images.augment import random_crop, random_flips, random_intensity
from probemb_adapters.images.check import SPLITS, files_of
from probemb_adapters.images.files import name_of, read_image, write_labels
from probemb_adapters.images.spacing import read_spacing
from probemb_adapters.report import Section, write_report
from probemb_adapters.report.overlays import ImageResult
from probemb_adapters.training import start_fabric
from probemb_adapters.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from probemb_lib import (
    CenterAwareLoss,
    DenseHead,
    DenseOutput,
    Instances,
    ProbabilisticEmbeddingLoss,
    cluster_tiles,
    dense_targets,
    label_image,
    object_csv,
    suggest_settings,
    window_predictor,
)
from probemb_lib.convert import grid_positions
from probemb_lib.metrics import LabelImageAP

THRESHOLDS = (0.35, 0.2, 0.1, 0.05, 0.02)  # of equal ones the highest
FILE = "model.safetensors"


class Network(nn.Module):
    """MONAI's U-Net, which halves first the axes whose voxels are short, and the head of a voxel."""

    def __init__(self, spacing: Sequence[float], offset_scale: float, initial_std: float, width: int = 16) -> None:
        super().__init__()
        strides, edge = [], np.array(spacing)
        for _ in range(3):
            strides.append(tuple(np.where(edge < 2 * edge.min(), 2, 1).tolist()))
            edge = edge * strides[-1]
        self.multiple_of = tuple(np.prod(strides, axis=0).tolist())
        channels = (width, 2 * width, 4 * width, 4 * width)
        self.unet = UNet(3, 1, width, channels, strides, num_res_units=1, norm="batch")  # type: ignore[arg-type]
        self.head = DenseHead.probabilistic(
            width,
            num_classes=2,
            layout="BCZYX",
            spacing=tuple(spacing),
            offset_scale=offset_scale,
            initial_std=initial_std,
            hidden=(32,),
        )

    def forward(self, volume: Tensor) -> DenseOutput:
        output: DenseOutput = self.head(self.unet(volume))
        return output

    def find(self, image: np.ndarray, threshold: float, min_points: int) -> Instances:
        """The objects of a volume of any size, through the network in windows."""
        volume, spacing = torch.from_numpy(normalize(image))[None, None], self.head.spacing
        positions = grid_positions(volume.shape[2:], spacing=spacing)
        device, objects = next(self.parameters()).device, 2 * self.head.head.offset_scale  # the largest, across
        predict = window_predictor(
            volume, lambda window: self(window.to(device)), spacing=spacing, multiple_of=self.multiple_of
        )
        return cluster_tiles(
            positions, predict, tile_size=4 * objects, overlap=objects, axes=(0, 1, 2), threshold=threshold,
            min_points=min_points, refine=True,
        )  # fmt: skip


def train(args: argparse.Namespace, fabric: Fabric) -> None:
    sides = split_images(args.stacks, usable_images(args.stacks, args.channel, fabric, axes=3), args.seed)
    spacing = args.spacing or voxel_size(args.stacks)
    counts = ", ".join(f"{name} {len(stacks)}" for name, stacks in sides.items())
    print(f"{counts} volumes; voxels of {' x '.join(f'{size:g}' for size in spacing)}")

    # Lengths of the head in the unit of the spacing, from one volume after the other.
    suggested = [
        suggest_settings(grid_positions(s.label.shape, spacing=spacing), torch.from_numpy(s.label).flatten() - 1)
        for s in sides["train"]
        if s.label is not None and s.label.any()
    ]
    if not suggested:
        raise ValueError(f"{args.stacks}: expected objects in the volumes of train, got none")
    about: dict[str, Any] = {
        "spacing": list(spacing),
        "offset_scale": max(s.offset_scale for s in suggested),
        "initial_std": float(np.median([s.initial_std for s in suggested])),
    }
    min_points = min(s.min_points for s in suggested)
    print(f"offset_scale {about['offset_scale']:g}, initial_std {about['initial_std']:g}, at least {min_points} voxels")

    fabric.seed_everything(args.seed, verbose=False)
    network = Network(**about).to(fabric.device)

    loss_function = ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=True), per_instance_dice=True)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=args.steps, pct_start=0.2)
    data = [
        (torch.from_numpy(normalize(s.image)), torch.from_numpy(s.label)) for s in sides["train"] if s.label is not None
    ]
    try:
        for _ in (bar := trange(args.steps, desc="training", unit="step")):
            crops = [random_flips(*random_crop(*data[int(i)], args.crop)) for i in torch.randint(len(data), (2,))]
            output = network(torch.stack([random_intensity(image) for image, _ in crops])[:, None].to(fabric.device))
            instance, semantic = dense_targets(
                torch.stack([label for _, label in crops]).to(fabric.device), output.shape
            )
            loss = loss_function(output, instance, semantic, output.batch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    except KeyboardInterrupt:
        print("\nstopped: what was learned so far is fitted, tested and kept")
    network.eval()

    threshold = max(THRESHOLDS, key=lambda t: precision(network, sides["val"], t, min_points)[0])
    state = {"model": network.state_dict(), "about": about, "threshold": threshold, "min_points": min_points}
    save_checkpoint(args.output / FILE, state)
    ap, results = precision(network, sides["test"], threshold, min_points)
    print(f"AP50 {100 * ap:.1f} % on the volumes of test, threshold {threshold}")
    page(args.output, results, about)


def voxel_size(folder: Path) -> tuple[float, float, float]:
    """That which all volumes have by their files."""
    sides = [folder / name for name in (".", *SPLITS)]
    sizes = {read_spacing(file): file for side in sides for file in files_of(side / "images") or files_of(side)}
    size, *others = sizes
    if others:
        got = ", ".join(f"{size} in {file.name}" for size, file in sizes.items())
        raise ValueError(
            f"{folder}: expected voxels of one size, got {got}; resample, or say the right one by --spacing"
        )
    if size is None:
        raise ValueError(f"{folder}: its files have no size of a voxel; say it by --spacing, along z, y and x")
    return size


def precision(
    network: Network, stacks: Sequence[LabelledImage], threshold: float, min_points: int
) -> tuple[float, list[ImageResult]]:
    """AP at IoU 0.5 = TP / (TP + FP + FN), and what the page shows."""
    metric, results = LabelImageAP((0.5,)), []
    for stack in stacks:
        found = network.find(stack.image, threshold, min_points)
        label = label_image(found, (1, *stack.image.shape))[0].numpy()
        metric.update(label, np.asarray(stack.label))
        results.append(ImageResult(stack.name, stack.image, stack.label, label))
    return float(metric.compute()["ap"][0]), results


def predict(args: argparse.Namespace, fabric: Fabric) -> None:
    state = load_checkpoint(args.run / FILE if args.run.is_dir() else args.run)
    network = Network(**state["about"])
    load_weights(network, state["model"])
    network.eval().to(fabric.device)
    args.output.mkdir(parents=True, exist_ok=True)
    spacing, results = tuple(state["about"]["spacing"]), []
    for path in (file for given in args.files for file in (files_of(given) if given.is_dir() else [given])):
        own, image = read_spacing(path), read_image(path, channel=args.channel)
        if image.ndim != 3:
            raise ValueError(f"{path}: expected a volume (Z, Y, X), got {image.shape}")
        if own is not None and not np.allclose(own, spacing, rtol=0.01):
            raise ValueError(f"{path}: expected voxels of {spacing} as in training, got {own}; resample the volume")
        found = network.find(image, state["threshold"], state["min_points"])
        label = label_image(found, (1, *image.shape))[0].numpy()
        write_labels(args.output / f"{name_of(path)}_labels.tif", label, spacing=spacing)
        table = object_csv(found, (1, *image.shape), spacing=spacing)
        (args.output / f"{name_of(path)}_objects.csv").write_text(table, encoding="utf-8", newline="")
        results.append(ImageResult(name_of(path), image, None, label))
        print(f"{name_of(path)}: {len(found)} objects")
    page(args.output, results, state["about"])


def page(folder: Path, results: Sequence[ImageResult], settings: dict[str, object]) -> None:
    section = Section("Volumes", noun="object", item="volume", images=results)
    print("report ", write_report(folder / "report.html", "Objects found in volumes", [section], settings=settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train")
    one.add_argument("stacks", type=Path)
    one.add_argument("--spacing", type=float, nargs=3, help="of voxels along z, y and x")
    one.add_argument("--crop", type=int, nargs=3, default=(16, 64, 64), help="voxels, some objects across")
    one.add_argument("--steps", type=int, default=300)
    one.add_argument("--seed", type=int, default=0)
    two = commands.add_parser("predict")
    two.add_argument("run", type=Path)
    two.add_argument("files", type=Path, nargs="+", help="volumes, or folders of them")
    for command, function in ((one, train), (two, predict)):
        command.add_argument("--output", type=Path, required=True)
        command.add_argument("--channel", type=int, help="of files with several, from 0")
        command.set_defaults(function=function)
    args = parser.parse_args()
    try:
        args.function(args, start_fabric())
    except (OSError, ValueError) as error:
        raise SystemExit(f"volumes: {error}") from error


if __name__ == "__main__":
    main()
