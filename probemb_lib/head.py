"""The heads on a backbone: centres, uncertainties and scores of points (sections 3.1 and A.2, Table 3 of the paper)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from probemb_lib.gaussian import GaussianEmbedding, at_least_float32, plain_tensor, to_pack
from probemb_lib.positions import coarse_step

EUCLIDEAN_LOG_STD = -0.5 * math.log(8.0)
"""With σ² = 1/8 for all, κ is exactly exp(−‖μ_i − μ_j‖²): the deterministic embedding of the paper."""


class HeadOutput(NamedTuple):
    """What a head predicts for N points.

    Attributes:
        embedding: N Gaussians, float32 or better.
        logits: (N, L) before the softmax, float32 or better.
    """

    embedding: GaussianEmbedding
    logits: Tensor

    @property
    def probabilities(self) -> Tensor:
        """P = softmax(logits), (N, L): the score maps."""
        return self.logits.softmax(dim=1)


class EmbeddingOutput(Protocol):
    """What the losses read: N Gaussians and N rows of logits, of a head for points or for pixels."""

    @property
    def embedding(self) -> GaussianEmbedding: ...

    @property
    def logits(self) -> Tensor: ...


HIDDEN = (256, 128, 128)
"""Widths of a branch's hidden layers in Table 3 of the paper."""


def branch(in_channels: int, out_channels: int, hidden: Sequence[int] = HIDDEN) -> nn.Sequential:
    """One branch of Table 3: in → 256 → 128 → 128 → out, batch norm and ReLU between."""
    widths = (in_channels, *hidden)
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.BatchNorm1d(width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], out_channels))


SAME_SCALE = 0.01
"""Two scales are one up to this share: what half precision makes of a file's numbers is no other scale."""

NEIGHBOURS = 1 / 8
"""Of ``offset_scale``: about the distance of neighbouring points, which a head does not look for."""


def check_scale(value: float, name: str) -> float:
    """A length in the unit of the positions.

    Raises:
        TypeError: no number. One scale serves all axes.
        ValueError: not positive, or not finite.
    """
    if not isinstance(value, Real):
        raise TypeError(
            f"expected {name} as one number for all axes, got {value!r}; axes of different units are brought to one "
            "unit in the positions"
        )
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"expected a positive {name} in the unit of the positions, got {value}")
    return float(value)


