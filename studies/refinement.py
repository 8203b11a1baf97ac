"""What happens to instances after they were found: refinement and simpler ways, on the same trained models.

Each way has its own threshold, fitted on the validation shapes; its part mAP on validation and test is compared with
that of the paper's clustering alone, with paired bootstrap intervals over models and shapes:

    python studies/refinement.py                           the checkpoint of the project
    python studies/refinement.py --points 2048 --models runs/ablation_partnet/*/full/*/model.safetensors
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import tyro
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from probemb_adapters.experiments import partnet
from probemb_adapters.experiments.bootstrap import paired_bootstrap, part_map
from probemb_adapters.experiments.variants import JOIN
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_adapters.training import start_fabric
from probemb_lib import GaussianEmbedding, Instances, greedy_cluster, join_instances, refine_instances
from probemb_lib.clustering import best_of
from probemb_lib.metrics import PartNetAP
from probemb_shapes.demo_data import PROJECT, partnet_folder

IOU = 0.5
PAPER = "seed decides (paper)"
SPLITS = ("val", "test")

Way = Callable[[GaussianEmbedding, Tensor, Instances], Instances]


@dataclass
class Options:
    """Which models, on how many points."""

    models: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH ...")] = (
        PROJECT / "checkpoints/furniture.safetensors",
    )
    """of examples/partnet_pointnet2.py, on the same data or on different ones"""
    points: int = 10_000
    """points of a shape"""
    min_points: int = 20
    """of the way that drops small instances"""
    resamples: int = 300
    """of models and shapes, for the intervals"""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""
    output: Path = Path("runs/refinement")
    """folder of the table"""


def ways(background: int | None, options: Options) -> dict[str, Way]:
    """Each from the embedding, the probabilities and what the clustering found to other instances."""
    refine = partial(refine_instances, background=background)

    def without_small(x: GaussianEmbedding, p: Tensor, found: Instances) -> Instances:
        return found.keep(found.size >= options.min_points)

    def points_moved(x: GaussianEmbedding, p: Tensor, found: Instances) -> Instances:
        """The groups of the refinement with the classes and scores of the seeds."""
        moved = refine(x, p, found)
        row = {seed: k for k, seed in enumerate(found.seed.tolist())}
        rows = [row[seed] for seed in moved.seed.tolist()]
        return replace(moved, semantic=found.semantic[rows], score=found.score[rows])

    return {
        PAPER: lambda x, p, found: found,
        "small ones dropped": without_small,
        "points moved": points_moved,
        "members vote": partial(refine, reassign=False),
        "refined: both": refine,
        f"refined, joined from {JOIN}": lambda x, p, found: join_instances(refine(x, p, found), JOIN),
    }


def measure(path: Path, options: Options, fabric: Fabric) -> tuple[str, dict[str, tuple[float, dict[str, PartNetAP]]]]:
    """The name of the data; for each way the threshold with the best validation mAP, and the metric of each split."""
    model = partnet.Model.load(path)
    settings = model.options(points=options.points)
    root = partnet_folder(settings.category, settings.generated_shapes, fabric)
    splits = {name: partnet.Split(root, settings, name, fabric) for name in SPLITS}
    outputs = {name: [model.predict(shape, fabric) for shape in split.shapes] for name, split in splits.items()}

    def metrics(split: str, threshold: float, chosen: dict[str, Way]) -> dict[str, PartNetAP]:
        pairs = [(*o, greedy_cluster(*o, threshold=threshold, background=model.background)) for o in outputs[split]]
        return {
            name: partnet.score(
                [way(*p) for p in pairs], splits[split].targets, len(model.classes), model.first_class, fabric
            )
            for name, way in chosen.items()
        }

    all_ways, grid = ways(model.background, options), partnet.threshold_grid(model)
    by_threshold = {t: metrics("val", t, all_ways) for t in tqdm(grid, desc=str(path), unit="threshold", leave=False)}
    best = {}
    for name, way in all_ways.items():
        threshold, *_ = best_of(grid, [part_map(by_threshold[t][name], IOU) for t in grid], "threshold")
        test = metrics("test", threshold, {name: way})[name]
        best[name] = (threshold, {"val": by_threshold[threshold][name], "test": test})
    return f"{settings.category}, level {settings.level}", best


def mean_part_map(metrics: dict[tuple[str, int], PartNetAP]) -> float:
    """Over the models of each data set, then over data sets."""
    by_data: dict[str, list[float]] = {}
    for (data, _), metric in metrics.items():
        by_data.setdefault(data, []).append(part_map(metric, IOU))
    return fmean(fmean(values) for values in by_data.values())


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    fabric = start_fabric(accelerator=options.accelerator, devices=1, precision="32-true", log_dir=None)
    metrics: dict[tuple[str, str], dict[tuple[str, int], PartNetAP]] = {}  # way, split → data, model → metric
    thresholds: dict[str, list[float]] = {}
    for number, path in enumerate(tqdm(options.models, unit="model")):
        data, best = measure(path, options, fabric)
        for way, (threshold, by_split) in best.items():
            thresholds.setdefault(way, []).append(threshold)
            for split, metric in by_split.items():
                metrics.setdefault((way, split), {})[data, number] = metric

    rows = []
    for way, fitted in tqdm(thresholds.items(), desc="intervals", unit="way", leave=False):
        cells: list[Any] = [f"{min(fitted):g} … {max(fitted):g}"]
        for split in SPLITS:
            ours = metrics[way, split]
            cells.append(mean_part_map(ours))
            if way == PAPER:
                cells += [None, None]
                continue
            low, middle, high = paired_bootstrap(ours, metrics[PAPER, split], resamples=options.resamples)
            cells += [middle, f"{low:+.1f} … {high:+.1f}"]
        rows.append(Row(way, cells))
    heads = ["threshold"]
    heads += [f"{split} {what}" for split, what in product(SPLITS, (f"@{IOU}", "difference", "95 %"))]
    table = Table("After the clustering", heads, rows, text=f"Part mAP in per cent, {len(options.models)} models")
    write_table(table, options.output / "refinement.csv")
    print(f"\n{table_text(table)}\n\ntable    {options.output / 'refinement.csv'}")


if __name__ == "__main__":
    main()
