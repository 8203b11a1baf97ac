"""The head of learnable margins against its formulas."""

from __future__ import annotations

import math

import pytest
import torch
from margin_cases import close, same

from probemb_lib import LearnableMarginHead, margin_cluster
from probemb_lib.functional import learnable_margin


@pytest.mark.parametrize(("anisotropic", "dim", "width"), [(False, 3, 1), (True, 3, 3), (True, 6, 6), (False, 2, 1)])
def test_head(anisotropic: bool, dim: int, width: int) -> None:
    torch.manual_seed(0)
    head = (
        LearnableMarginHead(16, 5, dim, anisotropic=anisotropic, offset_scale=2.0, initial_margin=0.3).double().eval()
    )
    features, positions = torch.randn(12, 16).double(), torch.rand(12, min(dim, 3)).double()
    output = head(features, positions)
    close(output.margin, torch.full((12, width), 0.3, dtype=torch.float64))
    z = output.margin[0, 0] / output.embedding.std[0, 0]
    close(torch.exp(-0.5 * z**2), 0.5)  # φ at the margin

    torch.nn.init.normal_(head.margins[-1].weight, std=0.1)
    output = head(features, positions)
    padded = torch.nn.functional.pad(positions, (0, dim - positions.shape[1]))
    close(output.embedding.mean, padded + 2 * torch.tanh(head.centers(features)))
    s = torch.log(torch.tensor(2.0).double()) / 0.3**2 * torch.exp(10 * head.margins(features))  # s = exp(10 o)
    close(output.embedding.log_std, -0.5 * torch.log(2 * s))
    close(output.logits, head.scores(features))
    close(output.probabilities, 1 / (1 + torch.exp(-head.scores(features))))
    assert f"anisotropic={anisotropic}, initial_margin=0.3" in repr(head)


def test_head_in_another_unit() -> None:
    """Positions, offsets and margins scaled together: no loss and no cluster changes. The default margin scales too."""
    g = torch.Generator().manual_seed(0)
    features, positions = torch.randn(100, 16, generator=g), torch.rand(100, 3, generator=g)
    instance, semantic = torch.arange(100) % 3, torch.arange(100) % 3 % 2 + 1
    results = []
    for unit in (1.0, 1000.0):
        torch.manual_seed(0)
        head = LearnableMarginHead(16, 3, offset_scale=unit).double().eval()
        torch.nn.init.normal_(head.margins[-1].weight, std=0.1)
        output = head(features.double(), unit * positions.double())
        results.append((learnable_margin(output, instance, semantic), output))
        assert head.initial_margin == 0.25 * unit
    same(results[0][0], results[1][0])
    labels = [
        margin_cluster(o.embedding, o.probabilities, min_points=4, foreground=0, min_score=0).label for _, o in results
    ]
    torch.testing.assert_close(*labels)
    assert labels[0].max() >= 0


def test_head_on_odd_batches() -> None:
    head = LearnableMarginHead(4, 2)
    empty = head(torch.zeros(0, 4), torch.zeros(0, 3))
    assert [t.shape for t in (*empty.embedding, empty.logits)] == [(0, 3), (0, 1), (0, 2)]
    half = head.bfloat16()(torch.randn(5, 4).bfloat16(), torch.rand(5, 3))
    assert {t.dtype for t in (*half.embedding, half.logits)} == {torch.float32}


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, math.nan])
def test_errors_of_head(margin: float) -> None:
    with pytest.raises(
        ValueError, match=f"expected a positive initial_margin in the unit of the positions, got {margin}"
    ):
        LearnableMarginHead(4, 2, initial_margin=margin)
    with pytest.raises(ValueError, match="expected num_classes >= 1, got 0"):
        LearnableMarginHead(4, 0)
