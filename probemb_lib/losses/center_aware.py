r"""Center-aware loss of the score maps (Eqs. 8-10 of the paper).

    Q[i, l] = max over the instances k of class l of κ(e_i, c_k) [z_i = k],   L = 1/(N L) Σ_i Σ_l −Q[i, l] ln P[i, l]

Only k = z_i is not zero, so Q[i, y_i] = κ(e_i, c_{z_i}) for the class y_i of the point's instance: O(N) work. Q is a
constant. Points of no instance have Q[i, background] = 1. Ignored points count neither in the sum nor in N.

For every κ > 0 the term −κ ln P is smallest at P = 1: at its optimum the score map says nothing of centres, and with
one foreground class and no background the softmax is constant. ``complement=True`` gives the rest of the mass to the
background, Q[i, background] = 1 − κ on points of an instance, and the optimum becomes P[i, y_i] = κ. Where there is a
real background too, points of an instance with κ < ½ would then be likelier background, which clusterings leave out;
``complement_column`` gives the rest a column of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probemb_lib.aggregate import Covariance, InstanceIndex
from probemb_lib.head import EmbeddingOutput
from probemb_lib.labels import NO_INSTANCE
from probemb_lib.losses._terms import ScoreTargets, may_read, targets_and_similarity


def center_aware(
    output: EmbeddingOutput,
    instance: Tensor | InstanceIndex,
    semantic: Tensor,
    batch: Tensor | None = None,
    *,
    background: int | None = 0,
    complement: bool = False,
    complement_column: int | None = None,
    weight: Tensor | None = None,
    covariance: Covariance = "mean",
) -> Tensor:
    """Center-aware loss (Eq. 10).

    Args:
        output: of a head; logits (N, L).
        instance: (N,) ids (≥ 0 an instance, −1 none, −100 ignored), or their index.
        semantic: (N,) classes in [0, L), −100 ignored. The majority of an instance counts for all its points.
        batch: (N,) cloud of each point; not needed with an index.
        background: column of P for points of no instance; None if there is none.
        complement: give 1 − κ to the background column (not in the paper; for class-agnostic data).
        complement_column: another column for it, of no class.
        weight: (L,) factor of each class; the divisor N L stays.
        covariance: see :func:`~probemb_lib.aggregate_instances`.

    Raises:
        ValueError: shapes; a class outside [0, L); an instance of the class of the background or of
            ``complement_column``; ``complement`` without a column to give to.

    >>> from probemb_lib import GaussianEmbedding
    >>> x = GaussianEmbedding(torch.zeros(2, 3), torch.zeros(2, 3))
    >>> from probemb_lib import HeadOutput
    >>> center_aware(HeadOutput(x, torch.zeros(2, 2)), torch.tensor([0, 0]), torch.tensor([1, 1]))  # ½ ln 2
    tensor(0.3466)
    """
    column = _column(complement, complement_column, background)
    targets, log_own = targets_and_similarity(output, instance, semantic, batch, background, covariance)
    return targets.average(center_aware_of(targets, log_own, complement=column, weight=weight))


def _column(complement: bool, column: int | None, background: int | None) -> int | None:
    """The column that gets 1 − κ, None where nothing does."""
    if not complement:
        if column is not None:
            raise ValueError(f"complement_column={column} needs complement=True, which gives 1 - kappa to it")
        return None
    if column is None and background is None:
        raise ValueError("complement=True gives 1 - kappa to the background column: expected background, got None")
    return background if column is None else column


def center_aware_of(targets: ScoreTargets, log_own: Tensor, *, complement: int | None, weight: Tensor | None) -> Tensor:
    """The loss of each point (N,), from shared terms; ``complement`` is the column that gets 1 − κ."""
    log_p = targets.logits.log_softmax(dim=1)
    num_classes = log_p.shape[1]
    if weight is None:
        weight = log_p.new_full((num_classes,), 1 / num_classes)
    elif weight.shape == (num_classes,):
        weight = weight.to(log_p) / num_classes
    else:
        raise ValueError(f"expected weight ({num_classes},), got {tuple(weight.shape)}")
    of_target = nn.functional.nll_loss(log_p, targets.target, weight, ignore_index=NO_INSTANCE, reduction="none")
    kappa = targets.similarity(log_own, elsewhere=1)
    loss = of_target * kappa
    if complement is not None:
        if not 0 <= complement < num_classes:
            raise ValueError(
                f"expected complement_column in [0, {num_classes}), a column of the logits, got {complement}"
            )
        if complement != targets.background and may_read(targets.target):
            _check_no_class(targets.target, complement)
        of_column = -weight[complement] * log_p[:, complement]
        loss = loss + torch.where(targets.foreground, (1 - kappa) * of_column, 0.0)
    return loss


def _check_no_class(target: Tensor, column: int) -> None:
    count = int((target == column).sum())
    if count:
        raise ValueError(
            f"complement_column={column} gets 1 - kappa and is of no class, but {count} points belong to instances of "
            f"class {column}: give it a column of its own, as the last of num_classes + 1"
        )


class CenterAwareLoss(nn.Module):
    """:func:`center_aware` as a module: ``CenterAwareLoss()(output, instance, semantic, batch)``."""

    weight: Tensor | None

    def __init__(
        self,
        *,
        background: int | None = 0,
        complement: bool = False,
        complement_column: int | None = None,
        weight: Tensor | None = None,
        covariance: Covariance = "mean",
    ) -> None:
        super().__init__()
        self.background, self.complement, self.covariance = background, complement, covariance
        self.complement_column = _column(complement, complement_column, background)
        self.register_buffer("weight", weight)

    def forward(
        self,
        output: EmbeddingOutput,
        instance: Tensor | InstanceIndex,
        semantic: Tensor,
        batch: Tensor | None = None,
    ) -> Tensor:
        return center_aware(
            output,
            instance,
            semantic,
            batch,
            background=self.background,
            complement=self.complement,
            complement_column=self.complement_column,
            weight=self.weight,
            covariance=self.covariance,
        )

    def of_targets(self, targets: ScoreTargets, log_own: Tensor) -> Tensor:
        """The loss of each point (N,), where targets and ln κ of the members are known already."""
        return center_aware_of(targets, log_own, complement=self.complement_column, weight=self.weight)
