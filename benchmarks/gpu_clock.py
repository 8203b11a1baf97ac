"""Time on a device, and what the device could do at best."""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Peer = Callable[[], object]
Seconds = dict[str, float]
"""Of a peer: ``median_s``, ``min_s`` and ``rounds``; ``peak_bytes`` above what was allocated before, on a GPU."""

SPECIAL_FUNCTIONS_A_CLOCK = 16  # on one multiprocessor, compute capability 8.0 and 9.0


def timed(
    peers: Mapping[str, Peer], rounds: int, device: torch.device, *, seconds: float = math.inf
) -> dict[str, Seconds | None]:
    """Call the peers in turn, by CUDA events on a GPU; None where memory does not suffice.

    The first calls compile and warm up, and are not counted; no new round begins after so many seconds.
    """
    times: dict[str, list[float] | None] = {}
    peak: dict[str, int] = {}
    for name, call in peers.items():
        try:
            call()
            peak[name] = _peak(call, device)
            times[name] = []
        except torch.OutOfMemoryError:
            times[name] = None
        if device.type == "cuda":
            torch.cuda.empty_cache()
    stop = time.perf_counter() + seconds
    for _ in range(rounds):
        for name, call in peers.items():
            taken = times[name]
            if taken is not None:
                taken.append(clocked(call, device))
        if time.perf_counter() > stop:
            break
    return {
        name: None
        if taken is None
        else {
            "median_s": statistics.median(taken),
            "min_s": min(taken),
            "rounds": len(taken),
            "peak_bytes": peak[name],
        }
        for name, taken in times.items()
    }


def clocked(call: Peer, device: torch.device) -> float:
    """Seconds of one call, on the device's own clock where it has one."""
    if device.type != "cuda":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def _peak(call: Peer, device: torch.device) -> int:
    """Most bytes that a second call allocates above what was there before."""
    if device.type != "cuda":
        call()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def highest_clock(device: torch.device) -> float | None:
    """Hertz of the multiprocessors at most, as the driver reports it; None where it does not."""
    if device.type != "cuda":
        return None
    kilohertz = getattr(torch.cuda.get_device_properties(device), "clock_rate", None)
    if kilohertz:
        return 1e3 * float(kilohertz)
    query = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
        return 1e6 * float(answer.splitlines()[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def special_function_limit(results: int, device: torch.device) -> float | None:
    """Seconds that the special-function units need for so many results, where the clock is known."""
    clock = highest_clock(device)
    if clock is None:
        return None
    properties: Any = torch.cuda.get_device_properties(device)
    return results / (SPECIAL_FUNCTIONS_A_CLOCK * properties.multi_processor_count * clock)


def table(title: str, times: Mapping[str, Seconds | None], baseline: str, least: float | None = None) -> str:
    """Peers below each other: median, least, ratio to the baseline, share of the limit, peak memory."""
    base = times[baseline]
    lines = [f"\n{title}", f"{'':36}{'median ms':>12}{'min ms':>12}{'times faster':>14}{'of the limit':>14}{'MB':>8}"]
    for name, row in times.items():
        if row is None:
            lines.append(f"{name:36}{'out of memory':>14}")
            continue
        faster = f"{base['median_s'] / row['median_s']:.1f}" if base else ""
        share = f"{100 * least / row['median_s']:.0f} %" if least else ""
        megabytes = f"{row['peak_bytes'] / 1e6:.0f}"
        lines.append(
            f"{name:36}{1e3 * row['median_s']:12.3f}{1e3 * row['min_s']:12.3f}{faster:>14}{share:>14}{megabytes:>8}"
        )
    return "\n".join(lines)
