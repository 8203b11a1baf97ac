"""pointcept/models/builder.py: a registry of models, and what builds one from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn


class Registry:
    """pointcept/utils/registry.py: `register_module(name)` decorates, a name twice is an error."""

    def __init__(self) -> None:
        self.module_dict: dict[str, type[nn.Module]] = {}

    def register_module(self, name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
        def register(module: type[nn.Module]) -> type[nn.Module]:
            if name in self.module_dict:
                raise KeyError(f"{name} is already registered")
            self.module_dict[name] = module
            return module

        return register

    def get(self, name: str) -> type[nn.Module] | None:
        return self.module_dict.get(name)

    def build(self, cfg: dict[str, Any]) -> nn.Module:
        arguments = dict(cfg)
        return self.module_dict[arguments.pop("type")](**arguments)


MODELS = Registry()


def build_model(cfg: dict[str, Any]) -> nn.Module:
    return MODELS.build(deepcopy(cfg))
