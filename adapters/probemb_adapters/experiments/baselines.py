"""Instances from the positions alone, without a network: DBSCAN, HDBSCAN and mean shift of scikit-learn.

What a learned embedding has to beat. Their parameters are picked on validation data, as the threshold of
:func:`probemb_lib.greedy_cluster` is:

    fit = fit_baseline(BASELINES["DBSCAN"], val_positions, val_targets, metric)
    found = [fit.clusterer(positions) for positions in test_positions]

Clusters of positions have no class and no probability: every cluster has class 0, so these baselines fit
class-agnostic data only, and its score is its share of the cloud's points.

All lengths are in units of the positions. The grids are for shapes in the unit sphere with 10,000 points, as
PartNet has them; another density or scale needs another grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from probemb_adapters.files import missing_extra
from probemb_lib.clustering import best_of

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def scikit_learn() -> Any:
    """Its clusterings, imported where one is called: who trains and evaluates a network may have none.

    Raises:
        ImportError: it is missing; the message says what to install.
    """
    try:
        from sklearn import cluster
    except ImportError as error:
        raise missing_extra("the baselines need scikit-learn", "baselines", error) from error
    return cluster


class Clusters(NamedTuple):
    """K clusters of a cloud of N points, in the form in which evaluators take instances.

    Attributes:
        label: (N,) int64, row of the point's cluster, −1 none.
        semantic: (K,) int64, all 0: the only class.
        score: (K,) float32, the cluster's share of the N points, its confidence.
    """

    label: Tensor
    semantic: Tensor
    score: Tensor


@dataclass(frozen=True)
class DBSCAN:
    """Density-based clusters; points of no dense region are in no cluster.

    Calling it with positions (N, D) gives :class:`Clusters`. The cost grows with the number of neighbours within
    ``eps``, whose lists are all in memory at once.

    Args:
        eps: radius of a point's neighbourhood.
        min_samples: a point with as many in its neighbourhood, itself included, is the core of a cluster.

    Raises:
        ValueError: positions that are not finite floats (N, D), or parameters out of range.

    Source: Ester et al., KDD 1996.

    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
    >>> DBSCAN(eps=0.2, min_samples=2)(x)
    Clusters(label=tensor([ 0,  0,  1,  1, -1]), semantic=tensor([0, 0]), score=tensor([0.4000, 0.4000]))
    """

    eps: float
    min_samples: int

    def __call__(self, positions: Tensor) -> Clusters:
        x = _points(positions)
        if len(x) == 0:
            return _clusters(np.empty(0), positions)
        return _clusters(scikit_learn().DBSCAN(eps=self.eps, min_samples=self.min_samples).fit_predict(x), positions)


@dataclass(frozen=True)
class HDBSCAN:
    """The most stable clusters of DBSCAN over all radii; points of none of them are in no cluster.

    Calling it with positions (N, D) gives :class:`Clusters`. As the method is usually run, a cloud that never
    splits has no cluster: the root of the hierarchy is none.

    Args:
        min_cluster_size: points that a group must have to be a cluster, at least 2.
        min_samples: as in :class:`DBSCAN`; a higher number smooths the density over more neighbours. 1 is the same
            as 2.

    Raises:
        ValueError: positions that are not finite floats (N, D), or parameters out of range.

    Source: Campello, Moulavi and Sander, PAKDD 2013.

    >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> HDBSCAN(min_cluster_size=3, min_samples=1)(x).score
    tensor([0.5000, 0.5000])
    """

    min_cluster_size: int
    min_samples: int

    def __call__(self, positions: Tensor) -> Clusters:
        x = _points(positions)
        if len(x) < max(self.min_cluster_size, self.min_samples):  # scikit-learn refuses such clouds
            return _clusters(np.full(len(x), -1), positions)
        # copy matters for distance matrices only; its default changes between versions, with a warning.
        method = scikit_learn().HDBSCAN(min_cluster_size=self.min_cluster_size, min_samples=self.min_samples, copy=True)
        return _clusters(method.fit_predict(x), positions)


@dataclass(frozen=True)
class MeanShift:
    """Clusters around the modes of a flat kernel's density; every point is in the cluster of its nearest mode.

    Calling it with positions (N, D) gives :class:`Clusters`. All 10,000 points of a shape would take seconds, so
    the modes are those of a random sample, the same rows for the same N; the search starts from the occupied
    cells of a grid of the bandwidth.

    Args:
        bandwidth: radius of the kernel.
        sample: points at most that the modes are computed from.

    Raises:
        ValueError: positions that are not finite floats (N, D), or parameters out of range.

    Source: Comaniciu and Meer, TPAMI 2002.

    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1], [9.0]])
    >>> MeanShift(bandwidth=1.0)(x).score.sort().values
    tensor([0.2000, 0.4000, 0.4000])
    """

    bandwidth: float
    sample: int = 1000

    def __post_init__(self) -> None:
        if self.sample < 1:
            raise ValueError(f"sample: expected at least 1 point, got {self.sample}")

    def __call__(self, positions: Tensor) -> Clusters:
        x = _points(positions)
        if len(x) == 0:
            return _clusters(np.empty(0), positions)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        method = scikit_learn().MeanShift(bandwidth=self.bandwidth, bin_seeding=True)
        return _clusters(method.fit(x[order[: self.sample].numpy()]).predict(x), positions)


Clusterer: TypeAlias = Callable[[Tensor], Clusters]
"""From positions (N, D) to clusters: one of the methods above with its parameters, or any other."""

BASELINES: Mapping[str, tuple[Clusterer, ...]] = MappingProxyType(
    {
        "DBSCAN": tuple(DBSCAN(eps, n) for eps in (0.02, 0.03, 0.04, 0.05, 0.06, 0.08) for n in (2, 5, 10, 20)),
        "HDBSCAN": tuple(HDBSCAN(size, n) for size in (100, 200, 400, 800) for n in (2, 5)),
        "mean shift": tuple(MeanShift(bandwidth) for bandwidth in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
    }
)
"""The grid of each method for :func:`fit_baseline`, made for shapes of 10,000 points in the unit sphere.

