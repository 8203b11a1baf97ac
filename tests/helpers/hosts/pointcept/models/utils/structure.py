"""pointcept/models/utils/structure.py: a dict whose keys are attributes too (addict.Dict), with batch from offset."""

from __future__ import annotations

from typing import Any

import torch


class Point(dict[str, Any]):
    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data)
        ends = self["offset"]
        self["batch"] = torch.arange(len(ends)).repeat_interleave(ends.diff(prepend=ends.new_zeros(1)))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None
