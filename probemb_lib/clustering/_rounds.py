"""The greedy loop of Eq. 11 for all clouds at once, on a GPU: many seeds a round, few read-backs to the host.

Only points of one cloud (and class, where these count) compare: such points are a *part*. Within a part the seeds are
the points that are similar (κ ≥ τ) to no seed before them in the order of scores, and each point belongs to the first
seed that it is similar to. So the first S open points of a part can be settled together: similarities among them, then
by a few steps of

    seed_j = no earlier similar i is undecided or a seed,    out_j = some earlier similar i is a seed

which settle at least one more candidate each. Candidates behind one that is still undecided wait for the next round;
seeds before it take their members.

That is the way in plain torch. On CUDA the kernels of ``probemb_lib._triton.greedy`` settle candidates one seed after
the other instead, all of them in one launch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from probemb_lib.clustering.inputs import log_threshold
from probemb_lib.twins import run_on, warn_once

MAX_TWIN_DIM = 8  # of the Triton kernels, which unroll D
MAX_TWIN_POINTS = 2**31 - 3
PAIRS = 1 << 22  # similarities computed at once: each temporary tensor takes 8 bytes a pair
MAX_CANDIDATES = 2048  # of a part in a round
STEPS = 12  # chains of similar candidates are rarely longer


def greedy_rounds(
    mean: Tensor,
    log_std: Tensor,
    score: Tensor,
    cloud: Tensor | None,
    group: Tensor | None,
    tau: float,
    min_score: float,
) -> tuple[Tensor, Tensor]:
    """Greedy clustering of n eligible points of any number of clouds, on any device.

    The host waits for the device R + 3 times. A round settles the first S open points of every part, so that
    R ≤ ⌈n_p / S⌉ for n_p points in the largest part, and never more than the number of instances of a part. In the
    kernels S is 1,024. In plain torch it is 2,048 for one part and 512 for 16, and where a chain of similar candidates
    is longer than ``STEPS`` it settles at least that many. Memory: O(n), and in plain torch some tensors of ``PAIRS``
    numbers (or, if larger, one for each part or each seed of a part).

    Args:
        mean, log_std: (n, D).
        score: (n,) best foreground score.
        cloud: (n,) points of two clouds never join; None: one cloud.
        group: (n,) numbers >= 0, points of two groups never join; None: all may.
        tau: threshold in (0, 1].
        min_score: no seed below it.

    Returns:
        label (n,), numbered by cloud and then by creation, −1 none; seeds (K,) in this order.
    """
    n = mean.shape[0]
    if n == 0:
        none = torch.zeros(0, dtype=torch.int64, device=mean.device)
        return none, none
    keys = [key for key in (group, cloud) if key is not None]
    order = score.argsort(descending=True, stable=True)
    for key in keys:
        order = order[key[order].argsort(stable=True)]
    part, ptr = _parts([key[order] for key in keys], n, score.device)
    could_seed = (score >= min_score)[order]
    log_tau = log_threshold(tau, mean.shape[1])
    if _has_twin(mean):
        from probemb_lib._triton.greedy import first_similar_seeds

        owner = first_similar_seeds(mean, log_std, order, part, ptr, could_seed, log_tau)
    else:
        owner = _Points(part, ptr, mean[order].double(), log_std[order].double().exp(), log_tau).cluster(could_seed)

    seed = order[(owner == torch.arange(n, device=owner.device)).nonzero().squeeze(1)]
    if group is not None:  # by cloud and score
        seed = seed.sort().values
        seed = seed[score[seed].argsort(descending=True, stable=True)]
        if cloud is not None:
            seed = seed[cloud[seed].argsort(stable=True)]
    number = torch.full((n + 1,), -1, dtype=torch.int64, device=owner.device)
    number[seed] = torch.arange(seed.numel(), device=owner.device)
    label = torch.empty_like(order)
    label[order] = number[pad(order, (0, 1), value=n)[owner]]
    return label, seed


def _has_twin(mean: Tensor) -> bool:
    if not mean.is_cuda or torch.compiler.is_compiling():
        return False
    n, dim = mean.shape
    if dim > MAX_TWIN_DIM:
        warn_once(f"those of greedy_cluster expect at most {MAX_TWIN_DIM} dimensions of the embedding, got {dim}")
        return False
    if n > MAX_TWIN_POINTS:
        warn_once(f"those of greedy_cluster expect at most {MAX_TWIN_POINTS} points, got {n}")
        return False
    return run_on(mean.device)


def _parts(keys: list[Tensor], n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The part of each point, and where the parts begin, n at the end; points with equal keys lie together."""
    if not keys:
        return torch.zeros(n, dtype=torch.int64, device=device), torch.arange(2, device=device) * n
    first = torch.ones(n, dtype=torch.bool, device=device)
    first[1:] = torch.stack([key[1:] != key[:-1] for key in keys]).any(0)
    return first.cumsum(0) - 1, pad(first.nonzero().squeeze(1), (0, 1), value=n)


