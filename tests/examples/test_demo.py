"""The demo in small: one page of all kinds, the hard case last, each with a command that can be run."""

from __future__ import annotations

import csv
import re
import shlex
from html import unescape
from pathlib import Path
from typing import Any

import example_runs
import pytest
import tyro
from paths import PROJECT

from probemb_adapters.experiments import partnet, scannet
from probemb_adapters.experiments.images.options import Options as ImageOptions

DEMO = PROJECT / "examples" / "demo.py"
OPTIONS: dict[str, Any] = {
    "examples/nuclei_unet.py": ImageOptions,
    "examples/partnet_pointnet2.py": partnet.Options,
    "examples/scannet_minkowski.py": scannet.Options,
}
KINDS = {  # and how many samples each has below
    "Nuclei in microscope images": 2,
    "Parts of chairs": 2,
    "Objects in rooms": 1,
    "Parts of chairs, trained just now": 2,
    "The hard case: parts of real furniture": 2,
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output folder and what was printed."""
    output = tmp_path_factory.mktemp("demo")
    small = ("--epochs", 1, "--epoch-shapes", 4, "--chairs", 8, "--rooms", 5, "--samples", 2)
    done = example_runs.run(DEMO, *small, "--output", output)
    assert done.returncode == 0, done.stderr
    assert "warn" not in (done.stdout + done.stderr).lower()
    return output, done.stdout


def test_one_page_of_all_kinds(shown: tuple[Path, str]) -> None:
    output, printed = shown
    path = output / "report.html"
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 8e6
    assert re.findall("<h2>(.*?)</h2>", page) == list(KINDS)
    assert page.count("data:image/webp") == 2 * 4  # input, truth, found and uncertainty of each image
    shapes = re.findall(r'<script type="application/json" id="shape-\d-\d"', page)
    assert len(shapes) == sum(KINDS.values()) - 2
    assert {"images.png", "shapes.png"} <= {path.name for path in output.iterdir()}

    rows = list(csv.reader((output / "results.csv").open()))
    assert {row[0]: int(row[1]) for row in rows[1:]} == KINDS
    assert all(0 <= float(row[3]) <= 100 for row in rows[1:])
    lines = [line for line in printed.splitlines() if line.startswith(tuple(KINDS))]
    assert len(lines) == len(KINDS)
    assert all(re.search(r"\d+ of \d+ found, \d+ false", line) for line in lines)


def test_the_commands_of_the_page_can_be_run(shown: tuple[Path, str]) -> None:
    commands = [unescape(c) for c in re.findall("<code>(.*?)</code>", (shown[0] / "report.html").read_text())]
    assert len(commands) == len(KINDS)
    for command in commands:
        python, script, *arguments = shlex.split(command)
        assert python == "python"
        assert all(path.suffix == ".safetensors" for path in tyro.cli(OPTIONS[script], args=arguments).evaluate)
