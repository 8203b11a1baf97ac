"""What studies keep of their runs: a line a run, whatever its columns."""

from __future__ import annotations

from pathlib import Path

from probemb_adapters.experiments.records import append_line, read_lines


def test_lines_keep_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    assert read_lines(path) == []
    for line in ({"method": "a", "ap": 1}, {"method": "b", "seed": 2}, {"method": "c", "ap": 3, "seed": 4}):
        append_line(path, line)
    assert read_lines(path) == [
        {"method": "a", "ap": "1", "seed": ""},
        {"method": "b", "ap": "", "seed": "2"},
        {"method": "c", "ap": "3", "seed": "4"},
    ]
