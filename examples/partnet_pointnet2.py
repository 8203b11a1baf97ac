"""PointNet++ with probabilistic embeddings on PartNet: train, fit the threshold, evaluate, show.

Without --root it writes the open furniture that comes with the project in PartNet's own file layout and trains on
that for a few minutes. With --root it reads PartNet and takes the settings of the paper:

    python examples/partnet_pointnet2.py
    python examples/partnet_pointnet2.py --root /data/partnet --category Chair --level 3
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR
from torch_geometric import seed_everything
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from probemb_adapters.furniture import write_furniture
from probemb_adapters.partnet import EvaluationTargets, PartNetInstances, evaluation_targets, paper_augmentation
from probemb_adapters.pointnet2 import PointNet2
from probemb_adapters.viz import ShapeResult, contact_sheet
from probemb_lib import (
    CenterAwareLoss,
    GaussianEmbedding,
    HeadOutput,
    Instances,
    ProbabilisticEmbeddingLoss,
    ProbabilisticHead,
    fit_threshold,
    greedy_cluster,
)
from probemb_lib.metrics import PartNetAP

PROJECT = Path(__file__).resolve().parent.parent


@dataclass
class Options:
    """Settings; what is left out is chosen for the data: the paper's for PartNet, a few minutes' for the furniture."""

    root: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """folder with PartNet's ins_seg_h5 and stats; without it the open furniture"""
    category: str = "Furniture"
    """object category, such as Chair"""
    level: int = 1
    """level of the part hierarchy: 1 coarse, 2 middle, 3 fine"""
    class_agnostic: bool | None = None
    """find parts without naming them; by default for the furniture's level 1, which has one class"""
    epochs: int | None = None
    """passes over the training shapes (paper: 500)"""
    batch_size: int | None = None
    """shapes a step (paper: 16)"""
    train_points: int | None = None
    """points of a shape in training (paper: 10,000)"""
    points: int = 10_000
    """points of a shape in validation and test (paper: 10,000)"""
    learning_rate: float = 1e-3
    """of Adam (paper: 0.001), halved twice"""
    halve_at: tuple[float, float] | None = None
    """fractions of the epochs after which it is halved (paper: 0.1 and 0.3, epochs 50 and 150)"""
    offset_scale: float = 1.0
    """farthest offset from a point to its centre, in units of the shape's radius (paper: 1)"""
    workers: int | None = None
    """processes that read shapes; by default 4 for PartNet, none for the furniture"""
    max_shapes: int | None = None
    """use only so many shapes of each split, for a quick look"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cuda or cpu"""
    seed: int = 0
    """of everything random"""
    output: Path = Path("runs/partnet_pointnet2")
    """folder for metrics.json, model.safetensors and shapes.png"""


