"""Seeded batches: the same content whatever the workers, the processes and the interruptions."""

import random
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from probemb_adapters.training.batches import Draw, SeededBatches, SeededItems, mix_seed


class Noise(torch.utils.data.Dataset[Any]):
    """Items made of random numbers only."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.cat([torch.tensor([index, random.random()]), torch.rand(3)])


def read(epoch: int, *, workers: int = 0, process: int = 0, processes: int = 1) -> list[torch.Tensor]:
    batches = SeededBatches(10, 4, seed=3, process=process, processes=processes)
    batches.epoch = epoch
    return list(DataLoader(SeededItems(Noise()), batch_sampler=batches, num_workers=workers))


def test_workers_and_repetition_change_nothing() -> None:
    once = torch.cat(read(1))
    torch.testing.assert_close(torch.cat(read(1)), once, rtol=0, atol=0)
    torch.testing.assert_close(torch.cat(read(1, workers=2)), once, rtol=0, atol=0)
    assert not torch.equal(torch.cat(read(2)), once)


def test_two_processes_read_what_one_reads() -> None:
    parts = [read(0, process=process, processes=2) for process in (0, 1)]
    for whole, *halves in zip(read(0), *parts, strict=True):
        for process, half in enumerate(halves):
            torch.testing.assert_close(half, whole[process::2], rtol=0, atol=0)


def test_every_item_once_an_epoch_up_to_the_last_batch() -> None:
    drawn = [draw.index for batch in SeededBatches(10, 5, seed=0) for draw in batch]
    assert sorted(drawn) == list(range(10))
    batches = SeededBatches(10, 4, seed=0)
    assert len(batches) == len(list(batches)) == 2


def test_more_draws_than_items_show_each_equally_often() -> None:
    drawn = [draw.index for batch in SeededBatches(5, 5, seed=0, draws=20) for draw in batch]
    assert sorted(drawn) == sorted(list(range(5)) * 4)


def test_weights() -> None:
    drawn = [draw.index for batch in SeededBatches(3, 10, seed=0, weights=[1, 0, 3], draws=4_000) for draw in batch]
    share = torch.bincount(torch.tensor(drawn), minlength=3) / len(drawn)
    torch.testing.assert_close(share, torch.tensor([0.25, 0, 0.75]), rtol=0, atol=0.03)  # 4 standard deviations


def test_the_callers_random_numbers_go_on() -> None:
    torch.manual_seed(0)
    random.seed(0)
    expected = torch.rand(2), random.random()
    torch.manual_seed(0)
    random.seed(0)
    first = torch.rand(1)
    SeededItems(Noise())[Draw(0, 7)]
    torch.testing.assert_close(torch.cat([first, torch.rand(1)]), expected[0], rtol=0, atol=0)
    assert random.random() == expected[1]


def test_seeds_of_an_epoch_differ() -> None:
    seeds = [draw.seed for batch in SeededBatches(1_000, 10, seed=0) for draw in batch]
    assert len(set(seeds)) == 1_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = sum(bin(mix_seed(0, i) ^ mix_seed(0, i + 1)).count("1") for i in range(1_000)) / 1_000
    assert 30 < bits < 33  # of 63, half: near numbers are unrelated


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4, "batch_size": 3, "processes": 2}, "multiple of the 2 processes"),
        ({"size": 4, "batch_size": 0}, "multiple"),
        ({"size": 3, "batch_size": 4}, "at least one batch of 4"),
        ({"size": 0, "batch_size": 1}, "got 0 items"),
        ({"size": 2, "batch_size": 1, "weights": [1.0]}, "expected 2 numbers"),
        ({"size": 2, "batch_size": 1, "weights": [1.0, -1.0]}, "expected 2 numbers"),
    ],
)
def test_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SeededBatches(seed=0, **arguments)
