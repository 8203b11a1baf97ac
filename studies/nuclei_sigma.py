"""What the uncertainty of the nuclei model says about its errors, on the test images of data/nuclei.

- Calibration: is the similarity of a pixel with a found nucleus the share of such pixels that belong to it?
- Errors: does sigma mark pixels that were given to the wrong nucleus, and do other numbers do better: one minus the
  similarity to the own nucleus, how little it is ahead of the next one, the entropy over all, one minus the foreground,
  and, as what one has without a network, nearness to the border of what was found?
- Borders: is sigma larger there?

    python studies/nuclei_sigma.py
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata
from tqdm import tqdm

from probemb_adapters.experiments.images.model import Model
from probemb_adapters.images import LabelledImage, read_nuclei, read_sides, read_split
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_lib import Instances, log_bhattacharyya

Array = NDArray[Any]

BINS = 10
BORDERS = (1, 2, 4, 8)  # pixels to the border, at most


@dataclass
class Options:
    """Which model, on which images."""

    model: Path = Path("checkpoints/nuclei.safetensors")
    """of examples/nuclei_unet.py, with a probabilistic embedding"""
    data: Path = Path("data/nuclei/nuclei.npz")
    """images with labels, and split.csv beside"""
    side: str = "test"
    """of the split"""
    resamples: int = 500
    """of fields, for the intervals"""
    output: Path = Path("runs/nuclei_sigma")
    """folder of the tables"""


@dataclass(frozen=True)
class Pixels:
    """The pixels of one image that were given to a nucleus, P of them.

    Attributes:
        wrong: (P,) bool, the true nucleus of the pixel, or the background, is not that of most pixels of its own.
        signs: by name (P,), larger where an error is likelier.
        inside: (P,) pixels to the border of the true nucleus, 1 at it; 0 in the background.
        sigma: (P,) geometric mean over both axes.
        kappa: (E,) similarity of a pixel with a nucleus, for all pairs above 0.01.
        belongs: (E,) whether the pixel is of it.
    """

    wrong: Array
    signs: Mapping[str, Array]
    inside: Array
    sigma: Array
    kappa: Array
    belongs: Array


def measure(model: Model, image: LabelledImage) -> Pixels | None:
    """None where nothing was found."""
    if image.label is None:
        raise ValueError(f"{image.name}: expected labels")
    embedding, probabilities = model.predict(image.image)
    found = model.cluster(embedding, probabilities)
    taken = found.label >= 0
    if not bool(taken.any()):
        return None
    own = found.label[taken]
    kappa = log_bhattacharyya(embedding.select(taken), found.embedding).exp()  # (P, K)
    sigma = embedding.log_std[taken].mean(1).exp()
    first = kappa.gather(1, own[:, None])[:, 0]
    others = kappa.scatter(1, own[:, None], 0.0).amax(1)
    share = (kappa + 1e-9) / (kappa + 1e-9).sum(1, keepdim=True)
    border = ndimage.distance_transform_edt(_inner(found, image.image.shape))
    true = torch.from_numpy(image.label.astype(np.int64)).flatten()[taken]
    most = majority(own.numpy(), true.numpy(), len(found))
    belongs = torch.from_numpy(most)[None] == true[:, None]
    near = kappa > 0.01
    depth = ndimage.distance_transform_edt(_same(image.label))
    return Pixels(
        wrong=most[own.numpy()] != true.numpy(),
        signs={
            "sigma": sigma.numpy(),
            "1 − similarity to the own": (1 - first).numpy(),
            "similarity to the next − to the own": (others - first).numpy(),
            "entropy over the nuclei": -(share * share.log()).sum(1).numpy(),
            "1 − foreground · centre": (1 - probabilities[taken, 1]).numpy(),
            "nearness to the border found": -border.flatten()[taken.numpy()],
        },
        inside=((1 + depth) * (image.label > 0)).flatten()[taken.numpy()],
        sigma=sigma.numpy(),
        kappa=kappa[near].numpy(),
        belongs=belongs[near].numpy(),
    )


def majority(own: Array, true: Array, count: int) -> Array:
    """(K,) the true number of most pixels of each nucleus found; -1 where that is the background."""
    votes = np.zeros((count, int(true.max(initial=0)) + 1), np.int64)
    np.add.at(votes, (own, true), 1)
    most = votes.argmax(1)
    return np.where(most == 0, -1, most)


def _inner(found: Instances, shape: Sequence[int]) -> Array:
    return _same(1 + found.label.reshape(tuple(shape)).numpy())


def _same(label: Array) -> Array:
    """Pixels of an object whose four neighbours are of it too, so that their distance to the others is to a border."""
    same = label > 0
    for axis in (0, 1):
        step = np.diff(label, axis=axis) == 0
        edges = [[(0, 0), (0, 0)] for _ in range(2)]
        edges[0][axis], edges[1][axis] = (1, 0), (0, 1)
        for edge in edges:
            same = same & np.pad(step, edge, constant_values=True)
    return np.asarray(same)


def auroc(sign: Array, wrong: Array) -> float:
    """How often a wrong pixel has a larger sign than a right one; ties count half. NaN without either.

    >>> auroc(np.array([0.1, 0.9, 0.5]), np.array([False, True, False]))
    1.0
    """
    bad, good = int(wrong.sum()), int((~wrong).sum())
    if not bad or not good:
        return float("nan")
    return float((rankdata(sign)[wrong].sum() - bad * (bad + 1) / 2) / (bad * good))


def calibration(images: Sequence[Pixels]) -> tuple[list[tuple[float, float, int]], float]:
    """Mean similarity, share that belongs and number of pairs in each bin, and the mean gap, weighted by pairs."""
    kappa = np.concatenate([p.kappa for p in images])
    belongs = np.concatenate([p.belongs for p in images])
    bins = np.minimum((BINS * kappa).astype(int), BINS - 1)
    rows = [
        (float(kappa[bins == b].mean()), float(belongs[bins == b].mean()), int((bins == b).sum()))
        for b in range(BINS)
        if (bins == b).any()
    ]
    gap = sum(count * abs(mean - share) for mean, share, count in rows) / len(kappa)
    return rows, gap


def sign_rows(images: Sequence[Pixels], fields: Sequence[str], resamples: int) -> list[Row]:
    """The mean AUROC of images for each sign, with an interval over fields, and over all pixels at once."""
    rng = np.random.default_rng(0)
    groups = [[i for i, f in enumerate(fields) if f == field] for field in sorted(set(fields))]
    draws = [
        [i for k in rng.integers(len(groups), size=len(groups)) for i in groups[k]] for _ in range(resamples)
    ]  # the same for all signs
    wrong = np.concatenate([p.wrong for p in images])
    rows = []
    for name in images[0].signs:
        values = np.array([auroc(p.signs[name], p.wrong) for p in images])
        low, high = np.nanpercentile([np.nanmean(values[draw]) for draw in draws], [2.5, 97.5])
        pooled = auroc(np.concatenate([p.signs[name] for p in images]), wrong)
        rows.append(Row(name, [float(np.nanmean(values)), f"{low:.3f} to {high:.3f}", pooled]))
    return rows


def border_rows(images: Sequence[Pixels]) -> list[Row]:
    """Median sigma and share of wrong pixels by the distance to the border of the true nucleus."""
    inside, sigma, wrong = (np.concatenate([getattr(p, n) for p in images]) for n in ("inside", "sigma", "wrong"))
    rows, low = [], -1.0
    for high in (0, *BORDERS, np.inf):
        some = (inside > low) & (inside <= high)
        name = "background" if high == 0 else f"{low:g} to {high:g} pixels" if np.isfinite(high) else f"over {low:g}"
        if some.any():
            rows.append(Row(name, [float(np.median(sigma[some])), 100 * float(wrong[some].mean()), int(some.sum())]))
        low = high
    return rows


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    model = Model.load(options.model)
    if model.settings.embedding != "probabilistic":
        raise SystemExit(f"--model: expected a probabilistic embedding, got {model.settings.embedding}")
    side = read_sides(read_nuclei(options.data), options.data)[options.side]
    split = options.data.with_name("split.csv")
    field = read_split(split, "field") if split.is_file() else {}
    measured = [(image, measure(model, image)) for image in tqdm(side, unit="image")]
    images = [pixels for _, pixels in measured if pixels is not None]
    fields = [field.get(image.name, image.name) for image, pixels in measured if pixels is not None]
    if not images:
        raise SystemExit("nothing was found in any image")
    wrong = np.concatenate([p.wrong for p in images])
    bins, gap = calibration(images)
    tables = {
        "errors": Table(
            "larger where a pixel is wrong?",
            ("AUROC by image", "95 %", "all pixels"),
            sign_rows(images, fields, options.resamples),
            text=f"{len(images)} images, {len(wrong):,} pixels in nuclei found, {100 * wrong.mean():.1f} % wrong",
            decimals=3,
        ),
        "calibration": Table(
            "similarity",
            ("share that belongs", "pairs"),
            [Row(f"{mean:.2f}", [share, count]) for mean, share, count in bins],
            text=f"mean gap {gap:.3f}",
            decimals=3,
        ),
        "borders": Table(
            "inside the true nucleus",
            ("median sigma, pixels", "wrong, per cent", "pixels"),
            border_rows(images),
            decimals=2,
        ),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_table(table, options.output / f"{name}.csv")
    print("\n\n".join(table_text(table) for table in tables.values()))


if __name__ == "__main__":
    main()
