"""Probabilistic embeddings against learnable margins in coarse rooms, for a few steps: which runs follow on which,
lines, going on, tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import rooms
from paths import PROJECT

from probemb_adapters.experiments import scannet
from probemb_adapters.experiments.records import append_line, load_scenes, read_lines
from probemb_adapters.experiments.scannet.errors import REPAIRS
from probemb_adapters.training import LAST
from probemb_shapes.rooms import write_rooms

FEW_STEPS = rooms.Options(
    seeds=1,
    trials=1,
    class_agnostic=True,
    backbone="14A",
    width=0.25,
    voxel_size=0.15,
    initial_std=0.3,
    score_loss="complement",
    elastic=False,
    train_points=400,
    epochs=2,
    batch_size=2,
    held_out=0.5,
    workers=0,
    accelerator="cpu",
    resamples=10,
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> rooms.Options:
    """Both methods with their defaults and one seed."""
    folder = tmp_path_factory.mktemp("rooms")
    write_rooms(PROJECT / "data" / "scan_objects", folder / "root", scenes=5, cameras=6, spacing=0.08)
    options = scannet.resolve(replace(FEW_STEPS, root=folder / "root", output=folder / "runs"))
    while (run := rooms.next_run(options)) is not None:
        append_line(options.csv, rooms.measure(run, options))
    return options


def test_lines(measured: rooms.Options) -> None:
    lines = read_lines(measured.csv)
    assert [line["method"] for line in lines] == [*rooms.METHODS]
    for line in lines:
        assert 0 <= float(line["AP"]) <= float(line["AP50"]) <= float(line["AP25"]) <= 100
        for kind in REPAIRS:
            assert 0 <= float(line["AP50"]) + float(line[kind]) <= 100 + 1e-6
        assert line["settings"] == "defaults"
        run = rooms.Run(line["method"], 0, 0)
        metric = load_scenes(run.folder(measured) / rooms.SCENES)
        assert rooms.per_cent(metric, "ap25") == pytest.approx(float(line["AP25"]), abs=1e-3)
    assert lines[0]["refine"] in ("True", "False")
    assert (lines[0]["refine"], lines[0]["join"]) in [(str(refine), str(join or "")) for refine, join in rooms.WAYS]
    assert lines[1]["refine"] == lines[1]["join"] == ""
    assert set(rooms.finished(measured)) == {rooms.Run(method, 0, 0) for method in rooms.METHODS}
    assert rooms.finished(replace(measured, epochs=3)) == {}


def test_an_interrupted_run_goes_on_from_its_checkpoint(measured: rooms.Options) -> None:
    run = rooms.Run(rooms.MARGIN, 0, 0)
    checkpoint = run.folder(measured) / run.method / LAST
    before = checkpoint.stat().st_mtime_ns
    again = rooms.measure(run, measured)
    assert checkpoint.stat().st_mtime_ns == before  # nothing was left to train
    line = rooms.finished(measured)[run]
    for number in (rooms.HELD_OUT, "setting", *rooms.VALUES, *REPAIRS):
        assert str(again[number]) == line[number]


def test_tables(measured: rooms.Options) -> None:
    lines = read_lines(measured.csv)
    ours, theirs, difference = rooms.methods_table(measured).rows
    for row, line in zip((ours, theirs), lines, strict=True):
        assert row.values[:4] == [1, *(pytest.approx(float(line[name])) for name in rooms.VALUES)]
    gain = float(lines[0]["AP25"]) - float(lines[1]["AP25"])
    middle, low, high = (float(part.strip("()")) for part in str(difference.values[3]).replace("to", "").split())
    assert middle == pytest.approx(gain, abs=0.06)
    assert low - 0.1 <= middle <= high + 0.1
    trials = rooms.trials_table(replace(measured, trials=2)).rows
    assert [row.values[-1] for row in trials] == ["*", "", "*", ""]
    assert trials[1].name == "probabilistic, initial_std 0.6"


def test_the_best_settings_get_the_other_seeds(tmp_path: Path) -> None:
    """The order of the runs, with invented numbers."""
    options = replace(scannet.resolve(rooms.Options(output=tmp_path)), trials=2, seeds=2, seed=3)
    held_out = {(rooms.PROBABILISTIC, 0): 10, (rooms.PROBABILISTIC, 1): 20, (rooms.MARGIN, 0): 15}
    order = []
    while (run := rooms.next_run(options)) is not None:
        order.append((run.method, run.trial, run.seed))
        value = held_out.get((run.method, run.trial))  # the second of the margins diverges
        append_line(options.csv, {**options.budget, **run.__dict__, rooms.HELD_OUT: value})
    assert order == [
        (rooms.PROBABILISTIC, 0, 3),
        (rooms.MARGIN, 0, 3),
        (rooms.PROBABILISTIC, 1, 3),
        (rooms.MARGIN, 1, 3),
        (rooms.PROBABILISTIC, 1, 4),
        (rooms.MARGIN, 0, 4),
    ]


def test_trials_are_options_that_the_models_keep() -> None:
    assert len({len(trials) for trials in rooms.TRIALS.values()}) == 1
    for method, trials in rooms.TRIALS.items():
        for trial in trials:
            options = scannet.resolve(replace(rooms.Options(), **trial))
            stored = scannet.Settings.of(options).stored()
            assert trial.items() <= stored.items()
            assert method in rooms.METHODS


def test_a_training_that_diverges_is_a_line_without_numbers(
    measured: rooms.Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def diverge(*args: object) -> None:
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(scannet, "train_model", diverge)
    line = rooms.measure(rooms.Run(rooms.MARGIN, 0, 0), replace(measured, output=tmp_path))
    assert line["AP50"] is None
