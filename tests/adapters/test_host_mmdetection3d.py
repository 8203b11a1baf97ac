"""The segmentor for mmdetection3d, on its interface; `make hosts` runs it on mmdetection3d itself."""

from __future__ import annotations

import pytest
import torch
from mmdet3d.evaluation.metrics import InstanceSegMetric
from mmdet3d.models.segmentors.base import Base3DSegmentor
from mmdet3d.registry import MODELS
from mmdet3d_batch import IDS, META, UNNAMED, mmdet3d_batch
from paths import PROJECT
from torch import Tensor, nn

import probemb_adapters.hosts.mmdetection3d as host
from probemb_lib.labels import mmdetection3d


@MODELS.register_module()
class Channels(nn.Module):
    """A backbone (B, N, 6) → (B, 32, N), as a dict like PointNet2SASSG's or as it is."""

    def __init__(self, as_dict: bool) -> None:
        super().__init__()
        self.layer, self.as_dict = nn.Conv1d(6, 32, 1), as_dict

    def forward(self, points: Tensor) -> Tensor | dict[str, list[Tensor]]:
        features = self.layer(points.transpose(1, 2))
        return {"fp_features": [features[..., :1], features]} if self.as_dict else features


def model_of(as_dict: bool = True, labels: str = "scannet-instances", **options: float) -> Base3DSegmentor:
    torch.manual_seed(0)
    head = {"type": "ProbEmb3DHead", "in_channels": 32, "labels": labels, "offset_scale": 0.5, **options}
    model = MODELS.build({"type": "ProbEmb3D", "backbone": {"type": "Channels", "as_dict": as_dict}, "head": head})
    assert isinstance(model, Base3DSegmentor)
    return model


@pytest.mark.parametrize("as_dict", [True, False])
def test_train_step_val_step_and_metric(as_dict: bool) -> None:
    model, data = model_of(as_dict), mmdet3d_batch([[UNNAMED, 0, 1], [2, 17, UNNAMED]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    logs = [model.train().train_step(data, optimizer) for _ in range(25)]
    assert logs[-1]["loss"] < 0.8 * logs[0]["loss"]
    counted_once = logs[0]["bce"] + logs[0]["dice"] + logs[0]["score"] + 0.001 * logs[0]["entropy"]
    torch.testing.assert_close(logs[0]["loss"], counted_once)
    with torch.no_grad():
        samples = model.eval().val_step(data)
    metric = InstanceSegMetric()
    metric.dataset_meta = META
    metric.process({}, [sample.to_dict() for sample in samples])
    found = metric.evaluate(2)["found"]
    assert {label for label, _, _ in found} <= set(IDS)
    assert sum(points >= 100 for _, _, points in found) >= 3
    assert tuple(model(data["inputs"]).logits.shape) == (720, 19)
    assert tuple(model.encode_decode(torch.stack(data["inputs"]["points"]), None).shape) == (2, 19, 360)


def test_sigma_starts_where_it_is_told() -> None:
    assert model_of().head.head.initial_std == 0.5
    assert model_of(initial_std=0.3).head.head.initial_std == 0.3


def test_walls_and_floors_train_nothing_as_instances() -> None:
    """With the preset of the semantic sets they did: the loss sees two instances where there is one."""
    sample = mmdet3d_batch([[UNNAMED, 0]])["data_samples"][0].gt_pts_seg
    ids = host.convention_of("scannet-instances").convert(sample.pts_instance_mask, sample.pts_semantic_mask)[0]
    assert ids.unique().tolist() == [-1, 2]
    with pytest.warns(UserWarning, match="mmdetection3d_instances"):
        former = mmdetection3d(18).convert(sample.pts_instance_mask, sample.pts_semantic_mask)[0]
    assert former.unique().tolist() == [1, 2]


def test_semantic_sets_with_instances() -> None:
    assert [host.convention_of(name).num_columns for name in ("scannet", "s3dis")] == [19, 14]
    with pytest.raises(ValueError, match="labels: expected one of scannet-instances, scannet, s3dis, got 'nuscenes'"):
        host.convention_of("nuscenes")


def test_configuration_names_what_the_models_take() -> None:
    (file,) = (PROJECT / "examples/hosts/mmdetection3d").glob("*.py")
    values: dict[str, object] = {}
    exec(compile(file.read_text("utf-8"), str(file), "exec"), values)
    model = values["model"]
    assert isinstance(model, dict)
    assert isinstance(MODELS.build(model["head"]), host.ProbEmb3DHead)
    assert model["backbone"]["fp_channels"][-1][-1] == model["head"]["in_channels"]
    assert set(model) == {"type", "data_preprocessor", "backbone", "head"}
