"""What the benchmarks share: the machine's header, peers timed in turn, peak memory, tables, and the file of results.

Import it before numpy and torch: it sets them to one thread, as with more of them any other load changes the ratios.
Times are wall-clock time; CPU time of the process stands beside, so that a busy machine shows.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import torch

from probemb_adapters.files import commit_of

torch.set_num_threads(1)

RESULTS = Path(__file__).resolve().parent / "results"
BUSY_LOAD = 0.7
BUSY_RATIO = 1.3  # of wall-clock to CPU time
INSTALL = {  # packages that not everyone has, by the name they are imported by
    "pykeops": "pip install pykeops",
    "sklearn": "pip install scikit-learn",
    "h5py": "pip install h5py",
    "torch_geometric": "pip install torch-geometric",
    "plyfile": "pip install plyfile",
    "tqdm": "pip install tqdm",
    "matplotlib": "pip install matplotlib",
    "MinkowskiEngine": "make minkowski",
}
DISTRIBUTIONS = ("numpy", "scipy", "scikit-learn", "pykeops", "torch-geometric", "MinkowskiEngine")

Row = dict[str, float]
"""Of a peer: ``median_s`` and ``min_s`` of the wall-clock time, ``cpu_s`` (least CPU time) and ``rounds``."""
T = TypeVar("T")


# --- the machine


def header() -> dict[str, Any]:
    """What the numbers depend on: machine, threads, load, date, versions, commit ("-dirty" where files changed)."""
    return {
        "machine": cpu_name(),
        "threads": torch.get_num_threads(),
        "load": load(),
        "date": datetime.date.today().isoformat(),
        "commit": commit_of(RESULTS.parent),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version_of(name) for name in DISTRIBUTIONS},
        },
    }


def header_text(head: Mapping[str, Any]) -> str:
    """The header in words, with a warning where the machine has other work."""
    versions = ", ".join(f"{name} {number}" for name, number in head["versions"].items() if number is not None)
    text = f"{head['machine']}, one thread, {head['date']}, commit {head['commit']}\n{versions}"
    if head["load"] is not None and head["load"] > BUSY_LOAD:
        text += f"\nWARNING: the machine is busy (load {head['load']:.1f}); ratios will not mean much"
    return text


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def slug(name: str) -> str:
    """A name as a file has it.

    >>> slug("Intel(R) Xeon(R) CPU @ 2.20GHz")
    'intel-r-xeon-r-cpu-2-20ghz'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def load() -> float | None:
    """Processes that want to run, over the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def missing(packages: Iterable[str]) -> str | None:
    """What to say of the packages that are not there, None where all are."""
    absent = [INSTALL[name] for name in packages if importlib.util.find_spec(name) is None]
    return f"not installed: {'; '.join(absent)}" if absent else None


# --- time


def timed(peers: Mapping[str, Callable[[], object]], rounds: int, *, seconds: float = math.inf) -> dict[str, Row]:
    """Call the peers in turn. The first call of each is not counted; no new round begins after so many seconds."""
    for call in peers.values():
        call()
    times: dict[str, list[Times]] = {name: [] for name in peers}
    stop = time.perf_counter() + seconds
    for _ in range(rounds):
        for name, call in peers.items():
            times[name].append(clocked(call)[1])
        if time.perf_counter() > stop:
            break
    return {name: summary(rounds_of) for name, rounds_of in times.items()}


class Times(NamedTuple):
    """Seconds of one call."""

    wall: float
    cpu: float


def clocked(call: Callable[[], T]) -> tuple[T, Times]:
    """What the call returns, and its times."""
    start_cpu, start = time.process_time(), time.perf_counter()
    result = call()
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return result, Times(wall, cpu)


def summary(times: Sequence[Times], items: int = 1) -> Row:
    """Of some calls, for each of the items that a call takes."""
    wall = [t.wall / items for t in times]
    cpu = min(t.cpu for t in times) / items
    return {"median_s": statistics.median(wall), "min_s": min(wall), "cpu_s": cpu, "rounds": len(times)}


# --- memory


class PeakMemory:
    """Peak memory of a block above what this process had before it: ``with PeakMemory() as peak: ...; peak.megabytes``.

    NaN where the system does not tell, that is everywhere but on Linux. Code that is loaded within the block counts:
    call it once before. Measure :func:`in_new_process`: a long life leaves free memory that the allocator cannot give
    back, and a block that fits in it seems to need nothing.
    """

    megabytes = math.nan

    def __enter__(self) -> PeakMemory:
        # Memory that was freed but kept for later would be used again, and nothing would seem to be needed.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        if trim is not None:
            trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        except OSError:
            self._before = math.nan
        else:
            self._before = _kilobytes("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not math.isnan(self._before):
            self.megabytes = (_kilobytes("VmHWM") - self._before) * 1024 / 1e6


def _kilobytes(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(key))


def in_new_process(function: Callable[..., T], *args: Any) -> T:
    """The function's result, computed in a process of its own: its memory is not that of what ran before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *args).result()


# --- what a subject returns


