"""The description on a package index: README.md without what is relative in it, which leads nowhere there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Description(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = re.sub(r"^!\[.*\]\(.*\)\n\n", "", text, flags=re.MULTILINE)  # pictures
        text = re.sub(r"\[([^\]]+)\]\((?!https:)[^)]+\)", r"\1", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
