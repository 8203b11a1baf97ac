"""All benchmarks in turn: a table a subject, one JSON file with the machine and versions, and one picture.

One thread. Leave the machine alone meanwhile: with other load the ratios mean nothing.

    python benchmarks/run.py                             everything, twenty minutes
    python benchmarks/run.py --quick                     small sizes, under two minutes, for CI
    python benchmarks/run.py --only losses clustering    some subjects

Each subject is also a command of its own, such as benchmarks/losses.py. What runs on a GPU is measured by
benchmarks/gpu.py.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path

from harness import RESULTS, Results, header, header_text, missing, slug, write_json

SUBJECTS: dict[str, tuple[str, ...]] = {  # and the packages without which there is nothing to measure
    "losses": (),
    "clustering": ("sklearn",),
    "methods": ("h5py", "torch_geometric"),
    "growth": (),
    "partnet_ap": (),
    "scannet_ap": (),
    "large_scene": (),
    "volume": (),
    "nuclei_volumes": ("monai",),
    "pointnet2": ("h5py",),
    "sparse": (),
    "steps": ("h5py", "torch_geometric", "plyfile"),
}


def measure(subject: str, quick: bool) -> Results:
    """One subject; where a package is missing, what installs it instead."""
    print(f"\n== {subject}", flush=True)
    lacking = missing(SUBJECTS[subject])
    if lacking is not None:
        nothing = Results()
        nothing.lack(subject, lacking)
        return nothing
    start = time.perf_counter()
    results: Results = importlib.import_module(subject).benchmark(quick)
    print(f"\n{subject}: {time.perf_counter() - start:.0f} s", flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds, for CI")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument(
        "--output",
        type=Path,
        help="JSON file to write, with the picture beside it; by default benchmarks/results/{machine}.json where all "
        "subjects are measured in full, else none",
    )
    options = parser.parse_args(arguments)
    head = header()
    print(header_text(head))
    path: Path | None = options.output
    if path is None and not options.quick and options.only is None:
        path = RESULTS / f"{slug(head['machine'])}.json"
    subjects: dict[str, Results] = {}
    for name in options.only or SUBJECTS:
        subjects[name] = measure(name, options.quick)
        if path is not None:
            write_json(path, head, subjects)  # after each, so that nothing measured is lost
    if path is None:
        return
    print(f"\nresults  {path}")
    lacking = missing(["matplotlib"])
    if lacking is not None:
        print(f"picture  {lacking}")
        return
    picture = path.with_suffix(".png")
    importlib.import_module("plot").draw(head, subjects, picture)
    print(f"picture  {picture}")


if __name__ == "__main__":
    main()
