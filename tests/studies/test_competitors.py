"""The comparison with competing methods, for a few steps: lines, settings picked on validation, going on, the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import competitors
import pytest
from paths import PROJECT

from probemb_adapters.experiments import competitor_runs, scannet
from probemb_adapters.experiments.competitors import COMPETITORS, OURS, Competitor
from probemb_adapters.experiments.competitors_rooms import ROOMS
from probemb_adapters.experiments.records import append_line, load_metric, read_lines
from probemb_adapters.report.differences import write_differences
from probemb_adapters.training import LAST
from probemb_shapes.rooms import write_rooms

METHODS = (OURS, "PointGroup")
TINY = competitors.Options(
    methods=METHODS,
    categories=("Table",),
    shapes=4,
    epochs=1,
    epoch_shapes=4,
    batch_size=2,
    train_points=256,
    points=256,
    width=0.25,
    accelerator="cpu",
    resamples=10,
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> competitors.Options:
    options = replace(TINY, output=tmp_path_factory.mktemp("competitors"))
    for method in METHODS:
        append_line(options.csv, competitors.measure(competitors.Run(method, "Table", 0), options))
    return options


@pytest.mark.parametrize("name", COMPETITORS)
@pytest.mark.parametrize("competitors_of", [COMPETITORS, ROOMS], ids=["families", "rooms"])
def test_settings_are_attributes_of_the_method(name: str, competitors_of: Mapping[str, Competitor]) -> None:
    competitor = competitors_of[name]
    method = competitor.make(8, 3)
    assert 2 < len(competitor.settings) < 50
    assert all(hasattr(method, attribute) for attribute in competitor.grid)
    assert len(competitor.trials) == 2  # an equal budget for all
    for changes in competitor.trials:
        competitor.make(8, 3, **changes)


def test_lines(measured: competitors.Options) -> None:
    lines = read_lines(measured.csv)
    assert [line["method"] for line in lines] == [*METHODS]
    for line in lines:
        assert 0 <= float(line["part mAP 0.5"]) <= float(line["part mAP 0.25"]) <= 100
        assert float(line["peak MB"]) > 10
        assert line["settings"] in map(str, COMPETITORS[line["method"]].settings)
        assert competitors.Run(line["method"], "Table", 0) in competitors.finished(measured)
    assert competitors.finished(replace(measured, level=1)) == {}


def test_an_interrupted_run_goes_on_from_its_checkpoint(measured: competitors.Options) -> None:
    run = competitors.Run("PointGroup", "Table", 0)
    checkpoint = run.folder(measured) / LAST
    before = checkpoint.stat().st_mtime_ns
    again = competitors.measure(run, measured)
    assert checkpoint.stat().st_mtime_ns == before  # nothing was left to train
    line = competitors.finished(measured)[run]
    for number in ("settings", "validation", "part mAP 0.25", "part mAP 0.5"):
        assert str(again[number]) == line[number]


def test_table(measured: competitors.Options, tmp_path: Path) -> None:
    table, differences = competitors.summary([*METHODS, "SGPN"], measured)
    ours, theirs, missing = table.rows
    lines = {line["method"]: line for line in read_lines(measured.csv)}
    for row in (ours, theirs):
        assert row.values[2] == pytest.approx(float(lines[row.name]["part mAP 0.5"]), abs=1e-3)
    assert ours.values[4] is None
    assert theirs.values[4] == pytest.approx(theirs.values[2] - ours.values[2], abs=1e-6)
    assert missing.values[:2] == [0, None]
    assert missing.values[6] == pytest.approx(14.6 - 25.5)  # the paper's, of Table at level 3
    assert theirs.values[-1] == pytest.approx(float(lines["PointGroup"]["peak MB"]))
    assert list(differences) == ["PointGroup"]
    other, other_differences = competitors.summary(METHODS, replace(measured, reference="PointGroup"))
    assert other.columns[4] == "part mAP 0.5 less PointGroup"
    assert other.rows[0].values[4] == pytest.approx(-theirs.values[4], abs=1e-6)
    assert list(other_differences) == [OURS]
    assert competitors.paper_difference("SGPN", replace(measured, reference="PointGroup")) is None
    write_differences(differences, {"PointGroup": 1.0}, tmp_path / "differences.png", title="", label="")
    assert (tmp_path / "differences.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_classes_the_same_networks_are_taken(measured: competitors.Options) -> None:
    options, run = replace(measured, without_classes=True), competitors.Run(OURS, "Table", 0)
    assert competitors.summary(METHODS, options)[0].rows[0].values[0] == 0  # not measured yet
    before = (run.folder(measured) / LAST).stat().st_mtime_ns
    append_line(options.csv, competitors.measure(run, options))
    assert (run.folder(measured) / LAST).stat().st_mtime_ns == before
    metric = load_metric(run.metric(options))
    assert metric.num_classes == 1 < load_metric(run.metric(measured)).num_classes
    (ours,) = competitors.summary([OURS], options)[0].rows
    assert ours.values[2] == pytest.approx(100 * float(metric.part_map()[1]), abs=1e-3)
    assert ours.values[7] == competitors.summary([OURS], measured)[0].rows[0].values[7]  # minutes of the training


def test_a_training_that_diverges_is_a_line_without_numbers(
    measured: competitors.Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def diverge(*args: object) -> None:
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(competitors, "train_competitor", diverge)
    line = competitors.measure(competitors.Run(OURS, "Table", 0), replace(measured, output=tmp_path))
    assert line["part mAP 0.5"] is None


def test_the_papers_differences_in_rooms() -> None:
    options = replace(TINY, data="rooms")
    assert competitors.paper_difference("PointGroup", options) == pytest.approx(56.9 - 57.1)
    assert competitors.paper_difference("SGPN", options) is None
    assert competitors.paper_difference(OURS, options) is None


def test_the_best_trial_is_trained(tmp_path: Path) -> None:
    """The order of the runs, with invented numbers."""
    options = replace(TINY, output=tmp_path, trial_epochs=1, epochs=3, seeds=2)
    short = replace(options, epochs=1)
    for run in competitor_runs.trials_of(OURS, options):
        value = {0: 10, 1: 20, 2: None}[run.trial]  # the last diverges
        append_line(options.csv, {**short.budget, **run.__dict__, "validation": value})
    runs = competitor_runs.all_runs([OURS, "SGPN"], options)
    assert [(run.method, run.seed, run.trial) for run in runs] == [
        (OURS, 0, 1),
        ("SGPN", 0, 0),
        (OURS, 1, 1),
        ("SGPN", 1, 0),
    ]
    assert runs[0].changes(options) == COMPETITORS[OURS].trials[0]
    assert [run.trial for run in competitor_runs.all_runs([OURS], replace(options, trial_epochs=0))] == [0, 0]


def test_rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both embeddings and clusters of points in coarse rooms, for a step or two."""
    root = tmp_path / "rooms"
    write_rooms(PROJECT / "data" / "scan_objects", root, scenes=5, cameras=6, spacing=0.08)
    monkeypatch.setattr(competitors, "scannet_folder", lambda *_: root)
    small = replace(scannet.resolve(scannet.Options()), voxel_size=0.15, train_points=300, held_out=0.5)
    monkeypatch.setattr(
        scannet,
        "resolve",
        lambda given: replace(
            small,
            **{name: getattr(given, name) for name in ("epochs", "batch_size", "width", "output", "resume")},
        ),
    )
    options = replace(TINY, data="rooms", output=tmp_path / "runs")
    for method in METHODS:
        append_line(options.csv, competitors.measure(competitors.Run(method, "rooms", 0), options))
    lines = read_lines(options.csv)
    for line in lines:
        assert 0 <= float(line["AP"]) <= float(line["AP50"]) <= float(line["AP25"]) <= 100
        assert line["settings"] in map(str, ROOMS[line["method"]].settings)
    table, _ = competitors.summary(METHODS, options)
    for row, line in zip(table.rows, lines, strict=True):
        assert row.values[1:4] == [pytest.approx(float(line[name]), abs=1e-3) for name in ("AP25", "AP50", "AP")]
    assert competitors.finished(replace(options, data="families")) == {}
