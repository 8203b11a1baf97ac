"""Greedy clustering on a device beside the plain loop of Eq. 11 on the same device; labels are compared."""

from __future__ import annotations

from typing import NamedTuple

import torch
from gpu_clock import Peer, table, timed
from harness import Results
from problems import blobs, plain_loop
from torch import Tensor

from probemb_lib import GaussianEmbedding, greedy_cluster

PLAIN_POINTS = 200_000  # the plain loop takes seconds above


class Size(NamedTuple):
    clouds: int
    points: int  # of a cloud
    instances: int  # of a cloud


def batch_of(size: Size, device: torch.device) -> tuple[GaussianEmbedding, Tensor, Tensor]:
    """The same blobs in every cloud, each in an order of its own."""
    embedding, score = blobs(size.points, size.instances)
    orders = [torch.randperm(size.points, generator=torch.Generator().manual_seed(b)) for b in range(size.clouds)]
    rows = torch.cat(orders)
    batch = torch.arange(size.clouds).repeat_interleave(size.points)
    return embedding.select(rows).to(device), score[rows].to(device), batch.to(device)


def measure(results: Results, size: Size, device: torch.device, rounds: int, seconds: float) -> None:
    embedding, score, batch = batch_of(size, device)
    probabilities = score[:, None]

    def ours() -> Tensor:
        return greedy_cluster(embedding, probabilities, batch=batch, background=None).label

    def plain() -> Tensor:
        labels = []
        for b in range(size.clouds):
            rows = slice(b * size.points, (b + 1) * size.points)
            labels.append(plain_loop(embedding.select(rows), score[rows]))
        return torch.stack(labels)

    peers: dict[str, Peer] = {"greedy_cluster": ours}
    if size.clouds * size.points <= PLAIN_POINTS:
        peers["plain loop of Eq. 11"] = plain
    times = timed(peers, rounds, device, seconds=seconds)
    there = greedy_cluster(embedding.to("cpu"), probabilities.cpu(), batch=batch.cpu(), background=None).label
    different = int((ours().cpu() != there).sum())
    name = f"{size.clouds} x {size.points:,} points, {size.instances:,} instances each"
    print(table(f"Clustering, {name}", times, list(peers)[-1]))
    print(f"labels that differ from the CPU's: {different}", flush=True)
    results.numbers[f"clustering_{size.clouds}_{size.points}_{size.instances}"] = {
        "times": times,
        "labels_other_than_cpu": different,
    }
