"""PointNet++ with probabilistic embeddings on PartNet: train, fit the threshold, evaluate, predict, report.

Without --root it trains on data that comes with the project, in PartNet's own file layout: the open furniture
(category Furniture) or generated shapes (Chair, Table, Lamp, StorageFurniture). With --root it reads PartNet and takes
the settings of the paper:

    python examples/partnet_pointnet2.py
    python examples/partnet_pointnet2.py --root /data/partnet --category Chair --level 3
    torchrun --nproc-per-node 4 examples/partnet_pointnet2.py --root /data/partnet --category Chair --level 3
    python examples/partnet_pointnet2.py --evaluate checkpoints/furniture.safetensors --baselines
    python examples/partnet_pointnet2.py --evaluate checkpoints/furniture.safetensors --predict scan.ply shelf.npz
"""

from __future__ import annotations

import os

# Threads that spin while they wait crawl as soon as anything else runs; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from probemb_adapters.clouds import nearest, unit_sphere, write_instances
from probemb_adapters.experiments.baselines import BASELINES, Clusters, fit_baseline
from probemb_adapters.experiments.run import (
    RunOptions,
    clouds_to_predict,
    load_model,
    merged,
    save_model,
    settings_of,
    train_network,
    with_defaults,
    write_metrics,
    write_results,
)
from probemb_adapters.experiments.variants import DETERMINISTIC, HEADS, SCORE_LOSSES, Embedding, ScoreLossName
from probemb_adapters.networks.pointnet2 import PointNet2, local_covariance
from probemb_adapters.partnet import (
    POINTS,
    EvaluationTargets,
    PartNetInstances,
    evaluation_targets,
    paper_augmentation,
    read_classes,
    upright_augmentation,
)
from probemb_adapters.partnet.detection import PartNetDetection
from probemb_adapters.partnet.predictions import shape_predictions, write_ground_truth, write_predictions
from probemb_adapters.report import (
    Row,
    Section,
    Table,
    fit_chart,
    loss_chart,
    precision_recall_charts,
    write_report,
)
from probemb_adapters.report.pictures import ShapeResult, instance_colors
from probemb_adapters.training import gather_in_order, share_of, start_fabric
from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    Instances,
    ProbabilisticEmbeddingLoss,
    ThresholdFit,
    fit_threshold,
    greedy_cluster,
)
from probemb_lib.metrics import PartNetAP
from probemb_shapes.families import FAMILIES, write_generated
from probemb_shapes.furniture import write_furniture

PROJECT = Path(__file__).resolve().parent.parent


