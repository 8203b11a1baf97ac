"""Pointcept itself on the CPU: its transforms, backbones, registry, configurations and evaluator with our model."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric  # noqa: F401  # before the stand-ins, which it would take for the packages
from folders import folder_of
from in_torch import numpy_names_of_before, put_in_place, spconv_in_torch, torchvision_without_its_operators
from paths import PROJECT
from pointcept_batch import pointcept_batch

POINTCEPT = folder_of("POINTCEPT", "Pointcept/Pointcept")
spconv_in_torch()
torchvision_without_its_operators()
MISSING = ("torch_scatter", "torch_cluster", "pointops", "transformers", "peft", "flash_attn", "open3d", "cv2", "wandb")
put_in_place(MISSING)
numpy_names_of_before()

from pointcept.datasets.transform import Compose
from pointcept.datasets.utils import collate_fn
from pointcept.engines.hooks.evaluator import InsSegEvaluator
from pointcept.models import build_model
from pointcept.utils.config import Config

from probemb_lib.metrics import ScanNetAP

SMALL = {
    "SpUNet-v1m1": {"channels": (16, 16, 16, 16, 16, 16, 24, 24), "layers": (1,) * 8},
    "PT-v3m1": {
        "enc_depths": (1,) * 5,
        "dec_depths": (1,) * 4,
        "enc_channels": (16, 16, 32, 32, 32),
        "dec_channels": (24, 16, 32, 32),
        "enc_num_head": (2,) * 5,
        "dec_num_head": (2,) * 4,
        "enc_patch_size": (64,) * 5,
        "dec_patch_size": (64,) * 4,
        "enable_flash": False,
    },
}


def config_of(name: str, tmp_path: Path) -> Any:
    """The configuration file beside those of Pointcept that it builds on, with a small backbone."""
    for folder in ("_base_", "scannet", "s3dis"):
        (tmp_path / folder).symlink_to(POINTCEPT / "configs" / folder)
    (tmp_path / "probemb").mkdir()
    file = shutil.copy(PROJECT / "examples/hosts/pointcept" / name, tmp_path / "probemb")
    config = Config.fromfile(str(file))
    config.model.backbone.update(SMALL[config.model.backbone.type])
    config.model.update(backbone_out_channels=24, offset_scale=0.5)
    return config


def batch_by_its_transforms(config: Any, rooms: list[list[int]], split: str) -> dict[str, Any]:
    """Raw rooms through the configuration's own transforms and collate_fn."""
    generator = np.random.default_rng(0)
    pipeline = Compose(config.data[split].transform)
    scenes = []
    for number, classes in enumerate(rooms):
        segment = np.repeat(classes, 350)
        center = np.arange(len(classes)).repeat(350)[:, None] * np.array([0.9, 0.4, 0.0])
        raw = {
            "coord": (center + 0.15 * generator.standard_normal((len(segment), 3))).astype(np.float32),
            "color": (np.eye(3)[segment % 3] * 200 + 20).astype(np.float32),
            "normal": generator.standard_normal((len(segment), 3)).astype(np.float32),
            "segment": segment.astype(np.int64),
            "instance": np.arange(len(classes)).repeat(350).astype(np.int64),
            "name": f"room {number}",
        }
        scenes.append(pipeline(raw))
    return collate_fn(scenes)


def test_batches_of_the_other_tests_are_those_of_its_transforms(tmp_path: Path) -> None:
    config = config_of("insseg_probemb_spunet_scannet.py", tmp_path)
    real, ours = batch_by_its_transforms(config, [[0, 4, 7], [1, 2]], "train"), pointcept_batch([[0, 4, 7], [1, 2]])
    assert set(ours) <= set(real)
    assert {key: value.dtype for key, value in ours.items()} == {key: real[key].dtype for key in ours}
    assert {key: value.shape[1:] for key, value in ours.items()} == {key: real[key].shape[1:] for key in ours}


@pytest.mark.parametrize(
    ("name", "rooms"),
    [
        ("insseg_probemb_spunet_scannet.py", [[0, 4, 4, 7], [1, 2, 19]]),
        ("insseg_probemb_ptv3_scannet.py", [[0, 4, 4, 7], [1, 2, 19]]),
        ("insseg_probemb_spunet_s3dis.py", [[0, 5, 10], [1, 12]]),
    ],
)
def test_trains_and_is_evaluated(name: str, rooms: list[list[int]], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = config_of(name, tmp_path)
    model = build_model(config.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    data, values = batch_by_its_transforms(config, rooms, "val"), []
    names = data.pop("name")
    for _ in range(15):
        output = model.train()(data)
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        values.append(output["loss"].item())
    assert values[-1] < 0.8 * values[0], values
    assert all(p.grad is not None for p in model.head.parameters())
    assert sum(p.grad is not None for p in model.backbone.parameters()) > 10
    print(f"{name}: loss {values[0]:.3f} to {values[-1]:.3f} in 15 steps on {len(names)} rooms")

    model.min_points = 100  # as the evaluator's smallest region
    evaluator = InsSegEvaluator(segment_ignore_index=config.segment_ignore_index)
    evaluator.trainer = SimpleNamespace(cfg=config)
    evaluator.before_train()
    ids = [c for c in range(config.num_classes) if c not in config.segment_ignore_index]
    ours, scenes = ScanNetAP(class_ids=[c + 1 for c in ids]), []
    for room in rooms:
        data = batch_by_its_transforms(config, [room], "val")
        with torch.no_grad():
            output = model.eval()({key: value for key, value in data.items() if key != "name"})
        truth, found = evaluator.associate_instances(output, data["segment"], data["instance"])
        scenes.append({"gt": truth, "pred": found})
        gt = torch.where(data["instance"] >= 0, (data["segment"] + 1) * 1000 + data["instance"] + 1, 0)
        ours.update(output["pred_masks"], output["pred_classes"] + 1, output["pred_scores"], gt)
    theirs, our = evaluator.evaluate_matches(scenes), ours.compute()
    for key, name_of in (("all_ap", "ap"), ("all_ap_50%", "ap50"), ("all_ap_25%", "ap25")):
        assert theirs[key] == pytest.approx(float(our[name_of]), abs=1e-9)
    print(f"AP {theirs['all_ap']:.3f}, {theirs['all_ap_50%']:.3f}, {theirs['all_ap_25%']:.3f}, and so by ScanNetAP")
