"""How long a training may take, told beforehand."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_TIMED = 3  # steps


def told_duration(seconds: float) -> str:
    """In the unit that people think in.

    >>> told_duration(90), told_duration(3 * 3600), told_duration(5.6 * 86400)
    ('1.5 min', '3.0 h', '5.6 days')
    """
    return next(
        f"{seconds / unit:.1f} {name}"
        for unit, name, upto in ((60, "min", 7_200), (3_600, "h", 172_800), (86_400, "days", float("inf")))
        if seconds < upto
    )


def seconds_a_step(
    network: nn.Module,
    batch: Callable[[], Any],
    losses: Callable[[nn.Module, Any], Mapping[str, Tensor]],
    device: torch.device,
) -> float:
    """Of a copy of the network, the fastest of some, reading included; the training is the same with it and without."""
    twin = copy.deepcopy(network).to(device).train()
    seconds = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(_TIMED):
            start = time.perf_counter()
            losses(twin, batch().to(device))["loss"].backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    return min(seconds)
