"""The command: write open rooms and show what is in them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from probemb_shapes.rooms.models import Models
from probemb_shapes.rooms.write import generate, write_rooms


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the scenes, and a picture of the first ones where one is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m probemb_shapes.rooms",
        description="Write rooms furnished from data/scan_objects as ScanNet's files, each fifth one for validation.",
    )
    parser.add_argument("--source", type=Path, default=Path("data/scan_objects"), help="folder of objects.npz")
    parser.add_argument("--root", type=Path, default=Path(".cache/rooms"), help="folder to write")
    parser.add_argument("--scenes", type=int, default=60, help="scenes in all")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal scenes")
    parser.add_argument("--cameras", type=int, default=24, help="views of a scene; the more, the less is missing")
    parser.add_argument("--spacing", type=float, default=0.03, help="metres between vertices")
    parser.add_argument("--sheet", type=Path, help="also draw the first ten scenes into this image")
    options = parser.parse_args(arguments)
    try:
        from tqdm import tqdm as progress
    except ImportError:  # only the bar is missing
        progress = iter
    report = write_rooms(
        options.source,
        options.root,
        scenes=options.scenes,
        seed=options.seed,
        cameras=options.cameras,
        spacing=options.spacing,
        progress=progress,
    )
    sys.stdout.write(f"{report}\n{options.root}\n")
    if options.sheet is not None:
        from probemb_shapes.rooms.sheet import contact_sheet

        models = Models(options.source)
        scans = [
            generate(models, options.seed, index, cameras=options.cameras, spacing=options.spacing)
            for index in range(min(10, options.scenes))
        ]
        sys.stdout.write(f"{contact_sheet(options.sheet, scans)}\n")


if __name__ == "__main__":
    main()
