"""What the losses share: terms of clouds and their mean, the similarity of points to their own instance, and the
targets of the score maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from probemb_lib.aggregate import Covariance, InstanceIndex, as_index, instance_classes
from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, check_embedding, plain_tensor
from probemb_lib.head import EmbeddingOutput
from probemb_lib.labels import IGNORED, NO_INSTANCE
from probemb_lib.member_similarity import member_similarity
from probemb_lib.segments import sum_of_segments, take
from probemb_lib.similarity_sums import SimilaritySums, similarity_sums


class CloudTerm(NamedTuple):
    """A term of a loss in each cloud: ``total / divisor`` where the divisor is not 0; elsewhere there is no term.

    Attributes:
        total: (B,), finite also in clouds without the term.
        divisor: (B,) integers ≥ 0 of any dtype, without a gradient.
    """

    total: Tensor
    divisor: Tensor


def mean_over_clouds(*terms: CloudTerm) -> tuple[Tensor, ...]:
    """The mean of each term over the clouds that have it: scalars; 0, with a gradient of 0, where no cloud has it."""
    total = torch.stack([term.total for term in terms])  # (T, B)
    divisor = torch.stack([term.divisor for term in terms]).to(total.dtype)
    has_term = divisor > 0
    weight = has_term / (divisor * has_term.sum(1, keepdim=True)).clamp_min(1)
    return (total * weight).sum(1).unbind()


def sum_over_clouds(x: Tensor, index: InstanceIndex) -> Tensor:
    """Σ over the points of each cloud that are not ignored: (R, N) → (R, B)."""
    result: Tensor = _CloudSum.apply(x, index)
    return result


class _CloudSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: InstanceIndex) -> Tensor:
        ctx.save_for_backward(index.point_batch, index.valid)
        return sum_of_segments(take(x.detach(), index.order), index.ptr)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        point_batch, valid = ctx.saved_tensors
        return grad.index_select(1, point_batch) * valid, None


class Members(NamedTuple):
    """What a loss asks of the points with an instance, sorted by instance and so by cloud.

    Attributes:
        log_own: (M,) ln κ of each with its own instance.
        ptr: (B+1,) cloud b owns ``log_own[ptr[b]:ptr[b+1]]``.
        cloud: (M,) cloud of each.
    """

    log_own: Tensor
    ptr: Tensor
    cloud: Tensor


class InstanceTerms(NamedTuple):
    """Aggregation and similarities of one batch, computed once and shared by the losses.

    Attributes:
        embedding: N Gaussians with μ and ln σ of one shape (N, D), float32 or better.
        instances: their index.
        members: of the points with an instance.
        points, instance_counts, member_counts: (B,) points of a cloud that are not ignored, its instances, and their
            points, in the dtype of the embedding.
        sums: over all pairs.
    """

    embedding: GaussianEmbedding
    instances: InstanceIndex
    members: Members
    points: Tensor
    instance_counts: Tensor
    member_counts: Tensor
    sums: SimilaritySums


def expanded(embedding: GaussianEmbedding) -> GaussianEmbedding:
    """The checked embedding, with ln σ of the shape of μ."""
    x = check_embedding(embedding)
    return GaussianEmbedding(x.mean, x.log_std.expand_as(x.mean))


def instance_terms(
    embedding: GaussianEmbedding,
    instance: Tensor | InstanceIndex,
    batch: Tensor | None,
    covariance: Covariance,
    *,
    with_outside: bool = False,
    per_instance: bool = False,
) -> InstanceTerms:
    """Aggregate, and compare the points with their own instance and with all of their cloud."""
    x = expanded(embedding)
    index = as_index(instance, batch, x.mean)
    centers, log_own = member_similarity(x, index, covariance)
    sums = similarity_sums(x, centers, index, per_instance=per_instance, outside=with_outside)
    member_ptr = index.member_ptr.index_select(0, index.instance_ptr)  # members sorted by instance are sorted by cloud
    counts = torch.stack([index.ptr, index.instance_ptr, member_ptr]).diff().to(x.mean.dtype)
    points, instance_counts, member_counts = counts.unbind()
    members = Members(log_own, member_ptr, index.point_batch.index_select(0, index.member))
    return InstanceTerms(x, index, members, points, instance_counts, member_counts, sums)


class ScoreTargets(NamedTuple):
    """What the score maps of N points should show.

    Attributes:
        logits: (N, L), float32 or better; 0 where a point is not counted.
        target: (N,) class of the point's instance; ``background`` where it has none; −1 where nothing is asked.
        counted: (N,) bool, the point is ignored neither as instance nor as class.
        instances: their index.
        background: column of points of no instance, or None.
    """

    logits: Tensor
    target: Tensor
    counted: Tensor
    instances: InstanceIndex
    background: int | None

    @property
    def foreground(self) -> Tensor:
        """(N,) bool, the point has an instance and a class."""
        return (self.target >= 0) & (self.instances.index >= 0)

    def similarity(self, log_own: Tensor, elsewhere: float) -> Tensor:
        """κ of each point with its own instance (N,), a constant, from ln κ of the member points; ``elsewhere`` where
        there is none."""
        kappa = self.logits.new_full(self.logits.shape[:1], elsewhere)
        return kappa.index_copy_(0, self.instances.member, log_own.detach().exp().to(kappa.dtype))

    def average(self, per_point: Tensor) -> Tensor:
        """Mean over the counted points of a cloud, then over the clouds that have any; (N,), 0 at the others."""
        sums = sum_over_clouds(torch.stack([per_point, self.counted.to(per_point.dtype)]), self.instances)
        return mean_over_clouds(CloudTerm(*sums.unbind()))[0]


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
    classes = instance_classes(semantic, index, num_classes)
    ignored = semantic == IGNORED
    if may_read(semantic):
        _check_classes(semantic, ignored, classes, index, num_classes, background)

    counted = index.valid > ignored  # and not ignored
    of_others = NO_INSTANCE if background is None else background
    own_class = torch.nn.functional.pad(classes, (0, 1), value=of_others)[index.index]  # −1 reads the last
    target = own_class.masked_fill(~counted, NO_INSTANCE)
    logits = at_least_float32(logits).masked_fill(~counted[:, None], 0)  # a NaN there must not reach the gradients
    return ScoreTargets(logits, target, counted, index, background)


def batch_of(output: EmbeddingOutput, batch: Tensor | None) -> Tensor | None:
    """The cloud of each point: what was given, or else what the output knows, as that of a head for images does.

    Ids are counted anew in each image, so that images taken for one cloud would share instances.
    """
    own: Tensor | None = getattr(output, "batch", None)
    return own if batch is None else batch


def targets_and_similarity(
    output: EmbeddingOutput,
    instance: Tensor | InstanceIndex,
    semantic: Tensor,
    batch: Tensor | None,
    background: int | None,
    covariance: Covariance,
) -> tuple[ScoreTargets, Tensor]:
    """Targets of a batch, and ln κ of the members with their own instance: what a score loss alone begins with."""
    targets = score_targets(output.logits, instance, semantic, batch_of(output, batch), background)
    x = expanded(output.embedding.detach())
    return targets, member_similarity(x, targets.instances, covariance)[1]


def check_background(background: int | None, num_classes: int) -> None:
    """The background column is one of the columns, or None."""
    if background is not None and not 0 <= background < num_classes:
        raise ValueError(f"expected background in [0, {num_classes}) or None, got {background}")


def may_read(labels: Tensor) -> bool:
    """Reading values back would break the graph of torch.compile, and the capture of a CUDA graph."""
    if torch.compiler.is_compiling():
        return False
    return not (labels.is_cuda and torch.cuda.is_current_stream_capturing())


def _check_classes(
    semantic: Tensor, ignored: Tensor, classes: Tensor, index: InstanceIndex, num_classes: int, background: int | None
) -> None:
    if semantic.numel() == 0:
        return
    in_background = classes == (NO_INSTANCE - 1 if background is None else background)  # or nothing
    facts = [*semantic.masked_fill(ignored, 0).aminmax(), in_background.sum()]
    low, high, found = torch.stack(facts).tolist()  # one read-back for all, of one dtype
    if low < 0 or high >= num_classes:
        wrong = ((semantic >= num_classes) | (semantic < 0)) & ~ignored
        raise ValueError(
            f"expected semantic classes in [0, {num_classes}) or {IGNORED} (ignored), got {int(semantic[wrong][0])}; "
            "num_classes counts the background column"
        )
    if found:
        k = int(in_background.nonzero()[0])
        raise ValueError(
            f"instance {int(index.id[k])} of cloud {int(index.batch[k])} has class {background}, the background "
            "column; give background points instance -1, or pass background=None if the data set has no background"
        )
