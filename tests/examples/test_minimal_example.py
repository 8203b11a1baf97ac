"""The smallest example as it stands, with fewer shapes and one epoch."""

import re
from pathlib import Path

import example_runs
from paths import PROJECT

SMALLER = {"generated_shapes=160": "generated_shapes=20", "range(10)": "range(1)", "num_points=2048": "num_points=512"}


def test_minimal(tmp_path: Path) -> None:
    source = (PROJECT / "examples" / "minimal.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60  # a screen
    for text, smaller in SMALLER.items():
        assert source.count(text) == 1
        source = source.replace(text, smaller)
    script = tmp_path / "minimal.py"
    script.write_text(source, encoding="utf-8")
    done = example_runs.run(script)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"AP of parts at IoU (0\.\d+): (\d+\.\d) %", done.stdout)
    assert [iou for iou, _ in found] == ["0.25", "0.5", "0.75"]
    values = [float(value) for _, value in found]
    assert values == sorted(values, reverse=True)
    assert values[0] <= 100
