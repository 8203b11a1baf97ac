"""The public functions on tensors of a pretended CUDA device: results there, values of the CPU, and no two devices in
one operation. What the host waits for is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gpu_clustering import Size, batch_of
from pretend_cuda import OnCuda, PretendedCuda, pretended_cuda
from problems import plain_loop
from torch import Tensor

from probemb_lib import (
    DenseHead,
    DeterministicHead,
    GaussianEmbedding,
    HeadOutput,
    InstanceBCELoss,
    LearnableMarginHead,
    LearnableMarginLoss,
    LogDiceLoss,
    ProbabilisticEmbeddingLoss,
    ProbabilisticHead,
    ScoreCrossEntropyLoss,
    SeedMSELoss,
    aggregate_instances,
    check_batch,
    cluster_tiles,
    dense_targets,
    greedy_cluster,
    index_instances,
    label_image,
    log_bhattacharyya,
    margin_cluster,
    object_csv,
    suggest_settings,
    window_predictor,
)
from probemb_lib.convert import grid_positions, lengths_from_batch, pack_list, unpack_list
from probemb_lib.labels import labels_from_masks
from probemb_lib.metrics import PartNetAP, ScanNetAP

Call = Callable[[str], Any]
CUDA = "cuda"


@pytest.fixture(autouse=True)
def cuda() -> Iterator[PretendedCuda]:
    with pretended_cuda() as mode:
        yield mode


def values(x: Any, device: str) -> list[Any]:
    """Numbers of all tensors in a result, which must be on the device; derivatives first where it has them."""
    if isinstance(x, Tensor):
        assert x.device.type == device
        return [x.detach().cpu().numpy()]
    if isinstance(x, dict):
        x = list(x.values())
    if hasattr(x, "__dataclass_fields__"):
        x = [getattr(x, name) for name in x.__dataclass_fields__]
    return [v for part in x for v in values(part, device)] if isinstance(x, (list, tuple)) else [x]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


N = 120
POSITIONS, FEATURES = drawn(N, 3), drawn(N, 8, seed=1)
INSTANCE = torch.arange(N) % 7 - 1
SEMANTIC, BATCH = 1 + INSTANCE.clamp_min(0) % 3, torch.arange(N) % 2
EMBEDDING = GaussianEmbedding(drawn(7, 3, seed=2)[INSTANCE], 0.1 * drawn(N, 3, seed=3) - 1.5)
PROBABILITIES = drawn(N, 4, seed=4).softmax(1)


def training(make_head: Callable[[], Any], loss: Any, with_batch: bool = True) -> Call:
    """Losses and the derivatives of the head's parameters."""

    def call(device: str) -> Any:
        torch.manual_seed(0)
        head = make_head().to(device)
        output = head(FEATURES.to(device), POSITIONS.to(device), BATCH.to(device))
        labels = (INSTANCE.to(device), SEMANTIC.to(device), BATCH.to(device))
        if isinstance(loss, (LogDiceLoss, InstanceBCELoss)):
            terms = {"loss": loss(output.embedding, labels[0], labels[2])}
        else:
            terms = loss(output, *labels)
            terms = {"loss": terms} if isinstance(terms, Tensor) else terms
        terms["loss"].backward()
        return terms, [p.grad for p in head.parameters() if p.grad is not None]

    return call


def probabilistic() -> ProbabilisticHead:
    return ProbabilisticHead(8, 4, hidden=(16,))


def homoscedastic() -> ProbabilisticHead:
    return ProbabilisticHead(8, 4, hidden=(16,), heteroscedastic=False, anisotropic=False)


def clustered(**options: Any) -> Call:
    def call(device: str) -> Any:
        batch = BATCH.to(device)
        found = greedy_cluster(EMBEDDING.to(device), PROBABILITIES.to(device), batch=batch, **options)
        return found, found.masks(), found.semantic_map(), found.uncertainty(EMBEDDING.to(device)), found.split()

    return call


def by_margins(device: str) -> Any:
    embedding, seeds = EMBEDDING.to(device), PROBABILITIES.to(device)
    found = margin_cluster(embedding, seeds, batch=BATCH.to(device), foreground=0.2, min_score=0.2, min_points=2)
    return found, found.masks(), found.keep(found.size > 2), found.split()


def in_tiles(device: str) -> Any:
    positions, embedding, scores = POSITIONS.to(device), EMBEDDING.to(device), PROBABILITIES.to(device)
    return cluster_tiles(
        positions, lambda rows: (embedding.select(rows), scores[rows]), tile_size=4, overlap=0.5, refine=True, join=0.1
    )


