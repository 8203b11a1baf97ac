"""What runs for hours by `make mutants`, `make kills` and `make long`, in its smallest parts."""

from __future__ import annotations

import json
from pathlib import Path

import kills
import long_runs
import mutation_score
import numpy as np
import pytest
import torch
from mutants import mutant_at, places_of
from paths import PROJECT

SOURCE = '''"""Half of it."""


def half(x: int | None, *, up: bool = False) -> float:
    """-1 + 1."""
    if x is None or x < 0:
        raise ValueError(x)
    return x / 2
'''


def test_mutants_change_what_runs(tmp_path: Path) -> None:
    """Neither annotations nor text; one replacement a place."""
    (tmp_path / "half.py").write_text(SOURCE)
    found = [mutant_at(tmp_path, place) for place in places_of(tmp_path, "half.py")]
    assert found.count(None) == 1  # the annotation
    changes = {(mutant.place.line, mutant.after) for mutant in found if mutant is not None}
    assert {line for line, _ in changes} == {4, 6, 8}
    assert {
        (4, "def half(x: int | None, *, up: bool = True) -> float:"),
        (6, "if x is not None or x < 0:"),
        (6, "if x is None and x < 0:"),
        (6, "if x is None or x <= 0:"),
        (8, "return x * 2"),
        (8, "return x / 3"),
    } <= changes


def test_the_tests_of_a_mutant() -> None:
    """Its own file's first, quick ones first; of a line that runs at import all that run the file."""
    files = ["tests/core/test_head.py::a", "tests/core/test_gaussian.py::b", "tests/core/test_gaussian.py::c"]
    measured = {
        "tests": [[files[0], 0.1], [files[1], 2.0], [files[2], 1.0]],
        "lines": {"probemb_lib/gaussian.py": {"3": [1, 0, 2], "4": [0], "1": []}},
    }
    (place,) = places_of(PROJECT, "probemb_lib/gaussian.py")[:1]
    assert mutation_score.tests_of(place._replace(line=3), measured) == [[files[2], files[1]], [files[0]]]
    assert mutation_score.tests_of(place._replace(line=4), measured) == [[files[0]]]
    assert mutation_score.tests_of(place._replace(line=1), measured) == [[files[2], files[1]], [files[0]]]


def test_survivors_have_reasons_and_are_there() -> None:
    """A line that has changed since is no survivor any more: take it out of the list."""
    rows = mutation_score.read_rows(mutation_score.SURVIVORS)
    assert rows
    for row in rows:
        assert row["reason"].startswith(("equivalent: ", "open: "))
        lines = " ".join(line.strip() for line in (PROJECT / row["file"]).read_text(encoding="utf-8").splitlines())
        assert row["before"] in lines, row


def test_growth_is_found_and_noise_is_not() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 400)
    samples = [long_runs.Sample("run", i, 500 + noise[i], 20, 3, 0.1 + 0.001 * noise[i]) for i in range(400)]
    rise = long_runs.growth(samples)
    assert all(rise[name] < allowed for name, allowed in long_runs.GROWTH.items())
    leaks = [
        s._replace(megabytes=s.megabytes + 0.05 * s.count, seconds=s.seconds * (1 + s.count / 400)) for s in samples
    ]
    rise = long_runs.growth(leaks)
    assert rise["megabytes"] == pytest.approx(0.05 * 300, rel=0.2)
    assert rise["seconds"] > long_runs.GROWTH["seconds"]


def test_what_kills_compare(tmp_path: Path) -> None:
    """One bit is seen, other options are not; a file that is cut is an error; hidden ones do not count."""
    assert kills.digest({"a": [torch.zeros(2), "x"]}) == kills.digest({"a": (np.zeros(2, np.float32), "x")})
    assert kills.digest(np.zeros(2)) != kills.digest(np.array([0.0, 5e-324]))
    file = tmp_path / "metrics.json"
    found = []
    for document in ({"ap": 1.0, "options": 1}, {"ap": 1.0, "options": 2}, {"ap": 1.5, "options": 1}):
        file.write_text(json.dumps(document))
        found.append(kills.results(tmp_path))
    assert found[0] == found[1] != found[2]
    (tmp_path / ".b.json.1.tmp").write_text("{")
    assert kills.results(tmp_path) == found[2]
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting property name"):
        kills.results(tmp_path)
