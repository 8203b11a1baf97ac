"""What the examples share around a network: the training run, one file a model, results of all processes.

The loop itself is in :mod:`probemb_adapters.training`; pictures and pages in :mod:`probemb_adapters.report`.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR
from torch.utils.data import DataLoader, Dataset

from probemb_adapters.clouds import Array, Cloud, nearest, read_clouds
from probemb_adapters.clouds.check import notes_of
from probemb_adapters.files import missing_extra, replaced_file
from probemb_adapters.report import Section, write_report
from probemb_adapters.report.pictures import contact_sheet
from probemb_adapters.report.tables import table_text
from probemb_adapters.training import LAST, Losses, Training, gather_in_order, train
from probemb_adapters.training.batches import SeededBatches, SeededItems
from probemb_adapters.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from probemb_adapters.training.options import AnySettings, RunOptions, TrainingSettings, chosen
from probemb_lib import GaussianEmbedding, Instances, __version__, check_batch

try:
    from lightning_fabric import Fabric
    from torch_geometric.data import Batch, Data
    from tqdm import tqdm
except ImportError as error:
    raise missing_extra("experiments need lightning-fabric and torch-geometric", "train,partnet", error) from error


def clouds_to_predict(files: Sequence[Path]) -> list[Cloud]:
    """The clouds of files and folders; what is not as usual in them is printed.

    Raises:
        ValueError: two have one name, after which results are named.
    """
    clouds = [cloud for path in files for cloud in read_clouds(path)]
    for line in notes_of(clouds):
        tqdm.write(line)
    names = [cloud.name for cloud in clouds]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"results are named after the files, expected different names, got {', '.join(twice)} more than once: "
            "predict them into folders of their own, or name a folder that holds them all"
        )
    return clouds


def check_output(folder: Path, resume: bool) -> None:
    """Refuse to start where a training was, and to go on where none was, before anything is read.

    Raises:
        ValueError: what to do.
    """
    there = (folder / LAST).exists()
    if there and not resume:
        raise ValueError(f"{folder} has a training already: go on with it by --resume, or take another --output")
    if resume and not there:
        raise ValueError(f"{folder} has no {LAST} to go on from: to start a training leave out --resume")


# --- clouds of more points than a network sees


def draw_order(count: int, points: int, seed: int) -> Tensor:
    """The same rows for the same cloud each time, in random order, as PointNet++ takes the first in a ball."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:points]


def at_all_points(
    pos: Array, order: Tensor, embedding: GaussianEmbedding, found: Instances
) -> tuple[GaussianEmbedding, Instances]:
    """What was found at the rows ``order`` of a cloud (N, 3), given to all its points: each takes what the nearest of
    these rows has. On the CPU."""
    row = torch.from_numpy(nearest(pos, pos[order]))
    found = replace(found, label=found.label[row], seed=order[found.seed], point_batch=found.point_batch[row])
    return embedding.select(row), found


