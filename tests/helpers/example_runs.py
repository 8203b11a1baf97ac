"""Examples started as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paths import PACKAGES, PROJECT

ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": PACKAGES,
}


def run(
    script: Path, *arguments: object, processes: int = 1, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(script), *map(str, arguments)]
    own = ENVIRONMENT | dict(environment or {})
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=own, timeout=300)


def run_until(script: Path, *arguments: object, written: Path) -> None:
    """Start it, and kill it as soon as it has written a file."""
    command = [sys.executable, str(script), *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=PROJECT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        start = time.monotonic()
        while not written.exists() and process.poll() is None and time.monotonic() - start < 120:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


def read_metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics
