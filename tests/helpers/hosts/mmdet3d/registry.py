"""mmdet3d/registry.py: `MODELS.register_module()` names a class by its own name, `MODELS.build` takes a dict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Registry:
    def __init__(self) -> None:
        self.module_dict: dict[str, type[nn.Module]] = {}

    def register_module(self) -> Callable[[type[nn.Module]], type[nn.Module]]:
        def register(module: type[nn.Module]) -> type[nn.Module]:
            if module.__name__ in self.module_dict:
                raise KeyError(f"{module.__name__} is already registered")
            self.module_dict[module.__name__] = module
            return module

        return register

    def build(self, cfg: dict[str, Any]) -> nn.Module:
        if not isinstance(cfg, dict):
            raise TypeError(f"cfg should be a dict, got {type(cfg)}")
        arguments = dict(cfg)
        return self.module_dict[arguments.pop("type")](**arguments)


MODELS = Registry()
