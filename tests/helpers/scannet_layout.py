"""A small ScanNet in its own files, for the tests of what is made from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from probemb_adapters.scannet.write import write_label_map, write_scene, write_split

LABEL_MAP = {"wall": 1, "floor": 2, "chair": 5, "office chair": 5, "table": 7, "lamp": 35, "trash can": 39, "object": 0}
CATEGORIES = ["wall", "office chair", "floor", "lamp", "table", "chair", "object", "trash can"]
SIZES = [400, 150, 300, 120, 200, 101, 40, 60]
UNANNOTATED = 29
VERTICES = sum(SIZES) + UNANNOTATED
# A quarter turn about z and a shift
ALIGNMENT = np.array([[0.0, -1.0, 0.0, 1.5], [1.0, 0.0, 0.0, -2.0], [0.0, 0.0, 1.0, 0.25], [0.0, 0.0, 0.0, 1.0]])
SPLITS = {"train": ["scene0000_00", "scene0000_01"], "val": ["scene0011_00"], "test": ["scene0707_00"]}


def arrays(seed: int) -> dict[str, np.ndarray]:
    """Objects in a mixed order of vertices, each of up to seven segments; segment ids are not contiguous."""
    rng = np.random.default_rng(seed)
    instance = rng.permutation(np.repeat(np.arange(-1, len(SIZES)), [UNANNOTATED, *SIZES]))
    return {
        "pos": rng.uniform(0, [6.0, 4.0, 2.5], (VERTICES, 3)).astype(np.float32),
        "rgb": rng.integers(0, 256, (VERTICES, 3)).astype(np.uint8),
        "faces": rng.integers(0, VERTICES, (2 * VERTICES, 3)),
        "instance": instance,
        "segment": (instance + 1) * 70 + 10 * rng.integers(0, 7, VERTICES) + 3,
    }


def write_scannet(root: Path) -> Path:
    """Splits of 2 + 1 + 1 scenes, seeds counting on; the test scan has no annotation and no alignment."""
    seed = 0
    for split, scenes in SPLITS.items():
        for scene in scenes:
            a = arrays(seed)
            if split == "test":
                write_scene(root, scene, a["pos"], a["rgb"], a["faces"])
            else:
                write_scene(
                    root,
                    scene,
                    **a,
                    categories=CATEGORIES,
                    axis_alignment=ALIGNMENT,
                    label_map=LABEL_MAP,
                )
            seed += 1
        write_split(root, split, scenes)
    write_label_map(root, LABEL_MAP)
    return root


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything under a folder, hidden files included."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
