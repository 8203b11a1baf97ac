"""A U-Net with a head a pixel: its prediction, objective, fitted settings and what one has without an embedding."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from paths import PROJECT
from scipy import ndimage
from torch.nn import functional as F

from probemb_adapters.experiments.images import model as images_model
from probemb_adapters.experiments.images.evaluation import (
    average_precision,
    connected_components,
    distance_peaks,
    evaluate,
    evaluate_baselines,
    fit,
    least_sizes,
)
from probemb_adapters.experiments.images.model import (
    Model,
    Network,
    join_similar,
    magnification,
    named_models,
    usual_diameter,
)
from probemb_adapters.experiments.images.options import Options, Settings, resolve
from probemb_adapters.experiments.images.training import AugmentedCrops, Crops, PixelObjective, collate, foreground_loss
from probemb_adapters.images import LabelledImage, normalize, read_nuclei, read_sides
from probemb_adapters.training.checkpoint import save_checkpoint
from probemb_lib import GaussianEmbedding, greedy_cluster

Embedding = Literal["probabilistic", "deterministic", "margin"]
EMBEDDINGS: tuple[Embedding, ...] = ("probabilistic", "deterministic", "margin")


def some_model(embedding: Embedding = "probabilistic") -> Model:
    torch.manual_seed(0)
    settings = Settings(embedding=embedding, width=2, crop=32, offset_scale=4.0, initial_std=1.0, min_pixels=1)
    return Model(Network(settings).eval(), settings)


def disks(centers: list[tuple[int, int]], radius: int, shape: tuple[int, int] = (48, 40)) -> LabelledImage:
    y, x = np.mgrid[: shape[0], : shape[1]]
    label = np.zeros(shape, np.uint16)
    for i, (cy, cx) in enumerate(centers, 1):
        label[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = i
    noise = np.random.default_rng(0).normal(0, 3, shape)
    return LabelledImage(f"{len(centers)} disks", (20 + 100 * (label > 0) + noise).astype(np.float32), label)


SOME = disks([(10, 10), (30, 25)], 6)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_a_file_holds_the_model(embedding: Embedding, tmp_path: Path) -> None:
    model = some_model(embedding)
    path = model.save(tmp_path / "model.safetensors")
    loaded = Model.load(path)
    assert loaded.settings == model.settings
    for a, b in zip((*model.predict(SOME.image)[0],), (*loaded.predict(SOME.image)[0],), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert list(named_models([path])) == [embedding]
    other = model.save(tmp_path / "other.safetensors")
    assert list(named_models([path, other])) == [f"{embedding} ({path})", f"{embedding} ({other})"]


def test_what_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, {"weights": torch.ones(1)})
    with pytest.raises(ValueError, match=r"holds weights: expected a model\.safetensors"):
        Model.load(path)
    save_checkpoint(path, {"model": {}, "about": some_model().settings.stored()})
    with pytest.raises(ValueError, match=r"is no model of examples/nuclei_unet\.py: .{,300} …$"):
        Model.load(path)


@pytest.mark.parametrize("shape", [(48, 40), (17, 5), (16, 16)])
def test_images_of_any_size(shape: tuple[int, int]) -> None:
    embedding, probabilities = some_model().predict(np.random.default_rng(0).random(shape))
    assert embedding.mean.shape == probabilities.shape == (shape[0] * shape[1], 2)
    outside = probabilities[:, 0]
    assert set(outside.tolist()) <= {0.0, 1.0}
    assert bool((probabilities[outside == 1, 1] == 0).all())


def test_flips_of_a_symmetric_image_agree() -> None:
    """The mean over mirror images of an image that is its own mirror image is symmetric, its centres too."""
    model = some_model()
    assert model.settings.flips
    quarter = np.random.default_rng(0).random((16, 16))
    half = np.concatenate([quarter, quarter[::-1]])
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    embedding, probabilities = model.predict(image)
    mean = embedding.mean.reshape(32, 32, 2)
    torch.testing.assert_close(mean[..., 0], 31 - mean.flip(0)[..., 0], rtol=0, atol=1e-3)
    torch.testing.assert_close(mean[..., 1], mean.flip(0)[..., 1], rtol=0, atol=1e-3)
    torch.testing.assert_close(mean[..., 1], 31 - mean.flip(1)[..., 1], rtol=0, atol=1e-3)
    score = probabilities[:, 1].reshape(32, 32)
    torch.testing.assert_close(score, score.flip(0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_some_steps_lower_the_loss(embedding: Embedding) -> None:
    model = some_model(embedding)
    objective = PixelObjective(model.settings)
    network = model.network.train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    torch.manual_seed(0)
    crops = collate([AugmentedCrops([SOME], 32, (8.0, 48.0))[0] for _ in range(2)])
    values = []
    for _ in range(12):
        losses = objective(network, crops)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append(float(losses["loss"].detach()))
    assert values[-1] < 0.9 * values[0]
    assert {"foreground", "loss"} < set(losses)


def test_crops_have_objects_of_the_diameters_asked_for() -> None:
    torch.manual_seed(0)
    image = disks([(12 + 24 * i, 12 + 24 * j) for i in range(8) for j in range(8)], 8, (192, 192))
    for wanted in (10.0, 24.0):
        found = [usual_diameter(AugmentedCrops([image], 112, (wanted, wanted))[0][1].numpy()) for _ in range(8)]
        assert abs(np.median(found) / wanted - 1) < 0.15
    assert magnification(8.0, 100.0) == 2.5
    assert magnification(100.0, 8.0) == 0.5
    assert magnification(usual_diameter(np.zeros((4, 4), np.int64)), 8.0) == magnification(8.0, None) == 1.0


def test_a_magnified_image_has_its_gaussians_in_its_own_pixels() -> None:
    """The head sees an image of twice the size, in which everything is twice as large."""
    model = some_model()
    plain = model.with_settings(replace(model.settings, flips=False))
    with torch.no_grad():
        x = torch.from_numpy(normalize(SOME.image))
        mean, log_std, logits = next(plain._views(x, 2.0))
        shape = F.interpolate(x[None, None], scale_factor=2, mode="bilinear")[0, 0]
        theirs = next(plain._views(shape, 1.0))
    near = (theirs[0].reshape(96, 80, 2)[1::2, 1::2].flatten(0, 1) + 0.5) / 2 - 0.5
    torch.testing.assert_close(mean, near, rtol=0, atol=1e-4)
    expected = theirs[1].reshape(96, 80, 2)[1::2, 1::2].flatten(0, 1) - math.log(2)
    torch.testing.assert_close(log_std, expected, rtol=0, atol=1e-4)
    assert logits.shape == (SOME.image.size, 2)


def test_the_first_look_decides_on_the_magnification(monkeypatch: pytest.MonkeyPatch) -> None:
    model = some_model()
    used: list[float] = []
    views = Model._views
    monkeypatch.setattr(Model, "_views", lambda self, x, factor: (used.append(factor), views(self, x, factor))[1])
    monkeypatch.setattr(images_model, "usual_diameter", lambda label: 12.0)
    model.with_settings(replace(model.settings, diameter=18.0)).predict(SOME.image)
    assert used == [1.0, 1.5]


def test_crops_of_nothing() -> None:
    """No instance: the foreground alone is learned."""
    model = some_model()
    crops = Crops(torch.rand(2, 1, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64))
    losses = PixelObjective(model.settings)(model.network, crops)
    assert bool(torch.isfinite(losses["loss"]))
    assert crops.to("cpu").label.shape == (2, 32, 32)


def test_foreground_loss_of_known_maps() -> None:
    inside = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(foreground_loss(torch.tensor([50.0, -50.0]), inside), torch.tensor(0.0))
    value = foreground_loss(torch.zeros(2), inside)  # ln 2 + 1 − 2/3
    torch.testing.assert_close(value, torch.tensor(0.6931472 + 1 / 3))


# --- evaluation


class Oracle(Model):
    """Knows the truth: centres of the disks, a small sigma."""

    def predict(self, image):  # type: ignore[no-untyped-def]
        label = torch.from_numpy(next(i.label for i in IMAGES if i.image is image).astype(np.int64)).flatten()
        mean = label[:, None].double().expand(-1, 2) * 10
        inside = (label > 0).double()
        return GaussianEmbedding(mean, torch.zeros_like(mean)), torch.stack([1 - inside, 0.9 * inside], 1)


IMAGES = [SOME, disks([(12, 10), (12, 20), (35, 30)], 6)]  # the second has two that touch


def test_truth_has_full_marks() -> None:
    model = Oracle(some_model().network, some_model().settings)
    fitted, value = fit(model, IMAGES)
    assert value == 1.0
    assert set(fitted.fitted) == {"threshold", "min_score", "min_pixels", "refine", "join", "diameter"}
    assert fitted.settings.diameter is None  # of equal settings, the first
    evaluation = evaluate("truth", fitted, IMAGES)
    assert evaluation.ap == {f"AP{t}": 1.0 for t in range(50, 95, 5)} | {"AP": 1.0}
    assert evaluation.image_ap == 1.0
    assert evaluation.interval(["a", "b"], resamples=20) == (1.0, 1.0)
    for unsure, image in zip(evaluation.uncertainty, IMAGES, strict=True):
        assert image.label is not None
        np.testing.assert_allclose(unsure, np.where(image.label > 0, 0.1, 1.0))  # 1 − score · κ


def test_least_sizes_come_from_the_labels() -> None:
    """Where every least size is as good, none is left that noise passes: a disk of radius 6 has 113 pixels."""
    assert least_sizes([SOME]) == (23, 56, 113)
    assert least_sizes([SOME._replace(label=np.eye(4, dtype=np.int64))]) == (1, 2, 4)
    model = Oracle(some_model().network, some_model().settings)
    assert fit(model, IMAGES, min_pixels=least_sizes([SOME]))[0].settings.min_pixels == 23


class Generous(Oracle):
    """Takes the pixels around an object for less sure ones of it: similarity 0.24."""

    def predict(self, image):  # type: ignore[no-untyped-def]
        embedding, probabilities = super().predict(image)
        label = probabilities[:, 1].reshape(image.shape) > 0
        wide = F.max_pool2d(label[None].double(), 3, 1, 1)[0].flatten() > 0
        number = torch.from_numpy(
            ndimage.maximum_filter(embedding.mean[:, 0].reshape(image.shape).numpy(), 3)
        ).flatten()
        around = wide & ~label.flatten()
        mean = torch.where(around, number + 3.4, embedding.mean[:, 0])[:, None] * torch.tensor([1.0, 0.0])
        probabilities[around] = torch.tensor([0.3, 0.4]).double()
        return GaussianEmbedding(mean, torch.zeros_like(mean)), probabilities


def test_of_equal_ap50_the_mean_decides() -> None:
    model = Generous(some_model().network, some_model().settings)
    fitted, value = fit(model, IMAGES[:1], ((False, None),), (None,))
    assert value == 1.0
    assert fitted.settings.threshold == 0.35  # at 0.2 objects are a pixel too wide all around: IoU 0.76
    assert evaluate("all", fitted, IMAGES[:1]).ap["AP"] == 1.0


def test_margins_are_fitted_too() -> None:
    model = some_model("margin")
    fitted, _ = fit(model, IMAGES)
    assert set(fitted.fitted) == {"min_score", "min_pixels", "diameter"}
    evaluation = evaluate("margin", fitted, IMAGES)
    assert len(evaluation.found) == 2
    assert not evaluation.uncertainty  # there are no Gaussians


def test_similar_objects_become_one() -> None:
    """Pixels of one object whose seeds were too sure of themselves; those of another stay."""
    mean = torch.tensor([[0.0], [0.1], [2.0], [2.1], [50.0], [50.0]])
    embedding = GaussianEmbedding(mean, torch.zeros(6, 1))
    found = greedy_cluster(embedding, torch.tensor([[0.9, 0.9, 0.8, 0.8, 0.7, 0.7]]).T, threshold=0.9, background=None)
    assert len(found) == 3
    joined = join_similar(found, 0.3)
    assert joined.label.tolist() == [0, 0, 0, 0, 1, 1]
    assert joined.seed.tolist() == [0, 4]
    assert torch.equal(join_similar(found, 0.9).label, found.label)
    none = found.keep(torch.zeros(3, dtype=torch.bool))
    assert torch.equal(join_similar(none, 0.3).label, none.label)


def test_without_an_embedding() -> None:
    """Components join disks that touch; peaks of the distance part them."""
    model = Oracle(some_model().network, some_model().settings)
    components, peaks = evaluate_baselines(model, IMAGES, IMAGES)
    assert [int(label.max()) for label in components.found] == [2, 2]
    assert [int(label.max()) for label in peaks.found] == [2, 3]
    assert components.ap["AP50"] < peaks.ap["AP50"] == 1.0


def test_small_objects_are_dropped_and_the_rest_counted_on() -> None:
    inside = np.zeros((9, 9), bool)
    inside[0, 0] = inside[2:5, 2:5] = inside[6:, 6:] = True
    label = connected_components(inside, 2)
    assert sorted(np.bincount(label.ravel()).tolist()) == [9, 9, 63]
    assert int(distance_peaks(np.zeros((9, 9), bool), 1, 2, 1.0).max()) == 0


def test_labels_are_needed() -> None:
    with pytest.raises(ValueError, match="expected labels to compare with"):
        average_precision([np.zeros((2, 2), int)], [LabelledImage("a", np.zeros((2, 2)), None)])


def test_options() -> None:
    options = resolve(Options(epochs=3))
    assert (options.epochs, options.batch_size, options.schedule) == (3, 8, "one-cycle")
    for crop in (0, 100):
        with pytest.raises(SystemExit, match="expected a multiple of 16"):
            resolve(Options(crop=crop))


def test_the_checkpoint_finds_nuclei() -> None:
    """With its fitted settings, on the first three validation images; its numbers are in checkpoints/README.md."""
    data = PROJECT / "data" / "nuclei" / "nuclei.npz"
    images = read_sides(read_nuclei(data), data)["val"][:3]
    model = Model.load(PROJECT / "checkpoints" / "nuclei.safetensors")
    assert evaluate("checkpoint", model, images).ap["AP50"] > 0.75
