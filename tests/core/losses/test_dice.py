"""Log-Dice loss against float64 loops."""

from __future__ import annotations

from collections.abc import Callable

import oracles
import pytest
import torch
from loss_cases import EVERY, PRECISIONS, PROBLEMS, EmbeddingLoss, check_embedding_loss, check_rejection, close, tensors
from oracles import Problem

from probemb_lib import LogDiceLoss
from probemb_lib.functional import log_dice

LOSSES: dict[str, tuple[EmbeddingLoss, Callable[[Problem], float]]] = {
    "dice": (LogDiceLoss(), oracles.log_dice),
    "dice per instance": (LogDiceLoss(per_instance=True), lambda p: oracles.log_dice(p, per_instance=True)),
    "dice independent": (
        LogDiceLoss(covariance="independent"),
        lambda p: oracles.log_dice(p, covariance="independent"),
    ),
}


@EVERY
@pytest.mark.parametrize("loss", LOSSES)
@PRECISIONS
def test_embedding_losses(name: str, loss: str, dtype: torch.dtype, tolerance: float) -> None:
    check_embedding_loss(*LOSSES[loss], name, dtype, tolerance)


def test_the_oracles_reject() -> None:
    check_rejection(LOSSES)
    output, instance, _, batch = tensors(PROBLEMS["ragged"])
    with pytest.raises(AssertionError):  # the other kind of Dice
        close(log_dice(output.embedding, instance, batch), oracles.log_dice(PROBLEMS["ragged"], per_instance=True))
