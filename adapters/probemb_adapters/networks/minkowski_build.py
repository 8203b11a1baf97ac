"""Build, install and check MinkowskiEngine 0.5.4, which is published as source only:

    python -m probemb_adapters.networks.minkowski_build

It is compiled for the torch and the Python that run this command, so they must be there first, as must a C++ compiler
and OpenBLAS; the wheel is kept in the user's cache, one for each pair. With a torch for CUDA the toolkit of the same
version is needed. Whether it was built now or earlier, its convolution is then compared with a dense one.
"""

from __future__ import annotations

import argparse
import collections
import collections.abc
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

VERSION = "0.5.4"
COMMAND = "python -m probemb_adapters.networks.minkowski_build"
_JOB_MEMORY = 2 << 30  # bytes that compiling one file takes
# CUDA 12 no longer includes these on the way, and version 0.5.4 relies on it.
_THRUST = ("execution_policy", "reduce", "remove", "sort", "unique")


class BuildError(RuntimeError):
    """MinkowskiEngine cannot be built here; the message says what to do."""


class OpenBLAS(NamedTuple):
    """Where cblas.h and the library are; None: where the compiler looks by itself."""

    include: Path | None = None
    lib: Path | None = None


def installed() -> bool:
    """Whether a MinkowskiEngine of any version is there; it is not imported."""
    return importlib.util.find_spec("MinkowskiEngine") is not None


