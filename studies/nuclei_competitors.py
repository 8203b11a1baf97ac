"""Ways to find nuclei, trained from scratch for the same processor time on the same images and tested on the same.

Ours with a probabilistic, a deterministic and a learnable-margin embedding, a U-Net that learns the foreground alone,
the discriminative loss and the semi-convolutional embedding on the same U-Net, EmbedSeg, StarDist, Cellpose and
InstanSeg. Those of which a package is missing are named with the reason and left out.
What was found is kept in the output folder, and a call goes on where the last one was interrupted:

    python studies/nuclei_competitors.py
    python studies/nuclei_competitors.py --methods stardist probabilistic --seeds 0 1 --minutes 10
"""

from __future__ import annotations

import os

# Both before anything imports torch or tensorflow.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
import probemb_adapters.passive_threads  # noqa: F401

# isort: split

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import matplotlib
import numpy as np
import torch
import tyro

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from torch import Tensor, nn

from probemb_adapters.experiments.images import peers
from probemb_adapters.experiments.images.evaluation import (
    AFTERWARDS,
    average_precision,
    evaluate,
    evaluate_baselines,
    fit,
)
from probemb_adapters.experiments.images.model import FOREGROUND, Model, Network
from probemb_adapters.experiments.images.options import Settings
from probemb_adapters.experiments.images.pixel_methods import PIXELS, new_pixel_method, pixel_loss, segment
from probemb_adapters.experiments.images.training import Crops, PixelObjective, foreground_loss
from probemb_adapters.files import replaced_file
from probemb_adapters.images import LabelledImage, read_nuclei, read_sides, read_split
from probemb_adapters.images.pairs import Array
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_lib import dense_targets
from probemb_lib.metrics import LabelImageAP, PanopticQuality

Sides = Mapping[str, Sequence[LabelledImage]]
Found = dict[str, list[Array]]  # name of the row: label image of each test image
REFERENCE = "probabilistic, refined"


@dataclass
class Options:
    """What to compare."""

    methods: tuple[str, ...] = ()
    """some of probabilistic, deterministic, margin, foreground, embedseg, stardist, cellpose, instanseg,
    discriminative, semi-convolutional, the last two also with ", probabilistic"; none: all"""
    seeds: tuple[int, ...] = (0,)
    """each method is trained once with each"""
    minutes: float = 3.0
    """processor time of a training; preparing data, fitting and predicting are not counted"""
    data: Path = Path("data/nuclei/nuclei.npz")
    """images with labels, and split.csv beside"""
    resamples: int = 500
    """of fields, for the intervals"""
    output: Path = Path("runs/nuclei_competitors")
    """folder of what was found, the table and the plot"""


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    images = read_nuclei(options.data)
    sides = read_sides(images, options.data)
    fields = read_split(options.data.with_name("split.csv"), "field")
    missing = {}
    for seed in options.seeds:
        for name in options.methods or METHODS:
            path = options.output / f"{name}-{seed}.npz"
            if path.is_file():
                continue
            budget = peers.Budget(60 * options.minutes)
            peers.seed_all(seed)
            try:
                found = METHODS[name](sides, budget)
            except ImportError as error:
                missing[name] = str(error)
                continue
            save(path, found, budget)
    runs = {path: load(path) for path in sorted(options.output.glob("*-*.npz"))}
    table, lines = compare(runs, sides["test"], [fields[image.name] for image in sides["test"]], options)
    write_table(table, options.output / "nuclei_competitors.csv")
    plot(lines, options.output / "nuclei_competitors.png", options.minutes)
    print(table_text(table), *(f"{name} left out: {reason}" for name, reason in missing.items()), sep="\n")


# --- methods: from the sides of the data and a budget to what is found in the test images


