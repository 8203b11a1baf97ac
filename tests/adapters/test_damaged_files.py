"""Whatever is in a file: the answer is its content, or a ValueError or OSError that names the file.

Some damages a format in a usual run; ``make fuzz`` draws 10,000 a format (environment variable DAMAGES) and others at
each run (DAMAGE_SEED). A failure prints the accident's number and keeps the file.
"""

from __future__ import annotations

import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from cloud_files import FORMATS
from damage import damaged
from partnet_layout import LEVEL, POINTS, write_partnet
from safetensors.torch import save_file
from scannet_layout import write_scannet
from torch import nn

from probemb_adapters.clouds import read_clouds
from probemb_adapters.images.files import read_image, read_labels, write_labels
from probemb_adapters.images.nuclei import read_nuclei, read_split, write_nuclei
from probemb_adapters.images.pairs import LabelledImage
from probemb_adapters.networks.pretrained import load_pretrained
from probemb_adapters.partnet.instances import PartNetInstances
from probemb_adapters.partnet.predictions import read_ground_truth, write_ground_truth
from probemb_adapters.scannet.files import read_label_map, read_scene
from probemb_adapters.scannet.submission import ScenePredictions, read_scene_predictions, write_submission
from probemb_adapters.training.checkpoint import load_checkpoint, save_checkpoint

DAMAGES = int(os.environ.get("DAMAGES", "20"))
SEED = int(os.environ.get("DAMAGE_SEED", "0"))
SECONDS = 20.0  # of one reading, on a busy machine
MEMORY = 1 << 30  # bytes that a format's readings may add, of files of some kilobytes
SCENE = "scene0000_00"


class Case(NamedTuple):
    """What to damage, how it came to be, and how it is read."""

    file: str
    write: Callable[[Path], object]
    """writes into a folder"""
    read: Callable[[Path], object]
    """reads from the folder"""


def of_cloud(name: str) -> Case:
    format = FORMATS[name]
    return Case(
        format.name,
        lambda folder: format.write(folder / format.name),
        lambda folder: read_clouds(folder / format.name, columns=format.columns),
    )


def label_image(name: str) -> Case:
    label = (np.arange(600) // 37).reshape(20, 30).astype(np.uint16)
    return Case(name, lambda folder: write_labels(folder / name, label), lambda folder: read_labels(folder / name))


def jpeg(folder: Path) -> None:
    import imageio.v3 as imageio

    imageio.imwrite(folder / "a.jpg", np.arange(600, dtype=np.uint8).reshape(20, 30))


def nuclei(folder: Path) -> None:
    rng = np.random.default_rng(0)
    images = [
        LabelledImage(name, rng.integers(0, 99, (8, 9), np.uint8), np.eye(8, 9, dtype=np.uint16)) for name in "ab"
    ]
    write_nuclei(folder / "two.npz", images)


def split(folder: Path) -> None:
    (folder / "split.csv").write_text("name,split,group\na,train,1\nb,test,2\n", encoding="utf-8")


def partnet(folder: Path) -> None:
    write_partnet(folder)
    write_ground_truth(folder, "Chair", LEVEL, num_points=POINTS)


def read_partnet(folder: Path) -> list[Any]:
    return list(PartNetInstances(folder, "Chair", LEVEL, "test", num_points=POINTS))


def of_partnet(file: str) -> Case:
    return Case(file, partnet, read_partnet)


def of_scannet(file: str) -> Case:
    return Case(file, write_scannet, lambda folder: read_scene(folder, SCENE, read_label_map(folder)))


def submission(folder: Path) -> None:
    masks = np.random.default_rng(0).random((3, 50)) < 0.4
    write_submission(
        folder / "found", [ScenePredictions(masks, np.array([5, 39, 5]), np.array([0.5, 0.2, 0.9]), SCENE)]
    )


def of_submission(file: str) -> Case:
    return Case(file, submission, lambda folder: read_scene_predictions(folder / "found", SCENE, 50))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))


def checkpoint(folder: Path) -> None:
    net = network()
    state = {"model": net.state_dict(), "optimizer": {0: [torch.ones(3), 1.5, None]}, "epoch": 3}
    save_checkpoint(folder / "state.safetensors", state)


def weights(name: str) -> Case:
    def write(folder: Path) -> None:
        state = {key: tensor.contiguous() for key, tensor in network().state_dict().items()}
        if name.endswith(".pth"):
            torch.save({"state_dict": state, "epoch": 3}, folder / name)
        else:
            save_file(state, folder / name)

    return Case(name, write, lambda folder: load_pretrained(network(), folder / name))


CASES = {
    **{f"cloud: {name}": of_cloud(name) for name in FORMATS},
    **{f"label image: {ending}": label_image(f"a{ending}") for ending in (".png", ".tif", ".npy")},
    "image: jpeg": Case("a.jpg", jpeg, lambda folder: read_image(folder / "a.jpg")),
    "nuclei": Case("two.npz", nuclei, lambda folder: read_nuclei(folder / "two.npz")),
    "split of images": Case("split.csv", split, lambda folder: read_split(folder / "split.csv")),
    "PartNet: shapes": of_partnet("ins_seg_h5/Chair/test-00.h5"),
    "PartNet: records": of_partnet("ins_seg_h5/Chair/test-00.json"),
    "PartNet: classes": of_partnet(f"stats/after_merging_label_ids/Chair-level-{LEVEL}.txt"),
    "PartNet: ground truth": Case(
        f"ins_seg_h5_gt/Chair-{LEVEL}/test-00.h5",
        partnet,
        lambda folder: list(read_ground_truth(folder / f"ins_seg_h5_gt/Chair-{LEVEL}", 3)),
    ),
    "ScanNet: mesh": of_scannet(f"scans/{SCENE}/{SCENE}_vh_clean_2.ply"),
    "ScanNet: segments": of_scannet(f"scans/{SCENE}/{SCENE}_vh_clean_2.0.010000.segs.json"),
    "ScanNet: groups": of_scannet(f"scans/{SCENE}/{SCENE}.aggregation.json"),
    "ScanNet: alignment": of_scannet(f"scans/{SCENE}/{SCENE}.txt"),
    "ScanNet: categories": of_scannet("scannetv2-labels.combined.tsv"),
    "ScanNet: submission": of_submission(f"found/{SCENE}.txt"),
    "ScanNet: mask": of_submission(f"found/predicted_masks/{SCENE}_001.txt"),
    "checkpoint": Case("state.safetensors", checkpoint, lambda folder: load_checkpoint(folder / "state.safetensors")),
    "weights: pth": weights("net.pth"),
    "weights: safetensors": weights("net.safetensors"),
}


@pytest.mark.parametrize("name", CASES)
def test_damage_is_said_and_named(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path)
    path = tmp_path / case.file
    whole = path.read_bytes()
    case.read(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    told = 0
    for accident in range(DAMAGES):
        rng = np.random.default_rng((SEED, accident))
        path.write_bytes(damaged(whole, rng))
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                case.read(tmp_path)
            except (ValueError, OSError) as error:
                # UnicodeDecodeError and the like are ValueErrors too, but do not name the file
                assert path.name in str(error) or path.parent.name in str(error), (accident, error)  # noqa: PT017
                told += 1
            except Exception as error:
                pytest.fail(f"accident {accident} of seed {SEED}: {type(error).__name__} of {path}: {error}")
        assert time.monotonic() - start < SECONDS, accident
    assert told
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MEMORY
