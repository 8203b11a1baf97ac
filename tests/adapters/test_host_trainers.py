"""Lightning, the Hub's mixin, and the loop of SpatialEmbeddings and EmbedSeg."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from paths import PACKAGES
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from probemb_adapters.hosts.hub import PointNet2Segmentor
from probemb_adapters.hosts.lightning import ProbEmbModule
from probemb_adapters.hosts.spatial_embeddings import Criterion, ious
from probemb_lib import DenseHead, HeadOutput, ProbabilisticHead


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = ProbabilisticHead(3, 3, hidden=(16,))

    def forward(self, batch: SimpleNamespace) -> HeadOutput:
        output: HeadOutput = self.head(batch.pos, batch.pos, batch.batch)
        return output


def batch_of() -> SimpleNamespace:
    cloud, part = torch.arange(60) // 30, torch.arange(60) % 3
    pos = torch.randn(6, 3)[3 * cloud + part] + 0.05 * torch.randn(60, 3)
    return SimpleNamespace(pos=pos, instance=part, semantic=1 + part % 2, batch=cloud)


@pytest.mark.filterwarnings("ignore")
def test_lightning_fits_and_predicts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ProbEmbModule(Network(), learning_rate=1e-2)
    loader = DataLoader([batch_of()] * 20, batch_size=None)
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet = dict.fromkeys(silent, False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=tmp_path, **quiet)
    before = module.validation_step(batch_of(), 0).item()
    trainer.fit(module, loader, loader)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    parts = ("loss", "bce", "dice", "score", "entropy")
    assert set(logged) == {f"{stage}/{part}" for stage in ("train", "val") for part in parts}
    assert logged["val/loss"] < 0.7 * before
    unlabelled = batch_of()
    del unlabelled.instance, unlabelled.semantic
    (found, *others), *_ = trainer.predict(module, DataLoader([unlabelled], batch_size=None))
    assert len(others) == 1  # two clouds
    assert len(found.label) == 30


def test_hub_round_trip(tmp_path: Path) -> None:
    """What comes back predicts the same; the scales of the head come back too, or are refused."""
    torch.manual_seed(0)
    model = PointNet2Segmentor(3, width=0.25, offset_scale=0.5, hidden=[16], threshold=0.6, min_points=4).eval()
    model.save_pretrained(tmp_path)
    again = PointNet2Segmentor.from_pretrained(tmp_path).eval()
    points = torch.rand(2, 64, 3)
    with torch.no_grad():
        torch.testing.assert_close(again(points), model(points), rtol=0, atol=0)
        assert torch.equal(again.segment(points).label, model.segment(points).label)
    assert (again.head.offset_scale, again.threshold, again.min_points) == (0.5, 0.6, 4)
    with pytest.raises(RuntimeError, match="offset_scale"):
        PointNet2Segmentor.from_pretrained(tmp_path, offset_scale=1.0)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({f"model.{name}": weight for name, weight in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match="Missing key"):  # the mixin alone would leave them random
        PointNet2Segmentor.from_pretrained(tmp_path)


def test_criterion_of_spatial_embeddings() -> None:
    """Called as SpatialEmbLoss in their loops, on what their datasets give after `squeeze(1)`."""
    torch.manual_seed(0)
    instances = torch.zeros((2, 24, 32), dtype=torch.int16)
    instances[:, 2:10, 3:12], instances[1, 12:20, 18:28] = 1, 2
    labels = (instances > 0).to(torch.uint8)
    images = labels[:, None].float() + 0.05 * torch.randn(2, 1, 24, 32)
    head = DenseHead.probabilistic(8, 2, offset_scale=8.0, hidden=(16,))
    model, criterion = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), head), Criterion()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values, seen = [], []
    meter = SimpleNamespace(update=seen.append)
    for _ in range(60):
        loss: Tensor = criterion(model(images), instances, labels, instances > 9, w_inst=1, w_var=10, w_seed=1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.6 * values[0]
    criterion(model.eval()(images), instances, labels, iou=True, iou_meter=meter)
    assert len(seen) == 3  # one object in the first image, two in the second
    assert max(seen) > 0.5
    classes = Criterion(use_labels=True)(model(images), instances, labels)
    torch.testing.assert_close(classes, criterion(model(images), instances, labels))  # one class is class 1
    assert ious(model(images[:1]), torch.full((768,), -1)) == []


MISSING = """
import importlib, json, sys
class Nothing:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {packages}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Nothing())
import probemb_adapters.hosts
for module in {converters}:
    importlib.import_module("probemb_adapters.hosts." + module)
said = {{}}
for module in {hosts}:
    try:
        importlib.import_module("probemb_adapters.hosts." + module)
    except ImportError as error:
        said[module] = str(error)
print(json.dumps(said))
"""
HOSTS = {
    "pointcept": ("pointcept", "clone github.com/Pointcept/Pointcept"),
    "mmdetection3d": ("mmdet3d", "install mmdet3d with mmcv and mmdet"),
    "lightning": ("lightning", "pip install lightning"),
    "hub": ("huggingface_hub", "pip install huggingface_hub safetensors"),
}


def test_a_missing_host_is_one_sentence_and_converters_need_none() -> None:
    converters = ["softgroup", "mask3d", "torch_points3d", "spatial_embeddings"]
    packages = [*(package for package, _ in HOSTS.values()), "torch_geometric", *converters]
    code = MISSING.format(packages=packages, converters=converters, hosts=list(HOSTS))
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": PACKAGES}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) == set(HOSTS)
    for host, (package, sentence) in HOSTS.items():
        assert f"No module named '{package}" in said[host]
        assert sentence in said[host]
        assert "\n" not in said[host]
