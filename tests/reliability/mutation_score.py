"""The mutation score of the core: of programs with one wrong operator, how many do the tests tell from the right one?

    make mutants                       all of them, for days; goes on where it was interrupted
    make mutants MUTANTS=300 SEED=1    a sample of each file's

A mutant stands in a copy of the repository, and is run by a process that has torch loaded: first the tests of its own
file, then others that run the changed line, the quick ones first and half a minute of them at most, until one fails.
Those that no test kills are in survivors.csv with the reason: equivalent, or open. Triton's kernels are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutants import Mutant, Place, mutant_at, places_of

ROOT = Path(__file__).resolve().parents[2]
COPIED = ["probemb_lib", "adapters", "shapes", "tests", "pyproject.toml"]
SUBJECTS = ["tests/core", "probemb_lib"]  # tests and doctests
SURVIVORS = Path(__file__).with_name("survivors.csv")
COLUMNS = ["file", "line", "operator", "occurrence", "outcome", "seconds", "tests", "before", "after"]
KERNELS = "_triton"  # whose tests run in processes of their own, in Triton's interpreter, for minutes
SECONDS = 30.0  # of tests that are not the file's own
PATIENCE = 150.0  # seconds more than four times what the tests took; what is compiled was compiled before then
MEMORY = 12 << 30
TARGET = 0.95


def copy_tree(tree: Path) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *COPIED], cwd=ROOT, capture_output=True)
    for name in files.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


class Recorder:
    """Which test runs which lines of the core, and for how long."""

    def __init__(self, coverage: Any) -> None:
        self.coverage = coverage
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.coverage.switch_context(item.nodeid)
        result = yield
        self.coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if not report.passed:
            self.failed.add(report.nodeid)


class Chosen:
    """Only these tests, in this order; those that are new since the measurement before them."""

    def __init__(self, names: list[str], known: set[str]) -> None:
        self.order, self.known = {name: i for i, name in enumerate(names)}, known

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.order or item.nodeid not in self.known]
        items[:] = sorted(chosen, key=lambda item: self.order.get(item.nodeid, -1))


def in_copy(tree: Path, job: Callable[[], int], seconds: float, log: Path) -> int | None:
    """What ``job`` returns in a forked process whose library is the copy; ``None`` after that many seconds."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()  # what it starts ends with it
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(tree)
            paths = [str(tree), str(tree / "adapters"), str(tree / "shapes")]
            sys.path[:0] = paths
            sys.dont_write_bytecode = True  # two mutants within a second have one time stamp
            os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join([*paths, *sys.path])}
            code = job()
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    status = 0
    done = 0
    while not done and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not done:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def run_tests(names: list[str], known: set[str]) -> int:
    from hypothesis import Phase, settings

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    phases = (Phase.explicit, Phase.generate)  # any failing example will do, it need not be the smallest
    settings.register_profile("mutants", derandomize=True, deadline=None, database=None, phases=phases)
    files = sorted({name.split("::")[0] for name in names})
    options = ["-q", "-x", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants"]
    return int(pytest.main([*options, *files], plugins=[Chosen(names, known)]))


def measure(tree: Path, folder: Path) -> dict[str, Any]:
    """Seconds of each test and the tests of each line; kept while the core stays as it is."""

    def job() -> int:
        import coverage

        tool = coverage.Coverage(source=["probemb_lib"], data_file=str(folder / "coverage"), config_file=False)
        tool.erase()
        recorder = Recorder(tool)
        tool.start()
        pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *SUBJECTS], plugins=[recorder])
        tool.stop()
        tool.save()
        names = sorted(set(recorder.seconds) - recorder.failed)
        number = {name: i for i, name in enumerate(names)}
        data = tool.get_data()
        lines = {
            str(Path(file).relative_to(tree)): {
                line: [number[name] for name in found if name in number]
                for line, found in data.contexts_by_lineno(file).items()
            }
            for file in sorted(data.measured_files())
        }
        tests = [[name, recorder.seconds[name]] for name in names]
        text = json.dumps({"core": core_digest(tree), "tests": tests, "lines": lines})
        (folder / "measured.json").write_text(text)
        return 0

    with contextlib.suppress(FileNotFoundError):
        known = json.loads((folder / "measured.json").read_text())
        if known["core"] == core_digest(tree):
            return dict(known)
    print("== Which tests run which line: the whole of tests/core once", flush=True)
    (folder / "measured.json").unlink(missing_ok=True)
    if in_copy(tree, job, 7200.0, folder / "measure.log") != 0:
        raise SystemExit(f"the tests could not be measured: see {folder / 'measure.log'}")
    return dict(json.loads((folder / "measured.json").read_text()))


