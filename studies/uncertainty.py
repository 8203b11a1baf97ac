"""What trained models know of their errors: sigma, and the uncertainty of a point in its instance.

For each variant of the embedding, on the test shapes of its models: whether a larger sigma, and a larger
`Instances.uncertainty`, marks points that were grouped wrongly (AUROC), whether sigma rises towards the borders of
parts, as the paper says (its Fig. 5), and whether the similarity to the found instance is the probability of belonging
to the part of its seed (reliability). The first two over whole shapes, where large parts have large sigma and are found
more often, and within each part, where size plays no role:

    python studies/uncertainty.py                                  the checkpoint of the project
    python studies/uncertainty.py --models runs/*/model.safetensors    models of one variant make one row
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from lightning_fabric import Fabric
from scipy.spatial import KDTree
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from probemb_adapters.experiments import partnet
from probemb_adapters.files import replaced_file
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_adapters.report.pictures import match_instances
from probemb_adapters.training import start_fabric
from probemb_lib import greedy_cluster, log_bhattacharyya_paired
from probemb_shapes.demo_data import PROJECT, partnet_folder

BINS = 10
WITH_SIGMA = ("probabilistic", "isotropic")  # homoscedastic variants have one a cloud, deterministic ones none


@dataclass
class Options:
    """Which models, on how many points."""

    models: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH ...")] = (
        PROJECT / "checkpoints/furniture.safetensors",
    )
    """of examples/partnet_pointnet2.py, of variants with one sigma a point: probabilistic or isotropic"""
    points: int = 10_000
    """points of a test shape"""
    refine: bool = False
    """instances refined by their members"""
    resamples: int = 500
    """of test shapes, for the intervals"""
    output: Path = Path("runs/uncertainty")
    """folder of the table and the plot"""


@dataclass
class Points:
    """What is asked of the points of one shape that belong to a part."""

    part: Any  # (n,)
    log_std: Any  # (n,) mean ln σ over the axes
    uncertainty: Any  # (n,) 1 − score κ, of the instance of the point
    wrong: Any  # (n,) bool: not in the found instance that matches the part, or there is none
    distance: Any  # (n,) to the nearest point of another part, nan in a shape of one part
    kappa: Any  # (n,) similarity to the Gaussian of the found instance: that of its seed, or of all when refined
    with_seed: Any  # (n,) bool: of the same part as the seed


def measure(model: partnet.Model, options: Options, fabric: Fabric) -> list[Points]:
    """The test shapes of the model's own category."""
    settings = model.options(points=options.points)
    test = partnet.read_split(partnet_folder(settings.category, settings.generated_shapes, fabric), settings, "test")
    measured = []
    for i in tqdm(range(len(test)), desc=settings.category, unit="shape"):  # type: ignore[arg-type]
        data = test[i]
        embedding, probabilities = model.predict(data, fabric)
        # Every point is clustered: what is asked is how points are grouped, not which are background.
        foreground = probabilities if model.background is None else probabilities[:, 1:]
        found = greedy_cluster(embedding, foreground, threshold=model.threshold, background=None, refine=options.refine)
        embedding, found = embedding.to("cpu"), found.to("cpu")
        part, label = data.instance, found.label
        rows = (part >= 0).nonzero().squeeze(1)
        of_found = match_instances(part, label)  # (K,) the true part, −1 none
        kappa = log_bhattacharyya_paired(embedding, found.embedding.select(label)).exp()
        wrong = of_found[label] != part
        with_seed = part[found.seed[label]] == part
        distance = distance_to_other_parts(data.pos[rows].numpy(), part[rows].numpy())
        of_points = (part, embedding.log_std.mean(1), found.uncertainty(embedding), wrong, kappa, with_seed)
        part, log_std, uncertainty, wrong, kappa, with_seed = (t[rows].numpy() for t in of_points)
        measured.append(Points(part, log_std, uncertainty, wrong, distance, kappa, with_seed))
    return [points for points in measured if len(points.wrong)]


def distance_to_other_parts(positions: Any, part: Any) -> Any:
    """Of each point to the nearest one of another part; nan where there is only one part."""
    distance = np.full(len(part), np.nan)
    for one in np.unique(part):
        inside = part == one
        if not inside.all():
            distance[inside] = KDTree(positions[~inside]).query(positions[inside])[0]
    return distance


# --- numbers


def auroc(points: Points, rows: Any, quantity: str = "log_std") -> float:
    """The probability that a wrongly grouped point has a larger σ, or another quantity, than a rightly grouped one; nan
    if all are alike."""
    wrong, value = points.wrong[rows], getattr(points, quantity)[rows]
    return float(roc_auc_score(wrong, value)) if 0 < wrong.sum() < len(wrong) else float("nan")


def auroc_of_uncertainty(points: Points, rows: Any) -> float:
    return auroc(points, rows, "uncertainty")


