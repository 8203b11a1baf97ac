"""The model for Pointcept, on the interface of Pointcept; `make hosts` runs it on Pointcept itself."""

from __future__ import annotations

import ast
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from paths import PROJECT
from pointcept.engines.hooks.evaluator import InsSegEvaluator
from pointcept.models.builder import MODELS, build_model
from pointcept_batch import NAMES, pointcept_batch
from torch import nn

from probemb_adapters.hosts.pointcept import ProbEmb, convention_of
from probemb_lib import ProbabilisticEmbeddingLoss, ProbabilisticHead, greedy_cluster
from probemb_lib.convert import batch_from_offset
from probemb_lib.labels import POINTCEPT

SPUNET = {"type": "SpUNet-v1m1", "in_channels": 6, "num_classes": 0, "channels": (32, 96), "layers": (2, 2)}
PTV3 = {"type": "PT-v3m1", "in_channels": 6}
ENCODER = {"type": "PT-v3m1", "in_channels": 6, "enc_mode": True}
SCANNET, S3DIS = (-1, 0, 1), (-1,)


def model_of(
    backbone: dict[str, Any], channels: int, ignored: tuple[int, ...] = SCANNET, num_classes: int = 20, **options: float
) -> ProbEmb:
    torch.manual_seed(0)
    config = {"type": "ProbEmb-v1m1", "backbone": backbone, "backbone_out_channels": channels}
    model = build_model(
        {**config, "semantic_num_classes": num_classes, "segment_ignore_index": ignored, "offset_scale": 0.5, **options}
    )
    assert isinstance(model, ProbEmb)
    return model