class _Points:
    """Points by part, score and row, and the rounds. Row n stands for none."""

    def __init__(self, part: Tensor, ptr: Tensor, mean: Tensor, std: Tensor, log_tau: float) -> None:
        self.part, self.ptr, self.mean, self.std, self.log_tau = part, ptr, mean, std, log_tau
        self.n, self.parts = len(part), len(ptr) - 1
        self.every_part = torch.arange(self.parts, device=part.device)

    def cluster(self, could_seed: Tensor) -> Tensor:
        """The seed of each point (n,), n for none."""
        largest = int(self.ptr.diff().max())
        count = max(1, min(MAX_CANDIDATES, largest, math.isqrt(PAIRS // self.parts)))
        owner = torch.full((self.n + 1,), self.n, dtype=torch.int64, device=self.part.device)
        left = torch.arange(self.n, device=self.part.device)
        while True:
            is_open = owner[left] == self.n
            candidate = self._first(left, is_open & could_seed[left], count)  # (P, S)
            is_seed = self._settle(candidate)
            seeds, open_points = torch.stack([is_seed.sum(1).max(), is_open.sum()]).tolist()  # the read-back of a round
            if seeds == 0:
                return owner[: self.n]
            left = _pack(left, torch.where(is_open, is_open.cumsum(0) - 1, open_points), open_points)
            column = torch.where(is_seed, is_seed.cumsum(1) - 1, seeds)
            seed = torch.full((self.parts, seeds + 1), self.n, dtype=torch.int64, device=left.device)
            seed = seed.scatter(1, column, torch.where(is_seed, candidate, self.n))[:, :seeds]
            step = max(1, PAIRS // seeds)
            for some in left.split(step):
                owner[some] = self._first_similar(some, seed)
            owner[seed] = seed  # κ = 1, but on no device may rounding make this loop endless
            owner[self.n] = self.n

    def _first(self, left: Tensor, chosen: Tensor, count: int) -> Tensor:
        """The first ``count`` chosen of each part (P, S), n where there are fewer."""
        before = torch.cat([chosen.new_zeros(1, dtype=torch.int64), chosen.cumsum(0)])
        part = self.part[left]
        column = before[:-1] - before[torch.searchsorted(part, self.every_part)][part]
        slots = self.parts * count
        slot = torch.where(chosen & (column < count), part * count + column, slots)
        return _pack(left, slot, slots, fill=self.n).view(self.parts, count)

    def _settle(self, candidate: Tensor) -> Tensor:
        """Which candidates are seeds, up to the first of their part that is not decided yet; (P, S)."""
        valid = candidate < self.n
        earlier = self._similar(candidate[:, :, None], candidate[:, None, :]).tril(-1)
        earlier &= valid[:, None, :]
        out = ~valid
        seed = torch.zeros_like(valid)
        for _ in range(STEPS):
            seed = ~(out | (earlier & ~out[:, None, :]).any(2))
            out = ~valid | (earlier & seed[:, None, :]).any(2)
        undecided = ~(seed | out)
        return seed & (undecided.cumsum(1) == 0)

    def _first_similar(self, rows: Tensor, seed: Tensor) -> Tensor:
        """The first similar seed of each row's part, n for none; seed (P, A)."""
        own = seed if self.parts == 1 else seed[self.part[rows]]  # (1, A) or (m, A)
        similar = self._similar(rows[:, None], own) & (own < self.n)
        first = torch.where(similar, torch.arange(seed.shape[1], device=seed.device), seed.shape[1]).amin(1)
        return pad(own, (0, 1), value=self.n).expand(len(rows), -1).gather(1, first[:, None]).squeeze(1)

    def _similar(self, i: Tensor, j: Tensor) -> Tensor:
        """κ ≥ τ of two rows, of shapes that broadcast."""
        i, j = i.clamp_max(self.n - 1), j.clamp_max(self.n - 1)
        distance: Tensor | float = 0.0
        ratio: Tensor | float = 1.0
        for x, std in zip(self.mean.unbind(1), self.std.unbind(1), strict=True):
            s, c = std[i], std[j]
            variance = s * s + c * c
            distance = distance + (x[i] - x[j]).square() / variance
            ratio = (2 * c) * s / variance * ratio
        return 0.5 * torch.log(torch.as_tensor(ratio)) - 0.25 * distance >= self.log_tau


def _pack(values: Tensor, slot: Tensor, slots: int, fill: int = 0) -> Tensor:
    """Values by slot (slots,); those of the slot behind the last are dropped. No mask, as its size is unknown."""
    return values.new_full((slots + 1,), fill).scatter(0, slot, values)[:slots]