def check_convolution() -> float:
    """The largest relative difference between a sparse convolution and torch's dense one, outputs and gradients.

    On 300 voxels with 3 channels, kernel 3, float64, on the CPU.

    Raises:
        ImportError: MinkowskiEngine is not there, or was compiled for another torch.
    """
    collections.Sequence = collections.abc.Sequence  # type: ignore[attr-defined]  # gone in Python 3.10, and used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import MinkowskiEngine as ME

    size, channels, width = 10, 3, 4
    random = torch.Generator().manual_seed(0)
    cells = torch.randperm(size**3, generator=random)[:300]
    place = torch.stack([cells // size**2, cells // size % size, cells % size], dim=1)
    features = torch.randn(len(place), channels, generator=random, dtype=torch.float64)
    weight = torch.randn(27, channels, width, generator=random, dtype=torch.float64)

    layer = ME.MinkowskiConvolution(channels, width, kernel_size=3, dimension=3).double()
    layer.kernel.data.copy_(weight)
    x = features.clone().requires_grad_()
    coordinates = torch.cat([torch.zeros(len(place), 1, dtype=torch.long), place], dim=1).int()
    sparse = layer(ME.SparseTensor(x, coordinates=coordinates, device="cpu"))
    rows = sparse.C[:, 1:].long()  # in an order of its own
    target = torch.randn(size, size, size, width, generator=random, dtype=torch.float64)
    gradients = torch.autograd.grad((sparse.F * target[tuple(rows.T)]).sum(), (x, layer.kernel))

    y = features.clone().requires_grad_()
    dense_weight = weight.clone().requires_grad_()
    grid = torch.zeros(size, size, size, channels, dtype=torch.float64).index_put(tuple(place.T), y)
    # Offsets of the kernel count along the first axis fastest.
    kernel = dense_weight.view(3, 3, 3, channels, width).permute(4, 3, 2, 1, 0)
    dense = F.conv3d(grid.permute(3, 0, 1, 2)[None], kernel, padding=1)[0].permute(1, 2, 3, 0)
    expected = torch.autograd.grad((dense[tuple(rows.T)] * target[tuple(rows.T)]).sum(), (y, dense_weight))

    pairs = zip((sparse.F, *gradients), (dense[tuple(rows.T)], *expected), strict=True)
    return max(float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in pairs)


def find_openblas(environment: Mapping[str, str]) -> OpenBLAS | None:
    """The first OpenBLAS that a C program compiles and links with: the compiler's own, $OPENBLAS_HOME, conda's, …"""
    roots = [environment.get("OPENBLAS_HOME"), environment.get("CONDA_PREFIX"), sys.prefix]
    roots += ["/opt/OpenBLAS", "/opt/homebrew/opt/openblas", "/usr/local/opt/openblas"]
    found = [Path(root) for root in roots if root]
    candidates = [OpenBLAS(), *(OpenBLAS(root / "include", root / "lib") for root in found)]
    candidates.append(OpenBLAS(Path("/usr/include/openblas")))  # Fedora
    return next((place for place in candidates if _links(place, environment)), None)


def _compiler(environment: Mapping[str, str]) -> str:
    """$CC, which may carry flags."""
    return (environment.get("CC", "").split() or ["cc"])[0]


def _links(place: OpenBLAS, environment: Mapping[str, str]) -> bool:
    if place.include is not None and not place.include.is_dir():
        return False
    flags = [f"-I{place.include}"] if place.include else []
    flags += [f"-L{place.lib}", f"-Wl,-rpath,{place.lib}"] if place.lib else []
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "blas.c", Path(folder) / "blas"
        source.write_text("#include <cblas.h>\nint main(void) { double x = 0; return (int)cblas_dasum(1, &x, 1); }\n")
        command = [_compiler(environment), *flags, str(source), "-o", str(program), *flags, "-lopenblas"]
        return subprocess.run(command, capture_output=True, env=dict(environment)).returncode == 0


def build_wheel(folder: Path, *, cpu_only: bool = False) -> Path:
    """Compile MinkowskiEngine into ``folder``; some minutes. The output of the compiler is shown if it fails.

    Raises:
        BuildError: a compiler, OpenBLAS or the CUDA toolkit is missing, or compiling failed.
    """
    environment = dict(os.environ)
    # Its setup.py calls `pip`, which must be that of this Python.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    for tool in (_compiler(environment), *environment.get("CXX", "c++").split()[:1]):
        if shutil.which(tool, path=environment["PATH"]) is None:
            raise BuildError(
                f"no compiler {tool}: install one (Debian: apt-get install g++; conda: conda install gxx_linux-64)"
            )
    options = _cuda_options(environment, cpu_only)
    place = find_openblas(environment)
    if place is None and os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        _say("installing libopenblas-dev")
        _run(["apt-get", "update", "-qq"], environment)
        _run(["apt-get", "install", "-y", "-qq", "libopenblas-dev"], environment)
        place = find_openblas(environment)
    if place is None:
        raise BuildError(
            "no OpenBLAS with cblas.h was found: install it (Debian, Ubuntu: apt-get install libopenblas-dev; Fedora: "
            "dnf install openblas-devel; conda: conda install -c conda-forge openblas; macOS: brew install openblas), "
            "or name the folder that has include/ and lib/ in OPENBLAS_HOME"
        )
    options += [f"--blas_include_dirs={place.include}"] if place.include else []
    if place.lib:
        options.append(f"--blas_library_dirs={place.lib}")
        environment["LDFLAGS"] = f"{environment.get('LDFLAGS', '')} -Wl,-rpath,{place.lib}"
    # Debug symbols take half the time and most of the memory, and nobody here reads the warnings.
    for flags in ("CFLAGS", "CXXFLAGS"):
        environment[flags] = f"{environment.get(flags, '')} -g0 -w"
    environment.setdefault("MAX_JOBS", str(_jobs()))
    pip = [sys.executable, "-m", "pip"]
    _run([*pip, "install", "-q", "--upgrade", "pip>=23.1", "setuptools", "wheel", "ninja"], environment)
    _say(f"compiling MinkowskiEngine {VERSION} for torch {torch.__version__}, some minutes")
    folder.mkdir(parents=True, exist_ok=True)
    # What setup.py does besides compiling: it uninstalls the MinkowskiEngine that is there.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as temporary:
        # Without pip's own cache, which knows the version of Python but not that of torch.
        command = [
            *pip,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--use-pep517",
            "--no-cache-dir",
            "-w",
            temporary,
        ]
        settings = [f"--config-settings=--global-option={option}" for option in ("--blas=openblas", *options)]
        _run([*command, *settings, "-w", temporary, f"MinkowskiEngine=={VERSION}"], environment)
        built = next(Path(temporary).glob("*.whl"))
        os.replace(built, folder / built.name)
    return folder / built.name


def _cuda_options(environment: dict[str, str], cpu_only: bool) -> list[str]:
    if cpu_only or torch.version.cuda is None:
        return ["--cpu_only"]
    from torch.utils.cpp_extension import CUDA_HOME

    if CUDA_HOME is None:
        raise BuildError(
            f"torch {torch.__version__} computes on CUDA {torch.version.cuda}, but its compiler nvcc was not found: "
            f"install the CUDA toolkit {torch.version.cuda} and set CUDA_HOME, or build for the CPU with --cpu-only"
        )
    includes = " ".join(f"-include thrust/{name}.h" for name in _THRUST)
    environment["NVCC_APPEND_FLAGS"] = f"{environment.get('NVCC_APPEND_FLAGS', '')} {includes}"
    return ["--force_cuda"]


def _jobs() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return cores
    return max(1, min(cores, memory // _JOB_MEMORY))


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-40:])
        raise BuildError(f"{end}\n\nfailed: {' '.join(command)}")


def wheel_folder(cache: Path, *, cpu_only: bool = False) -> Path:
    """Where the wheel for this torch and this Python is kept.

    >>> wheel_folder(Path("wheels")).parent
    PosixPath('wheels')
    """
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    torch_version = torch.__version__ + ("-cpu_only" if cpu_only else "")
    return cache / f"minkowskiengine-{VERSION}-torch-{torch_version}-{python}-{platform.system()}-{platform.machine()}"


def default_cache() -> Path:
    """`probemb_lib/wheels` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "probemb_lib" / "wheels"


def install(cache: Path, *, cpu_only: bool = False, rebuild: bool = False) -> None:
    """Have a MinkowskiEngine that works: the installed one, else the cached wheel, else a new one.

    Raises:
        BuildError: it cannot be built, or what was built computes something else than a dense convolution.
    """
    if not rebuild and installed() and _checked() is None:
        return
    folder = wheel_folder(cache, cpu_only=cpu_only)
    wheels = sorted(folder.glob("*.whl"))
    wheel = wheels[0] if wheels and not rebuild else build_wheel(folder, cpu_only=cpu_only)
    _say(f"installing {wheel}")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", str(wheel)]
    _run(pip, os.environ)
    wrong = _checked()
    if wrong is not None:
        raise BuildError(f"MinkowskiEngine was installed from {wheel} but does not work:\n{wrong}\nTry --rebuild")


def _checked() -> str | None:
    """What is wrong with the installed MinkowskiEngine, None if nothing; tried in another process, which may crash."""
    command = [sys.executable, "-m", "probemb_adapters.networks.minkowski_build", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        sys.stdout.write(done.stdout)
        return None
    return (done.stdout + done.stderr).strip() or f"exit status {done.returncode}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Build, install and check MinkowskiEngine 0.5.4.")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of wheels (default: %(default)s)")
    parser.add_argument("--cpu-only", action="store_true", help="for the CPU alone, though torch computes on CUDA")
    parser.add_argument("--rebuild", action="store_true", help="compile anew, whatever is installed or in the cache")
    parser.add_argument("--check", action="store_true", help="only compare what is installed with a dense convolution")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            install(options.cache, cpu_only=options.cpu_only, rebuild=options.rebuild)
            return
        difference = check_convolution()
        if difference > 1e-9:
            raise BuildError(f"it differs from a dense convolution by {difference:.1e} of the largest value")
        _say(f"MinkowskiEngine {VERSION} agrees with a dense convolution within {difference:.0e}")
    except BuildError as error:
        sys.exit(f"MinkowskiEngine: {error}")


if __name__ == "__main__":
    main()