@dataclass(frozen=True)
class Table:
    """Peers that do the same.

    Attributes:
        baseline: the row that the others are compared with.
        ours: the row of this library that stands for it in the picture.
        missing: peers that could not run, and why.
        note: printed below.
    """

    title: str
    rows: dict[str, Row]
    baseline: str
    ours: str
    missing: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def times_faster(self, name: str) -> float:
        """Than the baseline, by the least times, which other load changes least."""
        return self.rows[self.baseline]["min_s"] / self.rows[name]["min_s"]

    def __str__(self) -> str:
        lines = [f"\n{self.title}", f"{'':44}{'median ms':>12}{'min ms':>12}{'CPU ms':>12}{'times faster':>14}"]
        for name, row in self.rows.items():
            times = "".join(f"{1e3 * row[key]:12.2f}" for key in ("median_s", "min_s", "cpu_s"))
            busy = "  busy machine" if row["min_s"] > BUSY_RATIO * row["cpu_s"] + 1e-3 else ""
            lines.append(f"{name:44}{times}{self.times_faster(name):14.2f}{busy}")
        lines += [f"{name:44}{why}" for name, why in self.missing.items()]
        return "\n".join([*lines, self.note] if self.note else lines)


@dataclass(frozen=True)
class Shares:
    """Stages of one run, in seconds, and which of them are this library's."""

    title: str
    seconds: dict[str, float]
    library: tuple[str, ...]

    @property
    def library_share(self) -> float:
        return sum(self.seconds[stage] for stage in self.library) / sum(self.seconds.values())

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        lines = [f"\n{self.title}", f"{'':44}{'ms':>12}{'share':>10}"]
        lines += [f"{name:44}{1e3 * s:12.2f}{s / total:10.1%}" for name, s in self.seconds.items()]
        lines.append(f"{'all':44}{1e3 * total:12.2f}")
        of_it = f"of it {' + '.join(self.library)}"
        return "\n".join([*lines, f"{of_it:56}{self.library_share:10.1%}"])


@dataclass(frozen=True)
class Growth:
    """Time and peak memory above the input, against a size.

    Attributes:
        size: its name, such as "points".
        x: its values, rising.
    """

    title: str
    size: str
    x: list[float]
    seconds: list[float]
    megabytes: list[float]

    @property
    def exponents(self) -> tuple[float, float]:
        """p of time ∝ size^p and memory ∝ size^p; NaN for memory that is not known."""
        return exponent(self.x, self.seconds), exponent(self.x, self.megabytes)

    def __str__(self) -> str:
        lines = [f"\n{self.title}", f"{self.size:>16}{'s':>12}{'peak MB':>12}"]
        rows = zip(self.x, self.seconds, self.megabytes, strict=True)
        lines += [f"{x:16,.0f}{s:12.3f}{mb:12.1f}" for x, s, mb in rows]
        of_time, of_memory = self.exponents
        return "\n".join([*lines, f"time ∝ {self.size}^{of_time:.2f}, memory ∝ {self.size}^{of_memory:.2f}"])


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of y ∝ x^p, by least squares of the logarithms; NaN where a value is unknown.

    >>> round(exponent([1, 10, 100], [3, 30, 300]), 6)
    1.0
    """
    if len(x) < 2 or not all(map(math.isfinite, y)):
        return math.nan
    return float(np.polyfit(np.log(x), np.log(np.maximum(y, 1e-3)), 1)[0])


@dataclass
class Results:
    """Of one subject."""

    tables: list[Table] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, part: Table | Shares | Growth) -> None:
        """Keep a part and print it, so that a long run shows how far it is."""
        if isinstance(part, Table):
            self.tables.append(part)
        elif isinstance(part, Shares):
            self.shares.append(part)
        else:
            self.growth.append(part)
        print(part, flush=True)

    def lack(self, what: str, why: str) -> None:
        """Say what could not be measured."""
        self.missing[what] = why
        print(f"\n{what}: {why}", flush=True)

    def as_json(self) -> dict[str, Any]:
        return {
            "tables": [
                {**vars(t), "times_faster": {name: t.times_faster(name) for name in t.rows}} for t in self.tables
            ],
            "shares": [{**vars(s), "library_share": s.library_share} for s in self.shares],
            "growth": [
                {**vars(g), "exponents": dict(zip(("time", "memory"), g.exponents, strict=True))} for g in self.growth
            ],
            "numbers": self.numbers,
            "missing": self.missing,
        }


def write_json(path: Path, head: Mapping[str, Any], subjects: Mapping[str, Results]) -> None:
    """The header and each subject's results; JSON has no NaN, so what is not known is null."""
    content = {**head, "subjects": {name: results.as_json() for name, results in subjects.items()}}
    text = json.dumps(_known(content), indent=2, allow_nan=False) + "\n"
    write_file(path, text.encode())


def write_file(path: Path, content: bytes) -> None:
    """Write all of it or nothing, and make the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _known(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _known(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_known(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the command of a subject


def run_alone(name: str, description: str | None, benchmark: Callable[[bool], Results]) -> None:
    """The command line of one subject: ``--quick`` for small sizes, ``--output`` for the place of the JSON file."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds, for CI")
    parser.add_argument(
        "--output", type=Path, help=f"JSON file to write; by default benchmarks/results/{name}-{{machine}}.json"
    )
    options = parser.parse_args()
    head = header()
    print(header_text(head))
    results = benchmark(options.quick)
    path: Path | None = options.output
    if path is None and not options.quick:
        path = RESULTS / f"{name}-{slug(head['machine'])}.json"
    if path is not None:
        write_json(path, head, {name: results})
        print(f"\nresults  {path}")
