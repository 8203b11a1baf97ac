"""Open rooms, written as ScanNet's files.

    python -m probemb_shapes.rooms --source data/scan_objects --root .cache/rooms --scenes 60 --seed 0

Everything reads the result through `ScanNetScenes(root, "train" or "val")`, as it would read ScanNet. Scenes are
unlimited in number: scene ``index`` of a seed is always the same one, however many are made, and each fifth one is for
validation.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probemb_adapters.files import LICENCES, read_manifest, replaced_folder, write_manifest
from probemb_adapters.scannet.files import NYU40
from probemb_adapters.scannet.write import write_label_map, write_scene, write_split
from probemb_shapes.rooms.furnish import furnished
from probemb_shapes.rooms.models import LABELS, SPLITS, Models
from probemb_shapes.rooms.scan import Scan, scan_room
from probemb_shapes.rooms.simple import SIMPLE_CLASSES

VERSION = 1
"""Of what is written: raise it with every change of the result, and older caches are written again."""


@dataclass(frozen=True)
class RoomsReport:
    """What was written; ``str(report)`` is a table.

    Attributes:
        scenes: split → scenes.
        kinds: type of room → scenes.
        vertices: least, median and most of a scene.
        models: ScanNet class → split → models of the source.
        instances: ScanNet class → split → objects in the scenes.
        simple: classes that have simple objects besides.
    """

    scenes: dict[str, int]
    kinds: dict[str, int]
    vertices: tuple[int, float, int]
    models: dict[str, dict[str, int]]
    instances: dict[str, dict[str, int]]
    simple: tuple[str, ...]

    def __str__(self) -> str:
        least, median, most = self.vertices
        lines = [
            "scenes: " + ", ".join(f"{split} {count}" for split, count in self.scenes.items()),
            "rooms: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items())),
            f"vertices a scene: {least} to {most}, median {median:g}",
            f"{'':18}{'models':>12}{'':10}{'instances':>12}",
            f"{'class':18}" + "".join(f"{split:>6}" for split in SPLITS) + f"{'simple':>8}  "
            "" + "".join(f"{split:>7}" for split in SPLITS),
        ]
        for name, models in self.models.items():
            lines.append(
                f"{name:18}"
                + "".join(f"{models[split]:6d}" for split in SPLITS)
                + f"{'yes' if name in self.simple else '':>8}  "
                + "".join(f"{self.instances[name][split]:7d}" for split in SPLITS)
            )
        return "\n".join(lines)


def split_of_scene(index: int) -> str:
    """Each fifth scene is for validation.

    >>> [split_of_scene(i) for i in range(6)]
    ['train', 'train', 'train', 'train', 'val', 'train']
    """
    return "val" if index % 5 == 4 else "train"


def scene_id(index: int) -> str:
    """The name of a scene.

    >>> scene_id(4)
    'scene0004_00'
    """
    return f"scene{index:04d}_00"


def generate(models: Models, seed: int, index: int, *, cameras: int = 24, spacing: float = 0.03) -> Scan:
    """Scene ``index`` of a seed: always the same, however many are made.

    Args:
        models: of the source; a scene has only those of its side of the split.
        seed: not negative.
        index: not negative.
        cameras: views that are fused; the more, the less is missing.
        spacing: metres between vertices, about.

    Raises:
        ValueError: a number out of range.
    """
    _check(seed, index, cameras, spacing)
    rng = np.random.default_rng([seed, index])
    kind, room = furnished(models, split_of_scene(index), rng)
    return scan_room(kind, room, rng, cameras=cameras, spacing=spacing)


def write_rooms(
    source: str | Path,
    root: str | Path,
    *,
    scenes: int = 60,
    seed: int = 0,
    cameras: int = 24,
    spacing: float = 0.03,
    only: str | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> RoomsReport:
    """Write scenes as ScanNet's files into ``root``, unless they are there already.

    A complete cache is known by `manifest.json`: version, arguments, checksum of the source, sizes of the files.
    Otherwise everything is written into a temporary folder beside ``root``, which takes its place at the end: an
    interrupted writing leaves nothing under ``root`` and is redone. Two writings with the same arguments are equal to
    the byte, and a longer one begins with the scenes of a shorter one. Of several processes one should call this
    before the others read.

    Args:
        source: the folder of `objects.npz`, or a file of its layout.
        root: the folder to write; `ScanNetScenes(root, "train" or "val")` reads it.
        scenes: how many, at least 5, of which each fifth is for validation.
        seed: not negative.
        cameras: views of a scene.
        spacing: metres between vertices, 0.01 to 0.1.
        only: write the scenes of one side of the split alone, furnished from all models of the source: for evaluation
            on objects of another library.
        progress: wraps the numbers of the scenes, such as `tqdm`.

    Raises:
        FileNotFoundError: the source is missing.
        FileExistsError: ``root`` holds something that was not written by this function.
        ValueError: the source is unreadable or contradicts `data/README.md`, or a number is out of range.
    """
    root, models = Path(root), Models(source, only=only)
    _check(seed, 0, cameras, spacing)
    if scenes < 5:
        raise ValueError(f"expected at least 5 scenes, of which one is for validation, got {scenes}")
    if only is not None and only not in SPLITS:
        raise ValueError(f"expected only as one of {', '.join(SPLITS)}, got {only!r}")
    arguments = {"scenes": scenes, "seed": seed, "cameras": cameras, "spacing": spacing, "source": models.checksum()}
    arguments |= {} if only is None else {"only": only}
    made_from = {"version": VERSION, "arguments": arguments, "licences": LICENCES}
    report = read_manifest(root, made_from, _stored_report)
    if report is None:
        with replaced_folder(root) as new:
            report = _write(new, models, scenes, seed, cameras, spacing, progress)
            write_manifest(new, made_from, vars(report))
    return report


def _write(
    root: Path,
    models: Models,
    scenes: int,
    seed: int,
    cameras: int,
    spacing: float,
    progress: Callable[[Sequence[int]], Iterable[int]],
) -> RoomsReport:
    counts = models.counts()
    instances = {name: dict.fromkeys(SPLITS, 0) for name in counts}
    kinds: Counter[str] = Counter()
    vertices = []
    used: dict[str, list[str]] = {}
    indices = [index for index in range(scenes) if models.only in (None, split_of_scene(index))]
    for index in progress(indices):
        scan = generate(models, seed, index, cameras=cameras, spacing=spacing)
        write_scene(
            root,
            scene_id(index),
            scan.pos,
            scan.rgb,
            instance=scan.instance,
            categories=scan.categories,
            segment=scan.segment,
            axis_alignment=scan.axis_alignment,
            label_map=LABELS,
        )
        used[scene_id(index)] = list(scan.models)
        kinds[scan.kind] += 1
        vertices.append(len(scan.pos))
        for category in scan.categories:
            name = NYU40[LABELS[category]]
            if name in instances:
                instances[name][split_of_scene(index)] += 1
    write_label_map(root, LABELS)
    names = {split: [scene_id(i) for i in indices if split_of_scene(i) == split] for split in SPLITS}
    for split, some in names.items():
        write_split(root, split, some)
    (root / "models.json").write_text(json.dumps(used, indent=1), encoding="utf-8")
    return RoomsReport(
        scenes={split: len(some) for split, some in names.items()},
        kinds=dict(kinds),
        vertices=(min(vertices), float(np.median(vertices)), max(vertices)),
        models=counts,
        instances=instances,
        simple=tuple(sorted(SIMPLE_CLASSES)),
    )


def _check(seed: int, index: int, cameras: int, spacing: float) -> None:
    if seed < 0 or index < 0:
        raise ValueError(f"expected a seed and an index of at least 0, got seed {seed} and index {index}")
    if cameras < 1 or not 0.01 <= spacing <= 0.1:
        raise ValueError(
            f"expected at least one camera and a spacing of 0.01 to 0.1 metres, got {cameras} and {spacing}"
        )


def _stored_report(stored: dict[str, Any]) -> RoomsReport:
    """JSON has lists where the report has tuples."""
    return RoomsReport(**(stored | {name: tuple(stored[name]) for name in ("vertices", "simple")}))
