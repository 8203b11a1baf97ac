"""A full disk, in small: no file may be larger than some kilobytes. Each writer says so and leaves what was there."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from cloud_files import FORMATS
from partnet_layout import LEVEL, POINTS, write_partnet
from scannet_layout import files_of

from probemb_adapters.clouds import read_clouds, write_instances
from probemb_adapters.files import NoRoomError, replaced_file, replaced_folder
from probemb_adapters.images.files import write_labels
from probemb_adapters.images.nuclei import write_nuclei
from probemb_adapters.images.pairs import LabelledImage
from probemb_adapters.partnet.predictions import write_ground_truth
from probemb_adapters.report import Row, Section, Table, write_report
from probemb_adapters.report.tables import write_table
from probemb_adapters.scannet.submission import ScenePredictions, write_submission
from probemb_adapters.training.checkpoint import save_checkpoint
from probemb_lib import GaussianEmbedding, Instances

LIMIT = 1024  # bytes


@contextmanager
def small_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def cloud(name: str) -> Callable[[Path], object]:
    """What was found in a cloud of that format, in the format and as npz and ply."""

    def write(folder: Path) -> None:
        source = folder.parent / FORMATS[name].name
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        FORMATS[name].write(source)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        (read,) = read_clouds(source, columns=FORMATS[name].columns)
        label = torch.arange(len(read.pos)) % 3
        x = GaussianEmbedding(torch.rand(len(read.pos), 3), torch.rand(len(read.pos), 3))
        some = torch.arange(3)
        found = Instances(label, some + 1, 0.5 + some / 10, some, 0 * some, x.select(some), 0 * some)
        write_instances(folder / "found", read, found, x, np.zeros((3, 3), np.uint8))

    return write


def nuclei(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)
    write_nuclei(folder / "nuclei.npz", [LabelledImage("a", noise, noise.astype(np.uint16))])


def labels(name: str) -> Callable[[Path], object]:
    return lambda folder: write_labels(folder / name, np.random.default_rng(0).integers(0, 999, (60, 60)))


def submission(folder: Path) -> None:
    write_submission(
        folder / "found", [ScenePredictions(np.ones((3, 2000), bool), np.array([5, 5, 5]), np.ones(3), "a")]
    )


def ground_truth(folder: Path) -> None:
    if not (folder.parent / "raw").exists():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        write_partnet(folder.parent / "raw")
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write_ground_truth(folder.parent / "raw", "Chair", LEVEL, num_points=POINTS)


WRITERS: dict[str, Callable[[Path], object]] = {
    "checkpoint": lambda folder: save_checkpoint(folder / "last.safetensors", {"w": torch.rand(3000)}),
    "report": lambda folder: write_report(folder / "report.html", "A page", [Section("A section")]),
    "table": lambda folder: write_table(
        Table("t", ["a"], [Row(f"row {i}", [0.5]) for i in range(200)]), folder / "t.csv"
    ),
    "nuclei": nuclei,
    "submission": submission,
    **{f"labels: {name}": labels(name) for name in ("a.png", "a.tif", "a.npy")},
    **{f"cloud: {name}": cloud(name) for name in ("ply, little-endian", "las", "laz", "csv", "npz")},
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_and_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    write = WRITERS[name]
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        small_files(),
        pytest.raises(NoRoomError, match=r"out.* was not written, and nothing is left of it"),
    ):
        write(folder)
    assert not [p for p in folder.rglob("*") if p.is_file()]
    write(folder)
    before = files_of(folder)
    assert before
    with small_files(), pytest.raises(OSError, match=r"what was there|is there already") as told:
        write(folder)
    if name != "submission":  # which never replaces what is there
        assert told.type is NoRoomError
        assert "was not written, and what was there is as it was: the disk" in str(told.value)
    assert files_of(folder) == before


def test_hdf5_says_it_too(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with small_files(), pytest.raises(NoRoomError, match="was not written"):
        ground_truth(tmp_path / "out")
    assert not [p for p in (tmp_path / "raw" / "ins_seg_h5_gt").rglob("*") if p.is_file()]


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="no"), replaced_file(tmp_path / "a"):
        raise PermissionError(13, "no")
    with pytest.raises(KeyError), replaced_folder(tmp_path / "b"):
        raise KeyError("27")
