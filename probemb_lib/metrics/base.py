"""The state of an evaluator: what each cloud leaves behind, in order of update."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Record = TypeVar("Record", bound=tuple[Any, ...])  # a NamedTuple of arrays
Own = TypeVar("Own", bound="Evaluator[Any]")


class Evaluator(Generic[Record]):
    """Keeps one record a cloud. A subclass appends them to ``_records`` and computes its results from them.

    A record holds a few numbers for each prediction and no masks, so evaluators are small and can be pickled.
    """

    _record: ClassVar[type[Any]]  # its fields are joined along the last axis
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
        if not isinstance(other, type(self)):
            raise TypeError(f"other: expected a {type(self).__name__}, got {type(other).__name__}")
        self._check_settings("other", other._described(), "merge only evaluators with equal settings")
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

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """All clouds as arrays of numbers, for ``np.savez``, and one of text, the settings.

        >>> from probemb_lib.metrics import PartNetAP
        >>> metric = PartNetAP(num_classes=2)
        >>> metric.update(np.ones((1, 4), bool), [1], [0.9], np.zeros(4, int), [1])
        >>> again = PartNetAP(num_classes=2)
        >>> again.load_state_dict(metric.state_dict())
        >>> again.compute()["part_map"]
        array([1., 1., 1.])
        """
        state = {"settings": np.array(self._described()), "clouds": np.array(len(self))}
        for name, parts in zip(self._record._fields, zip(*self._records, strict=True), strict=False):
            state[name] = np.concatenate(parts, axis=-1)
            state[f"{name}_ptr"] = np.cumsum([0, *(part.shape[-1] for part in parts)])
        return state

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the clouds of a :meth:`state_dict` in place of those so far; also an open npz file.

        Raises:
            ValueError: it is the state of an evaluator with other settings, or of none.
        """
        fields = self._record._fields
        if "settings" not in state or "clouds" not in state:
            raise ValueError(f"expected the state of a {type(self).__name__}, got {', '.join(state) or 'nothing'}")
        self._check_settings("state", str(state["settings"]), "make the evaluator as it was made for the state")
        clouds = int(state["clouds"])
        columns = []
        for name in fields if clouds else ():
            if name not in state or len(state.get(f"{name}_ptr", ())) != clouds + 1:
                raise ValueError(f"state: expected {name} of {clouds} {self._cloud}s")
            columns.append(np.split(state[name], state[f"{name}_ptr"][1:-1], axis=-1))
        self._records = [self._record(*parts) for parts in zip(*columns, strict=True)]

    def _described(self) -> str:
        """Its kind and settings, in words."""
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in self._settings)
        return f"{type(self).__name__}({settings})"

    def _check_settings(self, what: str, theirs: str, then: str) -> None:
        if theirs != self._described():
            raise ValueError(f"{what}: expected {self._described()}, got {theirs}; {then}")
