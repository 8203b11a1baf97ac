"""MinkowskiNet with probabilistic embeddings, and with learnable margins, on ScanNet: train, evaluate, submit, report.

Without --root it writes rooms furnished with open models, in ScanNet's own files, and trains a small network on them.
With --root it reads ScanNet v2 and takes MinkUNet34C on voxels of 2 cm. Both methods are trained on the same backbone,
scenes and schedule; the parameter of each clustering is picked on training scenes that are held out:

    python examples/scannet_minkowski.py
    python examples/scannet_minkowski.py --root /data/scannet
    torchrun --nproc-per-node 4 examples/scannet_minkowski.py --root /data/scannet --precision 16-mixed
    python examples/scannet_minkowski.py --root /data/scannet --evaluate model.safetensors --split test
    python examples/scannet_minkowski.py --evaluate model.safetensors --predict office.ply floor.ply

It needs MinkowskiEngine: make minkowski, or python -m probemb_adapters.networks.minkowski_build.
"""

from __future__ import annotations

import os

# Threads that spin while they wait crawl as soon as anything else runs; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import csv
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from probemb_adapters.clouds import Cloud, write_instances
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
from probemb_adapters.networks.minkowski import MinkowskiBackbone
from probemb_adapters.networks.minkunet import MinkUNet14A, MinkUNet18A, MinkUNet34C
from probemb_adapters.networks.pretrained import load_pretrained
from probemb_adapters.report import Chart, Line, Row, Section, Table, fit_chart, loss_chart, write_report
from probemb_adapters.report.pictures import ShapeResult, instance_colors, z_up
from probemb_adapters.scannet import INSTANCE_CLASSES, INSTANCE_IDS, ScanNetScenes, evaluation_target
from probemb_adapters.scannet.augment import scene_augmentation
from probemb_adapters.scannet.submission import scene_predictions, write_submission
from probemb_adapters.training import gather_in_order, share_of, start_fabric
from probemb_lib import (
    GaussianEmbedding,
    HeadOutput,
    Instances,
    LearnableMarginHead,
    LearnableMarginLoss,
    ProbabilisticEmbeddingLoss,
    ProbabilisticHead,
    ThresholdFit,
    cluster_tiles,
    greedy_cluster,
    margin_cluster,
)
from probemb_lib.margin.head import MarginOutput
from probemb_lib.metrics import ScanNetAP
from probemb_lib.metrics.scannet import THRESHOLDS
from probemb_shapes.rooms import write_rooms

PROJECT = Path(__file__).resolve().parent.parent
BACKBONES = {"14A": MinkUNet14A, "18A": MinkUNet18A, "34C": MinkUNet34C}
MIN_POINTS = 100  # ScanNet leaves smaller instances out
MIN_SCORE = 0.05  # of a seed; walls and floors are background, so the search may end

Method = Literal["probabilistic", "learnable-margin"]


@dataclass
class Options(RunOptions):
    """Settings; what is left out is chosen for the data: a full training for ScanNet, a few minutes' for the rooms."""

    # --- data
    root: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """folder with ScanNet's scans, scannetv2_{train,val,test}.txt and scannetv2-labels.combined.tsv; without it open
    rooms are written and read"""
    rooms: int = 50
    """open rooms to write, each fifth one for validation"""
    split: Literal["val", "test"] = "val"
    """scenes to evaluate; of test only the submission is written, as nobody else has its annotation"""
    held_out: float = 0.1
    """share of the training scenes on which nothing is trained, but each clustering's parameter picked; other scans of
    the same room are held out with it"""
    max_scenes: int | None = None
    """use only so many scenes of each split, for a quick look"""
    # --- network
    methods: tuple[Method, ...] = ("probabilistic", "learnable-margin")
    """what to train, one after the other, on the same backbone"""
    backbone: Literal["14A", "18A", "34C"] | None = None
    """MinkUNet: 34C for ScanNet (the usual choice; the paper says MinkowskiNet), 14A for the rooms"""
    voxel_size: float | None = None
    """metres: 0.02 for ScanNet, 0.05 for the rooms"""
    offset_scale: float = 2.0
    """metres, farthest offset from a point to its centre"""
    start_from: Annotated[Path | None, tyro.conf.arg(metavar="CHECKPOINT")] = None
    """weights to start the backbone from: of this script, or a public semantic MinkUNet; what fits is taken"""
    # --- training
    epochs: int | None = None
    """passes over the training scenes (ScanNet: 300, about 41,000 steps; the paper gives none)"""
    batch_size: int | None = None
    """scenes a step, over all processes (ScanNet: 8; rooms: 4)"""
    learning_rate: float | None = None
    """of Adam, highest (ScanNet: 0.001; rooms: 0.003)"""
    max_norm: float | None = 5.0
    """gradients of a larger norm are scaled down to it"""
    train_points: int | None = None
    """crop scenes to as many voxels around a random point in training, of which each gives one point to the losses
    (ScanNet: 100,000; rooms: 3,000)"""
    crop: Literal["point", "instance"] = "instance"
    """around which random point: of all, or of a random instance, so that small crops show more than walls"""
    # --- what to do
    output: Path = Path("runs/scannet_minkowski")
    """folder for checkpoints, metrics, submissions, pictures and the report"""
    submission: bool = True
    """write the files of ScanNet's benchmark for the evaluated scenes; a vertex takes two bytes an instance"""
    tile_size: float = 8.0
    """metres: of the files to predict, what is longer or wider is predicted in tiles"""
    tile_overlap: float = 2.0
    """metres that tiles see beyond their border"""
    up: Literal["y", "z"] = "z"
    """axis of the files to predict that points up; they must be in metres"""


