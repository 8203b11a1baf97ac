"""`probemb predict`: from files to files with the instance of each point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from probemb_adapters.experiments.own_clouds import Model, run_prediction
from probemb_adapters.training import start_fabric


@dataclass(frozen=True)
class Predict:
    """Find the instances in clouds; every point and property of the files is kept, in their order."""

    model: Positional[Path]
    """folder of a training, or a model.safetensors"""
    files: Positional[tuple[Path, ...]]
    """clouds of any format, or folders of them"""
    output: Path
    """folder for the results"""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""

    def run(self) -> None:
        """Predict, and print where the results are."""
        fabric = start_fabric(accelerator=self.accelerator)
        print(run_prediction(Model.load(self.model), self.files, self.output, fabric))