def embedding(kind: str, sides: Sides, budget: peers.Budget) -> Found:
    """Ours: the U-Net of the example with this embedding; clustered alone and, where it can be, refined."""
    scale = 8.0 if kind == "deterministic" else 32.0
    settings = Settings(embedding=kind, offset_scale=scale, flips=False)  # type: ignore[arg-type]
    objective = PixelObjective(settings)

    def losses(network: nn.Module, crops: Crops) -> Tensor:
        return objective(network, crops)["loss"]  # type: ignore[no-any-return]

    model = trained(settings, losses, sides, budget)
    if kind == "margin":
        return {"learnable margin": evaluate(kind, fit(model, sides["val"], None, (None,))[0], sides["test"]).found}
    ways = {kind: AFTERWARDS[:1], f"{kind}, refined": AFTERWARDS[-1:]}
    return {
        name: evaluate(name, fit(model, sides["val"], way, (None,))[0], sides["test"]).found
        for name, way in ways.items()
    }


def foreground(sides: Sides, budget: peers.Budget) -> Found:
    """The same U-Net, which learns the foreground and nothing else."""

    def losses(network: nn.Module, crops: Crops) -> Tensor:
        output = network(crops.image)
        _, semantic = dense_targets(crops.label, output.shape)
        return foreground_loss(output.logits[:, FOREGROUND], (semantic > 0).to(output.logits))

    model = trained(Settings(embedding="deterministic", flips=False), losses, sides, budget)
    return {e.name: e.found for e in evaluate_baselines(model, sides["val"], sides["test"])}


def trained(
    settings: Settings, losses: Callable[[nn.Module, Crops], Tensor], sides: Sides, budget: peers.Budget
) -> Model:
    """One cycle of the learning rate up to 3e-3, as in the example."""
    network = Network(settings)
    train(network, losses, sides, budget)
    return Model(network, settings)


def train(network: nn.Module, losses: Callable[[nn.Module, Crops], Tensor], sides: Sides, budget: peers.Budget) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-4)

    def rate(share: float) -> float:
        along = share / 0.2 if share < 0.2 else 1 - (share - 0.2) / 0.8
        return float(3e-3 * (0.02 + 0.98 * (1 - np.cos(np.pi * along)) / 2))

    peers.train_for(budget, network, sides["train"], losses, optimizer, rate)


def pixels(name: str, sides: Sides, budget: peers.Budget) -> Found:
    """A competing method of points on the pixels of the same U-Net."""
    method, network = new_pixel_method(name, Settings())
    train(network, partial(pixel_loss, method), sides, budget)

    def found(image: LabelledImage, **settings: object) -> Array:
        return segment(method, network, image.image, settings)

    settings = peers.pick(PIXELS[name].settings, sides["val"], found)
    return {name: [found(image, **settings) for image in sides["test"]]}


def peer(
    name: str,
    train: Callable[[Sequence[LabelledImage], Sequence[LabelledImage], peers.Budget], peers.Segmenter],
    sides: Sides,
    budget: peers.Budget,
) -> Found:
    segment = train(sides["train"], sides["val"], budget)
    return {name: [segment(image) for image in sides["test"]]}


METHODS: dict[str, Callable[[Sides, peers.Budget], Found]] = {
    "probabilistic": partial(embedding, "probabilistic"),
    "stardist": partial(peer, "StarDist", peers.stardist),
    "embedseg": partial(peer, "EmbedSeg", peers.embedseg),
    "margin": partial(embedding, "margin"),
    "foreground": foreground,
    "deterministic": partial(embedding, "deterministic"),
    "cellpose": partial(peer, "Cellpose", peers.cellpose),
    "instanseg": partial(peer, "InstanSeg", peers.instanseg),
    **{name: partial(pixels, name) for name in PIXELS},
}


# --- what is kept


def save(path: Path, found: Found, budget: peers.Budget) -> None:
    about = {"rows": list(found), "steps": budget.steps, "seconds": budget.seconds}
    arrays = {
        f"{k}/{i}": label.astype(np.uint16) for k, row in enumerate(found.values()) for i, label in enumerate(row)
    }
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, about=json.dumps(about), **arrays)


@dataclass(frozen=True)
class Run:
    steps: int
    found: Found


