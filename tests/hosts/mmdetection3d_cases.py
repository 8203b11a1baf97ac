"""mmdetection3d itself on the CPU: registry, data samples, train_step, val_step and InstanceSegMetric with our model.

The backbone is this project's PointNet++, registered there: mmdetection3d's needs the compiled operators of mmcv.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric  # noqa: F401  # before the stand-ins, which it would take for the packages
from folders import folder_of
from in_torch import numpy_names_of_before, put_in_place, torchvision_without_its_operators
from paths import PROJECT
from torch import Tensor, nn

MMDET3D = folder_of("MMDET3D", "open-mmlab/mmdetection3d")
pytest.importorskip("mmengine", reason="mmengine is not installed: pip install mmengine mmcv-lite mmdet")
torchvision_without_its_operators()
numpy_names_of_before()
put_in_place(("open3d", "lyft_dataset_sdk", "nuscenes", "numba", "cv2", "mmcv._ext"))
import numba.core.errors

numba.core.errors.NumbaPerformanceWarning = Warning

from mmdet3d.evaluation.metrics import InstanceSegMetric
from mmdet3d.registry import MODELS
from mmdet3d_batch import IDS, META, UNNAMED, mmdet3d_batch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope

from probemb_adapters.networks.pointnet2 import PointNet2
from probemb_lib.metrics import ScanNetAP


@MODELS.register_module()
class Plain(nn.Module):
    """PointNet++ of this project with the interface of PointNet2SASSG."""

    def __init__(self) -> None:
        super().__init__()
        self.network = PointNet2(in_channels=3)

    def forward(self, points: Tensor) -> Tensor:
        features: Tensor = self.network(points[..., :3].contiguous(), points[..., 3:].contiguous())
        return features.transpose(1, 2)


def config_of() -> Any:
    file = PROJECT / "examples/hosts/mmdetection3d/probemb_pointnet2_scannet_instances.py"
    text = file.read_text("utf-8").replace('"../_base_', f'"{MMDET3D}/configs/_base_')
    return Config.fromstring(text, ".py")


def test_configuration_names_what_is_there() -> None:
    config = config_of()
    assert config.model.backbone.type in MODELS
    from mmdet3d.registry import DATASETS, METRICS, TRANSFORMS

    for step in (*config.train_pipeline, *config.test_pipeline):
        assert step.type in TRANSFORMS
        TRANSFORMS.build(step)
    assert config.train_dataloader.dataset.type in DATASETS
    assert config.val_evaluator.type in METRICS


def test_trains_and_is_evaluated() -> None:
    torch.manual_seed(0)
    init_default_scope("mmdet3d")  # as its Runner does
    config = config_of().model
    config.backbone, config.head.offset_scale = {"type": "Plain"}, 0.5
    model = MODELS.build(config)
    data = mmdet3d_batch([[UNNAMED, 0, 1], [2, 17, UNNAMED]], points_each=200)
    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=3e-3))
    logs = [model.train().train_step(data, wrapper) for _ in range(20)]
    first, last = float(logs[0]["loss"]), float(logs[-1]["loss"])
    assert last < 0.8 * first
    print(f"train_step: loss {first:.3f} to {last:.3f} in 20 steps")

    model.head.min_points = 100
    metric, ours = InstanceSegMetric(), ScanNetAP(class_ids=IDS)
    metric.dataset_meta = META
    with torch.no_grad():
        samples = model.eval().val_step(data)
    ids = torch.tensor([*IDS, 0])
    for sample in samples:
        result, truth = sample.pred_pts_seg, sample.eval_ann_info
        classes = ids[result.instance_labels]
        gt = ids[truth["pts_semantic_mask"]] * 1000 + truth["pts_instance_mask"]
        ours.update_labels(result.pts_instance_mask, classes, result.instance_scores, gt)
    metric.process({}, [sample.to_dict() for sample in samples])
    theirs, our = metric.evaluate(len(samples)), ours.compute()
    assert theirs["all_ap"] == pytest.approx(float(our["ap"]), abs=1e-9)
    assert theirs["all_ap_50%"] == pytest.approx(float(our["ap50"]), abs=1e-9)
    print(f"InstanceSegMetric: AP {theirs['all_ap']:.3f}, AP50 {theirs['all_ap_50%']:.3f}, and so by ScanNetAP")