def resolve(options: Options) -> Options:
    """Fill in what the data decides, and write the furniture on first use."""
    real = options.root is not None
    if not real:
        options.root = PROJECT / ".cache" / "furniture"
        report = write_furniture(PROJECT / "data" / "furniture_parts", options.root)
        print(report)
    defaults = {
        "class_agnostic": not real and options.level == 1,
        "epochs": 500 if real else 20,
        "batch_size": 16 if real else 4,
        "train_points": 10_000 if real else 2_048,
        "halve_at": (0.1, 0.3) if real else (0.6, 0.85),
        "workers": 4 if real else 0,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


class Network(nn.Module):
    """PointNet++ features into the probabilistic head."""

    def __init__(self, num_classes: int, offset_scale: float) -> None:
        super().__init__()
        self.backbone = PointNet2()
        self.head = ProbabilisticHead(128, num_classes, offset_scale=offset_scale)

    def forward(self, data: Data) -> HeadOutput:
        clouds = data.num_graphs if data.batch is not None else 1
        features = self.backbone(data.pos.view(clouds, -1, 3))  # shapes of a batch have equally many points
        return self.head(features.flatten(0, 1), data.pos, data.batch)


def load(options: Options, split: str, train: bool) -> PartNetInstances | list[Data]:
    data = PartNetInstances(
        options.root,
        options.category,
        options.level,
        split,
        num_points=options.train_points if train else options.points,
        transform=paper_augmentation() if train else None,
        class_agnostic=options.class_agnostic,
    )
    if options.max_shapes is not None:
        return torch.utils.data.Subset(data, range(min(options.max_shapes, len(data))))
    return data


def train(network: Network, data: Sequence[Data], options: Options) -> list[float]:
    """Mean loss of each epoch."""
    loader = DataLoader(
        data, options.batch_size, shuffle=True, drop_last=len(data) > options.batch_size, num_workers=options.workers
    )
    # With a single class the score map must tell centres from the rest by itself: see docs/decisions.md.
    loss_function = ProbabilisticEmbeddingLoss(CenterAwareLoss(complement=options.class_agnostic))
    optimizer = torch.optim.Adam(network.parameters(), options.learning_rate)
    schedule = MultiStepLR(optimizer, [round(f * options.epochs) for f in options.halve_at], gamma=0.5)
    history = []
    with tqdm(total=options.epochs * len(loader), desc="training", unit="step") as progress:
        for epoch in range(1, options.epochs + 1):
            network.train()
            total = 0.0
            for batch in loader:
                batch = batch.to(options.device)
                losses = loss_function(network(batch), batch.instance, batch.semantic, batch.batch)
                optimizer.zero_grad()
                losses["loss"].backward()
                optimizer.step()
                total += losses["loss"].item()
                progress.update()
            schedule.step()
            history.append(total / len(loader))
            progress.set_postfix(epoch=f"{epoch}/{options.epochs}", loss=f"{history[-1]:.3f}")
    return history


@torch.no_grad()
def predict(network: Network, shapes: Sequence[Data], options: Options, name: str) -> list[HeadOutput]:
    network.eval()
    return [network(shape.to(options.device)) for shape in tqdm(DataLoader(shapes, 1), desc=name, unit="shape")]


def evaluate(
    found: Sequence[Instances], targets: Sequence[EvaluationTargets], num_classes: int, background: int | None
) -> PartNetAP:
    metric = PartNetAP(num_classes)
    for instances, target in zip(found, targets, strict=True):
        # The metric counts part classes from 0; a background column stands before them.
        classes = instances.semantic if background is None else instances.semantic - 1
        metric.update_labels(instances.label, classes, instances.score, *target)
    return metric


def main() -> None:
    options = resolve(tyro.cli(Options, description=__doc__.splitlines()[0]))
    seed_everything(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)

    splits = {name: load(options, name, train=name == "train") for name in ("train", "val", "test")}
    classes = getattr(splits["test"], "dataset", splits["test"]).classes
    network = Network(len(classes) + 1, options.offset_scale).to(options.device)
    print(
        f"\n{options.category}, level {options.level}: {len(classes)} classes, "
        + ", ".join(f"{len(data)} {name}" for name, data in splits.items())
        + f" shapes; {options.epochs} epochs with {options.train_points} points a shape on {options.device}"
    )
    start = time.perf_counter()
    history = train(network, splits["train"], options)
    seconds = time.perf_counter() - start
    save_file(network.state_dict(), options.output / "model.safetensors")

    # Trained with complement=True, the background column tells points far from a centre, not points of no part:
    # then all points are clustered, by the foreground column alone.
    background = None if options.class_agnostic else 0
    first_column = 1 if options.class_agnostic else 0

    def outputs(shapes: Sequence[Data], name: str) -> list[tuple[GaussianEmbedding, Tensor]]:
        predicted = predict(network, shapes, options, name)
        return [(o.embedding, o.probabilities[:, first_column:]) for o in predicted]

    def mean_ap(found: Sequence[Instances], targets: Sequence[EvaluationTargets]) -> float:
        return float(evaluate(found, targets, len(classes), background).compute()["part_map"][1])

    # The threshold with the best mAP at IoU 0.5 on validation, then the test set once.
    val, test = list(splits["val"]), list(splits["test"])  # read once
    validation = [evaluation_targets(data) for data in val]
    grid = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8]
    fit = fit_threshold(outputs(val, "val"), validation, mean_ap, grid, background=background)
    tested, targets = outputs(test, "test"), [evaluation_targets(data) for data in test]
    found = [greedy_cluster(*output, threshold=fit.threshold, background=background) for output in tested]
    result = evaluate(found, targets, len(classes), background).compute()

    shapes = [
        ShapeResult(data.anno_id, data.pos, data.instance, instances, embedding.log_std)
        for data, instances, (embedding, _) in zip(test, found, tested, strict=True)
    ]
    some = shapes[:: -(-len(shapes) // 6)]  # at most six, from all over the test set
    picture = contact_sheet(some, options.output / "shapes.png", title="Test shapes, found parts at IoU 0.5")
    metrics = {
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()},
        "iou_thresholds": [0.25, 0.5, 0.75],
        "part_map": result["part_map"].tolist(),
        "shape_map": result["shape_map"].tolist(),
        "class_ap": dict(zip(classes, result["class_ap"].T.tolist(), strict=True)),
        "class_instances": dict(zip(classes, result["class_gt_count"].tolist(), strict=True)),
        "threshold": fit.threshold,
        "validation": dict(zip(map(str, fit.grid), fit.metrics, strict=True)),
        "training_loss": history,
        "training_seconds": seconds,
        "torch": torch.__version__,
    }
    (options.output / "metrics.json").write_text(json.dumps(metrics, indent=2))

    print(f"\nthreshold {fit.threshold} (validation mAP at 0.5: {fit.metric:.3f}), trained in {seconds / 60:.1f} min")
    print(f"\n{len(targets)} test shapes{'IoU 0.25':>22}{'0.5':>10}{'0.75':>10}")
    rows = {"part mAP": result["part_map"], "shape mAP": result["shape_map"]}
    if len(classes) > 1:
        rows |= {name: result["class_ap"][:, i] for i, name in enumerate(classes) if result["class_valid"][i]}
    for name, values in rows.items():
        print(f"{name:<24}" + "".join(f"{100 * v:10.1f}" for v in values))
    print(f"\npicture  {picture}\nmetrics  {options.output / 'metrics.json'}")


if __name__ == "__main__":
    main()