@contextlib.contextmanager
def tiles_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar for the ``progress`` of :func:`~probemb_lib.cluster_tiles`."""
    with tqdm(desc="tiles", unit="tile", leave=False) as bar:

        def progress(done: int, tiles: int) -> None:
            bar.total = tiles
            bar.update(done - bar.n)

        yield progress


def own_points(seen: Tensor, tile_size: float, axes: Sequence[int]) -> Tensor:
    """Which points (n, D) of a tile of :func:`~probemb_lib.cluster_tiles` are of its cell, and labelled by it: (n,).

    The others are predicted again by their own tile, which sees more of what lies around them. Those of the cell come
    first.

    >>> own_points(torch.tensor([[0.2], [0.9], [1.1], [-0.1]]), 1.0, [0])
    tensor([ True,  True, False, False])
    """
    cell = seen[:, axes].double().div(tile_size).floor()
    return (cell == cell[0]).all(1)


# --- training


def learning_rate_schedule(
    optimizer: torch.optim.Optimizer, options: RunOptions, steps: int, *, rise: float = 0.1
) -> LRScheduler:
    """The schedule that the options name, from the optimizer's learning rate, stepped ``steps`` times.

    Args:
        rise: fraction of the steps in which a one-cycle schedule rises, two steps at least.
    """
    if options.schedule == "one-cycle":
        highest, total = optimizer.param_groups[0]["lr"], max(3, steps)
        return OneCycleLR(optimizer, highest, total_steps=total, pct_start=max(rise, 2 / total), cycle_momentum=False)
    return MultiStepLR(optimizer, [round(fraction * steps) for fraction in options.halve_at], gamma=0.5)


def train_network(
    network: nn.Module,
    data: Dataset[Data],
    compute_losses: Callable[[nn.Module, Any], Losses],
    options: RunOptions,
    fabric: Fabric,
    *,
    settings: Mapping[str, Any],
    num_classes: int | None = None,
    draws: int | None = None,
    weights: Sequence[float] | None = None,
    folder: Path | None = None,
) -> list[dict[str, float]]:
    """Train a network as the options say, from the last checkpoint where they ask to resume.

    Args:
        network: on any device.
        data: items of clouds; a batch is `Batch.from_data_list`.
        compute_losses: (network, batch) → terms, see :func:`probemb_adapters.training.train`.
        settings: of the model, which must not change when the training continues.
        num_classes: columns of the score maps, to check the first batch by.
        draws: items an epoch; None: as many as there are, and a batch at least.
        weights: how often each item is drawn; None: all equally.
        folder: of the checkpoint; None: the output folder.

    Returns:
        The mean of each term in each epoch.
    """
    epochs, batch_size, workers, rate = options.epochs, options.batch_size, options.workers, options.learning_rate
    if epochs is None or batch_size is None or workers is None or rate is None or options.schedule is None:
        raise ValueError(
            f"expected options with epochs, batch_size, workers, learning_rate and schedule chosen, got {options}"
        )
    folder = options.output if folder is None else folder
    items = len(data)  # type: ignore[arg-type]
    draws = draws or max(items, batch_size)
    loader = seeded_loader(data, options, fabric, draws=draws, weights=weights, collate=Batch.from_data_list)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = learning_rate_schedule(optimizer, options, epochs * len(loader))
    training = Training(network, optimizer, schedule, settings=dict(settings))
    text = (
        f"{items} clouds; {epochs} epochs of {len(loader)} steps, a step: {batch_size} clouds, on "
        f"{fabric.world_size} x {fabric.device.type}"
    )
    checked = False

    def losses(network: nn.Module, batch: Any) -> Losses:
        nonlocal checked
        if not checked:
            checked = True
            fabric.print(*_findings(batch, num_classes, settings.get("offset_scale")), sep="", end="")
        return compute_losses(network, batch)

    return run_epochs(training, loader, losses, options, fabric, text, folder)


def losses_of(loss: Callable[..., Losses]) -> Callable[[nn.Module, Any], Losses]:
    """For :func:`train_network`: (network, batch) → ``loss`` of the network's output and the labels of the batch."""

    def losses(network: nn.Module, batch: Any) -> Losses:
        return loss(network(batch), batch.instance, batch.semantic, batch.batch)

    return losses


def seeded_loader(
    data: Dataset[Any],
    options: RunOptions,
    fabric: Fabric,
    *,
    draws: int,
    collate: Callable[[list[Any]], Any],
    weights: Sequence[float] | None = None,
) -> DataLoader[Any]:
    """This process's share of ``draws`` items an epoch, in batches that the seed decides; its length is in steps."""
    workers = chosen(options.workers)
    return DataLoader(
        SeededItems(data),
        batch_sampler=SeededBatches(
            len(data),  # type: ignore[arg-type]
            chosen(options.batch_size),
            seed=options.seed,
            weights=weights,
            draws=draws,
            process=fabric.global_rank,
            processes=fabric.world_size,
        ),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=fabric.device.type == "cuda",
        collate_fn=collate,
    )


def run_epochs(
    training: Training,
    loader: DataLoader[Any],
    compute_losses: Callable[[nn.Module, Any], Losses],
    options: RunOptions,
    fabric: Fabric,
    text: str,
    folder: Path,
) -> list[dict[str, float]]:
    """All epochs, or those that are left where the options ask to resume; prints ``text`` and the time."""
    epochs = chosen(options.epochs)
    if options.resume:
        training.resume(folder / LAST, fabric)
    fabric.print(text)
    if options.finish and training.epoch < epochs:
        fabric.print(f"finished after {training.epoch} of {epochs} epochs: a whole training finds more")
        epochs = training.epoch
    start = time.perf_counter()
    with cores_beside(loader.num_workers):
        history = train(
            fabric,
            training,
            loader,
            compute_losses,
            epochs=epochs,
            folder=folder,
            max_norm=options.max_norm,
            save_every=options.save_every,
        )
    fabric.print(f"trained in {(time.perf_counter() - start) / 60:.1f} min")
    return history