def resolve(options: Options) -> Options:
    """Fill in what the data decides."""
    real = options.root is not None
    defaults = {
        "backbone": "34C" if real else "14A",
        "voxel_size": 0.02 if real else 0.05,
        "epochs": 300 if real else 30,
        "batch_size": 8 if real else 4,
        "learning_rate": 1e-3 if real else 3e-3,
        "train_points": 100_000 if real else 3_000,
        "schedule": "one-cycle",
        "workers": 4 if real else 0,
    }
    options = with_defaults(options, defaults)
    if not 0 < options.held_out < 1:
        raise SystemExit(f"--held-out: expected a share between 0 and 1, got {options.held_out}")
    if not options.methods or len(set(options.methods)) < len(options.methods):
        raise SystemExit(f"--methods: expected different ones, at least one, got {options.methods}")
    if options.split == "test" and not options.evaluate:
        raise SystemExit("--split test needs trained models: --evaluate CHECKPOINT --split test")
    if options.split == "test" and not options.submission:
        raise SystemExit("--split test --no-submission leaves nothing to do: the test scans have no annotation")
    if options.predict and len(options.evaluate) != 1:
        raise SystemExit("--predict needs one model: --evaluate CHECKPOINT --predict FILES")
    return options


# --- data


def prepare_data(options: Options, fabric: Fabric) -> Path:
    """The folder to read; open rooms are written by the first process, unless they are there."""
    if options.root is not None:
        return options.root
    root = PROJECT / ".cache" / f"rooms-{options.rooms}"
    with fabric.rank_zero_first():
        bar = partial(tqdm, desc="writing rooms", unit="room", disable=not fabric.is_global_zero)
        write_rooms(PROJECT / "data" / "scan_objects", root, scenes=options.rooms, seed=0, progress=bar)
    return root


def held_out_scenes(scene_ids: Sequence[str], share: float) -> list[int]:
    """Rows of the scenes for picking parameters: every so many rooms, with all scans of them."""
    rooms = list(dict.fromkeys(scene_id.split("_")[0] for scene_id in scene_ids))
    held_out = set(rooms[:: max(2, round(1 / share))])
    return [row for row, scene_id in enumerate(scene_ids) if scene_id.split("_")[0] in held_out]


def training_scenes(root: Path, options: Options) -> Dataset[Data]:
    augmentation = scene_augmentation(
        options.train_points, options.voxel_size, around_instances=options.crop == "instance"
    )
    data = ScanNetScenes(root, "train", transform=augmentation)
    held_out = set(held_out_scenes(data.scene_ids, options.held_out))
    rows = [row for row in range(len(data)) if row not in held_out]
    if not rows:
        raise SystemExit(
            f"{root}: scannetv2_train.txt names scans of a single room: expected two at least, of which one is held out"
        )
    return Subset(data, rows[: options.max_scenes])


def fitting_scenes(root: Path, options: Options) -> Dataset[Data]:
    data = ScanNetScenes(root, "train")
    return Subset(data, held_out_scenes(data.scene_ids, options.held_out)[: options.max_scenes])


def evaluation_scenes(root: Path, options: Options) -> Dataset[Data]:
    data = ScanNetScenes(root, options.split)
    return Subset(data, range(len(data))[: options.max_scenes])


# --- network

Output = HeadOutput | MarginOutput


