"""torch-points3d's labels and results: set_extra_labels in, PanopticResults out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from folders import folder_of

FOLDER = folder_of("TORCH_POINTS3D", "torch-points3d/torch-points3d") / "torch_points3d"

from probemb_adapters.hosts.torch_points3d import labels_of, results_of
from probemb_lib import GaussianEmbedding, HeadOutput, greedy_cluster
from probemb_lib.labels import TORCH_POINTS3D, for_s3dis


def file_of(path: Path) -> Any:
    """One file of it: the package itself imports what no longer builds."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_labels_and_results() -> None:
    utils = file_of(FOLDER / "datasets/panoptic/utils.py")
    structures = file_of(FOLDER / "models/panoptic/structures.py")
    part = torch.arange(400) // 200
    data = SimpleNamespace(pos=torch.rand(400, 3) + 5.0 * part[:, None], y=part * 7, instance_labels=part + 3)
    data = utils.set_extra_labels(data, range(13), 64)  # S3DIS: all classes
    instance, semantic = labels_of(data, for_s3dis(TORCH_POINTS3D))
    assert instance.tolist() == (part + 1).tolist()
    assert semantic.tolist() == (part * 7 + 1).tolist()
    logits = 9.0 * torch.nn.functional.one_hot(semantic, 14).float()
    output = HeadOutput(GaussianEmbedding(5.0 * part[:, None].expand(-1, 3).float(), torch.zeros(400, 1)), logits)
    found = greedy_cluster(output.embedding, output.probabilities)
    results = structures.PanopticResults(*results_of(output, found, data.pos, for_s3dis(TORCH_POINTS3D)))
    assert results._fields == results_of(output, found, data.pos, for_s3dis(TORCH_POINTS3D))._fields
    kept = results.get_instances(min_cluster_points=1)
    assert sorted(kept) == [0, 1]
    assert results.semantic_logits.argmax(1).tolist() == data.y.tolist()
    print("torch-points3d: two instances in, two kept by PanopticResults.get_instances")
