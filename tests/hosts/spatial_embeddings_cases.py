"""SpatialEmbeddings' network and the labels of its data set with our head and criterion, as its loop calls them."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import torch
from folders import folder_of
from in_torch import put_in_place

FOLDER = folder_of("SPATIAL_EMBEDDINGS", "davyneven/SpatialEmbeddings")
sys.path.insert(0, str(FOLDER / "src"))
put_in_place(("skimage", "pandas"))

from probemb_adapters.hosts.spatial_embeddings import Criterion
from probemb_lib import DenseHead


def test_network_and_labels() -> None:
    torch.manual_seed(0)
    network = importlib.import_module("models.BranchedERFNet").BranchedERFNet([16])
    model = torch.nn.Sequential(network, DenseHead.probabilistic(16, 2, offset_scale=15.0, hidden=(32,)))
    raw = np.full((64, 64), 7, dtype=np.int32)  # cars 26001 and 26002, and a group of cars
    raw[8:26, 10:30], raw[36:56, 30:52], raw[:4, :4] = 26001, 26002, 26
    mask = raw // 1000 == 26
    one = np.where(mask, raw % 1000, 0).astype(np.uint8)  # as decode_instance gives it
    instances = torch.from_numpy(one)[None].expand(2, -1, -1)
    labels, images = (instances > 0).byte(), torch.rand(2, 3, 64, 64) + (instances > 0)[:, None]
    criterion, optimizer = Criterion(), torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(20):
        loss = criterion(model(images), instances, labels, w_inst=1, w_var=10, w_seed=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses
    print(f"SpatialEmbeddings' BranchedERFNet: loss {losses[0]:.3f} to {losses[-1]:.3f} in 20 steps")
