"""Weights and the state of a training as safetensors, which are complete or not there.

Safetensors hold tensors and text, no code, so a checkpoint from elsewhere can be opened without risk. A SHA-256 of all
tensors and of the text stands beside them: weights of which a bit has flipped load as well as any other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probemb_adapters.files import check_sum, missing_extra, readable, replaced_file

try:
    from safetensors import safe_open
    from safetensors.torch import save
except ImportError as error:
    raise missing_extra("checkpoints need safetensors", "train", error) from error

_TENSOR = "tensor:"  # in the text, stands for a tensor of the file
_DIGEST = "sha256"


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers, text and None as one safetensors file, at once.

    Args:
        path: the file; what was there is replaced, completely or not at all.
        state: such as ``{"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}``. Tuples come
            back as lists, tensors that share memory as tensors of their own. Keys are text or integers.

    Raises:
        TypeError: a value is none of these.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_describe(dict(state), "", tensors))
    storages: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        if storage in storages:  # tied weights: safetensors refuses two names of one memory
            tensors[name] = tensor.clone()
        storages.add(storage)
    with replaced_file(path) as temporary:
        # save_file leaves files of its own when killed
        temporary.write_bytes(save(tensors, metadata={"state": text, _DIGEST: _digest(text, tensors)}))


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """What :func:`save_checkpoint` wrote; tensors on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, truncated, damaged, or not written by this library.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a checkpoint that a training wrote")
    with readable(path, "a checkpoint that a training wrote"):
        check_sum(path)  # of shipped ones, the older of which have none inside
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if "state" not in metadata:
            raise ValueError(
                f"{path} has no description of its state: expected a checkpoint of this library's training"
            )
        if metadata.get(_DIGEST, "") not in ("", _digest(metadata["state"], tensors)):  # older files have none
            raise ValueError(f"{path} is damaged: its {_DIGEST} is not that of its content; take another copy of it")
        state: dict[str, Any] = _restore(json.loads(metadata["state"]), tensors)
    return state


def load_weights(network: nn.Module, weights: Mapping[str, Any]) -> None:
    """Load the state of a network that was built from the settings in the same file.

    Files from before the heads kept their scales lack them (`_extra_state`); the settings have them, so that nothing
    is to be compared.

    Raises:
        RuntimeError: weights of another network, as of :meth:`torch.nn.Module.load_state_dict`.
    """
    own = {name: value for name, value in network.state_dict().items() if name.rpartition(".")[2] == "_extra_state"}
    network.load_state_dict({**own, **weights})


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _describe(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON; its tensors go into ``tensors`` under their path."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous()
        return _TENSOR + name
    if isinstance(value, Mapping):
        if not all(isinstance(key, str | int) for key in value):
            raise TypeError(f"{name or 'state'}: expected keys of text or integers, got {list(value)}")
        # as pairs: JSON would turn integer keys, such as an optimizer's, into text
        return {
            "dict": [
                [key, _describe(item, f"{name}.{key}" if name else str(key), tensors)] for key, item in value.items()
            ]
        }
    if isinstance(value, list | tuple):
        return [_describe(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, str):
        return "text:" + value
    if value is None or isinstance(value, bool | int | float):
        return value
    raise TypeError(f"{name}: expected a tensor, number, text, None, dict or list, got {type(value).__name__}")


def _restore(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, str):
        return tensors[value.removeprefix(_TENSOR)] if value.startswith(_TENSOR) else value.removeprefix("text:")
    if isinstance(value, dict):
        return {key: _restore(item, tensors) for key, item in value["dict"]}
    if isinstance(value, list):
        return [_restore(item, tensors) for item in value]
    return value
