"""Binary cross entropy of points and instances against float64 loops."""

from __future__ import annotations

from collections.abc import Callable

import oracles
import pytest
import torch
from loss_cases import EVERY, PRECISIONS, EmbeddingLoss, check_embedding_loss, check_rejection
from oracles import Problem

from probemb_lib import InstanceBCELoss

LOSSES: dict[str, tuple[EmbeddingLoss, Callable[[Problem], float]]] = {
    "bce": (InstanceBCELoss(), oracles.instance_bce),
    "bce independent": (
        InstanceBCELoss(covariance="independent"),
        lambda p: oracles.instance_bce(p, covariance="independent"),
    ),
}


@EVERY
@pytest.mark.parametrize("loss", LOSSES)
@PRECISIONS
def test_embedding_losses(name: str, loss: str, dtype: torch.dtype, tolerance: float) -> None:
    check_embedding_loss(*LOSSES[loss], name, dtype, tolerance)


def test_the_oracles_reject() -> None:
    check_rejection(LOSSES)
