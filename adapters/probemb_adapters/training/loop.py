"""Training that both examples share, on lightning-fabric: devices, processes, mixed precision, checkpoints, resuming.

One process on the CPU or a GPU is the default. Several are started by `torchrun`, or by Fabric with ``devices``:

    torchrun --nproc-per-node 4 examples/partnet_pointnet2.py --root /data/partnet --category Chair --level 3
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from probemb_adapters.files import missing_extra
from probemb_adapters.training.batches import SeededBatches
from probemb_adapters.training.checkpoint import load_checkpoint, load_weights, save_checkpoint

try:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger
    from tqdm import tqdm
except ImportError as error:
    raise missing_extra("training needs lightning-fabric and tqdm", "train", error) from error

LAST = "last.safetensors"
"""Name of the checkpoint that a training continues from."""

Losses = Mapping[str, Tensor]


def start_fabric(
    *, accelerator: str = "auto", devices: int = 1, precision: str = "32-true", log_dir: Path | None = None
) -> Fabric:
    """Fabric for this command: under `torchrun` one of its processes, else ``devices`` processes that it starts.

    Args:
        accelerator: `cpu`, `cuda` or `auto`: a GPU of NVIDIA or AMD if torch sees one, else the CPU. Apple's GPUs are
            left alone: torch has neither float64 nor sums over segments there.
        devices: processes on this machine, each with a device of its own; under `torchrun` that command decides.
        precision: `32-true`, `bf16-mixed` or `16-mixed`. Embeddings and losses are computed in float32 in all of them.
        log_dir: folder for TensorBoard's curves, written where the package tensorboard is installed.
    """
    apple = False
    if accelerator == "auto":  # Fabric's own would take Apple's
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        apple = accelerator == "cpu" and torch.backends.mps.is_available()
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    curves = None
    if log_dir is not None and find_spec("tensorboard") is not None:
        curves = TensorBoardLogger(log_dir, name="", version="")
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]  # checked by Fabric, whose message lists the names
        loggers=curves,
    )
    fabric.launch()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Fabric ends groups of NCCL only; threads of gloo that still run when Python ends abort the process.
        atexit.register(_end_process_group)
    if apple:
        fabric.print("on the CPU: on Apple's GPU torch lacks what this needs (float64 and sums over segments)")
    return fabric


def _end_process_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@dataclass
class Training:
    """A network being trained, and everything that a checkpoint holds of it.

    Attributes:
        network: before :meth:`fabric.setup`; its state is in the checkpoint under `model`.
        optimizer: of the network's parameters.
        scheduler: stepped after each step of the optimizer.
        settings: numbers and text that must not change when the training continues.
        epoch: epochs that are done.
        history: mean of each loss term in each of them.
    """

    network: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    settings: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, path: str | Path, fabric: Fabric) -> None:
        """Write the checkpoint at once (:func:`~probemb_adapters.training.checkpoint.save_checkpoint`)."""
        state = {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": fabric.strategy.precision.state_dict(),
            "settings": self.settings,
            "epoch": self.epoch,
            "history": self.history,
        }
        save_checkpoint(path, state)

    def resume(self, path: str | Path, fabric: Fabric) -> None:
        """Go on from a checkpoint of the same settings.

        Raises:
            FileNotFoundError, ValueError: no readable checkpoint, or one of another training.
        """
        state = load_checkpoint(path)
        missing = {"model", "optimizer", "scheduler", "scaler", "settings", "epoch", "history"} - set(state)
        if missing:
            raise ValueError(
                f"{path} has no {', '.join(sorted(missing))}: expected the checkpoint {LAST} of a training"
            )
        now = _as_stored(self.settings)
        changed = [
            f"{name} was {state['settings'].get(name)!r} and is {now.get(name)!r}"
            for name in sorted({*state["settings"], *now})
            if state["settings"].get(name) != now.get(name)
        ]
        if changed:
            raise ValueError(
                f"{path} is of a training with other settings: {'; '.join(changed)}. Repeat those settings, or start "
                "anew in another output folder"
            )
        load_weights(self.network, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        fabric.strategy.precision.load_state_dict(state["scaler"])
        self.epoch, self.history = state["epoch"], state["history"]
        for left in Path(path).parent.glob(f".{Path(path).name}.*.tmp"):  # of a process that was killed while writing
            left.unlink(missing_ok=True)


def _as_stored(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they come back from a file: tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def train(
    fabric: Fabric,
    training: Training,
    loader: DataLoader[Any],
    compute_losses: Callable[[nn.Module, Any], Losses],
    *,
    epochs: int,
    folder: Path | None,
    max_norm: float | None = None,
    save_every: int = 1,
) -> list[dict[str, float]]:
    """Train up to ``epochs`` epochs, with a progress bar; a checkpoint after each ``save_every`` and the last.

    A seeded ``loader`` (``batch_sampler=SeededBatches(...)`` over ``SeededItems``) makes an interrupted and continued
    training equal to an uninterrupted one.

    Args:
        fabric: of :func:`start_fabric`.
        training: new, or after :meth:`Training.resume`.
        loader: batches of this process; items may have a method `to`.
        compute_losses: (network, batch) -> terms; "loss" is the total, which is minimized.
        epochs: all in all, those before resuming included.
        folder: where the checkpoint ``last.safetensors`` goes; None for none.
        max_norm: gradients of a larger norm are scaled down to it.
        save_every: epochs between checkpoints.

    Returns:
        The mean over the steps and processes of each term, for each epoch; ``training.history``.

    Raises:
        FloatingPointError: the loss is not finite; the last checkpoint is from before.
    """
    network, optimizer = fabric.setup(training.network, training.optimizer)
    # Moves the state of a resumed optimizer to where its parameters now are.
    training.optimizer.load_state_dict(training.optimizer.state_dict())
    sampler = loader.batch_sampler
    network.train()
    steps = len(loader)
    bar = tqdm(
        total=epochs * steps,
        initial=training.epoch * steps,
        desc="training",
        unit="step",
        disable=not fabric.is_global_zero,
        mininterval=0.5,
    )
    with bar:
        for epoch in range(training.epoch, epochs):
            if isinstance(sampler, SeededBatches):
                sampler.epoch = epoch
            totals: dict[str, Tensor] = {}
            for batch in loader:
                losses = compute_losses(network, batch.to(fabric.device))
                optimizer.zero_grad()
                fabric.backward(losses["loss"])
                if max_norm is not None:
                    # Mixed precision skips steps whose gradients overflow, so these are no error here.
                    fabric.clip_gradients(network, optimizer, max_norm=max_norm, error_if_nonfinite=False)
                optimizer.step()
                training.scheduler.step()
                for name, value in losses.items():  # on the device: no synchronisation
                    totals[name] = totals.get(name, 0) + value.detach()
                bar.update()
            means = _mean_over_processes(fabric, totals, steps)
            if not all(torch.isfinite(torch.tensor(list(means.values())))):
                raise FloatingPointError(
                    f"the loss of epoch {epoch + 1} is not finite: {means}. Lower the learning rate, or limit the "
                    "gradients' norm; the last checkpoint is from before this epoch"
                )
            training.epoch = epoch + 1
            training.history.append(means)
            fabric.log_dict({f"train/{name}": value for name, value in means.items()}, step=training.epoch)
            bar.set_postfix(epoch=f"{training.epoch}/{epochs}", loss=f"{means['loss']:.3f}")
            last = training.epoch == epochs
            if folder is not None and fabric.is_global_zero and (last or training.epoch % save_every == 0):
                training.save(folder / LAST, fabric)
    fabric.barrier()
    return training.history


def _mean_over_processes(fabric: Fabric, totals: Mapping[str, Tensor], steps: int) -> dict[str, float]:
    names = sorted(totals)
    means = torch.stack([totals[name].float() for name in names]) / steps
    reduced = torch.as_tensor(fabric.all_reduce(means, reduce_op="mean"))
    return dict(zip(names, reduced.tolist(), strict=True))


def gather_in_order(fabric: Fabric, item: Any) -> list[Any]:
    """The items of all processes, in the order of their ranks, on every process; anything that pickles."""
    if fabric.world_size == 1:
        return [item]
    items: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(items, item)
    return items


def share_of(fabric: Fabric, count: int) -> range:
    """The indices of this process when ``count`` items are dealt out in blocks, in the order of the ranks.

    Results gathered by :func:`gather_in_order` are then in the order of the items.
    """
    rank, processes = fabric.global_rank, fabric.world_size
    return range(rank * count // processes, (rank + 1) * count // processes)