Those of DBSCAN and mean shift end where nearly every shape has become a single cluster.
"""


class Labelled(Protocol):
    """Ground truth of a cloud with (G,) 0-based classes, such as `probemb_adapters.partnet.EvaluationTargets`."""

    @property
    def gt_classes(self) -> Tensor: ...


Target = TypeVar("Target", bound=Labelled)


class BaselineFit(NamedTuple):
    """The clusterer with the best metric, and the metric of every one that was tried.

    `dataclasses.asdict` gives the parameters of the clusterers of this module.
    """

    clusterer: Clusterer
    metric: float
    grid: tuple[Clusterer, ...]
    metrics: tuple[float, ...]


def fit_baseline(
    grid: Sequence[Clusterer],
    clouds: Sequence[Tensor],
    targets: Sequence[Target],
    metric: Callable[[list[Clusters], Sequence[Target]], float],
    *,
    progress: Callable[[Iterable[Clusterer]], Iterable[Clusterer]] = iter,
) -> BaselineFit:
    """The parameters with the best metric on validation data.

    Args:
        grid: clusterers to try, such as ``BASELINES["DBSCAN"]``. The first of equal metrics wins; NaN never does.
        clouds: positions (N, D) of each cloud.
        targets: the class-agnostic ground truth of each cloud.
        metric: from the clusters of all clouds and their targets to a number, the higher the better.
        progress: wraps the grid, for example `tqdm.tqdm`.

    Raises:
        ValueError: nothing to fit on, an empty grid, ground truth of a class other than 0, or the metric is NaN
            for every clusterer.

    >>> from types import SimpleNamespace
    >>> x = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    >>> truth = SimpleNamespace(gt_classes=torch.zeros(2, dtype=torch.int64))
    >>> fit = fit_baseline([DBSCAN(9.0, 1), DBSCAN(0.2, 1)], [x], [truth],
    ...                    lambda found, truth: -abs(len(found[0].score) - len(truth[0].gt_classes)))
    >>> fit.clusterer, fit.metrics
    (DBSCAN(eps=0.2, min_samples=1), (-1.0, 0.0))
    """
    if len(clouds) == 0 or len(clouds) != len(targets):
        raise ValueError(f"expected as many targets as clouds and at least one, got {len(targets)} and {len(clouds)}")
    for i, target in enumerate(targets):
        if bool((target.gt_classes != 0).any()):
            raise ValueError(
                f"expected class 0 only, as clusters of positions have no class, got classes "
                f"{target.gt_classes.unique().tolist()} in target {i}: make the data class-agnostic, for "
                "example with PartNetInstances(..., class_agnostic=True)"
            )
    metrics = (metric([clusterer(x) for x in clouds], targets) for clusterer in progress(grid))
    return BaselineFit(*best_of(grid, metrics, "clusterer"))


def _points(positions: Tensor) -> Array:
    """The positions for scikit-learn, in float64, in which its trees compute."""
    if positions.ndim != 2 or positions.shape[1] == 0 or not positions.is_floating_point():
        raise ValueError(f"expected positions (N, D) of floats, got {tuple(positions.shape)} {positions.dtype}")
    finite = positions.isfinite().all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ValueError(f"expected finite positions, got {positions[row].tolist()} at point {row}")
    x: Array = positions.detach().to("cpu", torch.float64).numpy()
    return x


def _clusters(raw: Array, positions: Tensor) -> Clusters:
    """Scored clusters from labels where negative ones are none and numbers may be missing."""
    label = torch.from_numpy(raw.astype(np.int64))
    member = label >= 0
    _, row, count = label[member].unique(return_inverse=True, return_counts=True)
    label = torch.full_like(label, -1).masked_scatter(member, row)
    score = count.to(torch.float32) / max(len(label), 1)
    device = positions.device
    return Clusters(label.to(device), torch.zeros_like(count).to(device), score.to(device))
