"""Squared error of the score maps against float64 loops."""

from __future__ import annotations

from collections.abc import Callable

import oracles
import pytest
import torch
from loss_cases import EVERY, SCORE_PRECISIONS, ScoreLoss, check_rejection, check_score_loss
from oracles import Problem

from probemb_lib import SeedMSELoss

LOSSES: dict[str, tuple[ScoreLoss, Callable[[Problem], float]]] = {
    "mse": (SeedMSELoss(), oracles.seed_mse),
    "mse no background": (SeedMSELoss(background=None), lambda p: oracles.seed_mse(p, background=None)),
    "mse independent": (
        SeedMSELoss(covariance="independent"),
        lambda p: oracles.seed_mse(p, covariance="independent"),
    ),
}


@EVERY
@pytest.mark.parametrize("loss", LOSSES)
@SCORE_PRECISIONS
def test_score_losses(name: str, loss: str, dtype: torch.dtype, tolerance: float) -> None:
    check_score_loss(*LOSSES[loss], name, dtype, tolerance)


def test_the_oracles_reject() -> None:
    check_rejection(LOSSES)
