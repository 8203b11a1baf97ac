"""The usual mix-ups in labelled clouds, in lines to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from probemb_adapters.clouds.cloud import Cloud, centred
from probemb_adapters.clouds.labelled import class_names_of, class_values, known_classes, listed, read_labelled
from probemb_lib import Finding, check_batch
from probemb_lib.labels import IGNORED

WAY = "Values that mean no instance are named by --background VALUE …, those of points nobody labelled by --ignored."
"""What to do about findings."""

_NOTES = 12  # lines


def check_clouds(
    folder: Path,
    instance: str | None,
    semantic: str | None,
    background: Sequence[int | str],
    ignored: Sequence[int | str] = (),
) -> tuple[str, bool]:
    """The usual mix-ups in each cloud of a folder, a line a finding.

    Returns:
        What to print, and whether a finding is an error.
    """
    clouds = read_labelled(folder, instance, semantic, background, ignored=ignored)
    found = findings_in(clouds)
    lines = [*label_notes(clouds), *finding_lines(found), *([WAY] if found else [])]
    classes = class_values(clouds)
    told = classes_told(classes, class_names_of(clouds, classes))
    lines.append(f"{len(clouds)} clouds, {told}, {len(found)} findings")
    return "\n".join(lines), any(finding.level == "error" for _, finding in found)


def notes_of(clouds: Sequence[Cloud]) -> list[str]:
    """What was taken for labels and colours and what was not used, a line each, with the number of clouds."""
    counts = Counter(note for cloud in clouds for note in cloud.notes)
    lines = [f"{note} ({count} of {len(clouds)} clouds)" for note, count in counts.most_common(_NOTES)]
    return lines + ([f"{len(counts) - _NOTES} other notes"] if len(counts) > _NOTES else [])


def label_notes(clouds: Sequence[Cloud]) -> list[str]:
    """:func:`notes_of`, and that 0 counts as an object where it may be what lies around them all."""
    zero = "instance 0 is in all clouds, an object as the others are: --background 0 if it means none"
    return [*notes_of(clouds), *([zero] if clouds and all(_has_zero(cloud) for cloud in clouds) else [])]


def _has_zero(cloud: Cloud) -> bool:
    """0 stands in the file, as the number of an object among others."""
    if cloud.instance is None or not (cloud.instance == 0).any() or not (cloud.instance > 0).any():
        return False
    return any(v.dtype.kind in "iuf" and np.array_equal(v, cloud.instance) for v in cloud.properties.values())


def classes_told(classes: Sequence[int], names: Sequence[str]) -> str:
    """The names of the classes, to print."""
    return f"classes {', '.join(known_classes(classes, names).values())}" if classes else "no classes"


def findings_in(clouds: Sequence[Cloud]) -> list[tuple[Cloud, Finding]]:
    """The usual mix-ups in each cloud, by :func:`~probemb_lib.check_batch`."""
    return [(cloud, finding) for cloud in clouds for finding in _findings(cloud)]


def finding_lines(found: Sequence[tuple[Cloud, Finding]]) -> list[str]:
    """One a finding; what is said of several clouds in the same words is said once."""
    names: dict[str, list[str]] = {}
    for cloud, finding in found:
        names.setdefault(str(finding), []).append(cloud.name)
    return [
        f"{some[0] if len(some) == 1 else f'{len(some)} clouds ({listed(some)})'}: {text}"
        for text, some in names.items()
    ]


def _findings(cloud: Cloud) -> list[Finding]:
    semantic = None if cloud.semantic is None else np.where(cloud.semantic < 0, IGNORED, cloud.semantic)
    return check_batch(
        torch.from_numpy(centred(cloud.pos)),
        torch.as_tensor(cloud.instance),
        None if semantic is None else torch.from_numpy(semantic),
        background=None,
    )
