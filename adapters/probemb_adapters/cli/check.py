"""`probemb check`: the usual mix-ups of labelled clouds, before hours are lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from probemb_adapters.cli.labels import Labels
from probemb_adapters.experiments.own_clouds import run_check


@dataclass(frozen=True)
class Check(Labels):
    """Look for mix-ups in each cloud of a folder; exit code 1 where a finding is an error."""

    folder: Positional[Path]
    """of labelled clouds"""

    def run(self) -> None:
        """Check, and print a line a finding."""
        text, wrong = run_check(self.folder, self.instance, self.semantic, self.background)
        print(text)
        if wrong:
            raise SystemExit(1)
