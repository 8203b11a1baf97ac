"""The Lovász hinge of learnable margins: the authors' numbers, and the operator for torch.compile."""

from __future__ import annotations

import pytest
import torch
from margin_cases import CASES, close, draw, images, load

from probemb_lib import index_instances
from probemb_lib.margin.lovasz import lovasz_hinge


@CASES
def test_known_hinges(case: int) -> None:
    known = load("loss", case)
    data = images(known, torch.float64)
    i = index_instances(data.instance, data.batch)
    votes = data.output.embedding.mean if data.positions is None else data.positions
    center = torch.stack([votes[i.index == k].mean(0) for k in range(i.num_instances)])
    log_std = torch.stack([data.output.embedding.log_std[i.index == k].mean(0) for k in range(i.num_instances)])
    hinges = []
    for k in range(i.num_instances):  # each alone against all the others as background
        alone = index_instances(torch.where(i.index == k, 0, -1)[data.batch == i.batch[k]])
        votes_of_cloud = data.output.embedding.mean[data.batch == i.batch[k]]
        hinges.append(lovasz_hinge(votes_of_cloud, center[[k]], log_std[[k]].expand(1, 2), alone))
    close(torch.cat(hinges), known["expected_instance_lovasz"], 1e-12)


@pytest.mark.parametrize("clouds", [1, 3])
@pytest.mark.parametrize("gradients", [True, False])
def test_operator(clouds: int, gradients: bool) -> None:
    p = draw(14, clouds=clouds)
    i = index_instances(p.instance, p.batch)
    k = i.num_instances
    args = (p.mean.detach(), torch.rand(k, 3).double(), torch.zeros(k, 3).double(), i.index, i.order, i.ptr)
    torch.library.opcheck(
        torch.ops.probemb_lib.lovasz_hinge.default,
        (*args, i.instance_ptr, i.member, i.member_ptr, gradients),
        test_utils=("test_schema", "test_faketensor"),
    )