@dataclass
class Options(RunOptions):
    """Settings; what is left out is chosen for the data: the paper's for PartNet, a few minutes' for the rest."""

    # --- data
    root: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """folder with PartNet's stats and ins_seg_h5 or ins_seg_h5_for_detection; without it the open furniture or
    generated shapes"""
    category: str = "Furniture"
    """object category, such as Chair"""
    level: int = 1
    """level of the part hierarchy: 1 coarse, 2 middle, 3 fine"""
    class_agnostic: bool | None = None
    """find parts without naming them; by default for the furniture's level 1, which has one class"""
    points: int = 10_000
    """points of a shape in validation and test (paper: 10,000)"""
    generated_shapes: int = 1_000
    """training shapes to write of a generated category; a tenth of it for validation and for test"""
    add_generated: bool = False
    """train on all generated categories as well, at level 3; class-agnostic only"""
    real_share: float = 0.5
    """share of the category's own shapes among those drawn for training, where generated ones are added"""
    max_shapes: int | None = None
    """use only so many shapes of each split, for a quick look"""
    # --- training
    epochs: int | None = None
    """passes over the training shapes (paper: 500)"""
    epoch_shapes: int | None = None
    """shapes an epoch; by default as many as there are (paper: all)"""
    batch_size: int | None = None
    """shapes a step, over all processes (paper: 16)"""
    train_points: int | None = None
    """points of a shape in training (paper: 10,000)"""
    learning_rate: float = 1e-3
    """of Adam, highest (paper: 0.001)"""
    halve_at: tuple[float, float] = (0.1, 0.3)
    """fractions of the training after which it is halved (paper: 0.1 and 0.3, epochs 50 and 150 of 500)"""
    max_norm: float | None = None
    """gradients of a larger norm are scaled down to it (paper: no limit)"""
    augmentation: Literal["paper", "upright"] | None = None
    """paper: rotated by up to 15 degrees, moved by 0.01, jittered; upright: mirrored, stretched and jittered"""
    width: float = 1.0
    """factor of the widths of PointNet++'s layers (paper: 1)"""
    local_geometry: bool = False
    """give the network the covariance of each point's neighbours as input features (paper: positions alone)"""
    offset_scale: float = 1.0
    """farthest offset from a point to its centre, in units of the shape's radius (paper: 1)"""
    start_from: Annotated[Path | None, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """trained model whose weights to start from (paper: none)"""
    # --- variants of the method, compared by studies/ablation.py
    embedding: Embedding = "probabilistic"
    """Gaussians with a sigma for each point and dimension; isotropic: one for all dimensions; homoscedastic: one for
    all points of a shape; deterministic: points with a Euclidean kernel, cosine: with one of angles (paper: all but the
    last, in Table 2)"""
    initial_std: float | None = None
    """about what sigma is before training, in units of the shape's radius (paper: 1)"""
    score_loss: ScoreLossName | None = None
    """of the score maps; by default complement where parts have no classes, else center-aware (paper: center-aware)"""
    covariance: Literal["mean", "independent"] = "mean"
    """of an instance: the mean of its points' covariances, or that over the number of points"""
    entropy: Literal["mean", "sum"] = "mean"
    """of the points' entropies (paper: sum, with which training collapses)"""
    bce_weight: float = 1.0
    """of the binary cross entropy beside log-Dice (paper: 1)"""
    per_instance_dice: bool = False
    """log-Dice of each instance, averaged, instead of one over all"""
    class_aware: bool = False
    """cluster only points whose likeliest class is that of the seed"""
    threshold: float | None = None
    """similarity to the seed from which points belong to its instance; by default fitted on validation (paper: too)"""
    refine: bool = False
    """let the members of each found instance decide which points, class and score it has (paper: the seed decides)"""
    # --- what to do
    output: Path = Path("runs/partnet_pointnet2")
    """folder for checkpoints, metrics, pictures and the report"""
    baselines: bool = False
    """also DBSCAN, HDBSCAN and mean shift on positions, parameters picked on validation; class-agnostic only"""
    official_files: bool = False
    """also write ground truth and predictions of the test split in PartNet's h5 layout, for its own evaluator"""
    up: Literal["x", "y", "z"] = "y"
    """axis of the files to predict that points up (PartNet: y)"""


def resolve(options: Options) -> Options:
    """Fill in what the data decides."""
    real = options.root is not None
    defaults = {
        "class_agnostic": not real and options.category == "Furniture" and options.level == 1,
        "epochs": 500 if real else 20,
        "batch_size": 16 if real else 4,
        "train_points": 10_000 if real else 2_048,
        "schedule": "halved" if real else "one-cycle",
        "augmentation": "paper" if real else "upright",
        "workers": 4 if real else 0,
    }
    options = with_defaults(options, defaults)
    options = with_defaults(options, {"score_loss": "complement" if options.class_agnostic else "center-aware"})
    if options.add_generated and not options.class_agnostic:
        raise SystemExit("--add-generated needs --class-agnostic: generated parts have other classes")
    if options.initial_std is not None and options.embedding in DETERMINISTIC:
        raise SystemExit(f"--initial-std needs an embedding with sigma to learn, not {options.embedding}")
    if options.official_files and len(options.evaluate) > 1:
        raise SystemExit("--official-files needs one model: --evaluate CHECKPOINT")
    if options.predict and len(options.evaluate) != 1:
        raise SystemExit("--predict needs one model: --evaluate CHECKPOINT --predict FILES")
    if options.official_files:
        if options.max_shapes is not None or options.points != POINTS:
            raise SystemExit(
                f"--official-files needs all test shapes and {POINTS} points: no --max-shapes, no --points"
            )
        if options.class_agnostic and (real or options.category != "Furniture" or options.level != 1):
            raise SystemExit(
                "--official-files needs classes, as PartNet's evaluator compares them: no --class-agnostic"
            )
        if (options.output / "predictions").exists():
            raise SystemExit(
                f"--official-files: {options.output / 'predictions'} is there already; take another --output"
            )
    return options


# --- data


def prepare_data(options: Options, fabric: Fabric) -> Path:
    """The folder to read; what comes with the project is written into it by the first process."""
    if options.root is not None:
        return options.root
    with fabric.rank_zero_first():
        if options.category in FAMILIES:
            return write_category(options.category, options)
        write_furniture(PROJECT / "data" / "furniture_parts", PROJECT / ".cache" / "furniture")
    return PROJECT / ".cache" / "furniture"


def write_category(category: str, options: Options) -> Path:
    """Generated shapes, in a folder for each number of them; nothing to do where they are there."""
    root = PROJECT / ".cache" / "generated" / f"{category}-{options.generated_shapes}"
    others = max(4, options.generated_shapes // 10)
    bar = partial(tqdm, desc=f"writing {category}", unit="shape")
    write_generated(root, category, train=options.generated_shapes, val=others, test=others, progress=bar)
    return root


def read_split(root: Path, options: Options, split: str, category: str | None = None, level: int = 0) -> Dataset[Data]:
    augmentation = upright_augmentation() if options.augmentation == "upright" else paper_augmentation()
    # PartNet's network-ready files are read where the raw ones are not there.
    ready = (root / "ins_seg_h5_for_detection").is_dir() and not (root / "ins_seg_h5").is_dir()
    reader = PartNetDetection if ready else PartNetInstances
    data = reader(
        root,
        category or options.category,
        level or options.level,
        split,
        num_points=options.train_points if split == "train" else options.points,
        transform=augmentation if split == "train" else None,
        class_agnostic=options.class_agnostic,
    )
    return data if options.max_shapes is None else Subset(data, range(min(options.max_shapes, len(data))))


def training_data(root: Path, options: Options, fabric: Fabric) -> tuple[Dataset[Data], list[float] | None]:
    """The training shapes and, where generated ones are added, how often each is drawn."""
    own = read_split(root, options, "train")
    if not options.add_generated:
        return own, None
    with fabric.rank_zero_first():
        folders = {name: write_category(name, options) for name in FAMILIES}
    added = ConcatDataset([read_split(folder, options, "train", name, level=3) for name, folder in folders.items()])
    weights = [options.real_share / len(own)] * len(own) + [(1 - options.real_share) / len(added)] * len(added)
    return ConcatDataset([own, added]), weights


# --- network


class Network(nn.Module):
    """PointNet++ features into the head."""

    def __init__(self, num_classes: int, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.local_geometry = about["local_geometry"]
        self.backbone = PointNet2(in_channels=6 if self.local_geometry else 0, width=about["width"])
        own = {"initial_std": about["initial_std"]} if about.get("initial_std") is not None else {}
        self.head = HEADS[about["embedding"]](128, num_classes, offset_scale=about["offset_scale"], **own)

    def forward(self, data: Data) -> HeadOutput:
        clouds = data.num_graphs if data.batch is not None else 1
        positions = data.pos.view(clouds, -1, 3)  # shapes of a batch have equally many points
        features = self.backbone(positions, local_covariance(positions) if self.local_geometry else None)
        return self.head(features.flatten(0, 1), data.pos, data.batch)


@dataclass
class Model:
    """A trained network and what is needed to use it."""

    network: Network
    classes: tuple[str, ...]
    about: dict[str, Any]

    @property
    def class_agnostic(self) -> bool:
        return bool(self.about["class_agnostic"])

    @property
    def background(self) -> int | None:
        # Trained with complement=True, the background column tells points far from a centre, not points of no part:
        # then all points are clustered, by the foreground columns alone (docs/decisions.md).
        return None if self.class_agnostic or self.about.get("score_loss") == "complement" else 0

    @property
    def clustering(self) -> dict[str, Any]:
        """What :func:`~probemb_lib.greedy_cluster` is told beside the threshold."""
        chosen = {name: self.about.get(name, False) for name in ("class_aware", "refine")}  # older files do not say
        return {"background": self.background, **chosen}

    def options(self, **changes: Any) -> Options:
        """Those of the data that it was trained on."""
        names = ("category", "level", "class_agnostic", "generated_shapes")
        return resolve(Options(**{name: self.about[name] for name in names if name in self.about}, **changes))

    def save(self, path: Path) -> Path:
        return save_model(path, self.network, self.classes, self.about)

    @classmethod
    def load(cls, path: Path) -> Model:
        return cls(*load_model(path, lambda classes, about: Network(classes + 1, about)))

    @torch.no_grad()
    def predict(self, data: Data, fabric: Fabric) -> tuple[GaussianEmbedding, Tensor]:
        """Embeddings (N, D) and probabilities of the columns that are clustered (N, L)."""
        output = self.network.to(fabric.device).eval()(data.to(fabric.device))
        return output.embedding, output.probabilities[:, 1:] if self.background is None else output.probabilities


# --- training


def train_model(root: Path, options: Options, fabric: Fabric) -> tuple[Model, list[dict[str, float]]]:
    data, weights = training_data(root, options, fabric)
    classes = read_classes_of(root, options)
    fabric.seed_everything(options.seed, verbose=False)
    about = about_model(options)
    network = Network(len(classes) + 1, about)
    if options.start_from is not None:
        network.load_state_dict(Model.load(options.start_from).network.state_dict())
    assert options.score_loss is not None  # resolve chose it
    # With a single class the score map must tell centres from the rest by itself: see docs/decisions.md.
    loss_function = ProbabilisticEmbeddingLoss(
        SCORE_LOSSES[options.score_loss](),
        covariance=options.covariance,
        per_instance_dice=options.per_instance_dice,
        entropy_reduction=options.entropy,
        bce_weight=options.bce_weight,
    )

    def losses(network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return loss_function(network(batch), batch.instance, batch.semantic, batch.batch)

    fabric.print(f"\n{options.category}, level {options.level}: {len(classes)} classes, {options.train_points} points")
    history = train_network(
        network, data, losses, options, fabric, settings=about, draws=options.epoch_shapes, weights=weights
    )
    return Model(network.eval(), classes, about), history


def read_classes_of(root: Path, options: Options) -> tuple[str, ...]:
    return ("part",) if options.class_agnostic else read_classes(root, options.category, options.level)


def about_model(options: Options) -> dict[str, Any]:
    return settings_of(options, leave_out=("baselines", "official_files", "up"))


# --- evaluation

THRESHOLDS = {  # the deterministic kernel exp(-distance^2) is near one for all points of a shape
    "probabilistic": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8),
    "deterministic": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99),
}


def threshold_grid(model: Model) -> tuple[float, ...]:
    return THRESHOLDS["deterministic" if model.about["embedding"] in DETERMINISTIC else "probabilistic"]


@dataclass
class Evaluation:
    """What one method finds on the test split."""

    name: str
    metric: PartNetAP
    parameters: dict[str, Any]
    validation: dict[str, float]  # mAP at IoU 0.5 on validation, for each value that was tried
    fit: ThresholdFit | None = None
    shapes: Sequence[ShapeResult] = ()

    def values(self) -> dict[str, Tensor]:
        """Part mAP and shape mAP at each IoU threshold, in per cent."""
        result = self.metric.compute()
        return {"part mAP": 100 * result["part_map"], "shape mAP": 100 * result["shape_map"]}


class Split:
    """This process's share of a split, read once."""

    def __init__(self, root: Path, options: Options, split: str, fabric: Fabric) -> None:
        data = read_split(root, options, split)
        self.shapes = [data[i] for i in share_of(fabric, len(data))]
        self.targets = [evaluation_targets(shape) for shape in self.shapes]


def score(
    found: Sequence[Instances | Clusters],
    targets: Sequence[EvaluationTargets],
    classes: int,
    first: int,
    fabric: Fabric,
) -> PartNetAP:
    """The metric over the shapes of all processes, in the order of the split; ``first``: number of the first class."""
    metric = PartNetAP(classes)
    for instances, target in zip(found, targets, strict=True):
        metric.update_labels(instances.label, instances.semantic - first, instances.score, *target)
    return merged(metric, fabric)


def write_official_files(
    root: Path, test: Split, found: Sequence[Instances], first: int, options: Options, fabric: Fabric
) -> None:
    """`ins_seg_h5_gt` and `predictions` in the output folder, as PartNet's own evaluator reads them."""
    some = [Data(point=shape.point, shape_id=shape.shape_id) for shape in test.shapes]
    pairs = chain(*gather_in_order(fabric, list(zip(some, found, strict=True))))
    if fabric.is_global_zero:
        write_ground_truth(root, options.category, options.level, output=options.output)
        truth = options.output / "ins_seg_h5_gt" / f"{options.category}-{options.level}"
        shapes = (shape_predictions(data, f.masks(), f.semantic - first, f.score) for data, f in pairs)
        write_predictions(options.output / "predictions", truth, shapes)


def evaluate_model(
    name: str, model: Model, root: Path, val: Split, test: Split, options: Options, fabric: Fabric
) -> Evaluation:
    """Fit τ on validation, by mAP at IoU 0.5; then take the test split once."""
    first = 0 if model.background is None else 1  # the metric counts part classes from 0

    def outputs(split: Split, what: str) -> list[tuple[GaussianEmbedding, Tensor]]:
        bar = tqdm(split.shapes, desc=f"{name}, {what}", unit="shape", disable=not fabric.is_global_zero)
        return [model.predict(shape, fabric) for shape in bar]

    def mean_ap(found: Sequence[Instances], targets: Sequence[EvaluationTargets]) -> float:
        return float(score(found, targets, len(model.classes), first, fabric).part_map()[1])

    grid = threshold_grid(model) if options.threshold is None else (options.threshold,)
    fit = fit_threshold(outputs(val, "validation"), val.targets, mean_ap, grid, **model.clustering)
    tested = outputs(test, "test")
    found = [greedy_cluster(*output, threshold=fit.threshold, **model.clustering) for output in tested]
    metric = score(found, test.targets, len(model.classes), first, fabric)
    model.about["threshold"] = fit.threshold
    if options.official_files:
        write_official_files(root, test, found, first, options, fabric)

    shapes = [
        ShapeResult(
            name=shape.anno_id,
            pos=shape.pos,
            truth=shape.instance,
            found=instances,
            log_std=embedding.log_std,
            mean=embedding.mean,
            truth_classes=target.gt_classes + first,
        )
        for shape, target, instances, (embedding, _) in zip(test.shapes, test.targets, found, tested, strict=True)
    ]
    shown = -(-options.report_shapes // fabric.world_size)
    shapes = shapes[:: max(1, -(-len(shapes) // shown))]  # from all over the test set
    return Evaluation(
        name,
        metric,
        {"threshold": fit.threshold},
        dict(zip(map(str, fit.grid), fit.metrics, strict=True)),
        fit,
        list(chain(*gather_in_order(fabric, shapes))),
    )


def evaluate_baselines(val: Split, test: Split, fabric: Fabric) -> list[Evaluation]:
    """What one has without a network: clusters of the positions, parameters picked on validation as τ is."""

    def mean_ap(found: Sequence[Clusters], targets: Sequence[EvaluationTargets]) -> float:
        return float(score(found, targets, 1, 0, fabric).part_map()[1])

    evaluations = []
    for name, grid in BASELINES.items():
        bar = partial(tqdm, desc=f"{name}, validation", unit="setting", disable=not fabric.is_global_zero)
        fit = fit_baseline(grid, [shape.pos for shape in val.shapes], val.targets, mean_ap, progress=bar)
        found = [fit.clusterer(shape.pos) for shape in test.shapes]
        validation = dict(zip(map(str, fit.grid), fit.metrics, strict=True))
        metric = score(found, test.targets, 1, 0, fabric)
        evaluations.append(Evaluation(f"{name} on positions", metric, asdict(fit.clusterer), validation))
    return evaluations


def paper_rows(options: Options) -> dict[str, dict[float, float]]:
    """What the paper's tables say of this category and level: method -> IoU threshold -> part mAP in per cent."""
    rows: dict[str, dict[float, float]] = {}
    if options.root is None:
        return rows  # another data set, even where a category has the same name
    with (PROJECT / "adapters/probemb_adapters/experiments/paper/partnet_map.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["category"] == options.category and int(row["level"]) == options.level:
                rows.setdefault(row["method"], {})[float(row["iou_threshold"])] = float(row["map_percent"])
    return rows


# --- results


def table(evaluations: Sequence[Evaluation], classes: Sequence[str], options: Options) -> list[Table]:
    """Methods × IoU thresholds, the paper's rows beside ours; and classes × thresholds of the first method."""
    ious = evaluations[0].metric.iou_thresholds
    heads = [f"{kind} @{iou:g}" for kind in ("part mAP", "shape mAP") for iou in ious]
    rows = [Row(e.name, [float(v) for values in e.values().values() for v in values]) for e in evaluations]
    for method, values in paper_rows(options).items():
        rows.append(Row(f"{method} (paper)", [*(values.get(iou) for iou in ious), *[None] * len(ious)], quoted=True))
    tables = [Table("Test split, per cent", heads, rows)]
    if len(classes) > 1:
        result = evaluations[0].metric.compute()
        rows = [
            Row(name, [int(result["class_gt_count"][c]), *(100 * result["class_ap"][:, c]).tolist()])
            for c, name in enumerate(classes)
            if result["class_valid"][c]
        ]
        tables.append(Table(f"Classes, {evaluations[0].name}", ["instances", *(f"AP @{iou:g}" for iou in ious)], rows))
    return tables


def section(
    title: str,
    text: str,
    evaluations: Sequence[Evaluation],
    classes: Sequence[str],
    options: Options,
    history: Sequence[Mapping[str, float]] = (),
) -> Section:
    """One part of the report: the first method's shapes, all methods' tables and curves."""
    charts = precision_recall_charts({e.name: e.metric for e in evaluations}, classes)
    charts += [replace(fit_chart(e.fit), title=f"Threshold: {e.name}") for e in evaluations if e.fit is not None]
    if history:
        charts.append(loss_chart([epoch["loss"] for epoch in history]))
    return Section(
        title=title,
        text=text,
        shapes=evaluations[0].shapes,
        tables=table(evaluations, classes, options),
        charts=charts,
        classes=classes if options.class_agnostic else ["other", *classes],
        noun="part",
    )


def write_numbers(
    evaluations: Sequence[Evaluation],
    classes: Sequence[str],
    options: Options,
    history: Sequence[Mapping[str, float]] = (),
) -> None:
    """metrics.json with everything, metrics.csv with a line a number."""
    lines = [("method", "source", "metric", "iou_threshold", "percent")]
    methods = {}
    for e in evaluations:
        result, ious = e.metric.compute(), e.metric.iou_thresholds
        by_class = dict(zip(classes, (100 * result["class_ap"]).T.tolist(), strict=True))
        values = {name: v.tolist() for name, v in e.values().items()}
        methods[e.name] = {
            "parameters": e.parameters,
            "validation_part_map_at_0.5": e.validation,
            **values,
            "class_ap": by_class,
            "class_instances": dict(zip(classes, result["class_gt_count"].tolist(), strict=True)),
        }
        for name, numbers in {**values, **{f"AP {c}": v for c, v in by_class.items()}}.items():
            lines += [(e.name, "measured", name, iou, round(v, 3)) for iou, v in zip(ious, numbers, strict=True)]
    for method, values in paper_rows(options).items():
        lines += [(method, "paper", "part mAP", iou, v) for iou, v in values.items()]
    metrics = {
        "methods": methods,
        "iou_thresholds": evaluations[0].metric.iou_thresholds,
        "paper": paper_rows(options),
        "training": list(history),
    }
    write_metrics(options.output, metrics, options, lines)


# --- what the commands do


def run_training(options: Options, fabric: Fabric) -> tuple[Model, list[Evaluation], list[dict[str, float]]]:
    root = prepare_data(options, fabric)
    model, history = train_model(root, options, fabric)
    val, test = Split(root, options, "val", fabric), Split(root, options, "test", fabric)
    evaluations = [evaluate_model(options.embedding, model, root, val, test, options, fabric)]
    if options.baselines:
        evaluations += evaluate_baselines(val, test, fabric)
    if fabric.is_global_zero:
        model.save(options.output / "model.safetensors")
    return model, evaluations, history


def run_evaluation(options: Options, fabric: Fabric) -> tuple[tuple[str, ...], list[Evaluation]]:
    models = {path: Model.load(path) for path in options.evaluate}
    first = next(iter(models.values()))
    options.class_agnostic = first.class_agnostic
    resolve(options)  # checks again
    root = prepare_data(options, fabric)
    classes = read_classes_of(root, options)
    val, test = Split(root, options, "val", fabric), Split(root, options, "test", fabric)
    evaluations = []
    for path, model in models.items():
        model.about["refine"] = model.clustering["refine"] or options.refine
        if model.classes != classes:
            raise SystemExit(f"{path} knows the classes {model.classes}, but the data have {classes}")
        name = str(model.about["embedding"])
        if [m.about["embedding"] for m in models.values()].count(name) > 1:
            name = f"{name} ({path})"
        evaluations.append(evaluate_model(name, model, root, val, test, options, fabric))
    if options.baselines:
        evaluations += evaluate_baselines(val, test, fabric)
    return classes, evaluations


def run_prediction(options: Options, fabric: Fabric) -> None:
    """Segment the user's own clouds; results lie in the output folder under the names of the files."""
    model = Model.load(options.evaluate[0])
    model.about["refine"] = model.clustering["refine"] or options.refine
    first = 0 if model.background is None else 1
    threshold = model.about["threshold"] if options.threshold is None else options.threshold
    clouds = clouds_to_predict(options)
    shapes = []
    for cloud in tqdm(clouds, desc="predicting", unit="cloud"):
        pos = unit_sphere(cloud.pos, options.up)
        # As many points as in training; the others take what their nearest neighbour has.
        order = torch.randperm(len(pos), generator=torch.Generator().manual_seed(options.seed))[: options.points]
        embedding, probabilities = model.predict(Data(pos=torch.from_numpy(pos[order])), fabric)
        found = greedy_cluster(embedding, probabilities, threshold=threshold, **model.clustering)
        row = torch.from_numpy(nearest(pos, pos[order]))
        embedding = embedding.select(row)
        found = replace(found, label=found.label[row], seed=order[found.seed], point_batch=found.point_batch[row])
        colors = (255 * instance_colors(len(found))).astype("uint8")
        write_instances(options.output / cloud.name, cloud, found, embedding, colors)
        rgb = None if cloud.rgb is None else torch.from_numpy(cloud.rgb)
        shapes.append(
            ShapeResult(cloud.name, torch.from_numpy(pos), None, found, embedding.log_std, embedding.mean, rgb)
        )
        sizes = torch.bincount(found.label[found.label >= 0], minlength=len(found)).tolist()
        names = [model.classes[int(c) - first] for c in found.semantic]
        tqdm.write(
            f"{cloud.name}: {len(found)} parts, largest "
            + ", ".join(
                f"{name} ({size} points)" for size, name in sorted(zip(sizes, names, strict=True), reverse=True)[:4]
            )
        )
    classes = model.classes if first == 0 else ("other", *model.classes)
    part = Section("Predicted clouds", shapes=shapes, classes=classes, noun="part")
    page = write_report(options.output / "report.html", "Parts found in your clouds", [part])
    print(f"\nresults  {options.output}/*.npz and *.ply\nreport   {page}")


def main() -> None:
    options = resolve(tyro.cli(Options, description=__doc__))
    fabric = start_fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        log_dir=options.output / "tensorboard" if not options.evaluate else None,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    if options.predict:
        run_prediction(options, fabric)
        return
    title = f"{options.category}, level {options.level}"
    if options.evaluate:
        classes, evaluations = run_evaluation(options, fabric)
        text, history = f"Models: {', '.join(map(str, options.evaluate))}.", []
    else:
        model, evaluations, history = run_training(options, fabric)
        classes, text = (
            model.classes,
            f"Trained for {options.epochs} epochs on {fabric.world_size} × {fabric.device.type}.",
        )
    if fabric.is_global_zero:
        write_numbers(evaluations, classes, options, history)
        page = section(title, text, evaluations, classes, options, history)
        print(write_results("Parts found in point clouds", [page], options))


if __name__ == "__main__":
    main()
