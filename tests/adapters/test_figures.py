"""The paper's figures: what they draw is what the formulas say."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from example_runs import run
from matplotlib.figure import Figure
from matplotlib.image import imread
from paths import PROJECT
from scipy.integrate import quad
from scipy.stats import norm

from probemb_adapters.report import figures
from probemb_adapters.report.pictures import WRONG, ShapeResult, instance_colors, z_up
from probemb_lib import GaussianEmbedding, greedy_cluster


def shape(name: str = "shape", *, merged: bool = False) -> ShapeResult:
    """Three instances of 20 points in two classes; found as they are, or the last two as one."""
    truth = torch.arange(60) // 20
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(60, 3, generator=generator) + 4 * truth[:, None]
    place = truth.clamp_max(1) if merged else truth
    x = GaussianEmbedding(5.0 * place[:, None].repeat(1, 3), torch.rand(60, 3, generator=generator) - 2)
    found = greedy_cluster(x, torch.ones(60, 1), threshold=0.01, background=None)
    found.semantic[:] = torch.tensor([0, 0, 1])[: len(found)]
    return ShapeResult(name, pos, truth, found, x.log_std, x.mean, truth_classes=torch.tensor([0, 0, 1]))


def drawn(figure: Figure, axis: int) -> np.ndarray:
    """(N, 3) points of a 3-D axis."""
    return np.stack([np.asarray(c) for c in figure.axes[axis].collections[0]._offsets3d], 1)


def colors(figure: Figure, axis: int) -> np.ndarray:
    """(N, 3) of the same points; get_facecolors() leaves one out before it has drawn."""
    return np.asarray(figure.axes[axis].collections[0]._facecolors)[:, :3]


def test_similarity_is_that_of_the_integral() -> None:
    figure = figures.similarity_contours((0, 5), std_range=(0.5, 20.0))
    std = np.exp(np.linspace(math.log(0.5), math.log(20), 161))
    for axis, distance in zip(figure.axes, (0, 5), strict=False):
        table = np.asarray(axis.collections[0].get_array()).reshape(161, 161)
        for i, j in itertools.product((0, 40, 160), (10, 160)):
            p, q = norm(0, std[i]), norm(distance, std[j])
            expected, _ = quad(lambda x, p=p, q=q: math.sqrt(p.pdf(x) * q.pdf(x)), -200, 200, limit=500, points=(0, 5))
            assert table[j, i] == pytest.approx(expected, abs=1e-6)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["β (Δμ = 0)", "κ at Δμ = 5"]


def test_points_walk_to_their_means() -> None:
    one = shape()
    figure = figures.input_to_embedding({"a": one, "b": shape(merged=True)}, steps=3)
    assert len(figure.axes) == 6
    start, end = (z_up(t.numpy(), "y") for t in (one.pos, one.mean))
    for axis, expected in enumerate([start, (start + end) / 2, end]):
        np.testing.assert_allclose(drawn(figure, axis), expected, rtol=1e-5, atol=1e-6)
    assert [a.get_title() for a in figure.axes] == ["a: input", "50%", "embedding", "b: input", "50%", "embedding"]


def test_uncertainty_of_each_axis() -> None:
    one = shape()
    figure = figures.uncertainty(one, ellipsoids=4)
    assert sum("Poly3D" in type(c).__name__ for c in figure.axes[0].collections) == 4
    for d in range(3):
        brightness = colors(figure, d + 1).sum(1)
        order = np.corrcoef(brightness, one.log_std[:, d].numpy())[0, 1]
        others = [abs(np.corrcoef(brightness, one.log_std[:, e].numpy())[0, 1]) for e in range(3) if e != d]
        assert order > 0.8
        assert max(others) < 0.6
    figures.uncertainty(one._replace(log_std=one.log_std[:, :1]))
    with pytest.raises(ValueError, match="3 dimensions or 1, got 2"):
        figures.uncertainty(one._replace(log_std=one.log_std[:, :2]))


def test_score_maps() -> None:
    one = shape()
    probabilities = torch.rand(60, 2, generator=torch.Generator().manual_seed(1))
    figure = figures.score_maps(one, probabilities, ["leg", "seat"])
    titles = [axis.get_title() for axis in figure.axes[:7]]
    assert [t for t in titles if t.startswith("Q of instance")] == [
        "Q of instance 0:\nleg",
        "Q of instance 1:\nleg",
        "Q of instance 2:\nseat",
    ]
    assert titles[3:7] == ["Q of leg", "P of leg, predicted", "Q of seat", "P of seat, predicted"]
    first = colors(figure, 0).sum(1)
    assert (first[20:] == first[20]).all()  # 0 outside the instance
    assert first[:20].min() > first[20]
    with pytest.raises(ValueError, match="expected truth"):
        figures.score_maps(one._replace(truth=None), probabilities, ["leg", "seat"])


def test_true_and_false_detections() -> None:
    figure = figures.detections({"right": [shape()], "merges": [shape(merged=True)]})
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["ground truth", "right\n3 true, 0 false", "merges\n1 true, 1 false"]
    wrong = (colors(figure, 2) == np.array(WRONG)).all(1)
    assert wrong.tolist() == [False] * 20 + [True] * 40
    np.testing.assert_allclose(colors(figure, 1), instance_colors(3)[shape().truth])
    with pytest.raises(ValueError, match="the same shapes"):
        figures.detections({"a": [shape("one")], "b": [shape("other")]})
    with pytest.raises(ValueError, match="at least one"):
        figures.detections({"a": []})


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="expected mean"):
        figures.input_to_embedding({"a": shape()._replace(mean=None)})
    with pytest.raises(ValueError, match="at least 2 steps, got 1 and 1"):
        figures.input_to_embedding({"a": shape()}, steps=1)


@pytest.mark.parametrize(
    "figure",
    [
        lambda: figures.similarity_contours((0, 2)),
        lambda: figures.uncertainty(shape(), ellipsoids=3),
        lambda: figures.input_to_embedding({"a": shape()}),
        lambda: figures.detections({"a": [shape()]}),
    ],
)
def test_figures_can_be_saved(figure: object, tmp_path: Path) -> None:
    figure().savefig(tmp_path / "figure.png", dpi=40)  # type: ignore[operator]
    assert (imread(tmp_path / "figure.png")[..., :3] < 0.9).mean() > 0.003


def test_the_gallery_is_drawn_by_its_command(tmp_path: Path) -> None:
    done = run(PROJECT / "studies" / "figures.py", "--points", 800, "--shapes", 2, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = sorted(path.stem for path in tmp_path.iterdir())
    assert drawn == ["detections", "morph", "score_maps", "similarity", "uncertainty"]
    gallery = (PROJECT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert all(f"images/figure_{name}.png" in gallery for name in drawn)