class Network(nn.Module):
    """MinkowskiNet's features of each point into the head of a method."""

    def __init__(self, num_classes: int, about: Mapping[str, Any]) -> None:
        super().__init__()
        unet = BACKBONES[about["backbone"]](in_channels=3)
        self.backbone = MinkowskiBackbone(unet, about["voxel_size"])
        head = ProbabilisticHead if about["method"] == "probabilistic" else LearnableMarginHead
        self.head = head(unet.out_channels, num_classes, offset_scale=about["offset_scale"])

    def forward(self, data: Data) -> Output:
        return self.head(self.backbone(data.x, data.pos, data.batch), data.pos, data.batch)


@dataclass
class Model:
    """A trained network and what is needed to use it."""

    network: Network
    classes: tuple[str, ...]
    about: dict[str, Any]

    @property
    def method(self) -> str:
        return str(self.about["method"])

    def save(self, path: Path) -> Path:
        return save_model(path, self.network, self.classes, self.about)

    @classmethod
    def load(cls, path: Path) -> Model:
        return cls(*load_model(path, lambda classes, about: Network(classes + 1, about)))

    @torch.no_grad()
    def predict(self, data: Data, fabric: Fabric) -> tuple[GaussianEmbedding, Tensor]:
        """Embeddings (N, 3) and probabilities (N, 19) of the points of a scene."""
        output = self.network.to(fabric.device).eval()(data.to(fabric.device))
        return output.embedding, output.probabilities

    def cluster(self, output: tuple[GaussianEmbedding, Tensor], setting: float) -> Instances:
        """The instances of a scene; ``setting`` is the parameter that is picked on held-out scenes."""
        if self.method == "probabilistic":
            return greedy_cluster(*output, threshold=setting, min_score=MIN_SCORE, min_points=MIN_POINTS)
        return margin_cluster(*output, min_score=setting, min_points=MIN_POINTS)


# The threshold τ of the greedy clustering; the lowest seed value of the learnable margins.
GRIDS = {
    "probabilistic": (0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8),
    "learnable-margin": (0.5, 0.6, 0.7, 0.8, 0.9),
}


# --- training


