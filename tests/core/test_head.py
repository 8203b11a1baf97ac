"""The heads: Table 3's layers, Table 2's variants, the formulas of section 3.1, odd batches, every error."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from probemb_lib import DeterministicHead, HeadOutput, LearnableMarginHead, ProbabilisticHead, log_bhattacharyya
from probemb_lib.head import EUCLIDEAN_LOG_STD

quick = settings(max_examples=15, deadline=None)

Head = ProbabilisticHead | DeterministicHead

# Table 2: anisotropic × heteroscedastic, and the deterministic embeddings of 3 and 6 dimensions.
VARIANTS: dict[str, tuple[type[Any], dict[str, Any], int]] = {
    "anisotropic heteroscedastic": (ProbabilisticHead, {}, 3),
    "isotropic heteroscedastic": (ProbabilisticHead, {"anisotropic": False}, 1),
    "anisotropic homoscedastic": (ProbabilisticHead, {"heteroscedastic": False}, 3),
    "isotropic homoscedastic": (ProbabilisticHead, {"anisotropic": False, "heteroscedastic": False}, 1),
    "six dimensions": (ProbabilisticHead, {"dim": 6}, 6),
    "two dimensions": (ProbabilisticHead, {"dim": 2}, 2),
    "deterministic 3": (DeterministicHead, {}, 1),
    "deterministic 6": (DeterministicHead, {"dim": 6}, 1),
}
EVERY = pytest.mark.parametrize("name", VARIANTS)


def make(name: str, **options: Any) -> Head:
    kind, settings_, _ = VARIANTS[name]
    torch.manual_seed(0)
    head: Head = kind(16, 5, **{**settings_, **options})
    return head.double()


def data(n: int = 12, dim: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, 16, generator=g, dtype=torch.float64),
        torch.rand(n, dim, generator=g, dtype=torch.float64),
    )


def positions_of(name: str) -> int:
    return 2 if name == "two dimensions" else 3


def plain(branch: nn.Module, x: Tensor) -> np.ndarray:
    """Table 3's branch in numpy, in eval mode: matrix products, running statistics, maxima."""
    y = x.detach().numpy()
    weights = {key: value.detach().numpy() for key, value in branch.state_dict().items()}
    for layer in range(0, 9, 3):
        y = y @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        bn = layer + 1
        y = (y - weights[f"{bn}.running_mean"]) / np.sqrt(weights[f"{bn}.running_var"] + 1e-5)
        y = np.maximum(y * weights[f"{bn}.weight"] + weights[f"{bn}.bias"], 0)
    return y @ weights["9.weight"].T + weights["9.bias"]


# --- structure


@pytest.mark.parametrize("in_channels", [16, 128])
@pytest.mark.parametrize(("anisotropic", "width"), [(True, 3), (False, 1)])
def test_layers_of_table_3(in_channels: int, anisotropic: bool, width: int) -> None:
    head = ProbabilisticHead(in_channels, 7, anisotropic=anisotropic)
    for branch, out in ((head.centers, 3), (head.uncertainties, width), (head.scores, 7)):
        layers = list(branch)
        assert [type(layer) for layer in layers] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 3 + [nn.Linear]
        widths = [(layer.in_features, layer.out_features) for layer in layers if isinstance(layer, nn.Linear)]
        assert widths == [(in_channels, 256), (256, 128), (128, 128), (128, out)]
        assert [layer.num_features for layer in layers if isinstance(layer, nn.BatchNorm1d)] == [256, 128, 128]
    assert [name for name, _ in head.named_children()] == ["centers", "scores", "uncertainties"]
    assert [name for name, _ in DeterministicHead(8, 2).named_children()] == ["centers", "scores"]


