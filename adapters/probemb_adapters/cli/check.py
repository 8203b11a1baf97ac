"""`probemb check`: the usual mix-ups of labelled clouds and images, before hours are lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from probemb_adapters.cli.images import has_images
from probemb_adapters.cli.labels import Labels


@dataclass(frozen=True)
class Check(Labels):
    """Look for mix-ups in each cloud or image of a folder; exit code 1 where a finding is an error."""

    folder: Positional[Path]
    """of labelled clouds, or with the folders images and labels"""

    def run(self) -> None:
        """Check, and print a line a finding."""
        if has_images(self.folder, self):
            from probemb_adapters.images.check import check_images

            text, wrong = check_images(self.folder, self.channel)
        else:
            from probemb_adapters.clouds.check import check_clouds

            text, wrong = check_clouds(self.folder, self.instance, self.semantic, self.background, self.ignored)
        print(text)
        if wrong:
            raise SystemExit(1)