def train(model: nn.Module, data: dict[str, Any], steps: int = 25) -> tuple[float, float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    values = []
    for _ in range(steps):
        output = model.train()(dict(data))
        assert {key for key, value in output.items() if value.ndim == 0} == set(output)  # InformationWriter: .item()
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        values.append(output["loss"].item())
    assert all(parameter.grad is not None for parameter in model.head.parameters())
    return values[0], values[-1]


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # the evaluator gives masks to numpy
@pytest.mark.parametrize(("backbone", "channels"), [(SPUNET, 96), (PTV3, 64)])
def test_trains_and_the_evaluator_takes_its_results(backbone: dict[str, Any], channels: int) -> None:
    model = model_of(backbone, channels)
    first, last = train(model, pointcept_batch([[0, 4, 4, 7], [1, 2, 19]]))
    assert last < 0.8 * first
    data = pointcept_batch([[0, 4, 4, 7]])  # one room, as the evaluator does
    with torch.no_grad():
        output = model.eval()(data)
    assert output["loss"].ndim == 0  # the trainer logs it
    evaluator = InsSegEvaluator(segment_ignore_index=SCANNET)
    evaluator.trainer = SimpleNamespace(cfg=SimpleNamespace(data=SimpleNamespace(names=NAMES, num_classes=20)))
    truth, found = evaluator.associate_instances(output, data["segment"], data["instance"])
    assert [name for name, objects in truth.items() if objects] == ["class 4", "class 7"]
    assert sum(len(objects) for objects in found.values()) > 0


def test_sigma_starts_where_it_is_told() -> None:
    assert model_of(SPUNET, 96).head.initial_std == 0.5
    assert model_of(SPUNET, 96, initial_std=0.3).head.initial_std == 0.3


def test_mixed_precision_of_its_trainer() -> None:
    """`enable_amp`: the backbone computes in half precision, head, loss and clustering in float32."""
    model, data = model_of(PTV3, 64), pointcept_batch([[0, 4, 4, 7]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(data)["loss"]
        found = model.eval()(data)
    assert loss.dtype == found["pred_scores"].dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.head.parameters() if p.grad is not None)


def test_an_encoder_alone_gives_the_features_of_all_its_levels() -> None:
    output = model_of(ENCODER, 32 + 64)(pointcept_batch([[0, 4, 7]]))
    assert torch.isfinite(output["loss"])


def test_ceilings_of_s3dis_are_instances() -> None:
    """Class 0 has instances there: its column is 1, and it comes back as 0."""
    data = pointcept_batch([[0, 5, 10]], ignored=S3DIS)
    model = model_of(SPUNET, 96, ignored=S3DIS, num_classes=13)
    assert model.head.num_classes == 14
    train(model, data)
    with torch.no_grad():
        classes = model.eval()(data)["pred_classes"]
    assert set(classes.tolist()) <= set(range(13))
    assert 0 in classes
    with pytest.raises(ValueError, match="background"):  # the column of the background cannot be the ceiling's
        ProbabilisticEmbeddingLoss()(
            ProbabilisticHead(6, 13)(data["feat"], data["coord"]), *POINTCEPT.convert(data["instance"], data["segment"])
        )


def test_background_of_scannet200_is_not_its_first_classes() -> None:
    convention = convention_of(200, segment_ignore_index=(-1, 0, 2))
    instance, semantic = convention.convert(torch.tensor([5, 6, 7]), torch.tensor([2, 1, 199]))
    assert instance.tolist() == [-1, 6, 7]
    assert semantic.tolist() == [0, 1, 199]
    assert convention.host_classes(torch.tensor([1, 199])).tolist() == [1, 199]


def test_test_scenes_have_no_labels() -> None:
    data = pointcept_batch([[0, 4, 7]])
    del data["segment"], data["instance"]
    output = model_of(SPUNET, 96).eval()(data)
    assert set(output) == {"pred_masks", "pred_classes", "pred_scores"}


class FormerRecipe(nn.Module):
    """What docs/backbones.md said until the real code was tried; it must not pass here again."""

    def __init__(self, backbone: nn.Module, channels: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = ProbabilisticHead(channels, num_classes, offset_scale=2.0)
        self.loss = ProbabilisticEmbeddingLoss()

    def forward(self, data: dict[str, Any]) -> Any:
        batch = batch_from_offset(data["offset"], num_points=len(data["coord"]))
        output = self.head(self.backbone(data["feat"]), data["coord"], batch)
        if not self.training:
            return greedy_cluster(output.embedding, output.probabilities, batch=batch, min_points=10)
        labels = replace(POINTCEPT, stuff_classes=(0, 1))
        return self.loss(output, *labels.convert(data["instance"], data["segment"]), batch)


@pytest.mark.filterwarnings("ignore")  # torch warns of indexing a tensor with a list of names
@pytest.mark.parametrize(("backbone", "channels"), [(SPUNET, 96), (PTV3, 64)])
def test_the_former_recipe_fails(backbone: dict[str, Any], channels: int) -> None:
    data = pointcept_batch([[0, 4, 7]])
    with pytest.raises((IndexError, TypeError, KeyError)):  # the backbone takes the dict, not the features
        FormerRecipe(build_model(backbone), channels, 20)(data)
    found = FormerRecipe(nn.Linear(6, channels), channels, 20).eval()(data)  # with the stand-in it had
    with pytest.raises(TypeError, match="not subscriptable"):
        found["loss"]


def test_configurations_name_what_the_model_takes() -> None:
    files = sorted((PROJECT / "examples/hosts/pointcept").glob("*.py"))
    assert len(files) == 3
    for file in files:
        values = {
            node.targets[0].id: node.value
            for node in ast.parse(file.read_text("utf-8")).body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        model = eval(compile(ast.Expression(values["model"]), str(file), "eval"))
        assert model.pop("_delete_") is True
        assert MODELS.get(model.pop("type")) is ProbEmb
        channels = {"SpUNet-v1m1": 96, "PT-v3m1": 64}[model.pop("backbone")["type"]]
        assert model["backbone_out_channels"] == channels
        assert ProbEmb(nn.Identity(), **model).head.in_channels == channels
