"""The ablation as a user starts it, for a few steps; its intervals; and the variants that it compares."""

import csv
import math
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import get_args

import ablation
import example_runs
import pytest
import torch
from paths import PROJECT
from torch_geometric.data import Batch, Data

from probemb_adapters.experiments import partnet, variants
from probemb_adapters.training import start_fabric
from probemb_lib import DeterministicHead, HeadOutput, ProbabilisticHead, log_bhattacharyya

run = partial(example_runs.run, PROJECT / "studies" / "ablation.py")
BUDGET = {
    "--epochs": 1,
    "--epoch-shapes": 4,
    "--batch-size": 2,
    "--train-points": 256,
    "--points": 256,
    "--width": 0.25,
}
TINY = ["--data", "furniture", "--seeds", 1, *chain(*BUDGET.items()), "--accelerator", "cpu", "--resamples", 20]
TINY += ["--rows", "deterministic", "full"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("ablation")
    done = run(*TINY, "--jobs", 2, "--output", folder, "--csv", folder / "runs.csv")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_are_measured_and_compared(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    lines = read(folder / "runs.csv")
    assert {line["row"] for line in lines} == {"deterministic", "full"}
    for line in lines:
        assert (line["data"], line["level"], line["category"], line["seed"]) == ("furniture", "1", "Furniture", "0")
        assert 0 <= float(line["part mAP 0.5"]) <= float(line["part mAP 0.25"]) <= 100
        assert line["commit"]
        assert line["device"].endswith("CPU")
    by_row = {line["row"]: float(line["part mAP 0.5"]) for line in lines}
    (table,) = [read(p) for p in folder.glob("table-2-furniture-1.csv")]
    full = next(line for line in table if next(iter(line.values())) == "full")
    assert float(full["mAP @0.5"]) == pytest.approx(by_row["full"], abs=0.01)
    assert float(full["difference @0.5"]) == pytest.approx(by_row["full"] - by_row["deterministic"], abs=0.011)
    low, high = (float(part) for part in full["95 % interval"].split(" … "))
    assert low <= high
    assert "full" in printed
    assert (folder / "table-2-furniture-1.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_same_command_goes_on(finished: tuple[Path, str]) -> None:
    """A line that is missing is measured again, from the run's checkpoint to the same numbers; the others stay."""
    folder, _ = finished
    before = read(folder / "runs.csv")
    text = (folder / "runs.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "runs.csv").write_text("".join(text[:-1]), encoding="utf-8")
    done = run(*TINY, "--jobs", 1, "--output", folder, "--csv", folder / "runs.csv")
    assert done.returncode == 0, done.stderr
    after = read(folder / "runs.csv")
    assert after[0] == before[0]
    numbers = [name for name in before[1] if "mAP" in name or name in ("row", "threshold")]
    assert [after[1][name] for name in numbers] == [before[1][name] for name in numbers]
    assert len(after) == 2


def test_without_classes(finished: tuple[Path, str]) -> None:
    """The furniture has a single class: the same numbers, from the models alone."""
    folder, _ = finished
    done = run(*TINY, "--without-classes", "--output", folder, "--csv", folder / "runs.csv")
    assert done.returncode == 0, done.stderr
    (with_classes,), (without,) = (
        [read(folder / f"table-2-furniture-1{name}.csv")] for name in ("", "-without-classes")
    )
    for column in ("mAP @0.25", "mAP @0.5", "mAP @0.75"):
        assert [row[column] for row in without] == [row[column] for row in with_classes]
    assert "AP of parts without classes" in done.stdout


def test_clusterings_are_of_the_full_methods_networks(finished: tuple[Path, str]) -> None:
    """Nothing is trained for them: the same embeddings, clustered in another way."""
    folder, _ = finished
    rows = ["--rows", *ablation.CLUSTERINGS]
    done = run(*TINY[:-3], *rows, "--output", folder, "--csv", folder / "other.csv", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    lines = {line["row"]: line for line in read(folder / "other.csv")}
    assert set(lines) == {"deterministic", "full", *ablation.CLUSTERINGS}
    assert float(lines["threshold-0.35"]["threshold"]) == 0.35
    for row in ablation.CLUSTERINGS:
        (changed,) = folder.glob(f"*/{row}/Furniture-0/model.safetensors")
        ours, full = (
            partnet.Model.load(path) for path in (changed, changed.parents[2] / "full/Furniture-0" / changed.name)
        )
        assert all(
            torch.equal(a, b) for a, b in zip(*(m.network.state_dict().values() for m in (ours, full)), strict=True)
        )
        assert ours.clustering["class_aware"] == (row == "class-aware")
        assert ours.clustering["refine"] == (row == "refined")
        assert not (changed.parent / "last.safetensors").exists()


def test_another_budget_is_another_study(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    other = [*TINY, "--learning-rate", "0.1"]
    done = run(*other, "--jobs", 0, "--output", folder, "--csv", folder / "runs.csv")
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("full")] == ["0"]  # no seed


def test_a_training_that_diverges_is_told_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: object) -> None:
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(partnet, "train_model", diverge)
    options = ablation.Options(data="furniture", seeds=1, output=tmp_path, csv=tmp_path / "runs.csv")
    study, one = ablation.Study.of(options), ablation.Run("full", "Furniture", 0)
    ablation.append_line(options.csv, ablation.measure(one, study, options, threads=1))
    done = ablation.finished(options, study)
    assert set(done) == {one}
    assert {done[one][name] for name in ablation.NUMBERS} == {""}
    (log,) = tmp_path.glob("*/full/Furniture-0/log.txt")
    assert "the loss is not finite" in log.read_text()
    table, differences = ablation.summary(["full"], "full", {}, study, options)
    assert table.text.endswith("diverged: full")
    assert table.rows[0].values[0] == 0  # seeds
    assert not differences


def test_the_papers_differences() -> None:
    study = ablation.Study.of(ablation.Options())
    differences = ablation.paper_differences("deterministic", study)
    assert differences["full"] == 5.3  # 28.7 less 23.4
    assert differences["reference_deterministic3d"] == 0
    assert {paper for _, paper in ablation.TABLE_2.values()} == set(differences)
    assert ablation.paper_differences("full", study) == {}
    assert ablation.paper_differences("deterministic", ablation.Study.of(ablation.Options(level=1))) == {}


# --- variants


def test_every_variant_has_a_name() -> None:
    assert set(variants.HEADS) == set(get_args(variants.Embedding))
    assert set(variants.SCORE_LOSSES) == set(get_args(variants.ScoreLossName))


@pytest.mark.parametrize("name", variants.HEADS)
def test_heads(name: variants.Embedding) -> None:
    head = variants.HEADS[name](8, 3, offset_scale=2.0)
    batch = torch.tensor([0] * 6 + [1] * 6)
    output = head(torch.randn(12, 8), torch.rand(12, 3), batch)
    assert isinstance(output, HeadOutput)
    log_std = output.embedding.log_std
    assert output.embedding.dim == (6 if name.endswith("6d") else 3)
    assert log_std.shape[1] == {"probabilistic": 3, "homoscedastic": 3, "probabilistic-6d": 6}.get(name, 1)
    spread = (log_std[:6] - log_std[:1]).abs().max() > 0
    assert spread == (name in ("probabilistic", "probabilistic-6d", "isotropic"))
    if name in variants.DETERMINISTIC:
        assert log_std.exp().square().unique().item() == pytest.approx(2.0**2 / 8)


def test_the_complement_is_clustered_by_the_foreground_columns() -> None:
    """Its background column tells points far from a centre; only a true background may leave points out."""
    cloud = Data(pos=torch.rand(300, 3))
    fabric = start_fabric(accelerator="cpu", devices=1, precision="32-true", log_dir=None)
    for loss, background, columns in (("complement", None, 3), ("center-aware", 0, 4)):
        options = partnet.resolve(partnet.Options(category="Chair", level=3, score_loss=loss, width=0.25))
        model = partnet.new_model(("leg", "seat", "back"), options, fabric)
        assert model.background == background
        assert model.predict(cloud, fabric)[1].shape == (300, columns)


def test_cosine_kernel() -> None:
    """exp(−2 (1 − cos)) of the directions that the head without normalization would give, in any unit."""
    torch.manual_seed(0)
    head = variants.CosineHead(8, 3, dim=6, offset_scale=5.0).eval()
    features, positions = torch.randn(12, 8), torch.rand(12, 3)
    plain = DeterministicHead.forward(head, features, positions).embedding.mean.double()
    x = head(features, positions).embedding
    direction = plain / plain.norm(dim=1, keepdim=True)
    expected = -2 * (1 - direction @ direction.T)
    torch.testing.assert_close(log_bhattacharyya(x, x).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("row", ablation.ROWS)
def test_rows_are_options_of_the_example_and_train(row: str) -> None:
    settings, _ = ablation.ROWS[row]
    options = partnet.resolve(partnet.Options(category="Chair", level=3, **settings))
    network = partnet.Network(4, partnet.Settings.of(replace(options, width=0.25)))
    loss = partnet.objective(options)
    data = Batch.from_data_list([Data(pos=torch.rand(64, 3)) for _ in range(2)])
    instance = torch.arange(128) % 3
    value = loss(network(data), instance, 1 + instance % 3, data.batch)["loss"]
    value.backward()
    assert math.isfinite(value.detach())


def test_score_weight_of_the_options_is_that_of_the_objective() -> None:
    output = ProbabilisticHead(4, 3).eval()(torch.rand(8, 4), torch.rand(8, 3))
    labels = torch.arange(8) % 2, 1 + torch.arange(8) % 2
    light, heavy = (
        partnet.objective(partnet.resolve(partnet.Options(category="Chair", level=3, score_weight=weight)))
        for weight in (1.0, 4.0)
    )
    terms = light(output, *labels)
    torch.testing.assert_close(heavy(output, *labels)["loss"] - terms["loss"], 3 * terms["score"])