@contextlib.contextmanager
def cores_beside(workers: int) -> Iterator[None]:
    """Torch computes on the cores that the processes of a loader leave: with one too many all of them crawl.

    Threads of an OpenBLAS that has its own (numpy's, MinkowskiEngine's) never sleep: beside a process that reads, a
    step of the experiment on rooms took 1.4 times as long with two of them as with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - workers))
    try:
        with ThreadpoolController().select(threading_layer="pthreads").limit(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)


def _findings(batch: Any, num_classes: int | None, offset_scale: float | None) -> list[str]:
    """A line for each thing in the first batch that looks like a mix-up (:func:`~probemb_lib.check_batch`)."""
    if "instance" not in batch:
        return []
    found = check_batch(
        batch.pos,
        batch.instance,
        getattr(batch, "semantic", None),
        batch.batch,
        num_classes=num_classes,
        offset_scale=offset_scale,
    )
    return [f"first batch, {finding}\n" for finding in found]


# --- one file a model


RESULTS = ("metrics.json", "metrics.csv", "report.html")


def save_model(path: Path, network: nn.Module, classes: Sequence[str], settings: TrainingSettings) -> Path:
    """Weights, names of the classes and settings, in one safetensors file.

    Results of an earlier model in the folder go first: whenever the run ends, what lies there belongs together.
    """
    for name in RESULTS:
        path.with_name(name).unlink(missing_ok=True)
    save_checkpoint(path, {"model": network.state_dict(), "classes": tuple(classes), "about": settings.stored()})
    return path


Network = TypeVar("Network", bound=nn.Module)


def load_model(
    path: Path, settings_type: type[AnySettings], build: Callable[[int, AnySettings], Network]
) -> tuple[Network, tuple[str, ...], AnySettings]:
    """The network of a file of :func:`save_model`, for inference, its classes and its settings.

    Args:
        settings_type: what reads the settings, see :meth:`TrainingSettings.read`.
        build: (number of classes, settings) → the network to fill.

    Raises:
        FileNotFoundError, ValueError: no file, a damaged one, or one of something else.
    """
    state = load_checkpoint(path)
    if not {"model", "classes", "about"} <= set(state):
        raise ValueError(f"{path} holds {', '.join(state)}: expected a model.safetensors of {settings_type.MADE_BY}")
    try:
        settings = settings_type.read(state["about"])
        network = build(len(state["classes"]), settings)
        load_weights(network, state["model"])
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no model of {settings_type.MADE_BY}: {brief(error)}") from error
    return network.eval(), tuple(state["classes"]), settings


def brief(error: Exception) -> str:
    """What a library says in many lines, in one of at most 300 letters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]} …"


def start_from(network: nn.Module, trained: nn.Module, path: Path) -> None:
    """Give a network that is to be trained the weights of the model of a file (``--start-from``).

    Raises:
        ValueError: the model is another network, or its head has other lengths.
    """
    try:
        network.load_state_dict(trained.state_dict())
    except RuntimeError as error:  # a line for each weight after the first line
        first, *more = [line.strip() for line in str(error).splitlines()[1:]]
        others = f"; and {len(more)} more" if more else ""
        raise ValueError(f"--start-from {path} does not fit this training: {first}{others}") from error


def distinct_names(paths: Sequence[Path], kinds: Sequence[str]) -> list[str]:
    """A name for each model: what it is of, and its file where two are of one kind.

    >>> distinct_names([Path("a"), Path("b"), Path("c")], ["mse", "full", "mse"])
    ['mse (a)', 'full', 'mse (c)']
    """
    return [kind if kinds.count(kind) == 1 else f"{kind} ({path})" for path, kind in zip(paths, kinds, strict=True)]


# --- results


class Metric(Protocol):
    """What both evaluators are."""

    def merge_state(self, other: Any) -> None: ...


AnyMetric = TypeVar("AnyMetric", bound=Metric)


def merged(metric: AnyMetric, fabric: Fabric) -> AnyMetric:
    """The metric over the clouds of all processes, in the order of the split."""
    first, *others = gather_in_order(fabric, metric)
    for other in others:
        first.merge_state(other)
    return first  # type: ignore[no-any-return]


def versions() -> dict[str, str]:
    """Of what numbers depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "probemb_lib": __version__}


def write_metrics(
    folder: Path, metrics: Mapping[str, Any], options: RunOptions, lines: Iterable[Sequence[Any]]
) -> Path:
    """`metrics.json` with everything, options and versions included, and `metrics.csv` with ``lines``."""
    given = {name: str(v) if isinstance(v, Path | tuple) else v for name, v in asdict(options).items()}
    document = {**metrics, "options": given, "versions": versions()}
    with replaced_file(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(without_nan(document), indent=2))
    with replaced_file(folder / "metrics.csv") as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder / "metrics.json"


def without_nan(value: Any) -> Any:
    """JSON has no NaN, which is the AP of a class without ground truth.

    >>> without_nan({"AP": [0.5, float("nan")]})
    {'AP': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_results(title: str, sections: Sequence[Section], options: RunOptions) -> str:
    """The page and the picture into the output folder; what to print: the tables, and where the files are."""
    clouds = [shape for part in sections for shape in part.shapes]
    sheet = contact_sheet(clouds[:: max(1, -(-len(clouds) // 8))], options.output / "shapes.png", title=title)
    settings = {"options": asdict(options), "versions": versions()}
    page = write_report(options.output / "report.html", title, sections, settings=settings)
    tables = "\n\n".join(table_text(shown) for part in sections for shown in part.tables)
    return f"\n{tables}\n\nreport   {page}\npicture  {sheet}\nmetrics  {options.output / 'metrics.json'}"
