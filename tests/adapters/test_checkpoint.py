"""Checkpoints: what goes in comes out, and whenever the writer dies the file is whole."""

import multiprocessing
import random
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import PROJECT
from safetensors.torch import save_file
from torch import nn

from probemb_adapters.files import SUMS, replaced_file, sha256
from probemb_adapters.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from probemb_lib import ProbabilisticHead

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(state=st.dictionaries(st.text(min_size=1), VALUES, max_size=4))
def test_what_goes_in_comes_out(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "file.safetensors"
    save_checkpoint(path, state)
    assert load_checkpoint(path) == state


def test_tensors_and_the_state_of_an_optimizer(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "a", {"model": network.state_dict(), "optimizer": optimizer.state_dict()})
    state = load_checkpoint(tmp_path / "a")
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(state["model"])
    torch.testing.assert_close(other.weight, network.weight, rtol=0, atol=0)
    fresh = torch.optim.Adam(other.parameters())
    fresh.load_state_dict(state["optimizer"])
    for one, two in zip(fresh.state.values(), optimizer.state.values(), strict=True):
        for name in two:
            torch.testing.assert_close(one[name], two[name], rtol=0, atol=0)


def test_heads_from_before_their_scales_were_kept() -> None:
    """The settings in the file have them: no warning. All else must be there; other scales are refused."""
    network = nn.ModuleDict({"head": ProbabilisticHead(4, 2, offset_scale=0.5)})
    state = network.state_dict()
    before = {name: 2 * value for name, value in state.items() if "_extra_state" not in name}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(network, before)
    for name, value in before.items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_weights(network, {name: value for name, value in before.items() if "scores" not in name})
    with pytest.raises(RuntimeError, match=r"trained with offset_scale=0\.25"):
        load_weights(network, {**before, "head._extra_state": torch.tensor([0.25])})


def test_a_tensor_that_is_not_contiguous(tmp_path: Path) -> None:
    x = torch.arange(6.0).view(2, 3).T
    save_checkpoint(tmp_path / "a", {"x": x})
    torch.testing.assert_close(load_checkpoint(tmp_path / "a")["x"], x, rtol=0, atol=0)


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    """Tied weights have two names for one tensor; others are parts of one."""
    x = torch.arange(6.0)
    save_checkpoint(tmp_path / "a", {"x": x, "again": x, "part": x[1:4], "rows": x.view(2, 3), "none": [x[:0], x[6:]]})
    state = load_checkpoint(tmp_path / "a")
    for got, expected in [("x", x), ("again", x), ("part", x[1:4]), ("rows", x.view(2, 3))]:
        torch.testing.assert_close(state[got], expected, rtol=0, atol=0)
    state["x"].zero_()
    torch.testing.assert_close(state["again"], x, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("state", "message"), [({"a": {1, 2}}, "a: expected a tensor.*got set"), ({"a": {0.5: 1}}, "a: expected keys")]
)
def test_values_of_another_kind(state: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "a", state)
    assert list(tmp_path.iterdir()) == []


def test_missing_truncated_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match=r"a\.safetensors is missing"):
        load_checkpoint(path)
    save_checkpoint(path, {"x": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="no readable safetensors file"):
        load_checkpoint(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no description of its state"):
        load_checkpoint(path)


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with replaced_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_can_read_what_they_can_read_of_other_files(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "file.safetensors"
    other.touch()
    save_checkpoint(path, {"x": torch.zeros(1)})
    assert path.stat().st_mode == other.stat().st_mode


def write_forever(path: Path) -> None:
    step = 0
    while True:
        step += 1
        save_checkpoint(path, {"step": step, "x": torch.full((300_000,), float(step))})


def test_killed_at_any_moment_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    moments = random.Random(0)
    interrupted = 0
    for _ in range(30):
        writer = multiprocessing.get_context("fork").Process(target=write_forever, args=(path,))
        writer.start()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        writer.kill()  # signal 9
        writer.join()
        state = load_checkpoint(path)
        torch.testing.assert_close(state["x"], torch.full((300_000,), float(state["step"])), rtol=0, atol=0)
        interrupted += sum(1 for left in tmp_path.glob(".*.tmp"))
        for left in tmp_path.glob(".*.tmp"):
            left.unlink()
    assert interrupted > 0  # some were killed in the middle of writing


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    state = {
        "weights": torch.arange(6, dtype=torch.bfloat16),
        "step": torch.tensor(7),
        "none": torch.zeros(0),
        "lr": 0.1,
    }
    save_checkpoint(path, state)
    whole = path.read_bytes()
    found = 0
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1 << at % 8
        path.write_bytes(broken)
        try:
            loaded = load_checkpoint(path)
        except ValueError:
            found += 1
        else:
            assert loaded.keys() == state.keys()
            assert all(torch.equal(torch.as_tensor(loaded[key]), torch.as_tensor(state[key])) for key in state)
    assert found > 0.9 * len(whole)
    path.write_bytes(whole[:-1] + b"\x55")
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged: its sha256 is not that of its content"):
        load_checkpoint(path)


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "old.safetensors", metadata={"state": '{"dict": [["w", "tensor:w"]]}'})
    assert torch.equal(load_checkpoint(tmp_path / "old.safetensors")["w"], torch.ones(2))


def test_the_sums_of_shipped_files(tmp_path: Path) -> None:
    """All of them are named, each has the content that is named, and another content does not load."""
    folder = PROJECT / "checkpoints"
    named = dict(reversed(line.split()) for line in (folder / SUMS).read_text().splitlines())
    there = {path.name: sha256(path) for path in folder.glob("*.safetensors")}
    assert named == there, "cd checkpoints && sha256sum *.safetensors > SHA256SUMS"

    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2)}, path, metadata={"state": '{"dict": [["w", "tensor:w"]]}'})  # none inside
    (tmp_path / SUMS).write_text(f"{sha256(path)}  a.safetensors\n{'0' * 64}  b.safetensors\n")
    assert torch.equal(load_checkpoint(path)["w"], torch.ones(2))
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(ValueError, match="is not the file that SHA256SUMS beside it names: damaged"):
        load_checkpoint(path)