def load(path: Path) -> Run:
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        count = sum(key.startswith("0/") for key in file.files)
        found = {row: [file[f"{k}/{i}"] for i in range(count)] for k, row in enumerate(about["rows"])}
    return Run(about["steps"], found)


# --- comparison


@dataclass(frozen=True)
class Line:
    """A method: AP50, its interval and that of its difference to the reference, per cent."""

    name: str
    value: float
    interval: tuple[float, float]
    difference: tuple[float, float, float]


def compare(
    runs: Mapping[Path, Run], images: Sequence[LabelledImage], fields: Sequence[str], options: Options
) -> tuple[Table, list[Line]]:
    """Means over seeds; intervals over fields drawn with replacement, the same draws for all methods."""
    metrics: dict[str, list[LabelImageAP]] = {}
    quality: dict[str, list[float]] = {}
    steps: dict[str, list[int]] = {}
    for run in runs.values():
        for name, found in run.found.items():
            metrics.setdefault(name, []).append(average_precision(found, images))
            panoptic = PanopticQuality()
            for label, image in zip(found, images, strict=True):
                panoptic.update(label.astype(np.int64), image.label)  # type: ignore[arg-type]
            quality.setdefault(name, []).append(100 * float(panoptic.compute()["pq"]))
            steps.setdefault(name, []).append(run.steps)
    draws = list(drawn(fields, options.resamples))
    ap50 = {name: np.array([mean_ap(of, rows)[0] for rows in draws]) for name, of in metrics.items()}
    everything = {name: mean_ap(of, range(len(images))) for name, of in metrics.items()}
    reference = REFERENCE if REFERENCE in metrics else next(iter(metrics))
    rows, lines = [], []
    for name in sorted(metrics, key=lambda n: -everything[n][0]):
        ap = everything[name]
        low, high = np.nanpercentile(ap50[name], [2.5, 97.5])
        less, more = np.nanpercentile(ap50[reference] - ap50[name], [2.5, 97.5])
        behind = everything[reference][0] - ap[0]
        lines.append(Line(name, ap[0], (float(low), float(high)), (float(less), behind, float(more))))
        difference = "" if name == reference else f"{behind:+.1f} ({less:+.1f} to {more:+.1f})"
        counts = (fmean(quality[name]), str(round(fmean(steps[name]))), str(len(metrics[name])))
        rows.append(Row(name, [ap[0], f"{low:.1f} to {high:.1f}", ap[5], ap[8], fmean(ap), *counts, difference]))
    columns = ("AP50", "95 %", "AP75", "AP90", "AP 50-90", "PQ", "steps", "seeds", f"{reference} ahead by")
    text = f"{len(images)} test images; {options.minutes:g} minutes of processor time each; per cent"
    return Table("method", columns, rows, text=text), lines


def drawn(fields: Sequence[str], resamples: int) -> Iterator[list[int]]:
    rng = np.random.default_rng(0)
    groups = [[i for i, f in enumerate(fields) if f == field] for field in sorted(set(fields))]
    for _ in range(resamples):
        yield [i for k in rng.integers(len(groups), size=len(groups)) for i in groups[k]]


def mean_ap(metrics: Sequence[LabelImageAP], rows: Sequence[int]) -> list[float]:
    """Of these images at each threshold, mean over trainings."""
    return (100 * np.mean([m.subset(list(rows)).compute()["ap"] for m in metrics], axis=0)).tolist()  # type: ignore[no-any-return]


def plot(lines: Sequence[Line], path: Path, minutes: float) -> None:
    figure, axes = plt.subplots(figsize=(7, 1 + 0.35 * len(lines)), layout="constrained")
    for y, line in enumerate(reversed(lines)):
        axes.plot(line.interval, (y, y), color="tab:blue", linewidth=2)
        axes.plot(line.value, y, "o", color="tab:blue")
    axes.set_yticks(range(len(lines)), [line.name for line in reversed(lines)])
    axes.set_xlabel(f"AP50, per cent, 95 % over fields; {minutes:g} minutes of one core each")
    axes.grid(axis="x", alpha=0.3)
    with replaced_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