def of_images(device: str) -> Any:
    torch.manual_seed(0)
    head = DenseHead.probabilistic(3, 2, offset_scale=3.0).eval().to(device)
    features = drawn(1, 3, 6, 8).to(device)
    output = head(features)
    labels = (torch.arange(48).view(1, 6, 8) // 12).to(device)
    targets = dense_targets(labels, output.shape)
    found = greedy_cluster(output.embedding, output.probabilities, batch=output.batch, background=None)
    predict = window_predictor(features, head, multiple_of=4)
    tiled = cluster_tiles(
        grid_positions((6, 8), device=device), predict, tile_size=4, overlap=1, axes=(0, 1), background=None
    )
    table = object_csv(found, output.shape)
    return targets, label_image(found, output.shape), tiled, table, labels_from_masks(labels[0, None] == 1)


def evaluated(device: str) -> Any:
    """Metrics are numbers wherever labels were."""
    found = greedy_cluster(EMBEDDING.to(device), PROBABILITIES.to(device))
    part_net, scan_net = PartNetAP(num_classes=3), ScanNetAP((1, 2, 3))
    truth = INSTANCE.to(device)
    classes = torch.arange(6).to(device) % 3
    part_net.update(found.masks(), found.semantic - 1, found.score, truth, classes)
    encoded = torch.where(truth >= 0, 1000 * SEMANTIC.to(device) + truth + 1, 0)
    scan_net.update(found.masks(), found.semantic, found.score, encoded)
    return [float(part_net.part_map()[0]), float(scan_net.compute()["ap25"])]


def converted(device: str) -> Any:
    packed, batch = pack_list([POSITIONS[:50].to(device), POSITIONS[50:].to(device)])
    return packed, unpack_list(packed, batch), lengths_from_batch(batch)


def looked_at(device: str) -> Any:
    """Checks of a batch and settings from it are numbers and text."""
    problems = check_batch(POSITIONS.to(device), INSTANCE.to(device), SEMANTIC.to(device), BATCH.to(device))
    settings = suggest_settings(POSITIONS.to(device), INSTANCE.to(device), BATCH.to(device))
    return [str(problems), *settings]


CALLS: dict[str, Call] = {
    "objective": training(probabilistic, ProbabilisticEmbeddingLoss()),
    "per instance": training(probabilistic, ProbabilisticEmbeddingLoss(per_instance_dice=True)),
    "homoscedastic, MSE": training(homoscedastic, ProbabilisticEmbeddingLoss(SeedMSELoss())),
    "deterministic": training(lambda: DeterministicHead(8, 4, 6, hidden=()), ScoreCrossEntropyLoss()),
    "Dice": training(probabilistic, LogDiceLoss(covariance="independent")),
    "BCE": training(probabilistic, InstanceBCELoss()),
    "margins": training(lambda: LearnableMarginHead(8, 4, hidden=(16,)), LearnableMarginLoss()),
    "aggregation": lambda device: aggregate_instances(EMBEDDING.to(device), INSTANCE.to(device), BATCH.to(device)),
    "similarity": lambda device: log_bhattacharyya(EMBEDDING.to(device), EMBEDDING.to(device)),
    "clustering": clustered(),
    "clustering by class, refined": clustered(class_aware=True, refine=True, min_points=3, min_score=0.3),
    "clustering, parts of one joined": clustered(refine=True, join=0.1),
    "clustering by margins": by_margins,
    "tiles": in_tiles,
    "images": of_images,
    "metrics": evaluated,
    "conversions": converted,
    "checks": looked_at,
    "benchmark's plain loop": lambda device: plain_loop(EMBEDDING.to(device), PROBABILITIES[:, 1].to(device)),
    "benchmark's blobs": lambda device: batch_of(Size(2, 30, 3), torch.device(device)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore:the Triton kernels do not run here")
def test_results_are_there_and_those_of_the_cpu(name: str) -> None:
    there, here = (values(CALLS[name](device), device) for device in (CUDA, "cpu"))
    assert len(there) == len(here) > 0
    for a, b in zip(there, here, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        else:
            assert a == pytest.approx(b, nan_ok=True) if isinstance(a, float) else a == b


@pytest.mark.filterwarnings("ignore:the Triton kernels do not run here")
def test_waits(cuda: PretendedCuda) -> None:
    """One for the index; the losses, given one, check the classes, and in plain torch read the sizes of clouds and
    instances, for which the kernels do not ask."""
    embedding, logits = EMBEDDING.to(CUDA), PROBABILITIES.to(CUDA)
    labels = [t.to(CUDA) for t in (INSTANCE, SEMANTIC, BATCH)]
    cuda.waits.clear()
    index = index_instances(labels[0], labels[2])
    assert cuda.waits == Counter(
        {"copy to the CPU": 2}
    )  # the batch is unsorted: its first and last cloud are asked for
    assert isinstance(index.member, OnCuda)
    cuda.waits.clear()
    index_instances(labels[0], labels[2].sort().values)
    assert cuda.waits == Counter({"copy to the CPU": 1})
    cuda.waits.clear()
    ProbabilisticEmbeddingLoss()(HeadOutput(embedding, logits), index, labels[1])
    assert cuda.waits == Counter({"copy to the CPU": 3})


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.cat([x, torch.ones(1)]),
        lambda x: torch.stack([x[0], torch.ones(())]),
        lambda x: torch.ones(3)[x.long()],
        lambda x: torch.ones(3).add_(x),
        lambda x: torch.rand(3, device=CUDA, generator=torch.Generator()),
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
    ],
)
def test_what_cuda_refuses(call: Callable[[Tensor], Any]) -> None:
    with pytest.raises((RuntimeError, TypeError), match=r"one device|generator|numpy"):
        call(torch.zeros(3, device=CUDA))


def test_what_cuda_takes(cuda: PretendedCuda) -> None:
    x = torch.tensor([1.0, 2.0, 3.0], device=CUDA)
    assert (x * torch.tensor(2.0)).tolist() == [2.0, 4.0, 6.0]
    assert x[torch.tensor([2, 0])].tolist() == [3.0, 1.0]
    x[1:] = torch.tensor([5.0, 6.0])
    assert x.tolist() == [1.0, 5.0, 6.0]
    assert cuda.waits["copy to the CPU"] == 3