def core_digest(tree: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted((tree / "probemb_lib").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def tests_of(place: Place, measured: dict[str, Any]) -> list[list[str]]:
    """The file's own tests that run the line, and others; for a line that runs at import, those that run the file."""
    lines = measured["lines"].get(place.file, {})
    found = set(lines.get(str(place.line), [])) or {test for tests in lines.values() for test in tests}
    tests = sorted((measured["tests"][i] for i in found), key=lambda test: (test[1], test[0]))
    stem = Path(place.file).stem.strip("_")
    folder = Path(place.file).parent.name
    own_files = {place.file, f"tests/core/test_{stem}.py", f"tests/core/{folder}/test_{stem}.py"}
    own = [name for name, _ in tests if name.split("::")[0] in own_files]
    others, total = [], 0.0
    for name, seconds in tests:
        total += seconds
        if name.split("::")[0] not in own_files and total <= SECONDS:
            others.append(name)
    return [names for names in (own, others) if names]


def judge(mutant: Mutant, tree: Path, folder: Path, measured: dict[str, Any]) -> tuple[str, int]:
    """``killed``, ``timeout``, which is killed too, or ``survived``, and the number of tests chosen."""
    file = tree / mutant.place.file
    right = file.read_text(encoding="utf-8")
    seconds = dict(measured["tests"])
    count = 0
    try:
        file.write_text(mutant.source, encoding="utf-8")
        for names in tests_of(mutant.place, measured):
            count += len(names)
            limit = PATIENCE + 4 * sum(seconds[name] for name in names)
            code = in_copy(tree, lambda names=names: run_tests(names, set(seconds)), limit, folder / "mutant.log")
            if code is None:
                return "timeout", count
            if code not in (0, 5):  # 5: no test was collected
                return "killed", count
    finally:
        file.write_text(right, encoding="utf-8")
    return "survived", count


def sample(files: list[str], size: int, seed: int) -> list[Mutant]:
    """Of each file in proportion to its places, two at least; in random order, so that a part is a sample too."""
    draw = random.Random(seed)
    places = {file: places_of(ROOT, file) for file in files}
    total = sum(map(len, places.values()))
    result: list[Mutant] = []
    for file in files:
        share = max(2, round(size * len(places[file]) / total)) if size else len(places[file])
        mutants = (mutant_at(ROOT, place) for place in draw.sample(places[file], len(places[file])))
        result += itertools.islice(filter(None, mutants), share)
    draw.shuffle(result)
    return result


def read_rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write_rows(file: Path, rows: list[dict[str, str]]) -> None:
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(file)


def report(rows: list[dict[str, str]]) -> float:
    known = {(row["file"], row["before"], row["after"]): row["reason"] for row in read_rows(SURVIVORS)}
    by_file: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        reason = known.get((row["file"], row["before"], row["after"]), "")
        equivalent = row["outcome"] == "survived" and reason.startswith("equivalent")
        by_file[row["file"]]["equivalent" if equivalent else row["outcome"]] += 1
        if row["outcome"] == "survived" and not reason:
            print(f"{row['file']}:{row['line']}: {row['operator']}\n  {row['before']}\n  {row['after']}")
    print(f"\n{'file':44}{'mutants':>8}{'killed':>8}{'equivalent':>12}{'alive':>7}")
    for file, counts in sorted(by_file.items()):
        killed = counts["killed"] + counts["timeout"]
        print(f"{file:44}{counts.total():8}{killed:8}{counts['equivalent']:12}{counts['survived']:7}")
    total = sum(by_file.values(), Counter())
    killed = total["killed"] + total["timeout"]
    score = killed / max(1, killed + total["survived"])
    print(f"{total.total()} mutants, {killed} killed, {total['equivalent']} equivalent, {total['survived']} alive")
    print(f"score, of those that are not equivalent: {score:.1%}")
    return score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=0, help="about so many of all; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="another sample")
    parser.add_argument(
        "--again", action="store_true", help="those that survived or took too long, after tests were added"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache/mutants", help="the copy and results")
    options = parser.parse_args()
    import hypothesis
    import numpy
    import scipy.spatial
    import torch

    del hypothesis, numpy, scipy, torch  # loaded once, for all mutants
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tree = folder / "tree"
    copy_tree(tree)
    measured = measure(tree, folder)
    files = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "probemb_lib").rglob("*.py"))
    chosen = sample([file for file in files if KERNELS not in file], options.sample, options.seed)
    results = folder / "results.csv"
    rows = read_rows(results)
    if options.again:
        rows = [row for row in rows if row["outcome"] == "killed"]
        write_rows(results, rows)
    done = {(row["file"], row["operator"], int(row["occurrence"]), row["before"], row["after"]) for row in rows}
    with contextlib.suppress(KeyboardInterrupt):  # the score of what there is
        for i, mutant in enumerate(chosen):
            place = mutant.place
            if (place.file, place.operator, place.occurrence, mutant.before, mutant.after) in done:
                continue
            start = time.monotonic()
            outcome, tests = judge(mutant, tree, folder, measured)
            row = place._asdict() | {
                "outcome": outcome,
                "seconds": f"{time.monotonic() - start:.1f}",
                "tests": str(tests),
                "before": mutant.before,
                "after": mutant.after,
            }
            rows.append({name: str(value) for name, value in row.items()})
            write_rows(results, rows)
            print(f"{i + 1}/{len(chosen)} {outcome:8} {row['seconds']:>6} s  {place}", flush=True)
    return int(report(rows) < TARGET)


if __name__ == "__main__":
    sys.exit(main())
