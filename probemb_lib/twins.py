"""Where Triton kernels run, and a warning where they do not. Imports no Triton."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import warnings

import torch

MIN_VERSION = (3, 3)
MIN_CAPABILITY = (8, 0)


@functools.cache
def missing(device: torch.device) -> str | None:
    """What the kernels lack to run on a CUDA device; None: nothing."""
    if torch.version.cuda is None:
        return "they are for CUDA, and this torch is built for something else"
    capability = torch.cuda.get_device_capability(device)
    if capability < MIN_CAPABILITY:
        return f"they are for compute capability 8.0 and later, this GPU has {capability[0]}.{capability[1]}"
    if importlib.util.find_spec("triton") is None:
        return "they need Triton 3.3 or later, found none; pip install triton"
    version = importlib.metadata.version("triton")
    if tuple(int(n) for n in version.split(".")[:2]) < MIN_VERSION:
        return f"they need Triton 3.3 or later, found {version}; torch 2.7 and later bring one that will do"
    return None


@functools.cache
def warn_once(reason: str) -> None:
    warnings.warn(f"probemb_lib goes on without its Triton kernels, several times slower: {reason}", stacklevel=2)
