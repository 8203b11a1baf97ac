"""The paper's tables from your own PartNet or ScanNet: every training, then your numbers beside the printed ones.

PartNet: one network for each of 50 categories and levels, Tables 1, 4 and 5. ScanNet: both methods, Table 6. Each
training is a run of the example scripts with the paper's settings, in a folder of its own. What is finished is kept
and what was interrupted goes on, so the same command may be started again, or on several machines with a share each:

    python studies/paper_tables.py --root /data/partnet
    python studies/paper_tables.py --root /data/partnet --share 3/8          the fourth of eight machines
    python studies/paper_tables.py --root /data/partnet --show               only the tables of what is there
    python studies/paper_tables.py --root /data/partnet --categories Chair Lamp -- --devices 4 --epochs 100
    python studies/paper_tables.py --root /data/scannet --data scannet

What follows -- goes to the training script. Numbers of other settings than the paper's are not the paper's experiment;
the options of each run are kept in its metrics.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from probemb_adapters.experiments.paper import read_paper
from probemb_adapters.report import Row, Table, table_text, write_table
from probemb_adapters.training import LAST

PROJECT = Path(__file__).resolve().parents[1]
TABLES = {0.5: "Table 1", 0.25: "Table 4", 0.75: "Table 5"}  # PartNet, by IoU threshold
OURS = "this run"


@dataclass
class Options:
    """Which trainings, where."""

    root: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """folder with PartNet or ScanNet, as the example scripts read them"""
    data: Literal["partnet", "scannet"] = "partnet"
    """the data set of --root"""
    categories: tuple[str, ...] = ()
    """only these of PartNet's categories"""
    levels: tuple[int, ...] = ()
    """only these levels"""
    share: str = "0/1"
    """which part of the trainings to run, such as 3/8 for the fourth of eight machines"""
    show: bool = False
    """train nothing: only the tables of what is there"""
    output: Path = Path("runs/tables")
    """folder of the trainings and tables"""


@dataclass(frozen=True)
class Training:
    """One run of an example script."""

    name: str
    arguments: tuple[str, ...]

    def folder(self, output: Path) -> Path:
        return output / self.name

    def finished(self, output: Path) -> bool:
        return (self.folder(output) / "metrics.json").exists()

    def run(self, output: Path, extra: Sequence[str]) -> bool:
        """Whether it succeeded; what it prints goes to log.txt."""
        folder = self.folder(output)
        folder.mkdir(parents=True, exist_ok=True)
        resume = ["--resume"] if any(folder.rglob(LAST)) else []
        command = [sys.executable, *self.arguments, "--output", str(folder), *resume, *extra]
        with (folder / "log.txt").open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode == 0


def trainings(options: Options) -> list[Training]:
    script = PROJECT / "examples" / {"partnet": "partnet_pointnet2.py", "scannet": "scannet_minkowski.py"}[options.data]
    common = (str(script), "--root", str(options.root))
    if options.data == "scannet":
        return [Training("scannet", common)]
    return [
        Training(f"{category}-{level}", (*common, "--category", category, "--level", str(level)))
        for category, level in pairs(options)
    ]


def pairs(options: Options) -> list[tuple[str, int]]:
    """Categories and levels of the paper that were asked for."""
    every = sorted({(line["category"], int(line["level"])) for line in read_paper("partnet_map.csv")})
    unknown = set(options.categories) - {category for category, _ in every}
    if unknown:
        known = ", ".join(sorted({category for category, _ in every}))
        raise SystemExit(f"--categories: expected some of {known}, got {', '.join(sorted(unknown))}")
    asked = [
        (category, level)
        for category, level in every
        if (not options.categories or category in options.categories)
        and (not options.levels or level in options.levels)
    ]
    if not asked:
        raise SystemExit(f"--levels: none of these categories has level {', '.join(map(str, options.levels))}")
    return asked


def own_share(runs: Sequence[Training], share: str) -> Sequence[Training]:
    """
    >>> [run.name for run in own_share([Training(name, ()) for name in "abcde"], "1/2")]
    ['b', 'd']
    """
    index, _, count = share.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise SystemExit(f"--share: expected INDEX/COUNT with 0 <= INDEX < COUNT, such as 0/8, got {share}")
    return runs[int(index) :: int(count)]


