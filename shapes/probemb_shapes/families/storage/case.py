"""What the parts of one cabinet are fitted into: its carcass and its compartments."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """The inside of a carcass: x in ±width/2, y from floor to top, z in ±depth/2."""

    width: float
    floor: float
    top: float
    depth: float
    board: float


class Cell(NamedTuple):
    """A compartment's clear opening."""

    left: float
    right: float
    low: float
    high: float

    @property
    def size(self) -> tuple[float, float]:
        return self.right - self.left, self.high - self.low

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.low + self.high) / 2
