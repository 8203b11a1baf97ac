"""SoftGroup, Mask3D, torch-points3d: what their loaders give becomes labels, what is found becomes their results."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from probemb_adapters.hosts import mask3d, softgroup, torch_points3d
from probemb_lib import GaussianEmbedding, HeadOutput, Instances, greedy_cluster
from probemb_lib.labels import SOFTGROUP, TORCH_POINTS3D, for_s3dis, for_scannet


def output_of(columns: int = 19) -> HeadOutput:
    """Nine points: two of nothing, four of column 2, three of column 18, each group far from the others."""
    group = torch.tensor([0, 1, 1, 2, 2, 1, 0, 2, 1])
    mean = 10.0 * group[:, None].float().expand(-1, 3)
    logits = 9.0 * torch.nn.functional.one_hot(torch.tensor([0, 2, 18])[group], columns).float()
    return HeadOutput(GaussianEmbedding(mean, torch.zeros(9, 1)), logits)


def found_in(output: HeadOutput) -> Instances:
    found = greedy_cluster(output.embedding, output.probabilities, min_score=0.5)
    assert sorted(found.semantic.tolist()) == [2, 18]
    return found


def test_softgroup() -> None:
    """The keys and types of its collate_fn: int32 clouds, int64 labels with −100, float32 positions."""
    batch = {
        "coords_float": torch.rand(4, 3),
        "instance_labels": torch.tensor([-100, 0, 1, -100]),
        "semantic_labels": torch.tensor([0, 2, 19, -100]),
        "batch_idxs": torch.tensor([0, 0, 1, 1], dtype=torch.int32),
        "v2p_map": torch.tensor([1, 1, 0, 2], dtype=torch.int32),
    }
    points = softgroup.points_of(batch)
    assert points.instance.tolist() == [-1, 0, 1, -1]
    assert points.semantic.tolist() == [0, 1, 18, -100]
    assert points.batch.dtype == torch.int64
    of_s3dis = batch | {"semantic_labels": torch.tensor([0, 1, 12, -100])}
    assert softgroup.points_of(of_s3dis, for_s3dis(SOFTGROUP)).semantic.tolist() == [1, 2, 13, -100]
    assert softgroup.features_of_points(torch.arange(3.0)[:, None], batch).flatten().tolist() == [1, 1, 0, 2]


def decoded(runs: dict[str, object]) -> list[int]:
    """As softgroup/util/rle.py says: pairs of a start, counted from 1, and a length."""
    numbers = [int(n) for n in str(runs["counts"]).split()]
    inside: set[int] = set()
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        inside |= set(range(start - 1, start - 1 + length))
    return [int(p in inside) for p in range(int(str(runs["length"])))]


def test_softgroup_results() -> None:
    found = found_in(output_of())
    for k, result in enumerate(softgroup.instances_of(found, "scan")):
        assert set(result) == {"scan_id", "label_id", "conf", "pred_mask"}
        assert result["label_id"] == int(found.semantic[k])  # 1 … 18 have instances, as there
        assert decoded(result["pred_mask"]) == found.masks()[k].long().tolist()
    assert softgroup.run_lengths(np.zeros(3, dtype=bool)) == {"length": 3, "counts": ""}


def test_mask3d() -> None:
    targets = [
        {"labels": torch.tensor([0, 17]), "masks": torch.tensor([[1, 0, 0], [0, 1, 0]]).bool()},
        {"labels": torch.tensor([3]), "masks": torch.tensor([[1, 1]]).bool()},
    ]
    instance, semantic, batch = mask3d.labels_of(targets, [3, 2])
    assert instance.tolist() == [0, 1, -1, 0, 0]
    assert semantic.tolist() == [1, 18, 0, 4, 4]
    assert batch.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"expected masks of \[3, 3\] points, one target a scene, got \[3, 2\]"):
        mask3d.labels_of(targets, [3, 3])
    found = found_in(output_of())
    results = mask3d.predictions_of(found)
    assert results["pred_masks"].shape == (9, 2)
    np.testing.assert_array_equal(results["pred_masks"].T, found.masks().numpy())
    assert sorted(results["pred_classes"].tolist()) == [3, 19]  # of 0 … 19: column − 1, and its offset of 2
    assert mask3d.predictions_of(found, label_offset=0)["pred_classes"].tolist() == (found.semantic - 1).tolist()


def test_torch_points3d() -> None:
    data = SimpleNamespace(instance_labels=torch.tensor([0, 1, 2]), y=torch.tensor([-1, 2, 0]))
    instance, semantic = torch_points3d.labels_of(data, for_scannet(TORCH_POINTS3D))
    assert instance.tolist() == [-1, 1, -1]
    assert semantic.tolist() == [-100, 1, 0]
    assert torch_points3d.labels_of(data)[1].tolist() == [-100, 2, 0]
    output, positions = output_of(), torch.zeros(9, 3)
    found = found_in(output)
    results = torch_points3d.results_of(output, found, positions, for_scannet(TORCH_POINTS3D))
    assert results.semantic_logits.shape == (9, 20)
    torch.testing.assert_close(results.semantic_logits[:, :2], output.logits[:, [0, 0]])  # wall and floor share it
    torch.testing.assert_close(results.semantic_logits[:, 2:], output.logits[:, 1:])
    torch.testing.assert_close(results.offset_logits, output.embedding.mean)
    assert len(results.clusters) == len(found) == 2
    for k, cluster in enumerate(results.clusters):
        assert cluster.tolist() == found.masks()[k].nonzero().squeeze(1).tolist()
