"""The recommended options together against the paper's, on plants, chairs, real furniture, nuclei and rooms.

Plants without classes are found by networks that are trained both ways, on the same data in the same order for as many
steps; the others by the networks of the project (trainings on families: studies/ablation.py). All are grouped as in the
paper and as recommended; what a way depends on is fitted on validation. Lines are appended to one CSV as they come;
interrupted, the same command goes on, in the middle of a training too:

    python studies/recommended.py                         six trainings of a minute or two, and what is there
    python studies/recommended.py --data nuclei rooms
    python studies/recommended.py --show                  only the table of what is there
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from probemb_adapters.clouds.labelled import read_labelled
from probemb_adapters.experiments import own_clouds, partnet, scannet
from probemb_adapters.experiments.bootstrap import paired_bootstrap, part_map
from probemb_adapters.experiments.images.model import Model as ImageModel
from probemb_adapters.experiments.own_clouds import data as plant_data
from probemb_adapters.experiments.own_clouds import options as plant_options
from probemb_adapters.experiments.own_clouds import training as plant_training
from probemb_adapters.experiments.records import (
    append_line,
    lines_of,
    load_images,
    load_metric,
    load_scenes,
    save_metric,
)
from probemb_adapters.experiments.run import versions
from probemb_adapters.files import commit_of
from probemb_adapters.images import read_nuclei, read_sides, read_split
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_adapters.report.tally import Judged, score_floor
from probemb_adapters.scannet import evaluation_target
from probemb_adapters.training import LAST, start_fabric
from probemb_lib import GaussianEmbedding, Instances, greedy_cluster
from probemb_lib.clustering import best_of
from probemb_lib.clustering.fit import DEFAULT_GRID
from probemb_lib.metrics import LabelImageAP, PartNetAP, ScanNetAP, match_label_images
from probemb_shapes.demo_data import PROJECT, partnet_folder, scannet_folder
from probemb_shapes.plants import write_plants

CHECKPOINTS = {"chairs": "chair", "furniture": "furniture", "nuclei": "nuclei", "rooms": "rooms"}
KINDS = ("plants", *CHECKPOINTS)
PAPER, RECOMMENDED, SHIPPED = "as in the paper", "recommended", "checkpoint"
WAYS = ("as in the paper", "refined", "and of a smallest size", "and of a least score")  # each with those before it
SHARES = (0.0, 0.1, 0.2, 0.5)  # smallest sizes to choose from, of the size that 2 % of the true instances are below
IOU = 0.5
PLANTS = {"train": 28, "val": 12, "test": 40}

Metric = PartNetAP | ScanNetAP | LabelImageAP


@dataclass(frozen=True)
class Options:
    """What to measure."""

    data: tuple[str, ...] = KINDS
    """of plants, chairs, furniture, nuclei, rooms"""
    seeds: int = 3
    """trainings of both kinds on plants"""
    steps: int = 150
    """of a training on plants"""
    points: int = 1_024
    """of a plant"""
    rooms: int = 100
    """to write; a fifth of them for the test, of the others a tenth for the fit: those that the network has not seen"""
    resamples: int = 500
    """of samples and seeds, for the intervals"""
    show: bool = False
    """measure nothing, only show what is there"""
    output: Path = Path("runs/recommended")
    """folder of the trainings, the CSV and the table"""


class Sample(NamedTuple):
    """A cloud, image or room: what the network gives, the true instance of each point, what the benchmark compares."""

    output: tuple[GaussianEmbedding, Tensor]
    truth: Tensor  # (N,) from 0, −1 none
    target: Any
    group: str  # samples of one are drawn together


class Subject(NamedTuple):
    """The samples to fit and to test on, and how they are judged."""

    val: Sequence[Sample]
    test: Sequence[Sample]
    background: int | None
    ap: Callable[[Sequence[Instances], Sequence[Sample]], Metric]
    ranked: bool  # the benchmark ranks instances by their scores, so that it is given those of low score too


class Way(NamedTuple):
    """What was fitted on validation for one of `WAYS`."""

    level: int
    threshold: float
    min_points: int = 1
    min_score: float = 0.0

    def find(self, subject: Subject, samples: Sequence[Sample]) -> list[Instances]:
        how = {"background": subject.background, "refine": self.level > 0, "min_points": self.min_points}
        return [greedy_cluster(*sample.output, threshold=self.threshold, **how) for sample in samples]

    def shown(self, found: Sequence[Instances]) -> list[Instances]:
        return [instances.keep(instances.score >= self.min_score) for instances in found]


def fit(subject: Subject) -> list[Way]:
    """Each of `WAYS` with the highest AP at IoU 0.5 on validation; the least score is that of the highest F1."""
    sizes = torch.cat([sample.truth[sample.truth >= 0].bincount() for sample in subject.val])
    small = float(sizes[sizes > 0].double().quantile(0.02))
    ways: list[list[Way]] = [[] for _ in WAYS]
    values: list[list[float]] = [[] for _ in WAYS]
    for levels, threshold in tqdm([*product(((0,), (1, 2, 3)), DEFAULT_GRID)], desc="fitting", leave=False):
        found = Way(levels[0], threshold).find(subject, subject.val)
        for level, share in product(levels, SHARES):
            if level < 2 and share > 0:
                continue
            way = Way(level, threshold, max(1, round(share * small)))
            large = [instances.keep(instances.size >= way.min_points) for instances in found]
            way = way._replace(min_score=floor_of(large, subject.val)) if level > 2 else way
            ways[level].append(way)
            values[level].append(ap50(subject.ap(large if subject.ranked else way.shown(large), subject.val)))
    return [best_of(own, of_own, "way")[0] for own, of_own in zip(ways, values, strict=True)]


def floor_of(found: Sequence[Instances], samples: Sequence[Sample]) -> float:
    judged = []
    for instances, sample in zip(found, samples, strict=True):
        matched = match_label_images(instances.label + 1, sample.truth + 1).pred - 1
        right = np.isin(np.arange(len(instances)), matched).tolist()
        judged.append(Judged(instances.score.tolist(), right, len(sample.truth[sample.truth >= 0].unique())))
    return score_floor(judged)


def matches(found: Sequence[Instances], samples: Sequence[Sample]) -> LabelImageAP:
    """Right, false and missed instances by group, whatever their classes and scores."""
    metric = LabelImageAP((IOU,))
    for group in dict.fromkeys(sample.group for sample in samples):
        pairs = [(f.label, s.truth) for f, s in zip(found, samples, strict=True) if s.group == group]
        metric.update(*(numbered(labels) for labels in zip(*pairs, strict=True)))
    return metric


def numbered(labels: Sequence[Tensor]) -> Tensor:
    """Labels from 0 of several samples as those of one, 0 for none."""
    first = np.cumsum([1, *(int(label.max()) + 1 for label in labels)])
    return torch.cat([torch.where(label < 0, 0, label + int(n)) for label, n in zip(labels, first, strict=False)])


def ap50(metric: Any) -> float:
    if isinstance(metric, PartNetAP):
        return part_map(metric, IOU)
    result = metric.compute()
    return 100 * float(result["ap50"] if isinstance(metric, ScanNetAP) else result["ap"][0])


def f1(metric: Any) -> float:
    return 100 * float(metric.compute()["f1"][0])


# --- what is measured


def part_ap(model: partnet.Model | own_clouds.Model, fabric: Fabric) -> Callable[..., PartNetAP]:
    def ap(found: Sequence[Instances], samples: Sequence[Sample]) -> PartNetAP:
        return partnet.score(found, [s.target for s in samples], len(model.classes), model.first_class, fabric)

    return ap


def plants(training: str, seed: int, options: Options, fabric: Fabric) -> Subject:
    """Plants without classes by a network that is trained as in the paper, or as `probemb train` does it."""
    folder = options.output / f"plants-{options.steps}-{options.points}-{training}-{seed}".replace(" ", "-")
    split = {}
    for number, (side, count) in enumerate(PLANTS.items()):
        write_plants(options.output / "plants" / side, count, seed=number)
        clouds = read_labelled(options.output / "plants" / side)
        split[side] = [replace(cloud, semantic=None) for cloud in clouds]
    unit = plant_data.common_unit(split["train"])
    resume = (folder / LAST).exists()
    asked = {"steps": options.steps, "points": options.points, "seed": seed}
    own = own_clouds.Options(**asked, output=folder, resume=resume, unit=unit)
    own = plant_options.resolve(own, len(split["train"]), max(len(cloud.pos) for cloud in split["train"]))
    frame = plant_data.Frame(own.up, unit)
    data = [plant_data.labelled_data(cloud, frame, ()) for cloud in split["train"]]
    own = plant_training.with_lengths(own, data)
    if training == PAPER:  # in the unit sphere
        own = replace(own, offset_scale=1.0, initial_std=1.0, score_loss="center-aware")
    model = plant_training.new_model(own, fabric)
    plant_training.train_model(model, data, own, fabric)

    def samples(side: str) -> list[Sample]:
        clouds = plant_data.TestClouds(split[side], frame, (), model.points)
        pairs = zip(clouds.clouds, clouds.targets, clouds.names, strict=True)
        return [Sample(model.predict(cloud.pos, fabric), t.gt_instance, t, name) for cloud, t, name in pairs]

    return Subject(samples("val"), samples("test"), model.background, part_ap(model, fabric), ranked=True)


def parts(file: Path, fabric: Fabric) -> Subject:
    """Of chairs or of real furniture."""
    model = partnet.Model.load(file)
    options = model.options(points=2_048 if model.settings.category == "Chair" else 10_000)
    root = partnet_folder(options.category, options.generated_shapes, fabric)

    def samples(side: str) -> list[Sample]:
        split = partnet.Split(root, options, side, fabric)
        pairs = zip(tqdm(split.shapes, desc=side, unit="shape"), split.targets, strict=True)
        return [Sample(model.predict(shape, fabric), t.gt_instance, t, shape.anno_id) for shape, t in pairs]

    return Subject(samples("val"), samples("test"), model.background, part_ap(model, fabric), ranked=True)


def nuclei(file: Path, fabric: Fabric) -> Subject:
    model = ImageModel.load(file).to(fabric.device)
    data = PROJECT / "data" / "nuclei" / "nuclei.npz"
    sides, field = read_sides(read_nuclei(data), data), read_split(data.with_name("split.csv"), "field")

    def samples(side: str) -> list[Sample]:
        return [
            Sample(
                model.predict(i.image), torch.from_numpy(i.label.astype(np.int64)).flatten() - 1, None, field[i.name]
            )
            for i in tqdm(sides[side], desc=side, unit="image")
            if i.label is not None
        ]

    return Subject(samples("val"), samples("test"), 0, matches, ranked=False)


def rooms(file: Path, options: Options, fabric: Fabric) -> Subject:
    model = scannet.Model.load(file)
    own = scannet.resolve(scannet.Options(rooms=options.rooms))
    root, ids = scannet_folder(options.rooms, fabric), torch.tensor(model.class_ids)

    def samples(data: Any) -> list[Sample]:
        scenes = (model.labelled(data[i]) for i in tqdm(range(len(data)), desc="rooms", unit="room"))
        return [
            Sample(model.predict(s, fabric), s.instance.clamp(min=-1), evaluation_target(s), s.scene_id) for s in scenes
        ]

    def ap(found: Sequence[Instances], samples: Sequence[Sample]) -> ScanNetAP:
        metric = ScanNetAP(model.class_ids)
        for instances, sample in zip(found, samples, strict=True):
            metric.update_labels(instances.label, ids[instances.semantic - 1], instances.score, sample.target)
        return metric

    return Subject(
        samples(scannet.fitting_scenes(root, own)), samples(scannet.evaluation_scenes(root, own)), 0, ap, True
    )


class Network(NamedTuple):
    kind: str
    training: str
    seed: int

    def budget(self, options: Options) -> dict[str, str]:
        own = {"steps": options.steps, "points": options.points} if self.kind == "plants" else {}
        own |= {"rooms": options.rooms} if self.kind == "rooms" else {}
        return {name: str(value) for name, value in (self._asdict() | own).items()}

    def files(self, level: int, options: Options) -> list[Path]:
        """Of the average precision and of right and false instances."""
        name = "-".join([*self.budget(options).values(), str(level)]).replace(" ", "-")
        return [options.output / f"{name}-{what}.npz" for what in ("ap", "shown")]

    def lines(self, options: Options) -> list[dict[str, str]]:
        return lines_of(options.output / "runs.csv", self.budget(options))


def networks(options: Options) -> list[Network]:
    found = []
    for kind in options.data:
        seeds = range(options.seeds) if kind == "plants" else ()
        found += [Network(kind, training, seed) for seed in seeds for training in (PAPER, RECOMMENDED)]
        found += [] if kind == "plants" else [Network(kind, SHIPPED, 0)]
    return found


def measure(network: Network, options: Options) -> None:
    """Append a line for each way to group."""
    fabric = start_fabric(accelerator="cpu", devices=1, precision="32-true", log_dir=None)
    if network.kind == "plants":
        subject = plants(network.training, network.seed, options, fabric)
    else:
        file = PROJECT / "checkpoints" / f"{CHECKPOINTS[network.kind]}.safetensors"
        of = {"nuclei": nuclei, "rooms": partial(rooms, options=options)}
        subject = of.get(network.kind, parts)(file, fabric=fabric)
    for level, way in enumerate(fit(subject)):
        if level < len(network.lines(options)):
            continue
        found = way.find(subject, subject.test)
        metrics = (
            subject.ap(found if subject.ranked else way.shown(found), subject.test),
            matches(way.shown(found), subject.test),
        )
        for path, metric in zip(network.files(level, options), metrics, strict=True):
            save_metric(path, metric)
        counts = metrics[1].compute()
        numbers = {"AP50": ap50(metrics[0]), "F1": f1(metrics[1])}
        numbers |= {name: 100 * float(counts[name][0]) for name in ("precision", "recall")}
        append_line(
            options.output / "runs.csv",
            {
                **network.budget(options),
                **way._asdict(),
                **{name: round(value, 3) for name, value in numbers.items()},
                "samples": len(subject.test),
                "device": platform.machine() + " CPU",
                "torch": versions()["torch"],
                "commit": commit_of(PROJECT) or "unknown",
                "date": date.today().isoformat(),
            },
        )


# --- what came out


def table(options: Options) -> Table:
    """Means over the seeds, and what is gained over the paper's ways, with intervals over samples and seeds."""
    load = {"nuclei": load_images, "rooms": load_scenes}
    rows = []
    for kind in options.data:
        own = [network for network in networks(options) if network.kind == kind]
        first: list[dict[tuple[str, int], Metric]] = []  # of the paper's ways
        for training, level in product(dict.fromkeys(network.training for network in own), range(len(WAYS))):
            there = [n for n in own if n.training == training and len(n.lines(options)) > level]
            if not there:
                continue
            metrics: list[dict[tuple[str, int], Metric]] = [{}, {}]
            for network in there:
                for metric, path, read in zip(
                    metrics, network.files(level, options), (load.get(kind, load_metric), load_images), strict=True
                ):
                    metric[kind, network.seed] = read(path)
            first = first or metrics
            lines = [network.lines(options)[level] for network in there]
            cells: list[Any] = [len(lines)]
            for name, value, ours, reference in zip(("AP50", "F1"), (ap50, f1), metrics, first, strict=True):
                cells.append(fmean(float(line[name]) for line in lines))
                if ours is reference or ours.keys() != reference.keys():
                    cells.append(None)
                    continue
                low, middle, high = paired_bootstrap(ours, reference, value=value, resamples=options.resamples)
                cells.append(f"{middle:+.1f} ({low:+.1f} to {high:+.1f})")
            cells += [fmean(float(line[name]) for line in lines) for name in ("precision", "recall")]
            trained = "" if training == SHIPPED else f", trained {training}"
            rows.append(Row(f"{kind}{trained}: {WAYS[level]}", cells))
    columns = ("seeds", "AP50", "difference, 95 %", "F1 of what is shown", "difference, 95 %", "precision", "recall")
    return Table("Recommended options against the paper's", columns, rows, text="Per cent, at IoU 0.5")


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if unknown := set(options.data) - set(KINDS):
        raise SystemExit(f"--data: expected some of {', '.join(KINDS)}, got {', '.join(sorted(unknown))}")
    if not options.show:
        for network in tqdm(networks(options), unit="network"):
            if len(network.lines(options)) < len(WAYS):
                measure(network, options)
    result = table(options)
    write_table(result, options.output / "recommended.csv")
    print(f"\n{table_text(result)}\n\ntable    {options.output / 'recommended.csv'}")


if __name__ == "__main__":
    main()
