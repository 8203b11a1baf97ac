"""Modules that were in one flat folder, importable from where they were: the same objects, under both names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

MOVED = {
    "baselines": "probemb_adapters.experiments.baselines",
    "bootstrap": "probemb_adapters.experiments.bootstrap",
    "checkpoint": "probemb_adapters.training.checkpoint",
    "experiment": "probemb_adapters.experiments.run",
    "figures": "probemb_adapters.report.figures",
    "furniture": "probemb_shapes.furniture",
    "generated": "probemb_shapes.families",
    "minkowski": "probemb_adapters.networks.minkowski",
    "minkowski_build": "probemb_adapters.networks.minkowski_build",
    "minkunet": "probemb_adapters.networks.minkunet",
    "partnet_detection": "probemb_adapters.partnet.detection",
    "partnet_predictions": "probemb_adapters.partnet.predictions",
    "point_geometry": "probemb_adapters.networks.point_geometry",
    "pointnet2": "probemb_adapters.networks.pointnet2",
    "points": "probemb_adapters.clouds",
    "pretrained": "probemb_adapters.networks.pretrained",
    "rooms": "probemb_shapes.rooms",
    "sampling": "probemb_adapters.training.batches",
    "scannet_augment": "probemb_adapters.scannet.augment",
    "scannet_files": "probemb_adapters.scannet.files",
    "scannet_submission": "probemb_adapters.scannet.submission",
    "scannet_write": "probemb_adapters.scannet.write",
    "variants": "probemb_adapters.experiments.variants",
    "viz": "probemb_adapters.report.pictures",
    "voxels": "probemb_adapters.networks.voxels",
}
"""Name in this package → where it is now."""


class _Alias(Loader):
    """Gives the module of another name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # importing has put the alias there

    def get_code(self, name: str) -> CodeType | None:
        """What `python -m` runs."""
        spec = find_spec(self.name)
        code: CodeType | None = spec.loader.get_code(self.name) if spec and spec.loader else None  # type: ignore[attr-defined]
        return code


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        first, _, below = rest.partition(".")
        if package != self.package or first not in MOVED:
            return None
        new = MOVED[first] + (f".{below}" if below else "")
        found = find_spec(new)
        if found is None:
            return None
        return ModuleSpec(name, _Alias(new), is_package=found.submodule_search_locations is not None)


def install(package: str) -> None:
    """Let the old names be imported, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder(package))