@EVERY
def test_shapes_and_dtypes(name: str) -> None:
    features, positions = data(dim=positions_of(name))
    head = make(name)
    dim, width = head.dim, VARIANTS[name][2]
    for training in (True, False):
        output = head.train(training)(features, positions, torch.arange(12) % 3)
        assert isinstance(output, HeadOutput)
        assert output.embedding.mean.shape == (12, dim)
        assert output.embedding.log_std.shape == (12, width)
        assert output.logits.shape == (12, 5)
        assert {t.dtype for t in (*output.embedding, output.logits)} == {torch.float64}
    torch.testing.assert_close(output.probabilities, torch.softmax(output.logits, 1), rtol=0, atol=0)
    torch.testing.assert_close(output.probabilities.sum(1), torch.ones(12).double())


def test_repr_shows_the_settings() -> None:
    shown = repr(ProbabilisticHead(8, 2, dim=4, anisotropic=False, offset_scale=0.3))
    for part in ("in_channels=8", "dim=4", "anisotropic=False", "heteroscedastic=True", "offset_scale=0.3"):
        assert part in shown
    assert "initial_std=0.3" in shown
    assert "initial_std=0.1" in repr(ProbabilisticHead(8, 2, initial_std=0.1))


# --- formulas


@pytest.mark.parametrize("scale", [1.0, 0.05, 40.0])
@pytest.mark.parametrize("anisotropic", [True, False])
def test_formulas_of_section_3_1(scale: float, anisotropic: bool) -> None:
    """μ = x + s tanh(o), ln σ = o + ln s, logits = o, with each o from a branch computed in numpy."""
    features, positions = data()
    head = ProbabilisticHead(16, 5, anisotropic=anisotropic, offset_scale=scale).double()
    head(3 * features + 1, positions)  # running statistics that are not 0 and 1
    head.eval()
    output = head(features, positions)
    mean = positions.numpy() + scale * np.tanh(plain(head.centers, features))
    log_std = plain(head.uncertainties, features) + math.log(scale)
    for got, expected in (
        (output.embedding.mean, mean),
        (output.embedding.log_std, log_std),
        (output.logits, plain(head.scores, features)),
    ):
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-11, atol=1e-12)
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(got.detach().numpy(), expected * 1.0001, rtol=1e-11, atol=1e-12)


def test_initial_std_shifts_sigma_alone() -> None:
    """ln σ = o + ln σ₀ with the same weights; before training σ is about σ₀."""
    features, positions = data(2000)
    output = make("anisotropic heteroscedastic")(features, positions)
    shifted = make("anisotropic heteroscedastic", initial_std=0.1)(features, positions)
    torch.testing.assert_close(shifted.embedding.log_std, output.embedding.log_std + math.log(0.1))
    for got, expected in ((shifted.embedding.mean, output.embedding.mean), (shifted.logits, output.logits)):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert 0.05 < shifted.embedding.std.median() < 0.2


@EVERY
def test_offsets_are_bounded(name: str) -> None:
    features, positions = data(dim=positions_of(name))
    head = make(name, offset_scale=0.25).eval()
    mean = head(1e4 * features, positions).embedding.mean
    offset = mean - nn.functional.pad(positions, (0, head.dim - positions.shape[1]))
    assert (offset.abs() <= 0.25 + 1e-12).all()
    assert (offset.abs() > 0.2).any()


@EVERY
def test_dimensions_beyond_the_position_start_at_zero(name: str) -> None:
    features, positions = data(dim=2)
    head = make(name, offset_scale=1e-9).eval()
    mean = head(features, positions).embedding.mean
    torch.testing.assert_close(mean[:, :2], positions, rtol=0, atol=2e-9)
    torch.testing.assert_close(mean[:, 2:], torch.zeros_like(mean[:, 2:]), rtol=0, atol=2e-9)


@EVERY
@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_scaling_positions_and_offset_scale_changes_no_similarity(name: str, scale: float) -> None:
    features, positions = data(dim=positions_of(name))
    one, two = make(name).eval(), make(name, offset_scale=scale).eval()
    a, b = one(features, positions), two(features, scale * positions)
    torch.testing.assert_close(b.embedding.mean, scale * a.embedding.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(b.embedding.std, scale * a.embedding.std, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        log_bhattacharyya(b.embedding, b.embedding),
        log_bhattacharyya(a.embedding, a.embedding),
        rtol=1e-10,
        atol=1e-12,
    )
    torch.testing.assert_close(b.logits, a.logits, rtol=0, atol=0)


@EVERY
def test_moving_positions_moves_means(name: str) -> None:
    features, positions = data(dim=positions_of(name))
    head = make(name).eval()
    moved = head(features, positions + 5).embedding.mean - head(features, positions).embedding.mean
    d = positions.shape[1]
    torch.testing.assert_close(moved[:, :d], torch.full_like(moved[:, :d], 5.0))
    torch.testing.assert_close(moved[:, d:], torch.zeros_like(moved[:, d:]), rtol=0, atol=0)


# --- homoscedastic


@quick
@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.booleans())
def test_one_sigma_a_cloud(batch: list[int], anisotropic: bool) -> None:
    """The mean over the cloud of what the heteroscedastic head gives; clouds in any order, some without points."""
    torch.manual_seed(0)
    free = ProbabilisticHead(16, 2, anisotropic=anisotropic, offset_scale=0.5).double().eval()
    tied = ProbabilisticHead(16, 2, anisotropic=anisotropic, offset_scale=0.5, heteroscedastic=False).double().eval()
    tied.load_state_dict(free.state_dict())
    features, positions = data(len(batch))
    each = free(features, positions).embedding.log_std.detach().numpy()
    clouds = np.array(batch)
    expected = np.stack([each[clouds == b].mean(0) for b in batch])
    got = tied(features, positions, torch.tensor(batch)).embedding
    np.testing.assert_allclose(got.log_std.detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.mean, free(features, positions).embedding.mean, rtol=0, atol=0)
    for number in (torch.tensor(batch, dtype=torch.uint8), torch.tensor(batch) * 2**40):
        again = tied(features, positions, number).embedding.log_std
        torch.testing.assert_close(again, got.log_std, rtol=0, atol=0)
    alone = tied(features, positions).embedding.log_std.detach().numpy()
    np.testing.assert_allclose(alone, np.broadcast_to(each.mean(0), each.shape), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in VARIANTS if "homoscedastic" not in name])
def test_other_variants_do_not_look_at_the_batch(name: str) -> None:
    features, positions = data(dim=positions_of(name))
    head = make(name).eval()
    a, b = head(features, positions), head(features, positions, torch.arange(12))
    for u, v in zip((*a.embedding, a.logits), (*b.embedding, b.logits), strict=True):
        torch.testing.assert_close(u, v, rtol=0, atol=0)


# --- deterministic


@pytest.mark.parametrize("dim", [3, 6])
@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_deterministic_similarity_is_euclidean(dim: int, scale: float) -> None:
    """κ = exp(−‖Δ‖²/s²): exactly the Euclidean similarity of Fig. 2 at s = 1."""
    features, positions = data()
    x = DeterministicHead(16, 2, dim, offset_scale=scale).double().eval()(features, scale * positions).embedding
    mean = x.mean.detach().numpy()
    expected = -((mean[:, None] - mean[None]) ** 2).sum(-1) / scale**2
    np.testing.assert_allclose(log_bhattacharyya(x, x).detach().numpy(), expected, rtol=1e-11, atol=1e-12)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(log_bhattacharyya(x, x).detach().numpy(), expected * 1.001, rtol=1e-11, atol=1e-12)
    assert math.exp(2 * EUCLIDEAN_LOG_STD) == pytest.approx(1 / 8, rel=1e-15)
    assert not x.log_std.requires_grad


