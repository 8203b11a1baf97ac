"""Training: one process or two, killed or not, the same numbers."""

import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import PACKAGES
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from probemb_adapters.training import LAST, Training, gather_in_order, share_of, start_fabric, train
from probemb_adapters.training.batches import SeededBatches, SeededItems
from probemb_adapters.training.checkpoint import load_checkpoint, save_checkpoint


class Line(torch.utils.data.Dataset[Any]):
    """Noisy points of a line; the noise is new at each access."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        return torch.stack([torch.tensor(float(index)) / 12, index / 6 + 0.1 * torch.randn(())])


def losses(network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    square = (network(batch[:, :1]) - batch[:, 1:]).square().mean()
    return {"loss": square, "root": square.sqrt()}


def new_training(**settings: Any) -> Training:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    return Training(
        network, optimizer, OneCycleLR(optimizer, 0.01, total_steps=60), settings={"points": (1, 2)} | settings
    )


def run(
    folder: Path | None, epochs: int, training: Training | None = None, resume: bool = False, pause: float = 0.0
) -> Training:
    fabric = start_fabric(accelerator="cpu")
    training = new_training() if training is None else training
    if resume and folder is not None and (folder / LAST).exists():
        training.resume(folder / LAST, fabric)

    def slow(network: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        time.sleep(pause)
        return losses(network, batch)

    loader = DataLoader(SeededItems(Line()), batch_sampler=SeededBatches(12, 4, seed=0))
    train(fabric, training, loader, slow, epochs=epochs, folder=folder, max_norm=1.0)
    return training


def assert_equal(one: Training, two: Training) -> None:
    for name, value in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert one.history == two.history
    assert one.scheduler.get_last_lr() == two.scheduler.get_last_lr()


def test_training_learns_and_repeats(tmp_path: Path) -> None:
    once = run(None, 20)
    assert once.history[-1]["loss"] < 0.2 * once.history[0]["loss"]
    assert set(once.history[0]) == {"loss", "root"}
    assert_equal(once, run(tmp_path, 20))
    assert (tmp_path / LAST).is_file()


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    run(tmp_path, 7)
    assert_equal(run(None, 20), run(tmp_path, 20, resume=True))


def test_killed_and_resumed_many_times_equals_uninterrupted(tmp_path: Path) -> None:
    moments = random.Random(1)
    epochs = []
    for _ in range(12):
        process = multiprocessing.get_context("fork").Process(
            target=run, args=(tmp_path, 20), kwargs={"resume": True, "pause": 0.01}
        )
        process.start()
        process.join(moments.uniform(0.1, 0.35))
        process.kill()  # signal 9
        process.join()
        if (tmp_path / LAST).exists():
            epochs.append(load_checkpoint(tmp_path / LAST)["epoch"])  # readable at any moment
    assert 0 < epochs[0] < 20  # killed within the training
    assert epochs == sorted(epochs)
    (tmp_path / f".{LAST}.1.tmp").write_bytes(b"left by a killed process")
    assert_equal(run(None, 20), run(tmp_path, 20, resume=True))
    assert [p.name for p in tmp_path.iterdir()] == [LAST]


def test_resuming_with_other_settings_or_files(tmp_path: Path) -> None:
    run(tmp_path, 1)
    fabric = start_fabric(accelerator="cpu")
    with pytest.raises(
        ValueError, match=r"other settings: points was \[1, 2\] and is \[1, 3\]; seed was None and is 4"
    ):
        new_training(points=(1, 3), seed=4).resume(tmp_path / LAST, fabric)
    with pytest.raises(FileNotFoundError, match="is missing"):
        new_training().resume(tmp_path / "none", fabric)
    save_checkpoint(tmp_path / "model", {"model": {}})
    with pytest.raises(ValueError, match="has no epoch, history, optimizer, scaler, scheduler, settings"):
        new_training().resume(tmp_path / "model", fabric)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    training = run(tmp_path, 1)
    with torch.no_grad():
        training.network[0].weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"loss of epoch 2 is not finite.*'loss': nan"):
        run(tmp_path, 2, training)
    assert load_checkpoint(tmp_path / LAST)["epoch"] == 1


def test_checkpoints_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    training = new_training()
    fabric = start_fabric(accelerator="cpu")
    written = []
    training.save = lambda path, fabric: written.append(training.epoch)  # type: ignore[method-assign]
    loader = DataLoader(SeededItems(Line()), batch_sampler=SeededBatches(12, 4, seed=0))
    train(fabric, training, loader, losses, epochs=5, folder=tmp_path, save_every=2)
    assert written == [2, 4, 5]


def test_curves_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fabric = start_fabric(accelerator="cpu", log_dir=tmp_path)
    loader = DataLoader(SeededItems(Line()), batch_sampler=SeededBatches(12, 4, seed=0))
    train(fabric, new_training(), loader, losses, epochs=1, folder=None)
    fabric.logger.finalize("success")
    assert any(b"train/root" in p.read_bytes() for p in tmp_path.rglob("events*"))


def test_bfloat16_and_workers() -> None:
    fabric = start_fabric(accelerator="cpu", precision="bf16-mixed")
    training = new_training()
    loader = DataLoader(SeededItems(Line()), batch_sampler=SeededBatches(12, 4, seed=0), num_workers=1)
    history = train(fabric, training, loader, losses, epochs=2, folder=None, max_norm=1.0)
    assert all(epoch["loss"] > 0 for epoch in history)


@pytest.mark.parametrize("apple", [False, True])
def test_apple_gpus_are_left_alone(
    apple: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
    assert start_fabric().device == torch.device("cpu")
    assert ("on the CPU: on Apple's GPU torch lacks" in capsys.readouterr().out) == apple
    start_fabric(accelerator="cpu")
    assert capsys.readouterr().out == ""


def test_one_process_has_everything() -> None:
    fabric = start_fabric(accelerator="cpu")
    assert list(share_of(fabric, 5)) == [0, 1, 2, 3, 4]
    assert gather_in_order(fabric, "a") == ["a"]


# Trains PointNet++ with the whole objective, batch norm frozen, under torchrun or alone.
SCRIPT = """
import sys
import torch
from probemb_adapters.training.checkpoint import save_checkpoint
from probemb_adapters.networks.pointnet2 import PointNet2
from probemb_adapters.training.batches import SeededBatches, SeededItems
from probemb_adapters.training import Training, gather_in_order, share_of, start_fabric, train
from probemb_lib import ProbabilisticEmbeddingLoss, ProbabilisticHead
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data

