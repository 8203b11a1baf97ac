"""Where the Triton twins run, and one warning where they do not: asked before the first launch. Triton is imported
on CUDA alone."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import sys
import sysconfig
import warnings

import torch

OLDEST_TRITON = (3, 3)  # that the kernels are tested with; newer than the newest tested is tried
OLDEST_CAPABILITY = (8, 0)  # Ampere


@functools.cache
def missing(device: torch.device) -> str | None:
    """What the kernels lack on this CUDA device and how to get it, or None."""
    if torch.version.cuda is None:
        return "expected an NVIDIA GPU, as the kernels have not been tried on others, got ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        return f"expected a GPU of compute capability 8.0 (Ampere) or newer, got {capability[0]}.{capability[1]}"
    try:
        triton = importlib.import_module("triton")
    except ImportError:
        return "expected Triton 3.3 or newer, found none: pip install triton"
    if tuple(int(n) for n in triton.__version__.split(".")[:2]) < OLDEST_TRITON:
        return (
            f"expected Triton 3.3 or newer, got {triton.__version__}. Each torch asks for its own, since 2.7 new "
            "enough: pip install -U torch"
        )
    # Triton builds the code that launches a kernel; other systems have Triton packages with a compiler inside.
    if sys.platform == "linux":
        if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
            return "expected a C compiler, which Triton calls, found none: apt-get install gcc, or set CC"
        scheme = sysconfig.get_default_scheme()
        include = sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"]
        if not os.path.exists(os.path.join(include, "Python.h")):
            return f"expected Python.h in {include}, which Triton reads, found none: apt-get install python3-dev"
    return None


def run_on(device: torch.device) -> bool:
    """Whether the kernels run on a CUDA device; where they do not, one warning says why and what to do."""
    lack = missing(device)
    if lack is not None:
        warn_once(lack)
    return lack is None


@functools.cache
def warn_once(lack: str) -> None:
    """A warning, once a process for each reason."""
    warnings.warn(f"the Triton kernels do not run here, and plain torch is many times slower: {lack}", stacklevel=2)