def train_method(method: Method, data: Dataset[Data], options: Options, fabric: Fabric) -> tuple[Model, list[Any]]:
    about = about_model(options) | {"method": method}
    fabric.seed_everything(options.seed, verbose=False)
    network = Network(len(INSTANCE_CLASSES) + 1, about)
    if options.start_from is not None:
        fabric.print(load_pretrained(network.backbone.network, options.start_from))
    loss_function = ProbabilisticEmbeddingLoss() if method == "probabilistic" else LearnableMarginLoss()

    def losses(network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return loss_function(network(batch), batch.instance, batch.semantic, batch.batch)

    fabric.print(f"\n{method}: MinkUNet{options.backbone}, voxels of {100 * options.voxel_size:g} cm")
    folder = options.output / method
    history = train_network(network, data, losses, options, fabric, settings=about, folder=folder)
    return Model(network.eval(), INSTANCE_CLASSES, about), history


def about_model(options: Options) -> dict[str, Any]:
    running = ("methods", "split", "submission", "tile_size", "tile_overlap", "up")
    return settings_of(options, leave_out=running)


# --- evaluation


@dataclass
class Evaluation:
    """What one method finds in the evaluated scenes."""

    name: str
    metric: ScanNetAP
    fit: ThresholdFit | None
    setting: float
    history: Sequence[Mapping[str, float]] = ()
    scenes: Sequence[ShapeResult] = ()

    def values(self) -> dict[str, float]:
        """AP, AP50 and AP25 in per cent."""
        result = self.metric.compute()
        return {name: 100 * result[key] for name, key in METRICS.items()}


METRICS = {"AP": "ap", "AP50": "ap50", "AP25": "ap25"}


def shares(data: Dataset[Data], fabric: Fabric, what: str) -> Iterator[Data]:
    """The scenes of this process, with a progress bar."""
    rows = share_of(fabric, len(data))
    for row in tqdm(rows, desc=what, unit="scene", disable=not fabric.is_global_zero):
        yield data[row]


def add_scene(metric: ScanNetAP, found: Instances, target: Tensor) -> None:
    """Instances by their masks: those of learnable margins may overlap."""
    metric.update(found.masks(), torch.tensor(INSTANCE_IDS)[found.semantic.cpu() - 1], found.score, target)


def fit_setting(model: Model, data: Dataset[Data], fabric: Fabric) -> ThresholdFit:
    """The clustering's parameter with the best AP50 on held-out scenes; the first of equal ones."""
    grid = GRIDS[model.method]
    metrics = [ScanNetAP() for _ in grid]
    for scene in shares(data, fabric, f"{model.method}, held-out scenes"):
        output, target = model.predict(scene, fabric), evaluation_target(scene)
        for setting, metric in zip(grid, metrics, strict=True):
            add_scene(metric, model.cluster(output, setting), target)
    values = [merged(metric, fabric).compute()["ap50"] for metric in metrics]
    best = max(range(len(grid)), key=lambda i: values[i])
    return ThresholdFit(grid[best], values[best], grid, tuple(values))


def evaluate_model(
    name: str, model: Model, data: Dataset[Data], options: Options, fabric: Fabric
) -> tuple[ScanNetAP, list[ShapeResult]]:
    """AP of the scenes, and those to show; the submission is written on the way, a scene in memory at a time."""
    metric, shown = ScanNetAP(), []
    every = max(1, -(-len(data) // options.report_shapes))  # from all over the split

    def scenes() -> Iterator[Any]:
        for i, scene in enumerate(shares(data, fabric, f"{name}, {options.split}")):
            embedding, probabilities = model.predict(scene, fabric)
            found = model.cluster((embedding, probabilities), model.about["setting"])
            if "instance" in scene:
                add_scene(metric, found, evaluation_target(scene))
            if i % every == 0:
                shown.append(scene_result(scene, found, embedding)._replace(name=f"{scene.scene_id}, {name}"))
            yield scene_predictions(scene, found.masks(), found.semantic, found.score)

    if options.submission:
        folder = options.output / "submission" / name
        new = folder.with_name(f".{name}.new")
        if fabric.is_global_zero:
            shutil.rmtree(new, ignore_errors=True)  # of a run that was stopped
        fabric.barrier()
        write_submission(new, scenes())
        fabric.barrier()
        if fabric.is_global_zero:
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
    else:
        for _ in scenes():
            pass
    return merged(metric, fabric), list(chain(*gather_in_order(fabric, shown)))


def scene_result(scene: Data, found: Instances, embedding: GaussianEmbedding) -> ShapeResult:
    truth = scene.instance if "instance" in scene else None
    classes = None
    if truth is not None:
        classes = torch.zeros(int(truth.max().clamp(min=-1)) + 1, dtype=torch.int64)
        classes[truth[truth >= 0]] = scene.semantic[truth >= 0]
    return ShapeResult(
        scene.scene_id, scene.pos, truth, found, embedding.log_std, embedding.mean, scene.rgb, classes, up="z"
    )


# --- results


def paper_rows() -> list[dict[str, str]]:
    with (PROJECT / "adapters/probemb_adapters/experiments/paper/scannet_table6.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def tables(evaluations: Sequence[Evaluation], options: Options) -> list[Table]:
    """Methods × AP, AP50, AP25 with the paper's rows below; for each method classes × the same."""
    rows = [Row(e.name, list(e.values().values())) for e in evaluations]
    for row in paper_rows():
        values = [float(row[f"val_{key}"]) for key in ("map", "ap50", "ap25")]
        rows.append(Row(f"{row['method']} (paper)", values, quoted=True))
    quoted = "as published by the paper, on ScanNet's validation scenes"
    text = ""
    if options.root is None:
        quoted += ", which is another data set: these numbers cannot be compared with those above"
        text = "Measured on open rooms, not on ScanNet."
    found = [Table("Validation scenes, per cent", list(METRICS), rows, text=text, quoted=quoted)]
    for e in evaluations:
        result = e.metric.compute()
        counts = result["class_gt_count"].tolist()
        rows = [
            Row(name, [counts[c], *(float(100 * result[f"class_{key}"][c]) for key in METRICS.values())])
            for c, name in enumerate(INSTANCE_CLASSES)
            if counts[c]
        ]
        found.append(Table(f"Classes, {e.name}", ["instances", *METRICS], rows))
    return found


def charts(evaluations: Sequence[Evaluation]) -> list[Chart]:
    """AP over the IoU threshold, precision and recall of each class, choice of the parameter, losses."""
    order = np.argsort(THRESHOLDS)  # 0.25 is the last of them
    lines = []
    for e in evaluations:
        means = np.nanmean(e.metric.compute()["class_ap_per_threshold"], axis=0)
        lines.append(Line(e.name, np.array(THRESHOLDS)[order], means[order]))
    found = [Chart("Average precision over the IoU threshold", "IoU threshold", "AP, mean of the classes", lines)]
    for e in evaluations:
        counts = e.metric.compute()["class_gt_count"].tolist()
        curves = [
            Line(name, *reversed(e.metric.curve(class_id, 0.5)))
            for name, class_id, count in zip(INSTANCE_CLASSES, INSTANCE_IDS, counts, strict=True)
            if count
        ]
        title = f"Precision and recall, IoU above 0.5: {e.name}"
        found.append(Chart(title, "recall", "precision", curves, unit_square=True))
    for e in evaluations:
        if e.fit is not None:
            fitted = fit_chart(e.fit, "AP50")
            parameter = "threshold τ" if e.name == "probabilistic" else "lowest seed value"
            title, mark = f"Choice of the clustering's parameter: {e.name}", (e.fit.threshold, f"{e.fit.threshold:g}")
            found.append(replace(fitted, title=title, x=parameter, mark=mark))
        if e.history:
            found.append(replace(loss_chart([epoch["loss"] for epoch in e.history]), title=f"Training: {e.name}"))
    return found


def write_numbers(evaluations: Sequence[Evaluation], options: Options) -> None:
    lines: list[Sequence[Any]] = [("method", "source", "class", "metric", "percent")]
    methods = {}
    for e in evaluations:
        result = e.metric.compute()
        by_class = {
            name: {metric: float(100 * result[f"class_{key}"][c]) for metric, key in METRICS.items()}
            for c, name in enumerate(INSTANCE_CLASSES)
        }
        methods[e.name] = {
            **e.values(),
            "setting": e.setting,
            "held_out_ap50": dict(zip(e.fit.grid, e.fit.metrics, strict=True)) if e.fit else {},
            "classes": by_class,
            "class_instances": dict(zip(INSTANCE_CLASSES, result["class_gt_count"].tolist(), strict=True)),
            "training": list(e.history),
        }
        for name, values in {"all": e.values(), **by_class}.items():
            lines += [(e.name, "measured", name, metric, round(value, 3)) for metric, value in values.items()]
    paper = paper_rows()
    for row in paper:
        for metric, key in (("AP", "map"), ("AP50", "ap50"), ("AP25", "ap25")):
            lines.append((row["method"], "paper, ScanNet val", "all", metric, row[f"val_{key}"]))
    data = "open rooms" if options.root is None else "ScanNet"
    write_metrics(options.output, {"data": data, "methods": methods, "paper": paper}, options, lines)


def write_page(evaluations: Sequence[Evaluation], options: Options, text: str) -> None:
    """A section for each method's scenes; tables and curves of all in the first."""
    sections = [
        Section(
            f"Objects found: {e.name}",
            text if i == 0 else "",
            shapes=e.scenes,
            tables=tables(evaluations, options) if i == 0 else (),
            charts=charts(evaluations) if i == 0 else (),
            classes=("background", *INSTANCE_CLASSES),
            noun="object",
            item="scene",
            unit="m",
        )
        for i, e in enumerate(evaluations)
    ]
    print(write_results("Objects found in room scans", sections, options))


# --- what the commands do


def run(options: Options, fabric: Fabric) -> None:
    root = prepare_data(options, fabric)
    models: list[tuple[str, Model, ThresholdFit | None, list[Any]]] = []
    if options.evaluate:
        names = method_names(options.evaluate)
        models = [(name, model, None, []) for name, model in names.items()]
        text = f"Models: {', '.join(map(str, options.evaluate))}."
    else:
        data = training_scenes(root, options)
        for method in options.methods:
            model, history = train_method(method, data, options, fabric)
            fit = fit_setting(model, fitting_scenes(root, options), fabric)
            model.about["setting"] = fit.threshold
            if fabric.is_global_zero:
                model.save(options.output / method / "model.safetensors")
            models.append((method, model, fit, history))
        text = f"Trained for {options.epochs} epochs on {fabric.world_size} × {fabric.device.type}."
    scenes = evaluation_scenes(root, options)
    evaluations = []
    for name, model, fit, history in models:
        metric, shown = evaluate_model(name, model, scenes, options, fabric)
        evaluations.append(Evaluation(name, metric, fit, model.about["setting"], history, shown))
    if fabric.is_global_zero:
        if options.split == "test":
            print(f"\nsubmission  {options.output / 'submission'}/*: zip the content of one for ScanNet's server")
            return
        write_numbers(evaluations, options)
        write_page(evaluations, options, text)
        if options.submission:
            print(f"submission {options.output / 'submission'}")


def method_names(paths: Sequence[Path]) -> dict[str, Model]:
    """Models by their method, and by their file where two have the same."""
    models = [Model.load(path) for path in paths]
    methods = [model.method for model in models]
    names = [m if methods.count(m) == 1 else f"{m}-{i + 1}" for i, m in enumerate(methods)]
    return dict(zip(names, models, strict=True))


def predict_cloud(model: Model, data: Data, options: Options, fabric: Fabric) -> tuple[Instances, GaussianEmbedding]:
    """At once, or in tiles where the scene is larger than one; on the CPU."""
    extent = (data.pos.amax(0) - data.pos.amin(0))[:2].max()
    if extent <= options.tile_size + 2 * options.tile_overlap or model.method != "probabilistic":
        embedding, probabilities = model.predict(data, fabric)
        return model.cluster((embedding, probabilities), model.about["setting"]), embedding
    seen = GaussianEmbedding(torch.zeros_like(data.pos), torch.zeros_like(data.pos))

    def predict(rows: Tensor) -> tuple[GaussianEmbedding, Tensor]:
        embedding, probabilities = model.predict(Data(pos=data.pos[rows], x=data.x[rows]), fabric)
        for whole, part in zip(seen, embedding, strict=True):
            whole[rows] = part.to(whole)
        return embedding, probabilities

    bar = tqdm(desc="tiles", unit="tile", leave=False)

    def progress(done: int, tiles: int) -> None:
        bar.total = tiles
        bar.update(done - bar.n)

    found = cluster_tiles(
        data.pos,
        predict,
        tile_size=options.tile_size,
        overlap=options.tile_overlap,
        threshold=model.about["setting"],
        min_score=MIN_SCORE,
        min_points=MIN_POINTS,
        progress=progress,
    )
    bar.close()
    return found, seen


def run_prediction(options: Options, fabric: Fabric) -> None:
    """Segment the user's own scans; results lie in the output folder under the names of the files."""
    model = Model.load(options.evaluate[0])
    clouds = clouds_to_predict(options)
    shown = []
    for cloud in tqdm(clouds, desc="predicting", unit="cloud"):
        data = cloud_data(cloud, options)
        found, embedding = predict_cloud(model, data, options, fabric)
        colors = (255 * instance_colors(len(found))).astype("uint8")
        write_instances(options.output / cloud.name, cloud, found, in_file_frame(embedding, options.up), colors)
        shown.append(scene_result(data, found, embedding))
        classes = [INSTANCE_CLASSES[int(c) - 1] for c in found.semantic]
        counts = ", ".join(f"{classes.count(name)} {name}" for name in dict.fromkeys(classes))
        tqdm.write(f"{cloud.name}: {len(found)} objects: {counts or 'none'}")
    part = Section(
        "Predicted scans", shapes=shown, classes=("background", *INSTANCE_CLASSES), noun="object", item="scan", unit="m"
    )
    page = write_report(options.output / "report.html", "Objects found in your scans", [part])
    print(f"\nresults  {options.output}/*.npz and *.ply\nreport   {page}")


def cloud_data(cloud: Cloud, options: Options) -> Data:
    """A scan as the network takes it; without colours it is grey."""
    pos = torch.from_numpy(z_up(cloud.pos, options.up).copy())
    x = torch.zeros_like(pos) if cloud.rgb is None else torch.from_numpy(cloud.rgb) / 127.5 - 1
    data = Data(pos=pos, x=x, scene_id=cloud.name)
    data.rgb = None if cloud.rgb is None else torch.from_numpy(cloud.rgb)
    return data


def in_file_frame(embedding: GaussianEmbedding, up: str) -> GaussianEmbedding:
    """Embeddings for positions that `z_up` has turned, in the frame of the file."""
    if up == "z":
        return embedding
    axes = [0, 2, 1]
    return GaussianEmbedding(
        embedding.mean[:, axes] * embedding.mean.new_tensor([1, 1, -1]), embedding.log_std[:, axes]
    )


def main() -> None:
    options = resolve(tyro.cli(Options, description=__doc__))
    fabric = start_fabric(
        accelerator=options.accelerator,
        devices=options.devices,
        precision=options.precision,
        log_dir=options.output / "tensorboard" if not options.evaluate else None,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    command: Callable[[Options, Fabric], None] = run_prediction if options.predict else run
    command(options, fabric)


if __name__ == "__main__":
    main()
