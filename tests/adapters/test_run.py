"""What the examples share: settings of a model, schedules, the file of a model, tables and numbers."""

import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from threadpoolctl import ThreadpoolController
from torch import nn
from torch_geometric.data import Data

from probemb_adapters.experiments.run import (
    cores_beside,
    learning_rate_schedule,
    load_model,
    merged,
    save_model,
    start_from,
    train_network,
    write_metrics,
)
from probemb_adapters.report import Row, Table, table_text
from probemb_adapters.training import LAST, start_fabric
from probemb_adapters.training.checkpoint import load_checkpoint, save_checkpoint
from probemb_adapters.training.options import RunOptions, TrainingSettings
from probemb_lib import ProbabilisticHead
from probemb_lib.metrics import PartNetAP


@dataclass(frozen=True)
class Settings(TrainingSettings):
    REQUIRED: ClassVar[tuple[str, ...]] = ("width",)

    start_from: Path | None = Path("weights.pth")
    width: int = 3
    threshold: float | None = None


@dataclass(frozen=True)
class Options(Settings, RunOptions):
    root: Path | None = None
    extra: bool = False


def rates(options: RunOptions, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=options.learning_rate)
    schedule = learning_rate_schedule(optimizer, options, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_schedules() -> None:
    halved = rates(RunOptions(schedule="halved", learning_rate=0.8, halve_at=(0.1, 0.3)), 20)
    assert halved == pytest.approx([0.8] * 2 + [0.4] * 4 + [0.2] * 14)
    cycle = rates(RunOptions(schedule="one-cycle", learning_rate=0.8), 20)
    assert max(cycle) == pytest.approx(0.8)
    assert cycle.index(max(cycle)) == 1
    assert cycle[2:] == sorted(cycle[2:], reverse=True)
    assert cycle[-1] < 1e-3

    for steps in range(1, 20):  # of a try, too
        assert max(rates(RunOptions(schedule="one-cycle", learning_rate=0.8), steps)[:2]) == pytest.approx(
            0.8 if steps > 1 else 0.8 / 25
        )


def items() -> list[Data]:
    return [Data(pos=torch.full((2, 1), float(i)), y=torch.full((2, 1), 3.0 * i)) for i in range(6)]


def train_line(options: RunOptions) -> tuple[nn.Linear, list[dict[str, float]]]:
    torch.manual_seed(0)
    network = nn.Linear(1, 1)

    def losses(network: nn.Module, batch: Data) -> dict[str, torch.Tensor]:
        return {"loss": (network(batch.pos) - batch.y).square().mean()}

    settings = TrainingSettings.of(options).stored()
    return network, train_network(
        network, items(), losses, options, start_fabric(accelerator="cpu"), settings=settings, folder=options.output
    )


def test_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    options = RunOptions(
        epochs=6, batch_size=2, workers=0, schedule="one-cycle", learning_rate=0.1, output=tmp_path / "whole"
    )
    whole, history = train_line(options)
    assert len(history) == 6
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    again, same = train_line(replace(options, resume=True))  # nothing is left to do
    assert same == history
    torch.testing.assert_close(again.weight, whole.weight, rtol=0, atol=0)
    assert (tmp_path / "whole" / LAST).is_file()


def test_the_first_batch_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, a line a finding, on the process that prints; the training is the same."""
    x = torch.rand(64, 2, generator=torch.Generator().manual_seed(0)).sort(0).values
    instance = torch.where(x[:, 0] < 0.5, 0, 255)
    data = [Data(pos=x, instance=instance, semantic=torch.ones_like(instance)) for _ in range(4)]
    options = RunOptions(epochs=2, batch_size=2, workers=0, schedule="halved", learning_rate=0.1, output=tmp_path)

    def losses(network: nn.Module, batch: Data) -> dict[str, torch.Tensor]:
        return {"loss": network(batch.pos).square().mean()}

    fabric = start_fabric(accelerator="cpu")
    settings = {"offset_scale": 100.0}
    train_network(nn.Linear(2, 1), data, losses, options, fabric, settings=settings, num_classes=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("first batch, ")]
    assert len(lines) == 3
    assert lines[0].startswith("first batch, error: semantic: expected classes in [0, 1), or -100 (ignored), got 1")
    assert sum("is it -1 in uint8?" in line for line in lines) == 1
    assert sum("expected about the radius of the largest instances" in line for line in lines) == 1


def test_readers_have_cores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = [3]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    for workers in (0, 2, 8):
        with pytest.raises(KeyboardInterrupt), cores_beside(workers):
            raise KeyboardInterrupt
    assert threads == [3, 3, 3, 1, 3, 1, 3]


def test_threads_that_never_sleep_are_one_while_training() -> None:
    own = ThreadpoolController().select(threading_layer="pthreads")
    with own.limit(limits=2):
        with cores_beside(0):
            assert {library["num_threads"] for library in own.info()} == {1}
        assert {library["num_threads"] for library in own.info()} == {2}


@pytest.mark.parametrize("missing", ["epochs", "batch_size", "workers", "learning_rate", "schedule"])
def test_options_must_be_chosen(missing: str, tmp_path: Path) -> None:
    options = RunOptions(epochs=1, batch_size=1, workers=0, learning_rate=0.1, schedule="halved", output=tmp_path)
    with pytest.raises(ValueError, match="expected options with epochs"):
        train_line(replace(options, **{missing: None}))


def test_a_model_is_one_file(tmp_path: Path) -> None:
    network = nn.Linear(3, 2).train()
    made = Settings(threshold=0.35)
    for name in ("metrics.json", "report.html", "notes.txt"):
        (tmp_path / name).write_text("of an earlier model")
    path = save_model(tmp_path / "model.safetensors", network, ("part",), made)
    assert {p.name for p in tmp_path.iterdir()} == {"model.safetensors", "notes.txt"}
    assert load_checkpoint(path)["about"] == {**made.stored(), "halve_at": [0.1, 0.3]}
    loaded, classes, settings = load_model(path, Settings, lambda count, made: nn.Linear(made.width, count + 1))
    assert not loaded.training
    assert (classes, settings) == (("part",), made)
    torch.testing.assert_close(loaded.weight, network.weight, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"(?s)is no model of this library: .*size mismatch"):
        load_model(path, Settings, lambda count, made: nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"is no model of this library: unknown settings start_from, threshold, width"):
        load_model(path, TrainingSettings, lambda count, made: nn.Linear(3, 2))
    save_checkpoint(tmp_path / "other.safetensors", {"model": {}, "epoch": 1})
    with pytest.raises(ValueError, match=r"holds model, epoch: expected a model.safetensors"):
        load_model(tmp_path / "other.safetensors", Settings, lambda count, made: nn.Linear(1, 1))


def test_training_starts_from_the_weights_of_a_model() -> None:
    """A head of other lengths, or another network, is one sentence that names the file."""
    one, path = ProbabilisticHead(3, 2), Path("model.safetensors")
    same, longer, wider = ProbabilisticHead(3, 2), ProbabilisticHead(3, 2, offset_scale=2.0), ProbabilisticHead(3, 4)
    start_from(same, one, path)
    torch.testing.assert_close(same.state_dict(), one.state_dict())
    with pytest.raises(ValueError, match=r"^--start-from model.safetensors does not fit this training: .*trained with"):
        start_from(longer, one, path)
    with pytest.raises(ValueError, match=r"size mismatch for scores.9.weight.*; and 1 more$"):
        start_from(wider, one, path)


def test_one_process_has_all_of_the_metric() -> None:
    metric = PartNetAP(1)
    assert merged(metric, start_fabric(accelerator="cpu")) is metric


def test_numbers_as_files(tmp_path: Path) -> None:
    options = Options(output=tmp_path)
    write_metrics(tmp_path, {"AP": [1.5, math.nan]}, options, [("method", "AP"), ("ours", 1.5)])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["AP"] == [1.5, None]
    assert metrics["options"]["start_from"] == "weights.pth"
    assert metrics["versions"]["torch"] == torch.__version__
    assert list(csv.reader((tmp_path / "metrics.csv").open())) == [["method", "AP"], ["ours", "1.5"]]


def test_tables_in_the_terminal() -> None:
    rows = [Row("ours", [12.345, None, 7]), Row("theirs (paper)", [1.0, 2.0, 3], quoted=True)]
    lines = table_text(Table("Validation", ["AP", "AP50", "n"], rows, text="Open rooms.", quoted="elsewhere")).split(
        "\n"
    )
    assert lines[0] == "Validation. Open rooms."
    assert lines[1].split() == ["AP", "AP50", "n"]
    assert lines[2].split() == ["ours", "12.3", "–", "7"]
    assert lines[-1] == "(paper): elsewhere"
    assert len({len(line) for line in lines[1:4]}) == 1  # columns stand below each other
    plain = table_text(Table("Validation", ["AP"], rows[:1]))
    assert plain.split("\n")[0] == "Validation"
    assert "(paper)" not in plain
