"""The paper's tables from trainings of a few steps, on generated shapes in PartNet's layout."""

import csv
import doctest
import shutil
import sys
from functools import partial
from pathlib import Path
from statistics import fmean

import example_runs
import paper_tables as tables
import pytest
from example_runs import read_metrics
from paths import PROJECT

from probemb_adapters.experiments.paper import read_paper
from probemb_shapes.families import write_generated

run = partial(example_runs.run, PROJECT / "studies" / "paper_tables.py")
FEW_STEPS = ["--epochs", "1", "--batch-size", "2", "--train-points", "256", "--points", "256", "--width", "0.25"]
FEW_STEPS += ["--accelerator", "cpu", "--workers", "0"]
PAIRS = [("Chair", 1), ("Chair", 3), ("Lamp", 1), ("Lamp", 3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("partnet") / "root"
    for category in ("Chair", "Lamp"):
        write_generated(folder, category, train=4, val=2, test=2)
    return folder


@pytest.fixture(scope="module")
def asked(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    output = tmp_path_factory.mktemp("tables")
    return ["--root", root, "--categories", "Chair", "Lamp", "--levels", 1, 3, "--output", output]


@pytest.fixture(scope="module")
def measured(asked: list[object]) -> dict[tuple[str, int], list[float]]:
    """Two shares as two machines would take them, then the tables of both."""
    output = Path(str(asked[-1]))
    for share in ("0/2", "1/2"):
        done = run(*asked, "--share", share, "--", *FEW_STEPS)
        assert done.returncode == 0, done.stderr + "".join(p.read_text() for p in output.rglob("log.txt"))
    folders = {(category, level): output / f"{category}-{level}" for category, level in PAIRS}
    return {pair: read_metrics(folder)["methods"]["probabilistic"]["part mAP"] for pair, folder in folders.items()}


def read(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {line[0]: line[1:] for line in csv.reader(file)}


@pytest.mark.parametrize(("name", "position", "iou"), [("table_1", 1, 0.5), ("table_4", 0, 0.25), ("table_5", 2, 0.75)])
def test_tables_show_ours_beside_the_papers(
    asked: list[object], measured: dict[tuple[str, int], list[float]], name: str, position: int, iou: float
) -> None:
    rows = read(Path(str(asked[-1])) / f"{name}.csv")
    head = rows[next(title for title in rows if f"IoU {iou:g}" in title)]
    assert head[-1] == "this run"
    ours = {pair: values[position] for pair, values in measured.items()}
    for (category, level), value in ours.items():
        assert float(rows[f"{category} {level}"][-1]) == pytest.approx(value, abs=1e-3)
    both = [ours["Chair", 3], ours["Lamp", 3]]
    assert float(rows["level 3, mean of 2"][-1]) == pytest.approx(fmean(both), abs=1e-3)
    assert float(rows["AllAvg of 2"][-1]) == pytest.approx(fmean(ours.values()), abs=1e-3)  # two levels each
    column = head.index("ProbabilisticEmbedding (paper)")
    printed = {
        (line["category"], int(line["level"])): float(line["map_percent"])
        for line in read_paper("partnet_map.csv")
        if float(line["iou_threshold"]) == iou and line["method"] == "ProbabilisticEmbedding"
    }
    for pair in ours:
        assert float(rows[f"{pair[0]} {pair[1]}"][column]) == printed[pair]
    assert float(rows["level 3, mean of 2"][column]) == pytest.approx(
        fmean([printed["Chair", 3], printed["Lamp", 3]]), abs=1e-3
    )


def test_what_is_finished_is_not_trained_again(asked: list[object], measured: object) -> None:
    files = {p: p.stat().st_mtime_ns for p in Path(str(asked[-1])).rglob("metrics.json")}
    done = run(*asked, "--", *FEW_STEPS)
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in files} == files
    assert f"{len(files)} of {len(files)} trainings are there" in done.stdout


def test_a_failure_is_named_and_what_is_there_is_shown(
    root: Path, asked: list[object], measured: object, tmp_path: Path
) -> None:
    shutil.copytree(Path(str(asked[-1])) / "Lamp-1", tmp_path / "Lamp-1")
    done = run("--root", root, "--categories", "Bag", "Lamp", "--levels", 1, "--output", tmp_path, "--", *FEW_STEPS)
    assert done.returncode != 0
    assert "Bag-1 failed: see" in done.stdout
    assert "failed: Bag-1" in done.stderr
    assert "Bag" in (tmp_path / "Bag-1" / "log.txt").read_text()
    assert "1 of 2 trainings are there" in done.stdout
    assert read(tmp_path / "table_1.csv")["Bag 1"][-1] == ""


def test_every_pair_of_the_paper() -> None:
    options = tables.Options(root=Path("partnet"))
    assert len(tables.pairs(options)) == 50
    shares = [tables.own_share(tables.trainings(options), f"{i}/3") for i in range(3)]
    assert sorted(run.name for share in shares for run in share) == sorted(r.name for r in tables.trainings(options))


def test_the_papers_averages_come_back() -> None:
    """AllAvg as printed: 57.5 of the method at IoU 0.5."""
    lines = [line for line in read_paper("partnet_map.csv") if float(line["iou_threshold"]) == 0.5]
    values = {
        (line["category"], int(line["level"])): float(line["map_percent"])
        for line in lines
        if line["method"] == "ProbabilisticEmbedding"
    }
    assert tables.all_average(values, sorted(values)) == pytest.approx(57.5, abs=0.06)
    assert tables.all_average(values, [*values, ("Spoon", 1)]) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--categories", "Spoon"], "expected some of Bag, .*got Spoon"),
        (["--categories", "Bag", "--levels", "3"], "none of these categories has level 3"),
        (["--share", "2/2"], "0 <= INDEX < COUNT.*got 2/2"),
        (["--share", "half"], "INDEX/COUNT"),
    ],
)
def test_errors(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["paper_tables.py", "--root", "nowhere", *arguments])
    with pytest.raises(SystemExit, match=message):
        tables.main()


def test_doctests() -> None:
    result = doctest.testmod(tables)
    assert result.attempted >= 2
    assert result.failed == 0
