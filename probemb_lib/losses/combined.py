r"""The whole objective (Eq. 15 of the paper): L = L_Ins + L_score + 0.001 L_reg, with L_Ins = BCE + log-Dice (Eq. 5).

The aggregation, the similarity of points to their own instance and the pass over all pairs are computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probemb_lib.aggregate import Covariance, InstanceIndex
from probemb_lib.head import EmbeddingOutput
from probemb_lib.losses._terms import (
    CloudTerm,
    batch_of,
    instance_terms,
    mean_over_clouds,
    score_targets,
    sum_over_clouds,
)
from probemb_lib.losses.bce import bce_of
from probemb_lib.losses.center_aware import CenterAwareLoss
from probemb_lib.losses.cross_entropy import ScoreCrossEntropyLoss
from probemb_lib.losses.dice import dice_of
from probemb_lib.losses.entropy import Reduction, check_reduction, entropy_of, log_volume
from probemb_lib.losses.seed_mse import SeedMSELoss

ScoreLoss = CenterAwareLoss | ScoreCrossEntropyLoss | SeedMSELoss


class ProbabilisticEmbeddingLoss(nn.Module):
    """bce_weight·BCE + dice_weight·Dice + score_weight·score + entropy_weight·entropy (Eq. 15).

    Args:
        score: loss of the score maps; None is ``CenterAwareLoss()``. Background, class weights and ``complement`` are
            its settings; its own ``covariance`` is not used here.
        covariance: of the instances in all terms, see :func:`~probemb_lib.aggregate_instances`.
        per_instance_dice: see :func:`~probemb_lib.functional.log_dice`.
        entropy_reduction: see :func:`~probemb_lib.functional.entropy_regularizer`.

    >>> import torch
    >>> from probemb_lib import ProbabilisticHead
    >>> output = ProbabilisticHead(8, num_classes=3)(torch.randn(6, 8), torch.rand(6, 3))
    >>> instance, semantic = torch.tensor([4, 4, 9, 9, -1, -100]), torch.tensor([1, 1, 2, 2, 0, -100])
    >>> sorted(ProbabilisticEmbeddingLoss()(output, instance, semantic))
    ['bce', 'dice', 'entropy', 'loss', 'score']
    """

    def __init__(
        self,
        score: ScoreLoss | None = None,
        *,
        covariance: Covariance = "mean",
        per_instance_dice: bool = False,
        entropy_reduction: Reduction = "mean",
        bce_weight: float = 1.0,
        dice_weight: float = 1.0,
        score_weight: float = 1.0,
        entropy_weight: float = 0.001,
    ) -> None:
        super().__init__()
        check_reduction(entropy_reduction)
        self.score = CenterAwareLoss(covariance=covariance) if score is None else score
        self.covariance: Covariance = covariance
        self.per_instance_dice, self.entropy_reduction = per_instance_dice, entropy_reduction
        self.bce_weight, self.dice_weight = bce_weight, dice_weight
        self.score_weight, self.entropy_weight = score_weight, entropy_weight

    def forward(
        self,
        output: EmbeddingOutput,
        instance: Tensor | InstanceIndex,
        semantic: Tensor,
        batch: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """
        Args:
            output: of a head.
            instance: (N,) ids (≥ 0 an instance, −1 none, −100 ignored), or their index.
            semantic: (N,) classes in [0, L), −100 ignored.
            batch: (N,) cloud of each point; not needed with an index, nor with the output of a
                :class:`~probemb_lib.DenseHead`, which knows the image of each pixel.

        Returns:
            Scalars: "loss" is the weighted total; "bce", "dice", "score", "entropy" are the terms before weighting
            ("bce" is not computed, and 0, at a weight of 0).
            The keys are always the same, and the total always carries a gradient.
        """
        terms = instance_terms(
            output.embedding,
            instance,
            batch_of(output, batch),
            self.covariance,
            with_outside=self.bce_weight != 0,
            per_instance=self.per_instance_dice,
        )
        x, index, log_own = terms.embedding, terms.instances, terms.members.log_own
        targets = score_targets(output.logits, index, semantic, None, self.score.background)
        score = self.score.of_targets(targets, log_own)
        rows = [score, targets.counted.to(score.dtype), log_volume(x)]  # of one dtype a GPU stacks at once
        sums = sum_over_clouds(torch.stack(rows), index)
        score, counted, log_volumes = sums.unbind()
        cloud_terms = [
            dice_of(terms, self.per_instance_dice),
            CloudTerm(score, counted.detach()),
            entropy_of(log_volumes, terms.points, x.mean.shape[1], self.entropy_reduction),
        ]
        if self.bce_weight != 0:
            cloud_terms.append(bce_of(terms, self.per_instance_dice))
        means = mean_over_clouds(*cloud_terms)
        bce = means[3] if self.bce_weight != 0 else log_own[:0].sum()
        parts = dict(zip(("bce", "dice", "score", "entropy"), (bce, *means[:3]), strict=True))
        total = self.bce_weight * parts["bce"]
        for name, weight in (
            ("dice", self.dice_weight),
            ("score", self.score_weight),
            ("entropy", self.entropy_weight),
        ):
            total = torch.add(total, parts[name], alpha=weight)
        return {"loss": total, **parts}
