"""Published checkpoints: their wrappers, and what lies there instead of one. More in test_minkowski.py."""

from pathlib import Path

import pytest
import torch
from torch import nn

from probemb_adapters.networks.pretrained import load_pretrained
from probemb_adapters.training.checkpoint import load_checkpoint

INSTEAD = {
    b"": "is empty",
    b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html>": "is an HTML page, such as a server sends",
    b"<HTML><body>404": "is an HTML page",
    b"version https://git-lfs.github.com/spec/v1\noid": "is a pointer of Git LFS: get the file itself",
}


@pytest.mark.parametrize("wrapper", ["net", "network", "model_state", "state_dict"])
def test_wrappers(wrapper: str) -> None:
    network, source = nn.Linear(2, 3), nn.Linear(2, 3)
    checkpoint = {"epoch": 3, wrapper: {f"module.{name}": x for name, x in source.state_dict().items()}}
    assert not load_pretrained(network, checkpoint).missing
    torch.testing.assert_close(network.weight, source.weight, rtol=0, atol=0)


@pytest.mark.parametrize(("content", "message"), INSTEAD.items(), ids=["empty", "html", "HTML", "pointer"])
def test_something_else_lies_there(tmp_path: Path, content: bytes, message: str) -> None:
    for name in ("model.pth", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} {message}.*: expected a checkpoint of torch.save"):
            load_pretrained(nn.Linear(2, 3), tmp_path / name)
    with pytest.raises(ValueError, match=f"model.safetensors {message}.*: expected a checkpoint that a training wrote"):
        load_checkpoint(tmp_path / "model.safetensors")
