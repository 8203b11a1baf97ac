r"""Plain cross entropy of the score maps (Eq. 12 of the paper): classes without centres, for comparison.

    L = 1/(N L) Σ_i Σ_l −[y_i = l] ln P[i, l]

y_i is the class of the point's instance; points of no instance belong to the background.
"""

from __future__ import annotations

from torch import Tensor, nn

from probemb_lib.aggregate import InstanceIndex
from probemb_lib.head import EmbeddingOutput
from probemb_lib.labels import NO_INSTANCE
from probemb_lib.losses._terms import ScoreTargets, batch_of, score_targets


def score_cross_entropy(
    output: EmbeddingOutput,
    instance: Tensor | InstanceIndex,
    semantic: Tensor,
    batch: Tensor | None = None,
    *,
    background: int | None = 0,
) -> Tensor:
    """Cross entropy of the score maps (Eq. 12). Arguments as in :func:`~probemb_lib.functional.center_aware`.

    >>> import torch
    >>> from probemb_lib import GaussianEmbedding
    >>> x = GaussianEmbedding(torch.zeros(1, 3), torch.zeros(1, 3))
    >>> from probemb_lib import HeadOutput
    >>> score_cross_entropy(HeadOutput(x, torch.zeros(1, 4)), torch.tensor([0]), torch.tensor([3]))  # ¼ ln 4
    tensor(0.3466)
    """
    targets = score_targets(output.logits, instance, semantic, batch_of(output, batch), background)
    return targets.average(score_cross_entropy_of(targets))


def score_cross_entropy_of(targets: ScoreTargets) -> Tensor:
    """The loss of each point (N,), from shared terms."""
    log_p = targets.logits.log_softmax(dim=1)
    loss = nn.functional.nll_loss(log_p, targets.target, ignore_index=NO_INSTANCE, reduction="none")
    return loss / log_p.shape[1]


class ScoreCrossEntropyLoss(nn.Module):
    """:func:`score_cross_entropy` as a module: ``ScoreCrossEntropyLoss()(output, instance, semantic, batch)``."""

    def __init__(self, *, background: int | None = 0) -> None:
        super().__init__()
        self.background = background

    def forward(
        self,
        output: EmbeddingOutput,
        instance: Tensor | InstanceIndex,
        semantic: Tensor,
        batch: Tensor | None = None,
    ) -> Tensor:
        return score_cross_entropy(output, instance, semantic, batch, background=self.background)

    def of_targets(self, targets: ScoreTargets, log_own: Tensor) -> Tensor:
        """The loss of each point (N,), where targets are known already; ``log_own`` is accepted so that the score
        losses exchange, and not needed."""
        return score_cross_entropy_of(targets)
