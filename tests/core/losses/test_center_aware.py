"""Center-aware loss against float64 loops: targets, optimum, settings, errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import oracles
import pytest
import torch
from loss_cases import (
    EVERY,
    PROBLEMS,
    SCORE_PRECISIONS,
    ScoreLoss,
    check_rejection,
    check_score_loss,
    close,
    example,
    slopes,
    tensors,
)
from oracles import Problem, draw_problem

from probemb_lib import CenterAwareLoss, GaussianEmbedding, HeadOutput, ProbabilisticEmbeddingLoss
from probemb_lib.functional import center_aware

WEIGHT = np.array([0.5, 1.0, 2.0, 0.25])
COLUMN = CenterAwareLoss(complement=True, complement_column=3, weight=torch.tensor(WEIGHT))  # of no class
LOSSES: dict[str, tuple[ScoreLoss, Callable[[Problem], float]]] = {
    "center": (CenterAwareLoss(), oracles.center_aware),
    "center independent": (
        CenterAwareLoss(covariance="independent"),
        lambda p: oracles.center_aware(p, covariance="independent"),
    ),
    "center complement": (CenterAwareLoss(complement=True), lambda p: oracles.center_aware(p, complement=True)),
    "center complement column": (
        lambda output, instance, semantic, batch: COLUMN(output, instance, semantic.clamp(max=2), batch),
        lambda p: oracles.center_aware(
            p.change(semantic=p.semantic.clip(max=2)), complement=True, column=3, weight=WEIGHT
        ),
    ),
    "center weight": (
        CenterAwareLoss(weight=torch.tensor(WEIGHT), complement=True),
        lambda p: oracles.center_aware(p, weight=WEIGHT, complement=True),
    ),
    "center no background": (CenterAwareLoss(background=None), lambda p: oracles.center_aware(p, background=None)),
}


@EVERY
@pytest.mark.parametrize("loss", LOSSES)
@SCORE_PRECISIONS
def test_score_losses(name: str, loss: str, dtype: torch.dtype, tolerance: float) -> None:
    check_score_loss(*LOSSES[loss], name, dtype, tolerance)


def test_the_oracles_reject() -> None:
    check_rejection(LOSSES)
    output, *labels = tensors(PROBLEMS["ragged"])
    with pytest.raises(AssertionError):  # another target
        close(center_aware(output, *labels), oracles.center_aware(PROBLEMS["ragged"], complement=True))


def test_score_map_of_equations_8_and_9() -> None:
    """The oracle's explicit Q: one instance at most has a point, so that the maximum is the only entry."""
    p = PROBLEMS["ragged"]
    per_instance, per_class = oracles.score_map(p)
    assert ((per_instance > 0).sum(1) <= 1).all()
    assert (per_instance.max(1) >= per_class.max(1)).all()
    labelled = np.isin(np.arange(len(p.mean)), [i for k in oracles.instances(p.instance, p.batch) for i in k.rows])
    assert ((per_instance > 0).any(1) == labelled).all()


def test_complement_has_its_optimum_at_kappa() -> None:
    """With complement=True the gradient of the logits vanishes at P[:, class] = κ."""
    p = draw_problem(13, num_classes=2, num_clouds=1, background=False, ignored=False).change(batch=None)
    _, q = oracles.score_map(p)
    p = p.change(logits=np.log(np.stack([1 - q[:, 1], q[:, 1]], 1).clip(1e-30)))
    output, *labels = tensors(p)
    grads = [slopes(center_aware(output, *labels, complement=c), output)[2].abs().max() for c in (True, False)]
    assert grads[0] < 1e-12
    assert grads[1] > 1e-4


def test_class_weights_are_a_buffer() -> None:
    loss = CenterAwareLoss(weight=torch.tensor([0.5, 1.0, 2.0]))
    assert list(loss.state_dict()) == ["weight"]
    assert not list(loss.parameters())
    assert loss.to(torch.float64).weight is not None
    assert loss.weight is not None
    assert loss.weight.dtype == torch.float64
    assert loss.to("meta").weight.device.type == "meta"
    other = CenterAwareLoss(weight=torch.zeros(3))
    other.load_state_dict({"weight": torch.tensor([1.0, 2.0, 3.0])})
    torch.testing.assert_close(other.weight, torch.tensor([1.0, 2.0, 3.0]))
    assert not CenterAwareLoss().state_dict()
    assert list(ProbabilisticEmbeddingLoss(other).state_dict()) == ["score.weight"]


def test_errors_of_center_aware() -> None:
    message = r"complement=True .*expected background, got None"
    with pytest.raises(ValueError, match=message):
        center_aware(*example(), complement=True, background=None)
    with pytest.raises(ValueError, match=message):
        CenterAwareLoss(complement=True, background=None)
    with pytest.raises(ValueError, match="complement_column=2 needs complement=True"):
        CenterAwareLoss(complement_column=2)
    with pytest.raises(ValueError, match=r"expected complement_column in \[0, 3\), a column of the logits, got 3"):
        center_aware(*example(), complement=True, complement_column=3)
    with pytest.raises(ValueError, match=r"complement_column=1 .* of no class, but 2 points .* class 1: give it"):
        center_aware(*example(), complement=True, complement_column=1)
    with pytest.raises(ValueError, match=r"expected weight \(3,\), got \(4,\)"):
        center_aware(*example(), weight=torch.ones(4))
    with pytest.raises(ValueError, match=r"expected weight \(3,\), got \(3, 1\)"):
        center_aware(*example(), weight=torch.ones(3, 1))
    output, *labels = example()
    output = HeadOutput(GaussianEmbedding(torch.zeros(4, 3), torch.zeros(4)), output.logits)
    with pytest.raises(ValueError, match="expected log_std"):
        center_aware(output, *labels)
