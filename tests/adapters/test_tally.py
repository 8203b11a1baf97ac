"""Which of several found instances are shown."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probemb_adapters.report.pictures import ShapeResult
from probemb_adapters.report.tally import Judged, score_floor
from probemb_lib import GaussianEmbedding, Instances

SAMPLES = st.lists(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), max_size=6), max_size=3)


def shown(samples: list[Judged], floor: float) -> int:
    return sum(score >= floor for s in samples for score in s.scores)


def f1(samples: list[Judged], floor: float) -> float:
    hits = sum(right and score >= floor for s in samples for score, right in zip(s.scores, s.right, strict=True))
    return 2 * hits / max(1, shown(samples, floor) + sum(s.true for s in samples))


@given(SAMPLES, st.integers(0, 5))
def test_no_other_floor_has_a_higher_f1(pairs: list[list[tuple[float, bool]]], missed: int) -> None:
    samples = [
        Judged([score for score, _ in own], [right for _, right in own], missed + sum(right for _, right in own))
        for own in pairs
    ]
    floor = score_floor(samples)
    others = (0.0, 0.15, 0.3, 0.7, 1.0)  # between all scores that there are
    best = max(f1(samples, other) for other in others)
    assert f1(samples, floor) == best
    assert all(f1(samples, other) < best for other in others if shown(samples, other) > shown(samples, floor))


def test_a_shape_is_judged_as_its_picture() -> None:
    """Four found: right, of the wrong class, too small for its part, nowhere."""
    found = Instances(
        label=torch.tensor([0, 0, 1, 1, 2, -1, -1, 3]),
        semantic=torch.tensor([1, 1, 1, 1]),
        score=torch.tensor([0.9, 0.7, 0.5, 0.3]),
        seed=torch.tensor([0, 2, 4, 7]),
        batch=torch.zeros(4, dtype=torch.int64),
        embedding=GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4, 3)),
        point_batch=torch.zeros(8, dtype=torch.int64),
    )
    truth = torch.tensor([0, 0, 1, 1, 2, 2, 2, -1])
    shape = ShapeResult("", torch.zeros(8, 3), truth, found, torch.zeros(8, 3), truth_classes=torch.tensor([1, 2, 1]))
    judged = shape.judged()
    assert (judged.right, judged.true) == ([True, False, False, False], 3)
    assert judged.scores == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert shape.tally().right == sum(judged.right)
    assert score_floor([judged]) == pytest.approx(0.8)
