"""The benchmarks run, in their smallest form, and count, compare, draw and write as they say."""

from __future__ import annotations

import doctest
import functools
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clustering
import growth
import harness
import large_scene
import losses
import partnet_ap
import plot
import pytest
import run
import scannet_ap
import torch
import volume
from harness import Growth, PeakMemory, Results, Shares, Table, Times
from paths import PACKAGES, PROJECT
from problems import blobs, plain_loop

from probemb_lib import greedy_cluster

BENCHMARKS = PROJECT / "benchmarks"
ROW = {"median_s": 2.0, "min_s": 1.0, "cpu_s": 1.0, "rounds": 3}
FAST = {"median_s": 0.5, "min_s": 0.25, "cpu_s": 0.25, "rounds": 3}


def table(**more: Any) -> Table:
    return Table("Sums", {"plain": ROW, "ours": FAST}, "plain", "ours", **more)


def everything() -> Results:
    return Results(
        tables=[table(missing={"KeOps": "not installed: pip install pykeops"}, note="a note")],
        shares=[Shares("Step", {"network": 3.0, "losses": 1.0}, ("losses",))],
        growth=[Growth("Ours", "points", [1e3, 1e4], [0.1, 1.0], [math.nan, math.nan])],
        numbers={"unknown": math.nan, "known": [1, 2.5]},
    )


def call_directly(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new process loads torch, which takes longer than what it would measure here."""
    for module in (growth, large_scene, losses, partnet_ap, volume):
        monkeypatch.setattr(module, "in_new_process", call_directly)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Takes a package away."""
    find_spec = importlib.util.find_spec

    def take_away(package: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))

    return take_away


# --- time