# --- gradients and state


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter_and_input(name: str, training: bool) -> None:
    features, positions = (t.requires_grad_() for t in data(dim=positions_of(name)))
    head = make(name).train(training)
    output = head(features, positions, torch.arange(12) % 2)
    used = [output.embedding.mean, output.logits]
    if output.embedding.log_std.requires_grad:
        used.append(output.embedding.log_std)
    g = torch.Generator().manual_seed(0)
    sum((t * torch.randn(t.shape, generator=g, dtype=t.dtype)).sum() for t in used).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        # A bias before a batch norm in training is removed by it: its gradient is rounding.
        if not (training and key.endswith(("0.bias", "3.bias", "6.bias"))):
            assert parameter.grad.abs().max() > 1e-6, key
    for t in (features, positions):
        assert t.grad is not None
        assert t.grad.abs().sum() > 0


@EVERY
def test_state_is_saved_and_loaded(name: str) -> None:
    features, positions = data(dim=positions_of(name))
    head = make(name)
    for seed in range(3):
        head(*data(dim=positions_of(name), seed=seed))
    kind, options, _ = VARIANTS[name]
    other = kind(16, 5, **options).double()
    before = other.eval()(features, positions).logits
    other.load_state_dict(head.state_dict())
    a, b = head.eval()(features, positions), other(features, positions)
    for u, v in zip((*a.embedding, a.logits), (*b.embedding, b.logits), strict=True):
        torch.testing.assert_close(u, v, rtol=0, atol=0)
    assert not torch.equal(before, a.logits)
    assert not torch.equal(head.train()(features, positions).logits, a.logits)  # batch statistics


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
@pytest.mark.parametrize("hidden", [(256, 128, 128), (32,), ()])
@pytest.mark.parametrize("training", [True, False])
def test_one_product_for_the_first_layers(kind: Any, hidden: tuple[int, ...], training: bool) -> None:
    """What the branches give one by one, and the same gradients; widths as asked for."""
    torch.manual_seed(0)
    head = kind(16, 5, hidden=hidden).train(training)
    branches = [module for module in head.children() if isinstance(module, nn.Sequential)]
    assert all([layer.out_features for layer in b if isinstance(layer, nn.Linear)][:-1] == [*hidden] for b in branches)
    one_by_one = copy.deepcopy(branches)
    x = data()[0].float()
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    together = head._predict(inputs[0], *branches)
    alone = [branch(inputs[1]) for branch in one_by_one]
    for ours, right in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, right)
    for outputs in (together, alone):
        sum(output.square().sum() for output in outputs).backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-4, atol=1e-5)
    for branch, right in zip(branches, one_by_one, strict=True):
        for a, b in zip(branch.parameters(), right.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
        for a, b in zip(branch.buffers(), right.buffers(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
def test_errors_of_hidden(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"expected hidden widths >= 1, such as \(256, 128, 128\), got \(32, 0\)"):
        kind(16, 5, hidden=(32, 0))
    head = kind(16, 5)
    head.scores = nn.Sequential(nn.Conv1d(16, 5, 1))
    with pytest.raises(TypeError, match=r"begins and ends with nn\.Linear, got Conv1d"):
        head(*(t.float() for t in data()))


def test_a_linear_head_trains_on_one_point() -> None:
    """Without hidden layers there is no batch norm that needs a spread."""
    head = ProbabilisticHead(16, 5, hidden=())
    features, positions = data(1)
    assert torch.isfinite(head(features.float(), positions.float()).logits).all()


@EVERY
def test_inputs_are_not_changed(name: str) -> None:
    features, positions = data(dim=positions_of(name))
    before = features.clone(), positions.clone()
    make(name)(features, positions)
    torch.testing.assert_close(features, before[0], rtol=0, atol=0)
    torch.testing.assert_close(positions, before[1], rtol=0, atol=0)


# --- few points, dtypes


@EVERY
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [None, torch.zeros(0, dtype=torch.int64)])
def test_no_points(name: str, training: bool, batch: Tensor | None) -> None:
    """Empty results of the right widths, a graph that reaches the branches, and statistics that stay finite."""
    head = make(name).train(training)
    features, positions = data(0, positions_of(name))
    output = head(features, positions, batch)
    assert output.embedding.mean.shape == (0, head.dim)
    assert output.embedding.log_std.shape == (0, VARIANTS[name][2])
    assert output.logits.shape == (0, 5)
    assert output.embedding.mean.requires_grad
    assert output.logits.requires_grad
    (output.embedding.mean.sum() + output.embedding.log_std.sum() + output.logits.sum()).backward()
    assert all(torch.isfinite(value).all() for value in head.state_dict().values())


@EVERY
def test_one_point(name: str) -> None:
    head = make(name)
    features, positions = data(1, positions_of(name))
    with pytest.raises(ValueError, match=r"at least 2 points in training, got 1.*\.eval\(\)"):
        head(features, positions)
    output = head.eval()(features, positions, torch.tensor([4]))
    assert output.embedding.mean.shape == (1, head.dim)
    assert torch.isfinite(output.logits).all()


@EVERY
def test_autocast_gives_float32(name: str) -> None:
    head = make(name).float()
    features, positions = (t.float() for t in data(dim=positions_of(name)))
    positions = positions / 4  # whose bfloat16 is fine enough
    expected = head.eval()(features, positions)
    for given_positions in (positions, positions.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            output = head(features, given_positions)
        assert {t.dtype for t in (*output.embedding, output.logits)} == {torch.float32}
        torch.testing.assert_close(output.embedding.mean, expected.embedding.mean, rtol=0.05, atol=0.05)
        torch.testing.assert_close(output.embedding.log_std, expected.embedding.log_std, rtol=0.05, atol=0.05)
        torch.testing.assert_close(output.logits, expected.logits, rtol=0.05, atol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        empty = head(features[:0], positions[:0])
    assert {t.dtype for t in (*empty.embedding, empty.logits)} == {torch.float32}


def test_half_precision_head_gives_float32() -> None:
    head = make("anisotropic heteroscedastic").to(torch.bfloat16)
    features, positions = data()
    output = head(features.bfloat16(), positions.float())
    assert {t.dtype for t in (*output.embedding, output.logits)} == {torch.float32}


# --- errors


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead])
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 2), {}, "expected in_channels >= 1, got 0"),
        ((8, 0), {}, "expected num_classes >= 1, got 0"),
        ((8, 2, 0), {}, "expected dim >= 1, got 0"),
        ((8, 2), {"offset_scale": 0.0}, "positive offset_scale .* got 0.0"),
        ((8, 2), {"offset_scale": -1.0}, "positive offset_scale .* got -1.0"),
        ((8, 2), {"offset_scale": math.inf}, "positive offset_scale .* got inf"),
        ((8, 2), {"offset_scale": math.nan}, "positive offset_scale .* got nan"),
    ],
)
def test_errors_of_construction(
    kind: type[Any], arguments: tuple[int, ...], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(*arguments, **options)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_error_of_initial_std(value: float) -> None:
    with pytest.raises(ValueError, match=f"positive initial_std .* got {value}"):
        ProbabilisticHead(8, 2, initial_std=value)


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead])
@pytest.mark.parametrize(
    ("features", "positions", "error", "message"),
    [
        (torch.zeros(4, 15), torch.zeros(4, 3), ValueError, r"expected features \(N, 16\), got \(4, 15\)"),
        (torch.zeros(16), torch.zeros(4, 3), ValueError, r"expected features \(N, 16\), got \(16,\)"),
        (
            torch.zeros(2, 4, 16),
            torch.zeros(2, 4, 3),
            ValueError,
            r"expected features \(N, 16\).*; of padded .* pack_dense",
        ),
        (torch.zeros(4, 16), torch.zeros(4, 4), ValueError, r"1 <= D <= 3, got \(4, 4\)"),
        (torch.zeros(4, 16), torch.zeros(4, 0), ValueError, r"1 <= D <= 3, got \(4, 0\)"),
        (torch.zeros(4, 16), torch.zeros(4), ValueError, r"1 <= D <= 3, got \(4,\)"),
        (torch.zeros(4, 16), torch.zeros(1, 3), ValueError, "as many positions as features, got 1 and 4"),
        (torch.zeros(4, 16), torch.zeros(4, 3, dtype=torch.int64), TypeError, "got torch.float32 and torch.int64"),
        (torch.zeros(4, 16, dtype=torch.int64), torch.zeros(4, 3), TypeError, "got torch.int64 and torch.float32"),
    ],
)
def test_errors_of_forward(
    kind: type[Any], features: Tensor, positions: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kind(16, 2)(features, positions)


@pytest.mark.parametrize("anisotropic", [True, False])
def test_error_of_batch(anisotropic: bool) -> None:
    head = ProbabilisticHead(16, 2, anisotropic=anisotropic, heteroscedastic=False)
    with pytest.raises(ValueError, match=r"expected batch \(4,\), got \(3,\)"):
        head(torch.zeros(4, 16), torch.zeros(4, 3), torch.zeros(3, dtype=torch.int64))


# --- what users hand over


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
@pytest.mark.parametrize(
    ("features", "positions", "message"),
    [
        (torch.zeros(4, 16), None, "positions: expected a torch.Tensor, got None"),
        (torch.zeros(4, 16), np.zeros((4, 3)), "positions: expected a torch.Tensor, got ndarray: torch.from_numpy"),
        (np.zeros((4, 16)), torch.zeros(4, 3), "features: expected a torch.Tensor, got ndarray: torch.from_numpy"),
        (torch.zeros(4, 16), torch.zeros(4, 3, dtype=torch.int32), r"torch.int32; voxels become positions by"),
    ],
)
def test_what_is_no_float_tensor(kind: Any, features: Any, positions: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        kind(16, 2)(features, positions)


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
def test_scales_are_one_number(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"expected offset_scale as one number for all axes, got \(1.0, 2.0\)"):
        kind(16, 2, offset_scale=(1.0, 2.0))
    with pytest.raises(TypeError, match="expected initial_std as one number"):
        ProbabilisticHead(16, 2, initial_std=[0.1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected initial_margin as one number"):
        LearnableMarginHead(16, 2, initial_margin=[0.1])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("autocast", [False, True])
def test_features_of_any_floating_type(kind: Any, dtype: torch.dtype, autocast: bool) -> None:
    head = kind(16, 5).eval()
    features, positions = (t.float() for t in data())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output, expected = head(features.to(dtype), positions), head(features.to(dtype).float(), positions)
    for got, right in zip((*output.embedding, output.logits), (*expected.embedding, expected.logits), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, right, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
def test_positions_in_float64_keep_their_digits(kind: Any) -> None:
    head = kind(16, 5).eval()
    features, positions = data()
    features, far = features.float(), positions + 5e6
    near, output = head(features, positions), head(features, far)
    assert {t.dtype for t in (*output.embedding, output.logits)} == {torch.float64}
    torch.testing.assert_close(output.embedding.mean - 5e6, near.embedding.mean, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
def test_coarse_positions_are_refused(kind: Any) -> None:
    """Half a metre between the float32 numbers of a northing is not for instances of a metre; kilometres are fine."""
    features, positions = (t.float() for t in data())
    with pytest.raises(ValueError, match=r"up to 5e\+06, where float32 has steps of 0\.6: subtract an offset"):
        kind(16, 5)(features, positions + 5e6)
    kind(16, 5, offset_scale=100.0)(features, positions + 5e6)
    kind(16, 5)(features, positions + 1e4)
    with pytest.raises(ValueError, match=r"where bfloat16 has steps of 0\.\d+: keep positions in float32, or raise"):
        kind(16, 5)(features, (positions + 4).bfloat16())
    kind(16, 5)(features, (positions + 4).half())
    positions[3] = math.nan  # for others to say
    kind(16, 5)(features, positions)


class Carrying(Tensor):
    """A host's tensor with something along, as MONAI's MetaTensor: every result is of its class again."""

    calls = 0

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.calls += 1
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("kind", [ProbabilisticHead, DeterministicHead, LearnableMarginHead])
def test_tensor_subclasses_are_unwrapped(kind: Any) -> None:
    head = kind(16, 5).eval()
    features, positions = (t.float() for t in data())
    expected = head(features, positions)
    features = features.requires_grad_()
    output = head(features.as_subclass(Carrying), positions.as_subclass(Carrying))
    for got, right in zip((*output.embedding, output.logits), (*expected.embedding, expected.logits), strict=True):
        assert type(got) is Tensor
        torch.testing.assert_close(got, right, rtol=0, atol=0)
    output.logits.sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(head(nn.Parameter(features), nn.Parameter(positions)).logits, expected.logits)


# --- scales in the state

SCALED: list[tuple[Any, dict[str, float], str]] = [
    (ProbabilisticHead, {"offset_scale": 0.3, "initial_std": 0.1}, "offset_scale=0.3, initial_std=0.1"),
    (DeterministicHead, {"offset_scale": 0.3}, "offset_scale=0.3"),
    (LearnableMarginHead, {"offset_scale": 0.3, "initial_margin": 0.1}, "offset_scale=0.3, initial_margin=0.1"),
]


@pytest.mark.parametrize(("kind", "scales", "shown"), SCALED)
def test_weights_of_other_scales_are_refused(kind: Any, scales: dict[str, float], shown: str) -> None:
    network = nn.ModuleDict({"head": kind(16, 5, **scales)})
    state = network.state_dict()
    torch.testing.assert_close(state["head._extra_state"], torch.tensor(list(scales.values()), dtype=torch.float64))
    nn.ModuleDict({"head": kind(16, 5, **scales)}).load_state_dict(state)
    for name, value in scales.items():
        other = nn.ModuleDict({"head": kind(16, 5, **{**scales, name: 2 * value})})
        message = (
            f"head: the weights were trained with {shown}, and this head has .*{name}={2 * value:g}.*: make it with"
        )
        for strict in (True, False):
            with pytest.raises(RuntimeError, match=message):
                other.load_state_dict(state, strict=strict)
    with pytest.raises(RuntimeError, match=f"{kind.__name__}: the weights were trained with"):
        kind(16, 5).load_state_dict(network["head"].state_dict())


def test_scales_survive_types_and_files(tmp_path: Any) -> None:
    """The head's dtype does not touch them; a file that was cast to half precision is of the same scales."""
    head = ProbabilisticHead(16, 5, offset_scale=0.3, initial_std=0.1).to(torch.bfloat16)
    torch.testing.assert_close(head.get_extra_state(), torch.tensor([0.3, 0.1], dtype=torch.float64))
    torch.save(head.state_dict(), tmp_path / "head.pt")
    same = ProbabilisticHead(16, 5, offset_scale=0.3, initial_std=0.1)
    same.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    same.load_state_dict({name: value.bfloat16() for name, value in head.state_dict().items()})
    assert (same.offset_scale, same.initial_std) == (0.3, 0.1)


@pytest.mark.parametrize(("kind", "scales", "shown"), SCALED)
def test_weights_from_before_load_with_one_warning(kind: Any, scales: dict[str, float], shown: str) -> None:
    network = nn.ModuleDict({"head": kind(16, 5, **scales)})
    state = network.state_dict()
    del state["head._extra_state"]
    with pytest.warns(
        UserWarning, match=f"head: the weights come without the scales .* {shown} of this head"
    ) as caught:
        network.load_state_dict(state)
    assert len(caught) == 1
    with (
        pytest.warns(UserWarning, match="scales"),
        pytest.raises(RuntimeError, match="Missing key") as missing,
    ):  # nothing is hidden
        network.load_state_dict({k: v for k, v in state.items() if "scores" not in k})
    assert "_extra_state" not in str(missing.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.load_state_dict({}, strict=False)  # weights of a backbone alone
