"""Commands that are killed (signal 9) at random moments and called again: they end with what one left alone gives.

    make kills                       100 kills over the commands below
    make kills KILLS=20 SEED=1

A run is a fork of a process that has the libraries loaded, so that the kills fall into the work and not into imports.
After each kill every file that is there must be whole; up to five kills later the command ends, and weights, metrics
and predictions must be those of the command that was not killed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot  # noqa: F401  # loaded once, for all forks
import numpy as np
import plotly.graph_objects  # noqa: F401
import torch

from probemb_adapters.cli.main import main as probemb
from probemb_adapters.clouds import read_clouds
from probemb_adapters.training import LAST
from probemb_adapters.training.checkpoint import load_checkpoint
from probemb_shapes.demo_data import PROJECT
from probemb_shapes.furniture import write_furniture
from probemb_shapes.plants import write_plants

MOST = 5  # kills before a command may end
MEASURED = {
    "training minutes",
    "grouping minutes",
    "peak MB",
    "commit",
    "training, min",
    "grouping",
    "MB",
}  # of studies
COLUMNS = ("command", "seconds", "kills", "with files", "left temporary", "results", "different")


@dataclass(frozen=True)
class Command:
    """``go`` writes into a folder, or goes on with what it finds there."""

    name: str
    go: Callable[[Path], Any]


def script(path: str, *arguments: object) -> None:
    sys.argv = [path, *map(str, arguments)]
    runpy.run_path(str(PROJECT / path), run_name="__main__")


def commands(data: Path) -> list[Command]:
    plants, furniture, run = data / "plants", data / "furniture", data / "run"
    write_plants(plants, 5, points=400)
    write_furniture(PROJECT / "data" / "furniture_parts", furniture)
    train = ("--steps", "50", "--points", "64", "--batch-size", "2", "--accelerator", "cpu")
    partnet = (
        *("--root", furniture, "--class-agnostic", "True", "--workers", 0, "--accelerator", "cpu", "--max-shapes", 4),
        *("--points", 256, "--train-points", 128, "--width", 0.25, "--epochs", 6, "--batch-size", 2),
        *("--epoch-shapes", 12),
    )
    study = (
        *("--methods", "probabilistic embedding", "--categories", "Table", "--shapes", 4, "--epochs", 6),
        *("--epoch-shapes", 12, "--batch-size", 2, "--train-points", 128, "--points", 128, "--width", 0.25),
        *("--resamples", 10, "--accelerator", "cpu"),
    )

    def again(folder: Path) -> list[str]:
        return ["--resume"] if (folder / LAST).exists() else []

    if finish(Command("model", lambda out: probemb(["train", str(plants), "--output", str(out), *train])), run, None):
        raise SystemExit("the training that predictions need did not end")
    return [
        Command("train", lambda out: probemb(["train", str(plants), "--output", str(out), *train, *again(out)])),
        Command("predict", lambda out: probemb(["predict", str(run), str(plants), "--output", str(out)])),
        Command("example", lambda out: script("examples/partnet_pointnet2.py", *partnet, "--output", out, *again(out))),
        Command("study", lambda out: script("studies/competitors.py", *study, "--output", out)),
    ]


def finish(command: Command, folder: Path, seconds: float | None) -> bool:
    """Whether it was killed, that many seconds after its start; a command that fails ends the whole."""
    log = folder.parent / f"{folder.name}.log"
    folder.parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()  # with what it starts
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            command.go(folder)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            print(error, file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    start = time.monotonic()
    done, status = 0, 0
    try:
        while not done and (seconds is None or time.monotonic() - start < seconds):
            time.sleep(0.002)
            done, status = os.waitpid(child, os.WNOHANG)
    except KeyboardInterrupt:
        os.killpg(child, signal.SIGKILL)
        raise
    if not done:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return True
    if status:
        raise SystemExit(f"{command.name} failed in {folder}: {log.read_text()[-2000:]}")
    return False


def files_of(folder: Path) -> list[Path]:
    """Without those that begin with a dot, as temporary ones do, and TensorBoard's, which grow line by line."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and "tensorboard" not in path.parts)
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def content(path: Path) -> Any:
    """What must be equal; reading it fails where the file is not whole."""
    if path.suffix == ".safetensors":
        return load_checkpoint(path)
    if path.suffix == ".json":
        document = json.loads(path.read_text(encoding="utf-8"))
        return {name: value for name, value in document.items() if name not in ("options", "versions")}
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return [{k: v for k, v in line.items() if k not in MEASURED} for line in csv.DictReader(file)]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if path.suffix == ".ply":
        return [(cloud.pos, cloud.properties) for cloud in read_clouds(path)]
    data = path.read_bytes()
    ends = {".html": b"</html>", ".png": b"IEND\xaeB`\x82"}
    if path.suffix in ends and not data.rstrip().endswith(ends[path.suffix]):
        raise ValueError(f"{path} is cut off")
    return None  # pages and pictures hold folders and dates


def digest(value: Any) -> str:
    """Of nested values, to the bit."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()
    if isinstance(value, dict):
        return digest([f"{name!r}:{digest(item)}" for name, item in value.items()])
    if isinstance(value, list | tuple):
        return hashlib.sha256(
            "\n".join(item if isinstance(item, str) else digest(item) for item in value).encode()
        ).hexdigest()
    return repr(value)


def results(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): digest(content(path)) for path in files_of(folder)}


class Endured:
    """What became of a command that was killed and called again."""

    def __init__(self, command: Command, folder: Path, draw: random.Random) -> None:
        start = time.monotonic()
        finish(command, folder / "whole", None)
        self.seconds = time.monotonic() - start
        self.expected = results(folder / "whole")
        self.command, self.folder, self.draw = command, folder, draw
        self.row: dict[str, Any] = dict.fromkeys(COLUMNS, 0) | {
            "command": command.name,
            "seconds": round(self.seconds, 1),
        }

    def once_more(self, kills: int) -> None:
        """Up to so many kills, then the end."""
        run, row = self.folder / "run", self.row
        shutil.rmtree(run, ignore_errors=True)
        for _ in range(kills):
            if not finish(self.command, run, self.draw.uniform(0, 0.9 * self.seconds)):
                break
            row["kills"] += 1
            row["with files"] += bool(results(run))  # all that are there can be read
        finish(self.command, run, None)
        row["results"] += 1
        found = results(run)
        wrong = [name for name in {**self.expected, **found} if self.expected.get(name) != found.get(name)]
        row["different"] += bool(wrong)
        row["left temporary"] += sum(path.name.endswith(".tmp") for path in run.rglob(".*"))
        if wrong:
            print(f"{self.command.name}: after kills other than left alone: {', '.join(wrong)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over all commands")
    parser.add_argument("--seed", type=int, default=0, help="other moments")
    parser.add_argument("--output", type=Path, default=Path(".cache/kills.csv"), help="a line a command")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        every = [
            Endured(command, Path(folder) / command.name, random.Random(1000 * options.seed + i))
            for i, command in enumerate(commands(Path(folder) / "data"))
        ]
        rows = [endured.row for endured in every]
        while (left := options.kills - sum(row["kills"] for row in rows)) > 0:
            fewest = min(every, key=lambda endured: endured.row["kills"])
            fewest.once_more(min(MOST, left))
            print(fewest.row, flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    total = {name: sum(row[name] for row in rows) for name in COLUMNS[2:]}
    print(f"{total['kills']} kills, {total['results']} results, {total['different']} other than of one left alone")
    return int(total["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
