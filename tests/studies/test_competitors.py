"""The comparison with competing methods, for a few steps: lines, settings picked on validation, going on, the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import competitors
import pytest

from probemb_adapters.experiments.competitors import COMPETITORS, OURS
from probemb_adapters.experiments.records import append_line, load_metric, read_lines
from probemb_adapters.training import LAST

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
def test_settings_are_attributes_of_the_method(name: str) -> None:
    competitor = COMPETITORS[name]
    method = competitor.make(8, 3)
    assert 2 < len(competitor.settings) < 20
    assert all(hasattr(method, attribute) for attribute in competitor.grid)


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


def test_table(measured: competitors.Options) -> None:
    table = competitors.summary([*METHODS, "SGPN"], measured)
    ours, theirs, missing = table.rows
    lines = {line["method"]: line for line in read_lines(measured.csv)}
    for row in (ours, theirs):
        assert row.values[2] == pytest.approx(float(lines[row.name]["part mAP 0.5"]), abs=1e-3)
    assert ours.values[4] is None
    assert theirs.values[4] == pytest.approx(theirs.values[2] - ours.values[2], abs=1e-6)
    assert missing.values[:2] == [0, None]


def test_without_classes_the_same_networks_are_taken(measured: competitors.Options) -> None:
    options, run = replace(measured, without_classes=True), competitors.Run(OURS, "Table", 0)
    assert competitors.summary(METHODS, options).rows[0].values[0] == 0  # not measured yet
    before = (run.folder(measured) / LAST).stat().st_mtime_ns
    append_line(options.csv, competitors.measure(run, options))
    assert (run.folder(measured) / LAST).stat().st_mtime_ns == before
    metric = load_metric(run.metric(options))
    assert metric.num_classes == 1 < load_metric(run.metric(measured)).num_classes
    (ours,) = competitors.summary([OURS], options).rows
    assert ours.values[2] == pytest.approx(100 * float(metric.part_map()[1]), abs=1e-3)
    assert ours.values[6] == competitors.summary([OURS], measured).rows[0].values[6]  # minutes of the training


def test_a_training_that_diverges_is_a_line_without_numbers(
    measured: competitors.Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def diverge(*args: object) -> None:
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(competitors, "train_competitor", diverge)
    line = competitors.measure(competitors.Run(OURS, "Table", 0), replace(measured, output=tmp_path))
    assert line["part mAP 0.5"] is None