def border_correlation(points: Points, rows: Any) -> float:
    """Spearman's ρ of σ and the distance to other parts: negative if σ is larger at borders."""
    log_std, distance = points.log_std[rows], points.distance[rows]
    if len(distance) < 3 or not np.isfinite(distance).all() or np.ptp(log_std) == 0 or np.ptp(distance) == 0:
        return float("nan")
    return float(spearmanr(log_std, distance).statistic)


NUMBERS = {auroc: "AUROC σ", auroc_of_uncertainty: "AUROC uncertainty", border_correlation: "ρ(σ, distance)"}


def of_shapes(shapes: Sequence[Points], number: Callable[[Points, Any], float]) -> Any:
    """The number of each shape, nan where it has none."""
    return np.array([number(shape, slice(None)) for shape in shapes])


def within_parts(shapes: Sequence[Points], number: Callable[[Points, Any], float]) -> Any:
    """For each shape the mean of the numbers of its parts of at least 20 points."""
    values = []
    for shape in shapes:
        parts = [shape.part == part for part in np.unique(shape.part)]
        found = np.array([number(shape, rows) for rows in parts if rows.sum() >= 20])
        values.append(np.nanmean(found) if np.isfinite(found).any() else np.nan)
    return np.array(values)


def reliability(shapes: Sequence[Points]) -> tuple[Any, Any, float]:
    """Mean κ, share of points of the seed's part in bins of κ, and the mean absolute gap weighted by points."""
    kappa, same = (np.concatenate([getattr(s, name) for s in shapes]) for name in ("kappa", "with_seed"))
    of_bin = np.minimum((kappa * BINS).astype(int), BINS - 1)
    count = np.bincount(of_bin, minlength=BINS)
    mean, share = (np.bincount(of_bin, x, BINS) / np.maximum(count, 1) for x in (kappa, same.astype(float)))
    there = count > 0
    return mean[there], share[there], float((count * np.abs(mean - share)).sum() / count.sum())


def interval(of_shape: Any, resamples: int) -> str:
    """95 % of the bootstrap of the mean over shapes."""
    rng, known = np.random.default_rng(0), of_shape[np.isfinite(of_shape)]
    if len(known) < 2:
        return "–"
    low, high = np.percentile(rng.choice(known, (resamples, len(known))).mean(1), [2.5, 97.5])
    return f"{low:.2f} … {high:.2f}"


def plot(models: dict[str, list[Points]], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, shapes in models.items():
        distance, log_std = (np.concatenate([getattr(s, n) for s in shapes]) for n in ("distance", "log_std"))
        known = np.isfinite(distance)
        edges = np.quantile(distance[known], np.linspace(0, 1, 13))
        of_bin = np.clip(np.searchsorted(edges, distance[known], side="right") - 1, 0, 11)
        count = np.maximum(np.bincount(of_bin, minlength=12), 1)
        left.plot(*(np.bincount(of_bin, x, 12) / count for x in (distance[known], log_std[known])), "o-", label=name)
        mean, share, gap = reliability(shapes)
        right.plot(mean, share, "o-", label=f"{name}, gap {gap:.2f}")
    left.set(xlabel="distance to the nearest point of another part", ylabel="mean ln σ", title="σ towards the borders")
    right.plot([0, 1], [0, 1], color="0.6", lw=1)
    right.set(xlabel="similarity κ to the instance", ylabel="share of the seed's part", title="Reliability")
    right.legend(frameon=False)
    with replaced_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    fabric = start_fabric(accelerator="auto", devices=1, precision="32-true", log_dir=None)
    models: dict[str, list[partnet.Model]] = {}
    for path in options.models:
        model = partnet.Model.load(path)
        variant = model.settings.embedding
        if variant not in WITH_SIGMA:
            raise SystemExit(f"{path}: expected a model with one sigma a point, {WITH_SIGMA}, got {variant!r}")
        models.setdefault(variant, []).append(model)
    measured = {
        name: [shape for model in of_variant for shape in measure(model, options, fabric)]
        for name, of_variant in models.items()
    }
    rows = []
    for name, shapes in measured.items():
        cells: list[Any] = [len(models[name]), len(shapes), 100 * float(np.mean([s.wrong.mean() for s in shapes]))]
        for number, of_each in product(NUMBERS, (of_shapes, within_parts)):
            values = of_each(shapes, number)
            cells += [float(np.nanmean(values)), interval(values, options.resamples)]
        rows.append(Row(name, [*cells, reliability(shapes)[2]]))
    heads = ["models", "shapes", "wrong, %"]
    for what, where in product(NUMBERS.values(), ("shape", "part")):
        heads += [f"{what}, {where}", "95 %"]
    heads.append("reliability gap")
    table = Table("Uncertainty and errors on test shapes", heads, rows, decimals=2)
    write_table(table, options.output / "uncertainty.csv")
    plot(measured, options.output / "uncertainty.png")
    print(f"\n{table_text(table)}\n\ntable    {options.output / 'uncertainty.csv'}")
    print(f"picture  {options.output / 'uncertainty.png'}")


if __name__ == "__main__":
    main()
