"""Weights of a published checkpoint into a network, as far as names and shapes fit, and a report of what did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probemb_adapters.files import missing_extra, what_instead
from probemb_adapters.networks.kernel_order import KernelOrder, check_kernel_order, in_order_of_this_library

Shape = tuple[int, ...]

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net")


@dataclass(frozen=True)
class LoadReport:
    """What was copied from a checkpoint; ``str(report)`` is a short text. Names are those of the network.

    Attributes:
        prefix: what the checkpoint has before the names, such as `module.`.
        loaded: names that were copied.
        missing: names that the checkpoint does not have; these keep their values.
        unexpected: names of the checkpoint, whole, that the network does not have.
        mismatched: names of other shapes: the network's and the checkpoint's; these keep their values.
    """

    prefix: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, tuple[Shape, Shape]]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        lines = [f"loaded {len(self.loaded)} of {total} tensors" + (f" under {self.prefix!r}" if self.prefix else "")]
        shapes = [f"{name} is {mine}, there {theirs}" for name, (mine, theirs) in self.mismatched.items()]
        for title, names in (("mismatched", shapes), ("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                more = f", and {len(names) - 6} more" if len(names) > 6 else ""
                lines.append(f"{title} {len(names)}: {', '.join(names[:6])}{more}")
        return "\n".join(lines)


def load_pretrained(
    network: nn.Module,
    checkpoint: str | Path | Mapping[str, Any],
    *,
    prefix: str | None = None,
    kernel_order: KernelOrder | None = None,
) -> LoadReport:
    """Copy into a network the weights of a checkpoint that fit its parameters and buffers in name and shape.

    Weights around the state dict are looked through: dicts with an entry `state_dict`, `model_state_dict`,
    `model_state`, `model`, `network` or `net`. Other entries than tensors are passed over.

    Args:
        network: gets the weights in place, on its device and in its dtype.
        checkpoint: a file of `torch.save`, opened without running any code of it, or `.safetensors`; or a state dict.
        prefix: what stands before the network's names in the checkpoint, such as `module.`; None finds it.
        kernel_order: of sparse kernels, as the version of MinkowskiEngine that trained them numbers offsets
            (:mod:`~probemb_adapters.networks.kernel_order`); others than "0.5" are converted. None takes "0.5" where
            the weights show it, where nothing is trained yet, and for models of this library's experiments.

    Raises:
        FileNotFoundError: no such file.
        ValueError: sparse kernels of another order, or of which nothing tells the order; the file cannot be read or
            holds more than tensors and plain values; nothing in it fits; or several prefixes fit equally well. The
            network is as it was.

    >>> network = nn.Linear(2, 3)
    >>> print(load_pretrained(network, {"module.weight": torch.zeros(3, 2), "module.bias": torch.zeros(4)}))
    loaded 1 of 2 tensors under 'module.'
    mismatched 1: bias is (3,), there (4,)
    """
    source = "the checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    found = _tensors(checkpoint if isinstance(checkpoint, Mapping) else _read(Path(checkpoint)))
    if kernel_order is None and not isinstance(checkpoint, Mapping) and _is_own(Path(checkpoint)):
        kernel_order = "0.5"
    own = network.state_dict()
    if prefix is None:
        prefix = _find_prefix(own, found, source)
    theirs = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    if kernel_order is None:
        check_kernel_order({name: tensor for name, tensor in theirs.items() if name in own}, source)
    else:
        theirs = {name: in_order_of_this_library(name, tensor, kernel_order) for name, tensor in theirs.items()}
    shared = [name for name in own if name in theirs]
    loaded = [name for name in shared if own[name].shape == theirs[name].shape]
    if not loaded:
        raise ValueError(
            f"{source}: nothing fits, expected tensors such as {_listed(own)}, got {_listed(found)}"
            + (f" and looked under {prefix!r}" if prefix else "")
        )
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(theirs[name])
    used = {prefix + name for name in shared}
    return LoadReport(
        prefix,
        tuple(loaded),
        missing=tuple(name for name in own if name not in theirs),
        unexpected=tuple(name for name in found if name not in used),
        mismatched={
            name: (tuple(own[name].shape), tuple(theirs[name].shape))
            for name in shared
            if own[name].shape != theirs[name].shape
        },
    )


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a checkpoint of torch.save or a .safetensors file")
    instead = what_instead(path)
    if instead is not None:
        raise ValueError(f"{path} is {instead}: expected a checkpoint of torch.save or a .safetensors file")
    try:
        content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except ImportError:
        raise
    except Exception as error:  # RuntimeError, EOFError, UnpicklingError, IndexError …: damage has many names
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}): expected tensors and plain values alone; where you "
            "trust the file, open it with torch.load(weights_only=False) and pass its state dict"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a dict of tensors, got {type(content).__name__}")
    return content


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise missing_extra(f"{path} needs safetensors", "train", error) from error
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return tensors


def _is_own(path: Path) -> bool:
    """Whether a training of this library wrote a file (`probemb_adapters.training.checkpoint`)."""
    if path.suffix != ".safetensors":
        return False
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return "state" in (file.metadata() or {})


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict, out of its wrappers."""
    inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if inner is not None:
        return _tensors(inner)
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _find_prefix(own: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> str:
    """The prefix under which most of the network's tensors fit; no prefix where it is among equals."""
    fits: Counter[str] = Counter()
    for name, tensor in found.items():
        parts = name.split(".")
        for i in range(len(parts)):
            mine = own.get(".".join(parts[i:]))
            if mine is not None and mine.shape == tensor.shape:
                fits["".join(part + "." for part in parts[:i])] += 1
    best = [prefix for prefix, count in fits.items() if count == max(fits.values())]
    if len(best) > 1 and "" not in best:
        raise ValueError(f"{source}: expected one part that fits, got {', '.join(map(repr, best))}: pass a prefix")
    return best[0] if len(best) == 1 else ""


def _listed(tensors: Mapping[str, Tensor]) -> str:
    names = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "no tensor"
