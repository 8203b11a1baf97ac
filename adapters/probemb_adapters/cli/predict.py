"""`probemb predict`: from files to files with the instance of each point or pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from probemb_adapters.cli.images import is_of_images


@dataclass(frozen=True)
class Predict:
    """Find the instances in clouds, whose points and properties are kept in their order, or in images."""

    model: Positional[Path]
    """folder of a training, or a model.safetensors"""
    files: Positional[tuple[Path, ...]]
    """clouds or images of any format, or folders of them"""
    output: Path
    """folder for the results"""
    channel: int | None = None
    """images: of those with several channels, from 0"""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""

    def run(self) -> None:
        """Predict, and print where the results are."""
        from probemb_adapters.experiments.own_clouds import Model, run_prediction
        from probemb_adapters.training import start_fabric

        fabric = start_fabric(accelerator=self.accelerator)
        if is_of_images(self.model, self.channel):
            from probemb_adapters.experiments.images import folders

            print(folders.run_files(self.model, self.files, self.output, self.channel, fabric))
            return
        print(run_prediction(Model.load(self.model), self.files, self.output, fabric))
