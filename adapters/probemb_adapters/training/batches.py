"""Batches whose content depends on the seed alone: not on the number of workers or processes, nor on interruptions.

Every item is drawn with a seed of its own, made from the run's seed, the epoch and the item's place in the epoch. The
data set draws its random points and augmentation after seeding, wherever it runs. So a training that continues at an
epoch reads what an uninterrupted one would have read, and two processes read together what one would.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler


@dataclass(frozen=True)
class Draw:
    """One item of an epoch: its index in the data set and the seed to read it with."""

    index: int
    seed: int


class SeededBatches(Sampler[list[Draw]]):
    """Shuffled batches of an epoch for one of several processes: the ``batch_sampler`` of a DataLoader.

    A batch is drawn for all processes together and dealt out: process r takes every ``processes``-th item from the
    r-th on. What does not fill a last batch is left out.

    Args:
        size: items of the data set.
        batch_size: items a step, over all processes.
        seed: of everything random.
        weights: (size,) relative frequency of each item, drawn with replacement; None: each once, shuffled.
        draws: items an epoch; by default ``size``. More than ``size`` without weights: shuffled again and again.
        process, processes: this process and how many there are.

    Raises:
        ValueError: ``draws`` do not fill one batch, the batch cannot be dealt out, or weights do not fit.

    >>> batches = SeededBatches(6, batch_size=2, seed=0)
    >>> batches.epoch = 1
    >>> [[draw.index for draw in batch] for batch in batches] == [[draw.index for draw in batch] for batch in batches]
    True
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        weights: Sequence[float] | None = None,
        draws: int | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.draws = size if draws is None else draws
        self.process, self.processes = process, processes
        self.weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float64)
        self.epoch = 0
        if batch_size < 1 or batch_size % processes:
            raise ValueError(
                f"batch_size: expected a multiple of the {processes} processes, as it counts the items of all of them, "
                f"got {batch_size}"
            )
        if size < 1 or self.draws < batch_size:
            raise ValueError(
                f"expected at least one batch of {batch_size} items an epoch, got {size} items and {self.draws} draws: "
                "use a smaller batch"
            )
        if self.weights is not None and (self.weights.shape != (size,) or not bool((self.weights >= 0).all())):
            raise ValueError(f"weights: expected {size} numbers >= 0, got shape {tuple(self.weights.shape)}")

    def __len__(self) -> int:
        return self.draws // self.batch_size

    def __iter__(self) -> Iterator[list[Draw]]:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        if self.weights is None:
            rounds = -(-self.draws // self.size)
            order = torch.cat([torch.randperm(self.size, generator=generator) for _ in range(rounds)])
        else:
            order = torch.multinomial(self.weights, self.draws, replacement=True, generator=generator)
        for step in range(len(self)):
            first = step * self.batch_size
            places = range(first + self.process, first + self.batch_size, self.processes)
            yield [Draw(int(order[i]), mix_seed(self.seed, self.epoch, i)) for i in places]


class SeededItems(Dataset[Any]):
    """A data set read by :class:`Draw`: Python's and torch's random numbers start from the draw's seed.

    The caller's random state is restored, so nothing else is repeated or shifted.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, draw: Draw) -> Any:
        state = random.getstate()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.seed)
            random.seed(draw.seed)
            try:
                return self.data[draw.index]
            finally:
                random.setstate(state)


def mix_seed(*numbers: int) -> int:
    """One 63-bit seed from several integers; near numbers give unrelated seeds (the finalizer of SplitMix64).

    >>> mix_seed(0, 1) != mix_seed(1, 0)
    True
    """
    mixed = 0
    for number in numbers:
        mixed = (mixed + number + 0x9E3779B97F4A7C15) % 2**64
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
        mixed ^= mixed >> 31
    return mixed % 2**63
