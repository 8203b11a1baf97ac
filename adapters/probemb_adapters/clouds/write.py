"""What was found in a cloud, written beside it in the format that it came in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from probemb_adapters.clouds.arrays import write_npz
from probemb_adapters.clouds.cloud import Array, Cloud
from probemb_adapters.clouds.las import write_las
from probemb_adapters.clouds.ply import write_painted, write_ply
from probemb_adapters.clouds.text import write_text
from probemb_adapters.files import replaced_file
from probemb_lib import GaussianEmbedding, Instances

_TEXT = (".xyz", ".txt", ".csv", ".asc")
_WRITERS = {
    ".ply": write_ply,
    **dict.fromkeys((".las", ".laz"), write_las),
    **dict.fromkeys(_TEXT, write_text),
}


def write_instances(
    path: str | Path,
    cloud: Cloud,
    found: Instances,
    embedding: GaussianEmbedding,
    colors: Array,
    class_names: Mapping[int, str] | None = None,
    uncertainty: Tensor | None = None,
) -> list[Path]:
    """What was found in a cloud, one row a point in the order of its file.

    Every property of the input is written as it was, and after them five: `instance` (−1 none), `class` (−1 none),
    `score` (0 where there is no instance), `sigma`, the geometric mean of the embedding's σ over its dimensions, a
    length, and `uncertainty` of the point in its instance (:meth:`~probemb_lib.Instances.uncertainty`, 0 to 1), which
    marks errors. One whose name the input has, as labelled clouds do, is called `found_instance`, ….

    A ply, las, laz, xyz, txt, csv or asc file is written in its own format: positions in their own precision, scale and
    offset, faces and comments where there are any. Always written is `{path}.npz`, with `mean` (N, D) and `log_std`
    (N, D | 1) as well, and `{path}.ply` to look at, painted by instance, unless the input was a ply: that keeps the
    colours it has, and gets these where it has none.

    Args:
        path: without ending.
        embedding: in the frame of the file.
        colors: (K, 3) uint8 of the instances; points of none are grey.
        class_names: with them text and npz have a column `class_name` as well; the other formats hold no words.
        uncertainty: (N,); by default that of ``embedding``, if this is what was clustered.

    Returns:
        the files.

    Raises:
        ValueError: a file would replace the cloud's own.
    """
    ending = cloud.path.suffix.lower() if cloud.path is not None and cloud.layout is not None else ""
    files = [Path(f"{path}{e}") for e in dict.fromkeys((".npz", ".ply", ending if ending in _WRITERS else ".ply"))]
    if cloud.path is not None and cloud.path.resolve() in [file.resolve() for file in files]:
        raise ValueError(f"{cloud.path}: expected another folder for the results, which would replace this file")
    label = found.label.cpu().numpy()
    columns = {
        "instance": label.astype(np.int32),
        "class": _of_points(found.semantic.cpu().numpy(), label, -1).astype(np.int32),
        "score": _of_points(found.score.float().cpu().numpy(), label, 0).astype(np.float32),
        "sigma": np.exp(embedding.log_std.double().mean(1).cpu().numpy()).astype(np.float32),
    }
    unsure = found.uncertainty(embedding) if uncertainty is None else uncertainty
    columns["uncertainty"] = unsure.cpu().numpy().astype(np.float32)
    words = {}
    if class_names:
        known = np.array([*class_names.values(), ""])
        place = {number: i for i, number in enumerate(class_names)}
        words["class_name"] = known[[place.get(number, -1) for number in columns["class"].tolist()]]
    painted = np.vstack([colors, np.full((1, 3), 200)]).astype(np.uint8)[label]
    paint = {name: painted[:, i] for i, name in enumerate(("red", "green", "blue"))}
    added = {_free(name, cloud.properties): values for name, values in columns.items()}
    spoken = added | {_free(name, cloud.properties): values for name, values in words.items()}
    distribution = {"mean": embedding.mean.cpu().numpy(), "log_std": embedding.log_std.cpu().numpy()}
    with replaced_file(files[0]) as temporary:
        own = {_free(name, cloud.properties): values for name, values in distribution.items()}
        write_npz(temporary, cloud, {**spoken, **own})
    if ending == ".ply":
        with replaced_file(files[1]) as temporary:
            write_ply(temporary, cloud, added if paint.keys() & cloud.properties.keys() else paint | added)
        return files
    with replaced_file(files[1]) as temporary:
        write_painted(temporary, cloud.pos, paint | columns)
    if ending in _WRITERS:
        with replaced_file(files[2]) as temporary:
            _WRITERS[ending](temporary, cloud, spoken if ending in _TEXT else added)
    return files


def _of_points(values: Array, label: Array, none: float) -> Array:
    return np.append(values, none)[label]


def _free(name: str, taken: Collection[str]) -> str:
    return name if name not in taken else _free(f"found_{name}", taken)
