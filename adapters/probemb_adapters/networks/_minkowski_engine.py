"""MinkowskiEngine 0.5.4 as ``ME``, imported so that Python >= 3.10 can and nothing of the user's process changes.

Its sources name `collections.Sequence`, which Python 3.10 removed; the name is lent for the import alone. The import
also warns of what it does to OMP_NUM_THREADS and of a build without CUDA: the first is undone here, the second is said
by :func:`probemb_adapters.networks.engines.pick_engine` where it matters.
"""

from __future__ import annotations

import collections
import collections.abc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch

BUILD = "python -m probemb_adapters.networks.minkowski_build, or in a clone of this project: make minkowski"

_THREADS = "OMP_NUM_THREADS"


@contextmanager
def _lent_surroundings() -> Iterator[None]:
    """What the engine needs while it is imported, taken back afterwards."""
    lends_name = not hasattr(collections, "Sequence")
    lends_threads = _THREADS not in os.environ
    if lends_name:
        collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]
    if lends_threads:
        # OpenBLAS reads the number when the engine loads it. Without one, the engine sets 16 on machines with more
        # than 16 processors, for this process and for all that it starts.
        os.environ[_THREADS] = str(min(torch.get_num_threads(), 16))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if lends_name:
            del collections.Sequence  # type: ignore[attr-defined]
        if lends_threads:
            del os.environ[_THREADS]


try:
    with _lent_surroundings():
        ME: Any = import_module("MinkowskiEngine")
        ConvolutionMode: Any = import_module("MinkowskiEngineBackend._C").ConvolutionMode
except ImportError as error:
    raise ImportError(
        f'sparse convolutions by MinkowskiEngine need it in version 0.5.4 ({error}); without it take engine="torch". '
        f"To build it: {BUILD}"
    ) from error