def test_peers_are_called_in_turn_and_the_first_call_is_not_counted() -> None:
    calls: list[str] = []
    rows = harness.timed({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert "".join(calls) == "ababab"
    assert list(rows) == ["a", "b"]
    assert [row["rounds"] for row in rows.values()] == [2, 2]


def test_no_round_begins_after_the_time_is_up() -> None:
    calls: list[int] = []
    assert harness.timed({"a": lambda: calls.append(0)}, 100, seconds=0.0)["a"]["rounds"] == 1
    assert len(calls) == 2


def test_median_and_minimum() -> None:
    row = harness.summary([Times(4.0, 3.0), Times(2.0, 2.0), Times(12.0, 1.0)], items=2)
    assert row == {"median_s": 2.0, "min_s": 1.0, "cpu_s": 0.5, "rounds": 3}


def test_clocked_returns_the_result_and_waiting_costs_no_cpu_time() -> None:
    result, times = harness.clocked(lambda: harness.time.sleep(0.05) or 7)
    assert result == 7
    assert times.wall >= 0.05 > times.cpu


# --- memory


PEAK_OF_40_MB = """
import torch
from harness import PeakMemory

def work():
    torch.ones(10_000_000)

work()
with PeakMemory() as peak:
    work()
print(peak.megabytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_peak_memory_is_what_the_block_needs_though_it_was_freed_before() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(harness.__file__).parent)}
    command = [sys.executable, "-c", PEAK_OF_40_MB]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert 39 < float(done.stdout) < 50


def test_peak_memory_is_nan_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    with PeakMemory() as peak:
        pass
    assert math.isnan(peak.megabytes)


def test_a_new_process_is_another_one() -> None:
    assert harness.in_new_process(os.getpid) != os.getpid()


# --- the machine


def test_header() -> None:
    head = harness.header()
    assert list(head) == ["machine", "threads", "load", "date", "commit", "versions"]
    assert head["threads"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", head["date"])
    assert head["versions"]["torch"] == torch.__version__
    assert set(harness.DISTRIBUTIONS) < set(head["versions"])
    json.dumps(head)


def test_header_without_git_linux_and_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", absent)
    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.delattr(os, "getloadavg")
    head = harness.header()
    assert head["commit"] is None
    assert head["load"] is None
    assert head["machine"]
    assert "WARNING" not in harness.header_text(head)


def test_a_busy_machine_is_warned_of() -> None:
    head = {**harness.header(), "load": 0.2}
    assert "WARNING" not in harness.header_text(head)
    assert "busy (load 2.5)" in harness.header_text({**head, "load": 2.5})


def test_version_of_what_is_not_there() -> None:
    assert harness.version_of("no-such-distribution") is None
    assert harness.version_of("torch") is not None


def test_missing_packages_are_named_with_what_installs_them(without: Callable[[str], None]) -> None:
    without("pykeops")
    assert harness.missing(["pykeops"]) == "not installed: pip install pykeops"
    without("MinkowskiEngine")
    assert harness.missing(["matplotlib", "MinkowskiEngine"]) == "not installed: make minkowski"
    assert harness.missing([]) is None


def test_doctests() -> None:
    assert doctest.testmod(harness).attempted > 0
    assert doctest.testmod(harness).failed == 0


# --- results


def test_table_text() -> None:
    text = str(table(missing={"KeOps": "not installed: pip install pykeops"}, note="a note"))
    assert table().times_faster("ours") == 4.0
    assert re.search(r"^ours +500\.00 +250\.00 +250\.00 +4\.00$", text, flags=re.M)
    assert re.search(r"^KeOps +not installed: pip install pykeops$", text, flags=re.M)
    assert text.endswith("a note")


def test_table_marks_rows_that_waited() -> None:
    rows = {"plain": {**ROW, "cpu_s": 0.5}, "ours": FAST}
    marked = [line for line in str(Table("", rows, "plain", "ours")).splitlines() if "busy machine" in line]
    assert [line.split()[0] for line in marked] == ["plain"]


def test_shares() -> None:
    shares = everything().shares[0]
    assert shares.library_share == 0.25
    assert re.search(r"^losses +1000\.00 +25\.0%$", str(shares), flags=re.M)
    assert "of it losses" in str(shares)


def test_growth_exponents() -> None:
    curve = Growth("", "points", [10.0, 100.0, 1000.0], [1.0, 100.0, 1e4], [5.0, 5.0, 5.0])
    assert curve.exponents == pytest.approx((2.0, 0.0), abs=1e-9)
    assert "time ∝ points^2.00" in str(curve)
    assert math.isnan(harness.exponent([1.0], [1.0]))
    assert math.isnan(harness.exponent([1.0, 2.0], [1.0, math.nan]))


def test_parts_are_printed_when_they_are_added(capsys: pytest.CaptureFixture[str]) -> None:
    results, source = Results(), everything()
    for part in (*source.tables, *source.shares, *source.growth):
        results.add(part)
    results.lack("rooms", "not installed: make minkowski")
    assert (results.tables, results.shares, results.growth) == (source.tables, source.shares, source.growth)
    assert results.missing == {"rooms": "not installed: make minkowski"}
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("Sums", "Step", "Ours", "rooms: not installed: make minkowski"))


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    harness.write_json(path, {"machine": "abacus"}, {"sums": everything()})
    content = json.loads(path.read_text())
    assert content["machine"] == "abacus"
    sums = content["subjects"]["sums"]
    assert sums["tables"][0]["times_faster"] == {"plain": 1.0, "ours": 4.0}
    assert sums["tables"][0]["missing"] == {"KeOps": "not installed: pip install pykeops"}
    assert sums["shares"][0]["library_share"] == 0.25
    assert sums["growth"][0]["exponents"] == {"time": pytest.approx(1.0), "memory": None}
    assert sums["numbers"] == {"unknown": None, "known": [1, 2.5]}
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(harness.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        harness.write_file(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_picture(tmp_path: Path) -> None:
    whole, bars = tmp_path / "whole.png", tmp_path / "bars.png"
    two = everything()
    two.growth.append(Growth("Theirs", "points", [1e3, 1e4], [0.1, 1.0], [30.0, 31.0]))
    slower = Table("Small", {"peer": FAST, "ours": ROW}, "peer", "ours")
    plot.draw(harness.header(), {"a": everything(), "b": two, "none": Results()}, whole)
    plot.draw(harness.header(), {"c": Results(tables=[slower])}, bars)
    assert whole.read_bytes()[:8] == bars.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert whole.stat().st_size > bars.stat().st_size
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.draw(harness.header(), {"none": Results()}, tmp_path / "none.png")


# --- the commands


def test_command_of_a_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    sizes: list[bool] = []

    def benchmark(quick: bool) -> Results:
        sizes.append(quick)
        return everything()

    def command(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["sums.py", *arguments])
        harness.run_alone("sums", "About sums.\n\nMore.", benchmark)
        return sorted(p.name for p in tmp_path.iterdir())

    machine = harness.slug(harness.cpu_name())
    assert command("--quick") == []
    assert command("--quick", "--output", str(tmp_path / "own.json")) == ["own.json"]
    assert command() == ["own.json", f"sums-{machine}.json"]
    assert sizes == [True, True, False]
    assert "results" in capsys.readouterr().out


@pytest.fixture
def fake_subjects(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """In the place of those that measure; returns which were called, and whether quick."""
    called: list[tuple[str, bool]] = []

    def make(name: str) -> Callable[[bool], Results]:
        def benchmark(quick: bool) -> Results:
            called.append((name, quick))
            return everything()

        return benchmark

    for name in run.SUBJECTS:
        module = types.ModuleType(name)
        module.benchmark = make(name)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    return called


def test_suite_runs_all_subjects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_subjects: list[tuple[str, bool]]
) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "missing", lambda _: None)
    run.main([])
    assert fake_subjects == [(name, False) for name in run.SUBJECTS]
    machine = harness.slug(harness.cpu_name())
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{machine}.json", f"{machine}.png"]
    assert list(json.loads((tmp_path / f"{machine}.json").read_text())["subjects"]) == list(run.SUBJECTS)


def test_suite_runs_some_subjects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_subjects: list[tuple[str, bool]]
) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")
    run.main(["--only", "growth", "losses", "--quick"])
    run.main(["--only", "losses"])  # not all of a machine's results
    assert fake_subjects == [("growth", True), ("losses", True), ("losses", False)]
    assert not (tmp_path / "results").exists()
    with pytest.raises(SystemExit):
        run.main(["--only", "weather"])


def test_suite_names_what_is_missing(
    tmp_path: Path,
    without: Callable[[str], None],
    fake_subjects: list[tuple[str, bool]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    without("sklearn")
    run.main(["--only", "clustering", "losses", "--output", str(tmp_path / "a.json")])
    assert fake_subjects == [("losses", False)]
    assert "clustering: not installed: pip install scikit-learn" in capsys.readouterr().out
    missing = json.loads((tmp_path / "a.json").read_text())["subjects"]["clustering"]["missing"]
    assert missing == {"clustering": "not installed: pip install scikit-learn"}
    without("matplotlib")
    run.main(["--only", "losses", "--output", str(tmp_path / "b.json")])
    assert "picture  not installed: pip install matplotlib" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.png", "b.json"]


def test_suite_has_every_benchmark() -> None:
    found = {p.stem for p in BENCHMARKS.glob("*.py") if "\ndef benchmark(" in p.read_text(encoding="utf-8")}
    assert found == set(run.SUBJECTS)


# --- the subjects


def test_plain_loop_gives_the_labels_of_greedy_cluster() -> None:
    embedding, score = blobs(500, 5)
    assert torch.equal(plain_loop(embedding, score), greedy_cluster(embedding, score[:, None], background=None).label)


def test_losses(without: Callable[[str], None]) -> None:
    without("pykeops")
    dice = losses.compare_dice(200, 5, 1, compiled=False)
    assert list(dice.rows) == ["broadcast, product form", "broadcast, log form", "LogDiceLoss"]
    assert dice.missing == {"KeOps LazyTensor": "not installed: pip install pykeops"}
    whole = losses.compare_whole(200, 5, 1, compiled=False)
    assert list(whole.rows) == ["broadcast, log form", "ProbabilisticEmbeddingLoss"]
    assert losses.index_time(200, 5, 1) > 0


@pytest.mark.skipif(importlib.util.find_spec("pykeops") is None, reason="needs pykeops")
def test_keops_computes_the_same_loss() -> None:
    assert losses.KEOPS in losses.compare_dice(200, 5, 1, compiled=False).rows


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
def test_memory_of_the_dice_loss_has_the_gradients_at_least() -> None:
    assert losses.dice_memory(40_000, 10) > 2 * 40_000 * 3 * 4e-6


def test_losses_that_differ_are_no_peers() -> None:
    x = losses.draw(100, 3)
    peers = {"double": lambda: 2 * losses.log_form(x), "ours": lambda: losses.log_form(x)}
    with pytest.raises(RuntimeError, match="double and ours differ"):
        losses.check_equal(x, peers, "ours")
    with pytest.raises(ValueError, match="got 2 points, 50 instances"):
        losses.draw(2, 50)


def test_clustering() -> None:
    greedy, margins = clustering.peers(300, 3, 1, {"MeanShift": 300, "DBSCAN": 300, "HDBSCAN": 200})
    assert len(greedy.rows) == 4
    assert greedy.missing == {"scikit-learn HDBSCAN": "left out: minutes at this size"}
    assert greedy.note.endswith("float32: 0")
    assert margins.note.endswith("float32: 0")
    assert clustering.many_instances(300, 3, 1).rows["plain loop of Eq. 11"]["rounds"] == 1
    cases = clustering.index_cannot_help(300, 100, 1)
    assert all(row["of_limit"] > 0 and row["instances"] > 0 for row in cases.values())


@pytest.mark.usefixtures("no_processes")
def test_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "REPEAT_UNTIL_S", 0.0)
    results = growth.growth([500, 1000], [2, 4], [1000, 2000], (500, 5))
    assert [curve.size for curve in results.growth] == ["points", "instances", "points"]
    assert all(s > 0 for curve in results.growth for s in curve.seconds)
    assert results.numbers["largest_dice"]["seconds"] > 0


@pytest.mark.usefixtures("no_processes")
def test_evaluators() -> None:
    partnet, scannet = partnet_ap.benchmark(True), scannet_ap.benchmark(True)
    assert list(partnet.tables[0].rows) == ["straightforward", "PartNetAP"]
    assert partnet.numbers["shapes"] == 20
    assert len(scannet.tables[0].rows) == 5
    assert scannet.numbers["8 classes"]["state_bytes_a_scene"] > 0


@pytest.mark.usefixtures("no_processes")
def test_large_scene() -> None:
    results = large_scene.measure_sizes([1, 2], 1000)
    assert [row["points"] for row in results.numbers["sizes"]] == [1000, 2000]
    assert [len(curve.x) for curve in results.growth] == [2, 2]


def test_room_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rooms on one floor, through a network that has learned nothing."""
    pytest.importorskip("plyfile")
    room_tiles = importlib.import_module("room_tiles")
    monkeypatch.setattr(room_tiles, "PROJECT", tmp_path)
    monkeypatch.setattr(room_tiles, "open_models", lambda name: PROJECT / "data" / name)
    monkeypatch.setattr(room_tiles, "write_rooms", functools.partial(room_tiles.write_rooms, cameras=4))
    monkeypatch.setattr(room_tiles, "in_new_process", call_directly)
    options = room_tiles.scannet.resolve(room_tiles.scannet.Options(width=0.25, voxel_size=0.15))
    model = room_tiles.scannet.new_model("probabilistic", options, room_tiles.start_fabric(accelerator="cpu"))
    path = model.with_setting(0.3).save(tmp_path / "model.safetensors")
    scene = room_tiles.floor(2, 0.1)
    assert scene.instance.max() + 1 == len(scene.instance[scene.instance >= 0].unique())
    assert (scene.pos[:, 0] > room_tiles.floor(1, 0.1).pos[:, 0].max() + 0.1).any()
    arguments = ["--rooms", "2", "--spacing", "0.1", "--output", tmp_path / "found.json"]
    room_tiles.main([str(argument) for argument in (path, *arguments)])
    (row,) = json.loads((tmp_path / "found.json").read_text())["subjects"]["room_tiles"]["numbers"]["sizes"]
    assert row["points"] == len(scene.pos)
    for way in ("tiles", "at once"):
        assert 0 <= row[way]["ap50"] <= row[way]["ap25"] <= 100
        assert row[way]["cpu_s"] > 0


@pytest.mark.usefixtures("no_processes")
def test_volume() -> None:
    """Tiles and the whole find the same blobs; what is too large for the whole is measured in tiles alone."""
    results = volume.measure_sizes([(8, 40, 40), (16, 90, 40)])
    sizes = results.numbers["sizes"]
    assert [row["voxels"] for row in sizes] == [12_800, 57_600]
    assert all(row["tiled"]["instances"] == row["whole"]["instances"] > 0 for row in sizes)
    assert [len(curve.x) for curve in results.growth] == [2, 2]


def test_the_whole_is_left_out_where_it_is_too_large(monkeypatch: pytest.MonkeyPatch, no_processes: None) -> None:
    monkeypatch.setattr(volume, "AT_ONCE", 20_000)
    results = volume.measure_sizes([(8, 40, 40), (16, 90, 40)])
    assert [list(row) for row in results.numbers["sizes"]] == [["voxels", "tiled", "whole"], ["voxels", "tiled"]]
    assert [len(curve.x) for curve in results.growth] == [2, 1]


def test_nuclei_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("monai")
    nuclei_volumes = importlib.import_module("nuclei_volumes")
    monkeypatch.setattr(nuclei_volumes, "in_new_process", call_directly)
    monkeypatch.setattr(nuclei_volumes, "THRESHOLDS", (0.2, 0.4))
    numbers = nuclei_volumes.benchmark(quick=True).numbers
    assert numbers["steps"] == 4
    assert [row["voxels"] for row in numbers["volumes"]] == [12_800, 23_040]
    assert all(row["nuclei"] > 0 and 0 <= row["ap75"] <= row["ap50"] <= 1 for row in numbers["volumes"])


def test_methods() -> None:
    for package in ("h5py", "torch_geometric"):
        pytest.importorskip(package)
    methods = importlib.import_module("methods")
    names = list(methods.COMPETITORS)
    learned = {name: methods.learned(name, methods.draw(1, 60, 3), steps=2) for name in names}
    losses, groupings, heads = methods.compare(learned, 2, 60, 3, rounds=1)
    assert [list(table.rows) for table in (losses, groupings, heads)] == 3 * [names]
    assert losses.title == "Losses, forward + backward, 2 x 60 points, 3 instances each"
    assert groupings.note.startswith("instances found, of 6: ")


def test_pointnet2() -> None:
    pytest.importorskip("h5py")
    pointnet2 = importlib.import_module("pointnet2")
    results = Results()
    x, instance = pointnet2.chairs(2, 512)
    pointnet2.operations(results, x, 1)
    assert len(results.tables) > 1
    for shares in (pointnet2.step(x, instance, 0.1, 1), pointnet2.inference(x[:1], 0.1, 1)):
        assert 0 < shares.library_share < 1


@pytest.fixture(scope="module")
def steps() -> types.ModuleType:
    for package in ("h5py", "torch_geometric", "plyfile"):
        pytest.importorskip(package)
    return importlib.import_module("steps")


def test_training_step_on_partnet(steps: types.ModuleType) -> None:
    shares = steps.partnet_step(512, 0.1, 2)  # more batches than an epoch has
    assert list(shares.seconds)[:2] == ["data loading", "backbone"]
    assert all(s > 0 for s in shares.seconds.values())
    assert 0 < shares.library_share < 1


def test_steps_on_rooms(steps: types.ModuleType) -> None:
    for shares in (steps.scannet_step(100, 0.1, 1), steps.scene_prediction(1000, 1)):
        assert all(s > 0 for s in shares.seconds.values())
        assert 0 < shares.library_share < 1


@pytest.fixture
def sparse() -> types.ModuleType:
    return importlib.import_module("sparse")


def test_sparse_engines_beside_each_other(sparse: types.ModuleType) -> None:
    results = sparse.benchmark(True)
    for table in results.tables:
        assert list(table.rows)[-1] == table.ours == "plain torch"
        assert len(table.rows) + len(table.missing) == 2
    assert all(peak > 1 for peaks in results.numbers["peak_mb"].values() for peak in peaks.values())


# --- a GPU's benchmark, on the CPU


def test_the_gpu_benchmark_in_small(tmp_path: Path) -> None:
    """Every section runs and is written, with the device, the versions and the commit."""
    command = [sys.executable, "gpu.py", "--tiny", "--device", "cpu", "--output", str(tmp_path / "gpu.json")]
    environment = {**os.environ, "PYTHONPATH": PACKAGES}
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["device"] == "cpu"
    assert written["clock_hz"] is None
    assert {"torch", "triton", "cuda"} <= set(written["versions"])
    assert re.fullmatch(r"[0-9a-f]+(-dirty)?", written["commit"])
    numbers = written["subjects"]["gpu"]["numbers"]
    kinds = {name.split("_")[0] for name in numbers}
    assert kinds == {"losses", "clustering", "geometry", "step", "minkunet34c", "reading"}
    (clustering,) = (value for name, value in numbers.items() if name.startswith("clustering"))
    assert clustering["labels_other_than_cpu"] == 0
    (losses,) = (value for name, value in numbers.items() if name.startswith("losses"))
    assert all(row["ours"] < 1e-5 and row["repeats"] for row in losses["accuracy"].values())
    assert "Training step, bfloat16" in done.stdout


@pytest.mark.parametrize("arguments", [["--device", "cpu"], []])
def test_the_gpu_benchmark_refuses_without_a_gpu(arguments: list[str]) -> None:
    if not arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    environment = {**os.environ, "PYTHONPATH": PACKAGES}
    command = [sys.executable, "gpu.py", *arguments]
    done = subprocess.run(command, cwd=BENCHMARKS, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nothing was measured" in done.stderr
