"""Settings that a model's file keeps: a part of the options, read again with what older and newer files have."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from paths import PROJECT

from probemb_adapters.experiments import partnet
from probemb_adapters.training.checkpoint import load_checkpoint
from probemb_adapters.training.options import RunOptions, TrainingSettings, chosen, with_defaults
from probemb_lib import GaussianEmbedding, greedy_cluster


@dataclass(frozen=True)
class Settings(TrainingSettings):
    REQUIRED: ClassVar[tuple[str, ...]] = ("width",)

    start_from: Path | None = None
    width: float = 1.0
    agnostic: bool | None = None
    fitted: float | None = None


@dataclass(frozen=True)
class Options(RunOptions):
    width: float = 1.0
    start_from: Path | None = Path("weights.pth")
    extra: bool = False


def test_settings_leave_out_what_says_nothing_about_the_model() -> None:
    one = Settings.of(Options(epochs=3))
    assert one == Settings.of(Options(epochs=3, output=Path("elsewhere"), resume=True, devices=2, extra=True))
    assert one != Settings.of(Options(epochs=4))
    assert one.epochs == 3
    assert one.fitted is None  # no option: the default
    assert one.stored()["start_from"] == "weights.pth"  # a file keeps text
    assert list(one.stored()) == [f.name for f in fields(Settings)]


def test_settings_come_back_from_a_file() -> None:
    made = Settings(epochs=3, schedule="halved", halve_at=(0.2, 0.5), start_from=Path("weights.pth"), agnostic=False)
    stored = {name: list(v) if isinstance(v, tuple) else v for name, v in made.stored().items()}  # as JSON has them
    assert Settings.read(stored) == made


def test_fields_that_older_files_lack_have_their_defaults() -> None:
    assert Settings.read({"width": 0.5}) == Settings(width=0.5)
    with pytest.raises(ValueError, match=r"expected the settings width, got none of width"):
        Settings.read({"epochs": 3})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", "many", r"epochs: expected int or NoneType, got 'many'"),
        ("epochs", True, r"epochs: expected int or NoneType, got True"),
        ("seed", None, r"seed: expected int, got None"),
        ("width", True, r"width: expected float, got True"),
        ("agnostic", 1, r"agnostic: expected bool or NoneType, got 1"),
        ("schedule", "cosine", r"schedule: expected Literal\['halved', 'one-cycle'\] or NoneType, got 'cosine'"),
        ("halve_at", [0.1], r"halve_at: expected tuple\[float, float\], got \[0.1\]"),
        ("halve_at", [0.1, "x"], r"halve_at: expected float, got 'x'"),
        ("start_from", 3, r"start_from: expected Path or NoneType, got 3"),
        ("colour", "red", r"unknown settings colour: of another kind of model, or of a newer version"),
    ],
)
def test_wrong_settings_of_a_file(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Settings.read({"width": 1.0, name: value})


def test_defaults_are_chosen_where_nothing_is_given() -> None:
    options = with_defaults(RunOptions(epochs=3), {"epochs": 20, "batch_size": 4})
    assert (chosen(options.epochs), chosen(options.batch_size)) == (3, 4)
    with pytest.raises(ValueError, match="call resolve first"):
        chosen(options.learning_rate)


# --- the models of PartNet


def test_a_checkpoint_is_an_older_file(tmp_path: Path) -> None:
    path = PROJECT / "checkpoints" / "furniture-deterministic.safetensors"
    stored = load_checkpoint(path)["about"]
    model = partnet.Model.load(path)
    assert "refine" not in stored
    assert (model.threshold, model.clustering["refine"], model.background) == (0.4, False, None)
    assert model.settings.stored() == partnet.Settings().stored() | stored | {"halve_at": tuple(stored["halve_at"])}
    again = partnet.Model.load(model.with_threshold(0.5).save(tmp_path / "model.safetensors"))
    assert again.settings == model.with_threshold(0.5).settings
    assert model.threshold == 0.4  # a model is never changed


def test_what_is_shown_belongs_to_the_scores_that_it_was_fitted_on() -> None:
    """Refined scores are others; an option of the command line is taken as it is."""
    settings = partnet.Settings.of(partnet.resolve(partnet.Options(width=0.25)))
    model = partnet.Model(partnet.Network(2, settings), ("part",), settings).with_threshold(0.3, shown_score=0.6)
    for options, expected in (
        (partnet.Options(), 0.6),
        (partnet.Options(min_points=10), 0.6),
        (partnet.Options(refine=True), None),
        (partnet.Options(refine=True, shown_score=0.2), 0.2),
    ):
        assert model.with_clustering(options).settings.shown_score == expected
    x = GaussianEmbedding(torch.tensor([[0.0], [9.0], [20.0]]), torch.zeros(3, 1))
    found = greedy_cluster(x, torch.tensor([[0.9], [0.6], [0.5]]), background=None)
    assert model.shown(found).label.tolist() == [0, 1, -1]
    assert model.shown(found, 0.7).label.tolist() == [0, -1, -1]
    assert len(model.with_threshold(0.3).shown(found)) == 3


def test_a_new_model_has_no_threshold() -> None:
    settings = partnet.Settings.of(partnet.resolve(partnet.Options(width=0.25)))
    model = partnet.Model(partnet.Network(2, settings), ("part",), settings)
    with pytest.raises(ValueError, match="expected a model with a threshold"):
        _ = model.threshold


def test_generated_shapes_are_added_where_the_options_say_so(tmp_path: Path) -> None:
    options = partnet.resolve(partnet.Options())
    with pytest.raises(ValueError, match="expected folders of generated shapes with add_generated alone"):
        partnet.training_data(tmp_path, options, {"Chair": tmp_path})


# --- how threads wait


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_sleep_unless_the_environment_says_otherwise(given: dict[str, str], expected: str) -> None:
    """It says so before torch is loaded."""
    code = "import os, sys, probemb_adapters.passive_threads as _; print(os.environ['OMP_WAIT_POLICY'], *sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    policy, *modules = done.stdout.split()
    assert policy == expected
    assert "torch" not in modules


def test_a_model_to_evaluate_brings_its_data() -> None:
    """Category, level and points of the shipped model; what is given wins; without a model the furniture's."""
    chair = str(PROJECT / "checkpoints" / "chair.safetensors")
    options = partnet.parse_options(None, ["--evaluate", chair, "--level", "1"])
    assert (options.category, options.level, options.points, options.class_agnostic) == ("Chair", 1, 2048, False)
    assert options.evaluate == (Path(chair),)
    assert partnet.parse_options(None, ["--evaluate", chair]).level == 3
    assert partnet.parse_options(None, []) == partnet.resolve(partnet.Options())
