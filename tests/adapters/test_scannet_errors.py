"""Repairs of what was found by the truth: each changes the errors of its kind and nothing else."""

from __future__ import annotations

import pytest
import torch

from probemb_adapters.experiments.scannet.errors import REPAIRS, Found, Truth, owner

#                                chair      table      lamp   wall
TRUTH = Truth(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, -1, -1]), torch.tensor([5, 7, 35]))


def found(*rows: tuple[str, int, float]) -> Found:
    masks = torch.tensor([[letter == "x" for letter in row] for row, _, _ in rows]).reshape(-1, 12)
    return Found(masks, torch.tensor([c for _, c, _ in rows]), torch.tensor([s for _, _, s in rows]))


def rows_of(result: Found) -> list[tuple[str, int, float]]:
    letters = ["".join(".x"[int(value)] for value in mask) for mask in result.masks]
    return list(zip(letters, result.classes.tolist(), [round(s, 3) for s in result.scores.tolist()], strict=True))


PERFECT = [("xxxx........", 5, 1.0), ("....xxxx....", 7, 1.0), ("........xx..", 35, 1.0)]


@pytest.mark.parametrize("kind", REPAIRS)
def test_nothing_to_repair(kind: str) -> None:
    assert rows_of(REPAIRS[kind](found(*PERFECT), TRUTH)) == PERFECT


CASES = {
    "scores": (
        [("xx..........", 5, 0.2), ("..........xx", 5, 0.9), ("xxxxxxx.....", 7, 0.3)],
        [("xx..........", 5, 0.5), ("..........xx", 5, 0.0), ("xxxxxxx.....", 7, 0.571)],
    ),
    "classes": (
        [("xxx.........", 7, 0.2), ("..........xx", 9, 0.9)],
        [("xxx.........", 5, 0.2), ("..........xx", 9, 0.9)],
    ),
    # The second and third lie mostly in the table; the last, half in it, is no part of it.
    "splits": (
        [("xxxx........", 5, 0.9), ("....xx......", 7, 0.3), ("......xx..x.", 9, 0.6), ("...x...x....", 7, 0.1)],
        [("xxxx........", 5, 0.9), ("....xxxx..x.", 9, 0.6), ("...x...x....", 7, 0.1)],
    ),
    # The first holds most of chair and table, and a point of the lamp and of the wall; the second most of one object.
    "merges": (
        [("xxx.xxxxx.x.", 7, 0.5), ("xxx.x.......", 5, 0.4)],
        [("....xxxxx.x.", 7, 0.5), ("xxx.........", 7, 0.5), ("xxx.x.......", 5, 0.4)],
    ),
    # The chair's free point joins; the table's three go to its larger part alone; nobody holds the lamp.
    "outlines": (
        [("xxx.......xx", 5, 0.5), ("....x.......", 7, 0.4)],
        [("xxxx........", 5, 0.5), ("....xxxx....", 7, 0.4)],
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_by_hand(kind: str) -> None:
    before, after = CASES[kind]
    given = found(*before)
    assert rows_of(REPAIRS[kind](given, TRUTH)) == after
    assert rows_of(given) == before  # the input is not changed


@pytest.mark.parametrize("kind", REPAIRS)
def test_empty_scenes(kind: str) -> None:
    nothing = Truth(torch.full((12,), -1), torch.zeros(0, dtype=torch.int64))
    none = Found(torch.zeros(0, 12, dtype=torch.bool), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    for truth in (TRUTH, nothing):
        assert rows_of(REPAIRS[kind](none, truth)) == []
    assert len(REPAIRS[kind](found(*PERFECT), nothing).masks) == 3


def test_owner_has_more_than_half() -> None:
    assert owner(
        found(("xx..xx......", 5, 1.0), ("xx..x.......", 5, 1.0), ("x.........xx", 5, 1.0)), TRUTH
    ).tolist() == [
        -1,
        0,
        -1,
    ]


def test_truth_of_a_target() -> None:
    truth = Truth.of(torch.tensor([5002, 1000, 0, 7001, 5002, 39004]), class_ids=(5, 39))
    assert truth.instance.tolist() == [0, -1, -1, -1, 0, 1]
    assert truth.classes.tolist() == [5, 39]
    assert Truth.of(torch.tensor([0, 1000]), class_ids=(5,)).instance.tolist() == [-1, -1]