class Head(nn.Module):
    """What all heads share: the branches of centres and scores, the checks, and the scales in their state.

    The scales, ``offset_scale`` and what a head adds to it, are part of what the weights mean. They are in the state
    as `_extra_state`, a float64 tensor, and weights of other scales are refused.
    """

    def __init__(
        self, in_channels: int, num_classes: int, dim: int, offset_scale: float, hidden: Sequence[int]
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("num_classes", num_classes), ("dim", dim)):
            if value < 1:
                raise ValueError(f"expected {name} >= 1, got {value}")
        check_scale(offset_scale, "offset_scale")
        if not all(width >= 1 for width in hidden):
            raise ValueError(f"expected hidden widths >= 1, such as (256, 128, 128), got {tuple(hidden)}")
        self.in_channels, self.num_classes, self.dim = in_channels, num_classes, dim
        self.offset_scale, self.hidden = offset_scale, tuple(hidden)
        self.centers = branch(in_channels, dim, hidden)
        self.scores = branch(in_channels, num_classes, hidden)

    def extra_repr(self) -> str:
        return f"in_channels={self.in_channels}, dim={self.dim}, offset_scale={self.offset_scale}, hidden={self.hidden}"

    def _scales(self) -> dict[str, float]:
        """The scales by their names, ``offset_scale`` first."""
        return {"offset_scale": self.offset_scale}

    def get_extra_state(self) -> Tensor:
        """The scales, for :meth:`state_dict`."""
        return torch.tensor(list(self._scales().values()), dtype=torch.float64)

    def set_extra_state(self, state: Any) -> None:
        """Nothing to set: the scales are this head's own; :meth:`load_state_dict` has compared them."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Weights of other scales are an error, as those of another shape; of unknown ones (older files) a warning."""
        key, own = f"{prefix}_extra_state", self._scales()
        name = prefix.removesuffix(".") or type(self).__name__
        if key in state_dict:
            theirs = dict(zip(own, torch.as_tensor(state_dict[key]).double().tolist(), strict=False))
            if any(not math.isclose(scale, own[kind], rel_tol=SAME_SCALE) for kind, scale in theirs.items()):
                error_msgs.append(
                    f"{name}: the weights were trained with {_listed(theirs)}, and this head has {_listed(own)}: make "
                    f"it with {_listed(theirs)}, or, to train the weights on with the scales of this head, delete "
                    f"{key!r} from the state"
                )
        elif any(weight.startswith(f"{prefix}centers.") for weight in state_dict):
            warnings.warn(
                f"{name}: the weights come without the scales that they were trained with, so that nothing can compare "
                f"them with {_listed(own)} of this head; save them again",
                stacklevel=2,
            )
        missing: list[str] = []
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected_keys, error_msgs)
        missing_keys += [weight for weight in missing if weight != key]

    def _check(self, features: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Features in the dtype of the weights, positions in float32 or better, both plain tensors."""
        features, positions = plain_tensor(features, "features"), plain_tensor(positions, "positions")
        if features.ndim != 2 or features.shape[1] != self.in_channels:
            raise ValueError(
                f"expected features (N, {self.in_channels}), got {tuple(features.shape)}{to_pack(features, 2)}"
            )
        if positions.ndim != 2 or not 1 <= positions.shape[1] <= self.dim:
            raise ValueError(
                f"expected positions (N, D) with 1 <= D <= {self.dim}, got {tuple(positions.shape)}"
                f"{to_pack(positions, 2)}"
            )
        if positions.shape[0] != features.shape[0]:
            raise ValueError(f"expected as many positions as features, got {len(positions)} and {len(features)}")
        if not (features.is_floating_point() and positions.is_floating_point()):
            raise TypeError(
                f"expected floating-point features and positions, got {features.dtype} and {positions.dtype}; voxels "
                "become positions by positions.float() * voxel_size"
            )
        if positions.dtype != torch.float64 and positions.device.type == "cpu" and positions.numel():
            self._check_spacing(positions)
        if self.training and self.hidden and features.shape[0] == 1:
            raise ValueError("expected at least 2 points in training, got 1: batch norm needs a spread; call .eval()")
        weight = _linear(self.centers, 0).weight
        # Autocast casts what it computes by itself, but no float64.
        if features.dtype != weight.dtype and (
            features.dtype == torch.float64 or not torch.is_autocast_enabled(features.device.type)
        ):
            features = features.to(weight.dtype)
        return features, at_least_float32(positions)

    def _check_spacing(self, positions: Tensor) -> None:
        """Refuse coordinates whose neighbours of their type are far apart: at 5,000,000 m of a map those of float32 are
        half a metre apart, and at 5 m those of bfloat16 4 cm.

        On a CPU alone, as a GPU would have to be waited for; :func:`~probemb_lib.check_batch` looks at all.
        """
        if torch.compiler.is_compiling() or type(positions) is not Tensor:  # values cannot be asked for
            return
        farthest = positions.detach().abs().max().item()  # NaN and infinity are the network's, and the losses', to say
        step = coarse_step(torch.finfo(positions.dtype).eps, farthest, NEIGHBOURS * self.offset_scale)
        if math.isfinite(farthest) and step is not None:
            kind = str(positions.dtype).removeprefix("torch.")
            way = "subtract an offset, such as probemb_lib.positions.far_offset, in float64 before the cast"
            raise ValueError(
                f"expected {kind} positions that are finer than 1/64 of offset_scale, {self.offset_scale:g}, got "
                f"coordinates up to {farthest:g}, where {kind} has steps of {step:.2g}: "
                f"{way if positions.dtype == torch.float32 else 'keep positions in float32'}, or raise offset_scale if "
                "it is in another unit"
            )

    def _predict(self, features: Tensor, *branches: nn.Sequential) -> list[Tensor]:
        """What each branch makes of the features, (N, its width). Their first layers are one product, which reads the
        features once and adds up one gradient for them."""
        if features.shape[0] == 0:  # batch norm's running statistics would become NaN
            # A process whose share is empty still owes the others a gradient, 0, of every parameter up to the input.
            tied = features.sum()
            for parameter in (parameter for layers in branches for parameter in layers.parameters()):
                tied = tied + parameter.flatten()[:0].sum()
            return [at_least_float32(features.new_zeros((0, _linear(b, -1).out_features)) + tied) for b in branches]
        first = [_linear(layers, 0) for layers in branches]
        products = nn.functional.linear(
            features, torch.cat([f.weight for f in first]), torch.cat([f.bias for f in first])
        ).split([f.out_features for f in first], dim=1)
        # Batch norm of columns that lie apart takes twice as long as of a copy.
        return [at_least_float32(b[1:](part.contiguous())) for b, part in zip(branches, products, strict=True)]

    def _mean(self, predicted: Tensor, positions: Tensor) -> Tensor:
        """μ = x + s tanh(o); dimensions beyond those of the position start at 0. Positions in float64 stay that."""
        offset = self.offset_scale * torch.tanh(predicted)
        return nn.functional.pad(positions, (0, self.dim - positions.shape[1])) + offset


def _listed(scales: dict[str, float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in scales.items())


def _linear(layers: nn.Sequential, number: int) -> nn.Linear:
    layer = layers[number]
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"expected a branch that begins and ends with nn.Linear, got {type(layer).__name__}")
    return layer


class ProbabilisticHead(Head):
    """Features to Gaussian embeddings and class scores.

    With o the output of a branch, x the position and s = ``offset_scale``:
    μ = x + s·tanh(o), ln σ = o + ln σ₀, P = softmax(o). Scaling positions, s and σ₀ together changes no similarity.

    Args:
        in_channels: channels of the features (128 in the paper).
        num_classes: L, columns of P, the background counted.
        dim: D; positions with fewer dimensions are padded with zeros.
        anisotropic: one σ a dimension (True), or one for all.
        heteroscedastic: σ of each point (True), or one per cloud: the branch's mean over the cloud.
        offset_scale: s, the farthest that a centre can lie from its point, in the unit of the positions. The paper's
            1 suits shapes in the unit sphere; for metres take about the radius of the largest instance, which
            :func:`~probemb_lib.suggest_settings` measures.
        initial_std: σ₀, about what σ is before training, in the same unit; by default s, as in the paper.
        hidden: widths of each branch's hidden layers. The paper's are for points; on images they cost many times what
            a small U-Net does, and one layer, ``hidden=(32,)``, is a good start. () is a linear layer.

    >>> head = ProbabilisticHead(128, num_classes=5).eval()
    >>> output = head(torch.randn(10, 128), torch.rand(10, 3))
    >>> output.embedding.mean.shape, output.embedding.log_std.shape, output.logits.shape
    (torch.Size([10, 3]), torch.Size([10, 3]), torch.Size([10, 5]))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dim: int = 3,
        *,
        anisotropic: bool = True,
        heteroscedastic: bool = True,
        offset_scale: float = 1.0,
        initial_std: float | None = None,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__(in_channels, num_classes, dim, offset_scale, hidden)
        self.initial_std = check_scale(offset_scale if initial_std is None else initial_std, "initial_std")
        self.anisotropic, self.heteroscedastic = anisotropic, heteroscedastic
        self.uncertainties = branch(in_channels, self._std_width(), hidden)

    def extra_repr(self) -> str:
        own = f"anisotropic={self.anisotropic}, heteroscedastic={self.heteroscedastic}, initial_std={self.initial_std}"
        return f"{super().extra_repr()}, {own}"

    def _std_width(self) -> int:
        return self.dim if self.anisotropic else 1

    def _scales(self) -> dict[str, float]:
        return {**super()._scales(), "initial_std": self.initial_std}

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> HeadOutput:
        """
        Args:
            features: (N, C), any floating dtype; computed in that of the weights.
            positions: (N, D), any floating dtype; in float64, so is the output.
            batch: (N,) int64 cloud of each point; None is one cloud. Only the homoscedastic variants look at it.

        Raises:
            TypeError, ValueError: dtypes or shapes are not these, or training with a single point; or, on a CPU,
                positions in float32 or less so far from the origin that their steps are coarse against
                ``offset_scale``.
        """
        features, positions = self._check(features, positions)
        centers, uncertainties, logits = self._predict(features, self.centers, self.uncertainties, self.scores)
        log_std = uncertainties + math.log(self.initial_std)
        if not self.heteroscedastic:
            log_std = _cloud_mean(log_std, batch)
        mean = self._mean(centers, positions)
        return HeadOutput(GaussianEmbedding(mean, log_std.to(mean.dtype)), logits.to(mean.dtype))


class DeterministicHead(Head):
    """Features to points of an embedding space: every σ is the same constant, so that κ = exp(−‖Δ‖²/s²).

    ln σ = ln s − ½ ln 8. Losses, clustering and evaluation serve it unchanged; ``dim=6`` is the wider embedding of
    Table 2. Arguments as in :class:`ProbabilisticHead`.

    >>> output = DeterministicHead(16, num_classes=2, dim=6).eval()(torch.randn(4, 16), torch.rand(4, 3))
    >>> output.embedding.dim, output.embedding.log_std.shape
    (6, torch.Size([4, 1]))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dim: int = 3,
        *,
        offset_scale: float = 1.0,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        super().__init__(in_channels, num_classes, dim, offset_scale, hidden)

    def forward(self, features: Tensor, positions: Tensor, batch: Tensor | None = None) -> HeadOutput:
        """As :meth:`ProbabilisticHead.forward`; ``batch`` is accepted so that the heads exchange, and not needed."""
        features, positions = self._check(features, positions)
        centers, logits = self._predict(features, self.centers, self.scores)
        mean = self._mean(centers, positions)
        log_std = mean.new_full((mean.shape[0], 1), EUCLIDEAN_LOG_STD + math.log(self.offset_scale))
        return HeadOutput(GaussianEmbedding(mean, log_std), logits.to(mean.dtype))


def _cloud_mean(x: Tensor, batch: Tensor | None) -> Tensor:
    """Mean over the points of a cloud, repeated for each of them: (N, C) → (N, C)."""
    if batch is None:
        return x.mean(0, keepdim=True).expand_as(x) if x.shape[0] else x
    batch = plain_tensor(batch, "batch")
    if batch.shape != x.shape[:1]:
        raise ValueError(f"expected batch ({x.shape[0]},), got {tuple(batch.shape)}")
    _, cloud, count = batch.unique(return_inverse=True, return_counts=True)  # numbers of any integer type, with gaps
    mean: Tensor = x.new_zeros((len(count), x.shape[1])).index_add(0, cloud, x) / count[:, None]
    return mean.index_select(0, cloud)