def run_all(runs: Sequence[Training], options: Options, extra: Sequence[str]) -> list[Training]:
    """Those that failed."""
    failed = []
    bar = tqdm(runs, unit="training")
    for run in bar:
        bar.set_description(run.name)
        if not run.finished(options.output) and not run.run(options.output, extra):
            failed.append(run)
            bar.write(f"{run.name} failed: see {run.folder(options.output) / 'log.txt'}")
    return failed


# --- tables


def metrics_of(run: Training, output: Path) -> dict[str, Any] | None:
    path = run.folder(output) / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def partnet_tables(options: Options) -> list[Table]:
    """For each IoU threshold: part mAP of each category and level, and the averages over those that are there."""
    asked, lines = pairs(options), read_paper("partnet_map.csv")
    measured: dict[float, dict[tuple[str, int], float]] = defaultdict(dict)
    for run, pair in zip(trainings(options), asked, strict=True):
        metrics = metrics_of(run, options.output)
        if metrics is not None:
            values = metrics["methods"]["probabilistic"]["part mAP"]
            for iou, value in zip(metrics["iou_thresholds"], values, strict=True):
                measured[float(iou)][pair] = value
    tables = []
    for iou, name in TABLES.items():
        methods: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
        for line in lines:
            if float(line["iou_threshold"]) == iou:
                methods[line["method"]][line["category"], int(line["level"])] = float(line["map_percent"])
        columns = {**methods, OURS: measured[iou]}
        rows = [Row(f"{c} {level}", [values.get((c, level)) for values in columns.values()]) for c, level in asked]
        # Averages of the same categories and levels in every column, or they would not compare.
        common = [pair for pair in asked if pair in measured[iou]]
        for level in sorted({level for _, level in common}):
            some = [pair for pair in common if pair[1] == level]
            rows.append(Row(f"level {level}, mean of {len(some)}", [mean(v, some) for v in columns.values()]))
        if common:
            count = len({category for category, _ in common})
            rows.append(Row(f"AllAvg of {count}", [all_average(v, common) for v in columns.values()]))
        heads = [f"{method} (paper)" for method in methods] + [OURS]
        tables.append(Table(f"{name}: part mAP at IoU {iou:g}, per cent", heads, rows))
    return tables


def mean(values: Mapping[tuple[str, int], float], some: Sequence[tuple[str, int]]) -> float | None:
    return fmean(values[pair] for pair in some) if all(pair in values for pair in some) else None


def all_average(values: Mapping[tuple[str, int], float], some: Sequence[tuple[str, int]]) -> float | None:
    """The mean over the categories of each one's mean over its levels.

    >>> all_average({("Bag", 1): 10.0, ("Bed", 1): 20.0, ("Bed", 2): 40.0}, [("Bag", 1), ("Bed", 1), ("Bed", 2)])
    20.0
    """
    by_category = defaultdict(list)
    for pair in some:
        if pair not in values:
            return None
        by_category[pair[0]].append(values[pair])
    return fmean(fmean(v) for v in by_category.values())


def scannet_tables(options: Options) -> list[Table]:
    """Table 6: average precision on the validation scenes."""
    heads = ["AP", "AP50", "AP25"]
    rows = [
        Row(f"{line['method']} (paper)", [float(line[f"val_{k}"]) if line[f"val_{k}"] else None for k in keys])
        for line in read_paper("scannet_table6.csv")
        for keys in [("map", "ap50", "ap25")]
    ]
    (run,) = trainings(options)
    metrics = metrics_of(run, options.output)
    if metrics is not None:
        rows += [Row(f"{name}, {OURS}", [m[head] for head in heads]) for name, m in metrics["methods"].items()]
    return [Table("Table 6: ScanNet, validation scenes, per cent", heads, rows)]


def main() -> None:
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    options = tyro.cli(Options, description=__doc__, args=given[:cut])
    runs = trainings(options)
    failed = [] if options.show else run_all(own_share(runs, options.share), options, given[cut + 1 :])
    tables = partnet_tables(options) if options.data == "partnet" else scannet_tables(options)
    for table in tables:
        path = options.output / f"{table.title.partition(':')[0].lower().replace(' ', '_')}.csv"
        write_table(table, path)
        print(f"\n{table_text(table)}\n{path}")
    done = sum(run.finished(options.output) for run in runs)
    print(f"\n{done} of {len(runs)} trainings are there, in {options.output}")
    if failed:
        raise SystemExit(f"failed: {', '.join(run.name for run in failed)}")


if __name__ == "__main__":
    main()
