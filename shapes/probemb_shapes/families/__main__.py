"""The command: write generated furniture and show what is in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from probemb_shapes.families.write import FAMILIES, write_generated


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the categories asked for, and their picture where one is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m probemb_shapes.families",
        description="Write generated furniture in PartNet's raw layout, 70 : 10 : 20 for train : val : test.",
    )
    parser.add_argument("--root", type=Path, default=Path(".cache/generated"), help="folder to write")
    parser.add_argument(
        "--category", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), help="categories to write"
    )
    parser.add_argument("--shapes", type=int, default=1000, help="shapes a category")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal shapes")
    parser.add_argument("--sheet", type=Path, help="also draw the first shapes of each category into this image")
    options = parser.parse_args(arguments)
    try:
        from tqdm import tqdm as progress
    except ImportError:  # only the bar is missing
        progress = iter
    val, test = options.shapes // 10, options.shapes // 5
    for category in options.category:
        report = write_generated(
            options.root,
            category,
            train=options.shapes - val - test,
            val=val,
            test=test,
            seed=options.seed,
            progress=progress,
        )
        sys.stdout.write(f"{category}\n{report}\n")
    sys.stdout.write(f"{options.root}\n")
    if options.sheet is not None:
        from probemb_shapes.families.sheet import contact_sheet

        sys.stdout.write(f"{contact_sheet(options.sheet, categories=options.category, seed=options.seed)}\n")


if __name__ == "__main__":
    main()
