"""How much of a sample was found, and which of several samples is the typical one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Tally(NamedTuple):
    """What was found in one sample, matched with the truth where IoU is above 0.5; ``str(tally)`` is a caption.

    Attributes:
        found: instances.
        true: instances; None: there is no ground truth.
        right: found instances that match a true one.

    >>> str(Tally(found=5, true=6, right=4)), str(Tally(found=5, true=None, right=0))
    ('4 of 6 found, 1 false', '5 found, no ground truth')
    """

    found: int
    true: int | None
    right: int

    @property
    def f1(self) -> float | None:
        """2 right / (found + true); None without ground truth."""
        return None if self.true is None else 2 * self.right / max(1, self.found + self.true)

    def __str__(self) -> str:
        if self.true is None:
            return f"{self.found} found, no ground truth"
        return f"{self.right} of {self.true} found, {self.found - self.right} false"


def typical(scores: Sequence[float | None]) -> int:
    """Position of the sample with the median score, such as F1, of two the lesser; the first where nothing is judged.

    >>> typical([1.0, 0.0, None, 0.75])
    3
    """
    judged = [(score, i) for i, score in enumerate(scores) if score is not None]
    return sorted(judged)[(len(judged) - 1) // 2][1] if judged else 0


class Judged(NamedTuple):
    """The instances found in one sample.

    Attributes:
        scores: (K,) of each.
        right: (K,) whether it matches a true one.
        true: how many there are.
    """

    scores: Sequence[float]
    right: Sequence[bool]
    true: int


def score_floor(samples: Sequence[Judged]) -> float:
    """The least score of instances to show: those from there on have the highest F1 over all samples.

    It lies halfway between the scores of the last that is shown and the first that is not, and is 0 where all are
    shown. Of equal F1 the most are shown.

    >>> score_floor([Judged([0.9, 0.2], [True, False], true=2), Judged([0.6, 0.1], [True, False], true=1)])
    0.4
    """
    true = sum(sample.true for sample in samples)
    pairs = [pair for sample in samples for pair in zip(sample.scores, sample.right, strict=True)]
    pairs.sort(key=lambda pair: -pair[0])
    best, floor, hits = 0.0, 0.0, 0
    for shown, (score, right) in enumerate(pairs, 1):
        hits += right
        then = pairs[shown][0] if shown < len(pairs) else -score
        f1 = 2 * hits / (shown + true)
        if then < score and f1 >= best:  # equal scores are shown together
            best, floor = f1, (score + then) / 2
    return floor
