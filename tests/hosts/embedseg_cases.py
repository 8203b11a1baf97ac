"""EmbedSeg's own network and training loop on the CPU with our head and criterion."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from folders import folder_of
from in_torch import put_in_place

folder_of("EMBEDSEG", "juglab/EmbedSeg")
put_in_place(("pycocotools", "skimage", "pandas", "seaborn", "numba", "colorspacious", "numpngw", "hdbscan"))

from probemb_adapters.hosts.spatial_embeddings import Criterion
from probemb_lib import DenseHead, greedy_cluster, label_image


def sample_of() -> dict[str, Any]:
    """As its data sets and transforms give a batch: image float, the rest with a channel axis."""
    instance = torch.zeros((2, 1, 64, 64), dtype=torch.int16)
    instance[:, :, 8:26, 10:30], instance[:, :, 36:56, 30:52] = 1, 2
    image = (instance > 0).float() + 0.1 * torch.randn(2, 1, 64, 64)
    center = torch.zeros_like(instance, dtype=torch.bool)
    center[:, :, 17, 20] = center[:, :, 46, 41] = True
    return {"image": image, "instance": instance, "label": (instance > 0).byte(), "center_image": center}


def test_its_loop_trains_our_head() -> None:
    torch.manual_seed(0)
    embedseg = importlib.import_module("EmbedSeg.train")
    models = importlib.import_module("EmbedSeg.models")
    network = models.get_model("branched_erfnet", {"num_classes": [16], "input_channels": 1})
    model = torch.nn.Sequential(network, DenseHead.probabilistic(16, 2, offset_scale=15.0, hidden=(32,)))
    sample = sample_of()
    # What begin_training sets in its module before it calls train.
    embedseg.model, embedseg.criterion = model, Criterion()
    embedseg.optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    embedseg.train_dataset_it = [sample] * 10
    weights = {"w_inst": 1, "w_var": 10, "w_seed": 1}
    losses = [embedseg.train(1, False, 2, weights, torch.device("cpu")) for _ in range(4)]
    assert losses[-1] < 0.7 * losses[0], losses
    output = model.eval()(sample["image"])
    found = greedy_cluster(output.embedding, output.probabilities, batch=output.batch, min_points=20)
    assert label_image(found, output.shape).shape == (2, 64, 64)
    print(f"EmbedSeg's train: loss {losses[0]:.3f} to {losses[-1]:.3f} in 4 epochs of 10 steps; {len(found)} objects")
