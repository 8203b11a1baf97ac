"""What a model of the ScanNet experiment makes of its columns, and of scenes whose classes it has not learned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from probemb_adapters.experiments.scannet.data import without_classes
from probemb_adapters.experiments.scannet.model import MIN_POINTS, Model
from probemb_adapters.experiments.scannet.options import Settings
from probemb_adapters.scannet import INSTANCE_CLASSES, INSTANCE_IDS
from probemb_adapters.training import start_fabric
from probemb_lib import GaussianEmbedding, HeadOutput


class Known(nn.Module):
    """A network that gives the points of a scene these probabilities."""

    def __init__(self, num_classes: int, probabilities: Tensor) -> None:
        super().__init__()
        self.num_classes, self.probabilities = num_classes, probabilities

    def forward(self, data: Data) -> HeadOutput:
        x = GaussianEmbedding(torch.zeros(len(data.pos), 3), torch.zeros(len(data.pos), 3))
        return HeadOutput(x, self.probabilities.log())


def model_of(classes: tuple[str, ...], probabilities: Tensor) -> Model:
    network: Any = Known(len(classes) + 1, probabilities)
    return Model(network, classes, Settings(setting=0.5))


def test_outer_points_of_objects_are_left_in() -> None:
    """The last column takes from the background: only what is likelier wall than all else is left out."""
    of_kind = torch.tensor([[0.1, 0.6, 0.3], [0.4, 0.1, 0.5], [0.49, 0.01, 0.5], [0.51, 0.4, 0.09]])
    probabilities = of_kind.repeat_interleave(MIN_POINTS, 0)
    model = model_of(("object",), probabilities)
    scene = Data(pos=torch.zeros(len(probabilities), 3))
    embedding, columns = model.predict(scene, start_fabric(accelerator="cpu"))
    torch.testing.assert_close(columns[::MIN_POINTS], torch.tensor([[0, 0.6], [0, 0.1], [0, 0.01], [1, 0.4]]))
    found = model.cluster((embedding, columns))
    assert found.size.tolist() == [3 * MIN_POINTS]
    assert found.label[-MIN_POINTS:].unique().tolist() == [-1]


def test_columns_of_classes_are_left_as_they_are() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]])
    model = model_of(("chair", "table"), probabilities)
    _, columns = model.predict(Data(pos=torch.zeros(2, 3)), start_fabric(accelerator="cpu"))
    torch.testing.assert_close(columns, probabilities)


def test_scenes_without_classes() -> None:
    chair = INSTANCE_IDS[INSTANCE_CLASSES.index("chair")]
    scene = Data(
        instance=torch.tensor([0, 1, -1, -1, -100]),
        semantic=torch.tensor([3, 18, 0, -100, -100]),
        label=torch.tensor([chair, 39, 1, 35, 0]),
    )
    found = without_classes(scene)
    assert found.semantic.tolist() == [1, 1, 0, -100, -100]
    assert found.label.tolist() == [39, 39, 1, 35, 0]
    assert scene.semantic.tolist() == [3, 18, 0, -100, -100]  # the scene stays as it was
    assert scene.label.tolist() == [chair, 39, 1, 35, 0]


@pytest.mark.parametrize("classes", [("object",), INSTANCE_CLASSES])
def test_ids_of_scannet(classes: tuple[str, ...]) -> None:
    model = model_of(classes, torch.ones(1, len(classes) + 1))
    assert len(model.class_ids) == len(classes)
    columns = model.columns(torch.arange(len(classes)) + 1)
    assert [INSTANCE_IDS[c - 1] for c in columns.tolist()] == list(model.class_ids)