torch.set_num_threads(1)

class Blobs(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        instance = torch.randint(0, 3, (128,))
        pos = instance[:, None] * 0.3 + 0.1 * torch.randn(128, 3)
        return Data(pos=pos, instance=instance, semantic=1 + instance % 2)

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = PointNet2(), ProbabilisticHead(128, 3)
    def train(self, mode=True):
        return super().train(False)  # frozen batch norm
    def forward(self, data):
        return self.head(self.backbone(data.pos.view(data.num_graphs, -1, 3)).flatten(0, 1), data.pos, data.batch)

fabric = start_fabric(accelerator="cpu")
torch.manual_seed(0)
network = Network()
optimizer = torch.optim.SGD(network.parameters(), 0.01)
training = Training(network, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer))
batches = SeededBatches(8, 4, seed=0, process=fabric.global_rank, processes=fabric.world_size)
loader = DataLoader(SeededItems(Blobs()), batch_sampler=batches, collate_fn=Batch.from_data_list)
loss = ProbabilisticEmbeddingLoss()
gradients = []
optimizer.register_step_pre_hook(lambda *_: gradients.append([p.grad.clone() for p in network.parameters()]))
train(fabric, training, loader, lambda n, b: loss(n(b), b.instance, b.semantic, b.batch), epochs=1, folder=None)
shares = gather_in_order(fabric, list(share_of(fabric, 5)))
if fabric.is_global_zero:
    save_checkpoint(sys.argv[1], {"gradients": gradients, "model": network.state_dict(), "shares": shares,
                                  "history": training.history, "processes": fabric.world_size})
"""


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": PACKAGES,
    }
    results = []
    for processes in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
        command = [sys.executable, *launcher, str(script), str(tmp_path / f"{processes}.safetensors")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        results.append(load_checkpoint(tmp_path / f"{processes}.safetensors"))
    one, two = results
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["shares"] == [[0, 1], [2, 3, 4]]
    assert len(one["gradients"]) == len(two["gradients"]) == 2
    for step_of_one, step_of_two in zip(one["gradients"], two["gradients"], strict=True):
        # The order of float32 sums differs. Some gradients are sums that cancel, so the largest sets the scale.
        scale = max(float(gradient.abs().max()) for gradient in step_of_one)
        for a, b in zip(step_of_one, step_of_two, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-5 * scale)
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert two["history"][0] == pytest.approx(one["history"][0], rel=1e-5)
