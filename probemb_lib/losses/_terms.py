"""What the losses share: the similarity of points to their own instance, and the targets of the score maps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probemb_lib.aggregate import (
    Covariance,
    InstanceIndex,
    aggregate_members,
    as_index,
    instance_classes,
)
from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding, columns, plain_tensor
from probemb_lib.head import HeadOutput
from probemb_lib.labels import IGNORED, NO_INSTANCE
from probemb_lib.member_similarity import member_similarity
from probemb_lib.segments import gather_points, mean_over_clouds, segment_sum
from probemb_lib.similarity_sums import SimilaritySums, similarity_sums


class InstanceTerms(NamedTuple):
    """Aggregation and similarities of one batch, computed once and shared by the losses."""

    embedding: GaussianEmbedding
    instances: InstanceIndex
    log_own: Tensor  # (M,) ln κ of each member point with its own instance
    sums: SimilaritySums | None


def instance_terms(
    embedding: GaussianEmbedding,
    instance: Tensor | InstanceIndex,
    batch: Tensor | None,
    covariance: Covariance,
    *,
    with_sums: bool = False,
    with_outside: bool = False,
    per_instance: bool = False,
) -> InstanceTerms:
    x = check_embedding(embedding)
    index = as_index(instance, batch, x.mean)
    members = gather_points(columns(x), index.member)  # (2, D, M)
    c = aggregate_members(members, index, covariance)  # (2, D, K)
    centers = GaussianEmbedding(*c.transpose(1, 2).unbind())
    sums = similarity_sums(x, centers, index, per_instance=per_instance, outside=with_outside) if with_sums else None
    return InstanceTerms(x, index, member_similarity(members, c, index), sums)


class ScoreTargets(NamedTuple):
    """What the score maps of N points should show.

    Attributes:
        logits: (N, L), float32 or better.
        target: (N,) class of the point's instance; ``background`` where it has none; −1 where nothing is asked.
        foreground: (N,) bool, the point has an instance and a class.
        counted: (N,) bool, the point is ignored neither as instance nor as class.
        instances: their index.
        background: column of points of no instance, or None.
    """

    logits: Tensor
    target: Tensor
    foreground: Tensor
    counted: Tensor
    instances: InstanceIndex
    background: int | None

    def similarity(self, log_own: Tensor) -> Tensor:
        """κ of each point with its own instance (N,), a constant, from ln κ of the member points; 0 where there is
        none."""
        kappa = self.logits.new_zeros(self.logits.shape[0])
        return kappa.index_copy(0, self.instances.member, log_own.detach().exp().to(kappa.dtype))

    def average(self, per_point: Tensor) -> Tensor:
        """Mean over the counted points of a cloud, then over the clouds that have any."""
        count, total = self._per_cloud(self.counted.to(per_point.dtype)), self._per_cloud(per_point)
        return mean_over_clouds(total / count.clamp_min(1), count > 0, self.logits)

    def _per_cloud(self, per_point: Tensor) -> Tensor:
        i = self.instances
        clouds = i.point_batch.index_select(0, i.order)
        return segment_sum(gather_points(per_point, i.order), i.ptr, clouds)


def score_targets(
    logits: Tensor,
    instance: Tensor | InstanceIndex,
    semantic: Tensor,
    batch: Tensor | None,
    background: int | None,
) -> ScoreTargets:
    """Check the labels against the logits and find each point's target column."""
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(f"expected floating-point logits (N, L), got {logits.dtype} {tuple(logits.shape)}")
    index = as_index(instance, batch, logits)
    num_classes = logits.shape[1]
    check_background(background, num_classes)
    semantic = plain_tensor(semantic, "semantic")
    if semantic.is_floating_point() or semantic.is_complex() or semantic.dtype == torch.bool:
        raise TypeError(
            f"semantic: expected integers, got {semantic.dtype}; cast whole numbers with .long(), NaN to {IGNORED} "
            "before"
        )
    if semantic.shape != logits.shape[:1] or semantic.device != logits.device:
        raise ValueError(
            f"expected semantic ({logits.shape[0]},) on {logits.device}, "
            f"got {tuple(semantic.shape)} on {semantic.device}"
        )
    semantic = semantic.long()
    classes = instance_classes(semantic.clamp_max(num_classes - 1), index, num_classes)
    if not torch.compiler.is_compiling():  # reading values back would break the compiled graph
        _check_classes(semantic, classes, index, num_classes, background)

    counted = index.valid & (semantic != IGNORED)
    own_class = torch.cat([classes, classes.new_full((1,), NO_INSTANCE)])[index.index]  # −1 reads the last
    foreground = counted & (index.index >= 0) & (own_class >= 0)
    if background is None:
        target = torch.where(foreground, own_class, NO_INSTANCE)
    else:
        target = torch.where(foreground, own_class, torch.where(index.index < 0, background, NO_INSTANCE))
        target = torch.where(counted, target, NO_INSTANCE)
    return ScoreTargets(at_least_float32(logits), target, foreground, counted, index, background)


def targets_and_similarity(
    output: HeadOutput,
    instance: Tensor | InstanceIndex,
    semantic: Tensor,
    batch: Tensor | None,
    background: int | None,
    covariance: Covariance,
) -> tuple[ScoreTargets, Tensor]:
    """Targets of a batch, and κ of its points with their own instance (N,): what a score loss alone begins with."""
    targets = score_targets(output.logits, instance, semantic, batch, background)
    terms = instance_terms(output.embedding.detach(), targets.instances, None, covariance)
    return targets, targets.similarity(terms.log_own)


def check_background(background: int | None, num_classes: int) -> None:
    """The background column is one of the columns, or None."""
    if background is not None and not 0 <= background < num_classes:
        raise ValueError(f"expected background in [0, {num_classes}) or None, got {background}")


def _check_classes(
    semantic: Tensor, classes: Tensor, index: InstanceIndex, num_classes: int, background: int | None
) -> None:
    wrong = (semantic >= num_classes) | ((semantic < 0) & (semantic != IGNORED))
    in_background = classes == background if background is not None else torch.zeros_like(classes, dtype=torch.bool)
    found = torch.stack([wrong.any(), in_background.any()]).tolist()  # one read-back for both
    if found[0]:
        raise ValueError(
            f"expected semantic classes in [0, {num_classes}) or {IGNORED} (ignored), got {int(semantic[wrong][0])}; "
            "num_classes counts the background column"
        )
    if found[1]:
        k = int(in_background.nonzero()[0])
        raise ValueError(
            f"instance {int(index.id[k])} of cloud {int(index.batch[k])} has class {background}, the background "
            "column; give background points instance -1, or pass background=None if the data set has no background"
        )
