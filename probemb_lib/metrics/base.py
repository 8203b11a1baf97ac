"""The state of an evaluator: what each cloud leaves behind, in order of update."""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

Record = TypeVar("Record")
Own = TypeVar("Own", bound="Evaluator[Any]")


class Evaluator(Generic[Record]):
    """Keeps one record a cloud. A subclass appends them to ``_records`` and computes its results from them.

    A record holds a few numbers for each prediction and no masks, so evaluators are small and can be pickled.
    """

    _cloud: ClassVar[str]  # what one update adds: a shape, a scene
    _settings: ClassVar[tuple[str, ...]]  # attributes that evaluators to be merged have in common

    def __init__(self) -> None:
        self._records: list[Record] = []

    def __len__(self) -> int:
        """B, the clouds so far."""
        return len(self._records)

    def reset(self) -> None:
        """Forget all clouds."""
        self._records = []

    def merge_state(self: Own, other: Own) -> None:
        """Append the clouds of another evaluator to those of this one; the other stays as it is.

        Raises:
            TypeError: ``other`` is another kind of evaluator, or none.
            ValueError: its settings differ.
        """
        name = type(self).__name__
        if not isinstance(other, type(self)):
            raise TypeError(f"other: expected a {name}, got {type(other).__name__}")
        mine, theirs = (tuple(getattr(x, setting) for setting in self._settings) for x in (self, other))
        if mine != theirs:
            raise ValueError(
                f"other: expected ({', '.join(self._settings)}) = {mine}, got {theirs}; "
                "merge only evaluators with equal settings"
            )
        self._records = self._records + other._records

    def subset(self: Own, rows: Sequence[int]) -> Own:
        """The same evaluator over some of its clouds, by number in order of update; repeats count as often.

        For bootstrap intervals: ``metric.subset(rng.integers(len(metric), size=len(metric))).compute()``.

        Raises:
            IndexError: no such cloud.
        """
        wrong = [i for i in rows if not 0 <= operator.index(i) < len(self)]
        if wrong:
            raise IndexError(f"expected {self._cloud}s in [0, {len(self)}), got {wrong[0]}")
        result = copy.copy(self)
        result._records = [self._records[i] for i in rows]
        return result
