"""SoftGroup's run lengths and evaluator on what our converter writes."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from folders import folder_of
from in_torch import numpy_names_of_before

FOLDER = folder_of("SOFTGROUP", "thangvubk/SoftGroup") / "softgroup"
numpy_names_of_before()

from probemb_adapters.hosts.softgroup import instances_of
from probemb_lib import GaussianEmbedding, greedy_cluster
from probemb_lib.metrics import ScanNetAP


def load(name: str) -> Any:
    """One file of it: the package itself imports compiled operators."""
    for package in ("softgroup", "softgroup.util", "softgroup.evaluation"):
        if package not in sys.modules:
            sys.modules[package] = ModuleType(package)
            sys.modules[package].__path__ = [str(FOLDER.parent / package.replace(".", "/"))]
    return importlib.import_module(name)


def test_run_lengths_and_evaluator() -> None:
    rle = load("softgroup.util.rle")
    sys.modules["softgroup.util"].rle_decode = rle.rle_decode
    evaluator = load("softgroup.evaluation.instance_eval")
    torch.manual_seed(0)
    true = torch.arange(4).repeat_interleave(150)
    noisy = torch.where(torch.rand(600) < 0.1, torch.randint(4, (600,)), true)
    mean = 10.0 * noisy[:, None].float() + 0.1 * torch.randn(600, 3)
    logits = 8.0 * torch.nn.functional.one_hot(torch.tensor([0, 2, 2, 18])[noisy], 19) + torch.rand(600, 19)
    found = greedy_cluster(GaussianEmbedding(mean, torch.zeros(600, 1)), logits.softmax(1), min_points=100)
    results = instances_of(found, "scene0000_00")
    for k, result in enumerate(results):
        np.testing.assert_array_equal(rle.rle_decode(result["pred_mask"]), found.masks()[k].numpy())
    gt = torch.where(true > 0, torch.tensor([0, 2, 2, 18])[true] * 1000 + true + 1, 0)  # get_gt_instances: 1 … 18
    names = tuple(str(k) for k in range(1, 19))
    theirs = evaluator.ScanNetEval(names).evaluate([results], [gt.numpy()])
    ours = ScanNetAP(class_ids=range(1, 19))
    ours.update_labels(found.label, found.semantic, found.score, gt)
    ap = ours.compute()
    assert float(theirs["all_ap"]) == pytest.approx(float(ap["ap"]), abs=1e-9)
    assert float(theirs["all_ap_50%"]) == pytest.approx(float(ap["ap50"]), abs=1e-9)
    print(f"SoftGroup's ScanNetEval: AP {theirs['all_ap']:.3f}, and so by ScanNetAP")
