"""The recommended options against the paper's, on a few samples: lines, going on, tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recommended
import torch
from paths import PROJECT

from probemb_adapters.experiments.records import load_images, load_metric, read_lines
from probemb_adapters.training import LAST, start_fabric
from probemb_lib import GaussianEmbedding, Instances, greedy_cluster
from probemb_lib.metrics import ScanNetAP
from probemb_shapes.rooms import write_rooms


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[recommended.Options]:
    """A training of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recommended, "PLANTS", {"train": 2, "val": 2, "test": 3})
        patch.setattr(recommended, "DEFAULT_GRID", (0.1, 0.4))
        options = recommended.Options(
            data=("plants",), seeds=1, steps=2, points=128, resamples=10, output=tmp_path_factory.mktemp("out")
        )
        for network in recommended.networks(options):
            recommended.measure(network, options)
        yield options


def test_lines(measured: recommended.Options) -> None:
    lines = read_lines(measured.output / "runs.csv")
    assert [(line["training"], line["level"]) for line in lines] == [
        (training, str(level)) for training in (recommended.PAPER, recommended.RECOMMENDED) for level in range(4)
    ]
    for line in lines:
        level = int(line["level"])
        assert (line["min_points"] == "1") or level > 1
        assert (line["min_score"] == "0.0") or level > 2
        assert (line["samples"], line["steps"], line["points"]) == ("3", "2", "128")
        network = recommended.Network("plants", line["training"], 0)
        ap, shown = network.files(level, measured)
        assert recommended.ap50(load_metric(ap)) == pytest.approx(float(line["AP50"]), abs=1e-3)
        assert recommended.f1(load_images(shown)) == pytest.approx(float(line["F1"]), abs=1e-3)


def test_a_training_that_was_interrupted_goes_on(measured: recommended.Options) -> None:
    """What was measured is not measured again; of lines that are lost the training is still there."""
    assert all(len(network.lines(measured)) == 4 for network in recommended.networks(measured))
    assert not recommended.Network("plants", recommended.PAPER, 0).lines(replace(measured, steps=3))
    (checkpoint,) = measured.output.glob(f"plants-2-128-recommended-0/{LAST}")
    before, lines = checkpoint.stat().st_mtime_ns, read_lines(measured.output / "runs.csv")
    (measured.output / "runs.csv").unlink()
    recommended.measure(recommended.Network("plants", recommended.RECOMMENDED, 0), measured)
    assert checkpoint.stat().st_mtime_ns == before
    again = read_lines(measured.output / "runs.csv")
    assert [line["AP50"] for line in again] == [line["AP50"] for line in lines[4:]]
    for network in recommended.networks(measured):
        if not network.lines(measured):
            recommended.measure(network, measured)


def test_table(measured: recommended.Options) -> None:
    rows = recommended.table(measured).rows
    assert len(rows) == 2 * len(recommended.WAYS)
    assert rows[0].name == "plants, trained as in the paper: as in the paper"
    assert rows[0].values[2] is rows[0].values[4] is None
    for row in rows[1:]:
        for column in (1, 3):
            middle = float(str(row.values[column + 1]).split()[0])
            assert middle == pytest.approx(row.values[column] - rows[0].values[column], abs=0.06)


def found_of(label: list[int], score: list[float]) -> Instances:
    x = GaussianEmbedding(100.0 * torch.tensor(label)[:, None].float(), torch.zeros(len(label), 1))
    p = torch.tensor([[1.0, 0.0] if n < 0 else [0.0, score[n]] for n in label])
    return greedy_cluster(x, p)


def test_samples_of_a_group_are_one() -> None:
    """Two images of a field with an instance each, one of them right, and a missed one."""
    found = [found_of([0, 0, -1], [0.9]), found_of([0, -1, -1], [0.4])]
    truths = [torch.tensor([0, 0, 1]), torch.tensor([-1, -1, 0])]
    samples = [recommended.Sample(None, truth, None, "field") for truth in truths]
    metric = recommended.matches(found, samples)
    assert len(metric) == 1
    assert [int(metric.compute()[name][0]) for name in ("tp", "fp", "fn")] == [1, 1, 2]
    assert recommended.floor_of(found, samples) == pytest.approx(0.65)


def test_checkpoints_of_shapes_rooms_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gives samples whose truth and benchmark are those of the instances themselves."""
    fabric = start_fabric(accelerator="cpu")
    write_rooms(PROJECT / "data" / "scan_objects", tmp_path, scenes=5, cameras=4, spacing=0.1)
    monkeypatch.setattr(recommended, "scannet_folder", lambda rooms, fabric: tmp_path)
    read = recommended.read_sides
    monkeypatch.setattr(recommended, "read_sides", lambda *given: {k: v[:2] for k, v in read(*given).items()})
    split = recommended.partnet.Split

    def few(root: Path, options: object, side: str, fabric: object) -> object:
        return split(root, replace(options, max_shapes=1, points=256), side, fabric)

    monkeypatch.setattr(recommended.partnet, "Split", few)
    file = {kind: PROJECT / "checkpoints" / f"{name}.safetensors" for kind, name in recommended.CHECKPOINTS.items()}
    subjects = {
        "furniture": recommended.parts(file["furniture"], fabric),
        "nuclei": recommended.nuclei(file["nuclei"], fabric),
        "rooms": recommended.rooms(file["rooms"], recommended.Options(), fabric),
    }
    for kind, subject in subjects.items():
        assert subject.val
        for sample in subject.test:
            assert len(sample.truth) == len(sample.output[0].mean) == len(sample.output[1])
            columns = sample.output[1].shape[1]
            count = int(sample.truth.max()) + 1
            truth = Instances(
                label=sample.truth,
                semantic=torch.full((count,), 0 if subject.background is None else columns - 1),
                score=torch.ones(count),
                seed=torch.zeros(count, dtype=torch.int64),
                batch=torch.zeros(count, dtype=torch.int64),
                embedding=GaussianEmbedding(torch.zeros(count, 3), torch.zeros(count, 3)),
                point_batch=torch.zeros_like(sample.truth),
            )
            metric = subject.ap([truth], [sample])
            assert recommended.f1(recommended.matches([truth], [sample])) == 100
            if not isinstance(metric, ScanNetAP) or metric.compute()["class_gt_count"].sum():
                assert np.isclose(recommended.ap50(metric), 100), kind
