"""Losses and groupings of competing methods beside ours, at the same sizes.

Heads with one hidden layer learn, for some steps on a small cloud, from features that know where the point's instance
has its centre and which it is; what they then give is what is timed: each loss forward and backward from the head's
outputs, each grouping, and each head forward, as part of ASIS is in its head.

    python benchmarks/methods.py              some minutes
    python benchmarks/methods.py --quick      small, for CI
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness import Results, Table, run_alone, timed

# isort: split
import torch
from torch import Tensor

from probemb_adapters.experiments.competitors import COMPETITORS, OURS, AnyMethod
from probemb_lib import InstanceIndex, index_instances

CLASSES = 4  # without the background
HIDDEN = (64,)
MIN_POINTS = 5
LEARN = (1, 1_000, 10)  # clouds, points, instances
ENOUGH_S = 60.0  # of one table


class Problem(NamedTuple):
    """Clouds of balls, a tenth of the points background."""

    features: Tensor  # (N, 16)
    positions: Tensor  # (N, 3)
    index: InstanceIndex
    semantic: Tensor  # (N,)
    batch: Tensor  # (N,)


def draw(clouds: int, points: int, instances: int) -> Problem:
    """Clouds of so many points and instances."""
    g = torch.Generator().manual_seed(0)
    n = clouds * points
    batch = torch.arange(clouds).repeat_interleave(points)
    of = torch.randint(0, instances, (n,), generator=g)
    row = batch * instances + of
    center = 2 * torch.rand(clouds * instances, 3, generator=g) - 1
    radius = 0.5 / instances ** (1 / 3)
    ball = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
    offset = radius * torch.rand(n, 1, generator=g) ** (1 / 3) * ball
    background = torch.rand(n, generator=g) < 0.1
    semantic = torch.where(background, 0, 1 + of % CLASSES)
    code = torch.randn(clouds * instances, 8, generator=g)[row]
    classes = torch.nn.functional.one_hot(semantic, CLASSES + 1).float()
    features = torch.cat([-offset, classes, code], dim=1)
    features += 0.1 * torch.randn(features.shape, generator=g)
    index = index_instances(torch.where(background, -1, of), batch)
    return Problem(features, center[row] + offset, index, semantic, batch)


def learned(name: str, x: Problem, steps: int) -> AnyMethod:
    """The method with a head that has learned for some steps."""
    torch.manual_seed(0)
    method = COMPETITORS[name].make(x.features.shape[1], CLASSES + 1, hidden=HIDDEN)
    if hasattr(method, "min_points"):
        method.min_points = MIN_POINTS
    optimizer = torch.optim.Adam(method.head.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        method.loss(method.head(x.features, x.positions, x.batch), x.index, x.semantic)["loss"].backward()
        optimizer.step()
    method.head.eval()
    return method


def leaves(output: Any) -> Any:
    """The same tuple of tensors, or tuple of tuples, cut from the network, with gradients of its own."""
    if isinstance(output, Tensor):
        return output.detach().requires_grad_(output.is_floating_point())
    return type(output)(*map(leaves, output))


def compare(methods: Mapping[str, AnyMethod], clouds: int, points: int, instances: int, rounds: int) -> list[Table]:
    x = draw(clouds, points, instances)
    outputs = {name: leaves(method.head(x.features, x.positions, x.batch)) for name, method in methods.items()}

    def loss(name: str) -> Callable[[], object]:
        return lambda: methods[name].loss(outputs[name], x.index, x.semantic)["loss"].backward()

    def group(name: str) -> Callable[[], object]:
        return lambda: methods[name].group(outputs[name], x.batch)

    def head(name: str) -> Callable[[], object]:
        return torch.no_grad()(lambda: methods[name].head(x.features, x.positions, x.batch))

    found = {name: len(method.group(outputs[name], x.batch)) for name, method in methods.items()}
    size = f"{clouds} x {points:,} points, {instances} instances each"
    note = f"instances found, of {clouds * instances}: " + ", ".join(f"{name} {n}" for name, n in found.items())
    tables = []
    for title, of, said in (("Losses, forward + backward", loss, ""), ("Groupings", group, note), ("Heads", head, "")):
        rows = timed({name: of(name) for name in methods}, rounds, seconds=ENOUGH_S)
        tables.append(Table(f"{title}, {size}", rows, OURS, OURS, note=said))
    return tables


def benchmark(quick: bool) -> Results:
    sizes = [(1, 1_000, 8)] if quick else [(4, 2_048, 10), (1, 10_000, 20)]
    methods = {name: learned(name, draw(*LEARN), steps=4 if quick else 150) for name in COMPETITORS}
    results = Results()
    for size in sizes:
        for table in compare(methods, *size, rounds=1 if quick else 3):
            results.add(table)
    return results


if __name__ == "__main__":
    run_alone("methods", __doc__, benchmark)
