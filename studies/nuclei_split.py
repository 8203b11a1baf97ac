"""The split of data/nuclei: fields that were cut into tiles stay on one side.

Many images of the set are tiles of one larger field: the last row or column of one goes on in the first of another.
So two images of a size are linked where these border lines have a correlation of at least 0.9, and each is the other's
best; what hangs together by links is a field, and a field goes to one side. The kinds of images (size and background
level, which tell the microscopes apart) are shared out alike.

    python studies/nuclei_split.py
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from probemb_adapters.files import replaced_file
from probemb_adapters.images import LabelledImage, read_nuclei

LINKED = 0.9  # true neighbours reach 0.95 and more, lines of other fields seldom 0.9
FLAT = 0.5  # norm of a line's variation, in natural logarithms, below which it shows nothing but background
SHARES = {"train": 0.68, "val": 0.12, "test": 0.20}


@dataclass(frozen=True)
class Options:
    data: Path = Path("data/nuclei/nuclei.npz")
    """images in the layout of data/nuclei"""
    output: Path = Path("data/nuclei/split.csv")
    """name, field, kind and split of each"""


def border(line: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A row or column of pixels as a vector of norm 1, or 0 where it is flat: products are correlations."""
    smooth = gaussian_filter1d(np.log1p(line.astype(np.float64)), 1.0)
    centred = smooth - smooth.mean()
    norm = np.linalg.norm(centred)
    return centred / norm if norm > FLAT else np.zeros_like(centred)


def fields(images: list[LabelledImage]) -> list[int]:
    """A number for each image, the same for tiles of one field."""
    pairs: list[tuple[int, int]] = []
    for shape in sorted({image.image.shape for image in images}):
        rows = [i for i, image in enumerate(images) if image.image.shape == shape]
        for ends, begins in (((slice(None), -1), (slice(None), 0)), ((-1, slice(None)), (0, slice(None)))):
            last = np.stack([border(images[i].image[ends]) for i in rows])
            first = np.stack([border(images[i].image[begins]) for i in rows])
            similar = last @ first.T
            np.fill_diagonal(similar, 0)
            for a, b in enumerate(similar.argmax(1)):
                if similar[a, b] >= LINKED and similar[:, b].argmax() == a:
                    pairs.append((rows[a], rows[b]))
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(len(images), len(images)))
    found: list[int] = connected_components(graph, directed=False)[1].tolist()
    return found


def kind(image: LabelledImage) -> str:
    """Which microscope, as far as size and background level tell."""
    height, width = image.image.shape
    background = "dark" if np.percentile(image.image, 5) < 7.5 else "bright"
    return f"{height} x {width}, {background} background"


def sides(groups: list[int], kinds: list[str], names: list[str]) -> list[str]:
    """Fields of a kind, large ones first, each to the side that lacks most; ties in an order of the names' digests."""
    side: dict[int, str] = {}
    kind_of = {g: Counter(k for k, h in zip(kinds, groups, strict=True) if h == g).most_common(1)[0][0] for g in groups}
    for name in sorted(set(kind_of.values())):
        own = [g for g in sorted(set(groups)) if kind_of[g] == name]
        size = Counter(g for g in groups if kind_of[g] == name)
        digest = {g: sha256(names[groups.index(g)].encode()).hexdigest() for g in own}
        count = dict.fromkeys(SHARES, 0)
        for g in sorted(own, key=lambda g: (-size[g], digest[g])):
            lacking = {s: share * size.total() - count[s] for s, share in SHARES.items()}
            side[g] = max(lacking, key=lambda s: lacking[s])
            count[side[g]] += size[g]
    return [side[g] for g in groups]


def main(options: Options) -> None:
    images = read_nuclei(options.data)
    groups, kinds = fields(images), [kind(image) for image in images]
    split = sides(groups, kinds, [image.name for image in images])
    with replaced_file(options.output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "field", "kind", "split"])
        writer.writerows(zip([image.name for image in images], groups, kinds, split, strict=True))
    nuclei = Counter[str]()
    for image, side in zip(images, split, strict=True):
        nuclei[side] += int(image.label.max()) if image.label is not None else 0
    for side in SHARES:
        own = Counter(k for k, s in zip(kinds, split, strict=True) if s == side)
        in_fields = len({g for g, s in zip(groups, split, strict=True) if s == side})
        print(f"{side}: {own.total()} images of {in_fields} fields, {nuclei[side]} nuclei; {dict(own)}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
