"""Ways to find nuclei side by side: budgets, what is kept, the comparison, and packages that are missing."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("monai")
pytest.importorskip("tyro")

import nuclei_competitors as study
import torch
from torch import nn

from probemb_adapters.experiments.images import peers, pixel_methods
from probemb_adapters.images import LabelledImage, write_nuclei
from probemb_lib import GaussianEmbedding, HeadOutput

SPOT = np.zeros((32, 32), np.uint16)
SPOT[4:12, 4:12], SPOT[18:28, 16:28] = 1, 2
IMAGES = [LabelledImage(str(i), (50.0 * (SPOT > 0) + i).astype(np.float32), SPOT) for i in range(6)]


def one_missed(image: LabelledImage) -> np.ndarray:
    assert image.label is not None
    return np.where(image.label == 1, 1, 0)


def test_a_training_ends_with_its_budget() -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    before = network.weight.detach().clone()
    rates: list[float] = []

    def rate(share: float) -> float:
        rates.append(share)
        return 0.01

    budget = peers.Budget(0.3)
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    peers.train_for(budget, network, IMAGES, lambda n, c: n(c.image).square().mean(), optimizer, rate, size=16, batch=2)
    assert budget.spent >= 1
    assert budget.steps == len(rates) > 1
    assert rates == sorted(rates)
    assert rates[-1] < 1
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert not torch.equal(network.weight, before)
    assert not network.training


def test_settings_are_picked_on_validation() -> None:
    def found(image: LabelledImage, good: bool) -> np.ndarray:
        assert image.label is not None
        return image.label.astype(np.int64) if good else one_missed(image)

    assert peers.pick([{"good": False}, {"good": True}, {"good": False}], IMAGES, found) == {"good": True}


def test_runs_are_kept_and_compared(tmp_path: Path) -> None:
    perfect = [SPOT.astype(np.int64)] * len(IMAGES)
    budget = peers.Budget(60)
    budget.steps = 7
    rows = {study.REFERENCE: perfect, "half": [one_missed(image) for image in IMAGES]}
    study.save(tmp_path / "a-0.npz", rows, budget)
    study.save(tmp_path / "a-1.npz", rows, budget)
    runs = {path: study.load(path) for path in sorted(tmp_path.glob("*.npz"))}
    assert [run.steps for run in runs.values()] == [7, 7]
    np.testing.assert_array_equal(runs[tmp_path / "a-1.npz"].found["half"][5], one_missed(IMAGES[5]))
    table, lines = study.compare(runs, IMAGES, ["f", "f", "g", "g", "h", "i"], study.Options(resamples=20))
    assert [row.name for row in table.rows] == [study.REFERENCE, "half"]
    first, second = (dict(zip(table.columns, row.values, strict=True)) for row in table.rows)
    assert (first["AP50"], first["PQ"], first["seeds"]) == (100, 100, "2")
    assert second["AP50"] == 50  # TP 1, FN 1
    assert second["PQ"] == pytest.approx(200 / 3)  # 1 / (1 + ½)
    assert second[f"{study.REFERENCE} ahead by"] == "+50.0 (+50.0 to +50.0)"
    study.plot(lines, tmp_path / "plot.png", 1.0)
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_what_is_missing_is_named_and_what_is_there_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nuclei(tmp_path / "nuclei.npz", IMAGES)
    with (tmp_path / "split.csv").open("w", newline="") as file:
        sides = ["train", "train", "val", "val", "test", "test"]
        csv.writer(file).writerows([("name", "field", "split"), *((str(i), i, side) for i, side in enumerate(sides))])

    def absent(train: Sequence[LabelledImage], val: Sequence[LabelledImage], budget: peers.Budget) -> peers.Segmenter:
        raise ImportError("No module named 'theirs'")

    calls: list[str] = []

    def there(train: Sequence[LabelledImage], val: Sequence[LabelledImage], budget: peers.Budget) -> peers.Segmenter:
        calls.append(f"{len(train)} {len(val)}")
        return one_missed

    methods = {
        "theirs": lambda sides, budget: study.peer("Theirs", absent, sides, budget),
        "ours": lambda sides, budget: study.peer("Ours", there, sides, budget),
    }
    monkeypatch.setattr(study, "METHODS", methods)
    arguments = ["study", "--data", str(tmp_path / "nuclei.npz"), "--output", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", [*arguments, "--resamples", "5"])
    study.main()
    study.main()
    assert calls == ["2 2"]  # the second call finds it
    assert "theirs left out: No module named 'theirs'" in capsys.readouterr().out
    assert (tmp_path / "run" / "nuclei_competitors.csv").is_file()


def test_the_u_nets_learn_within_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut in time of the two kinds of ours; what they find is judged elsewhere."""
    monkeypatch.setattr(study, "Settings", lambda **given: Settings(width=2, **given))
    sides = {"train": IMAGES[:2], "val": IMAGES[2:3], "test": IMAGES[4:5]}
    found = study.embedding("probabilistic", sides, peers.Budget(0.1))
    assert {name: len(labels) for name, labels in found.items()} == {"probabilistic": 1, study.REFERENCE: 1}
    found = study.foreground(sides, peers.Budget(0.1))
    assert sorted(found) == ["foreground, connected components", "foreground, peaks of the distance"]


@pytest.mark.parametrize("name", ["discriminative", "semi-convolutional, probabilistic"])
def test_methods_of_points_on_pixels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On images whose sides the U-Net cannot halve four times."""
    monkeypatch.setattr(study, "Settings", lambda **given: Settings(width=2, **given))
    images = [LabelledImage(i.name, i.image[:30, :31], SPOT[:30, :31]) for i in IMAGES]
    budget = peers.Budget(0.1)
    found = study.METHODS[name]({"train": images[:4], "val": images[4:5], "test": images[5:]}, budget)
    assert [label.shape for label in found[name]] == [(30, 31)]
    assert budget.steps > 0


def test_pixels_are_grouped_and_the_padding_is_cut_off() -> None:
    class Known(nn.Module):
        """An embedding of each object for itself."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(9.0))

        def forward(self, image: torch.Tensor) -> HeadOutput:
            assert image.shape == (1, 1, 32, 32)
            label = torch.from_numpy(SPOT.astype(np.int64)).flatten()
            mean = self.scale * nn.functional.one_hot(label, 3)
            logits = torch.stack([label == 0, label > 0], 1).float() * 9
            return HeadOutput(GaussianEmbedding(mean, torch.zeros(len(label), 1)), logits)

    method, _ = pixel_methods.new_pixel_method("discriminative", Settings(width=2))
    label = pixel_methods.segment(method, Known(), IMAGES[0].image[:30, :31], {"bandwidth": 0.5, "min_points": 90})
    expected = SPOT[:30, :31].astype(np.int64)
    np.testing.assert_array_equal(label > 0, expected == 2)  # the other has 64 pixels
    label = pixel_methods.segment(method, Known(), IMAGES[0].image[:30, :31], {"bandwidth": 0.5, "min_points": 10})
    assert sorted((label == n).sum() for n in (1, 2)) == [64, 120]


Settings = study.Settings
