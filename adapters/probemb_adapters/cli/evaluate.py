"""`probemb evaluate`: the average precision of a model on labelled clouds or images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from probemb_adapters.cli.images import is_of_images


@dataclass(frozen=True)
class Evaluate:
    """Test a model on the clouds or images of a folder that it has not seen in training or validation."""

    model: Positional[Path]
    """folder of a training, or a model.safetensors"""
    folder: Positional[Path]
    """of clouds or images, labelled as those of the training"""
    output: Path | None = None
    """folder for metrics.json and report.html; by default the table is printed alone"""
    channel: int | None = None
    """images: of those with several channels, from 0"""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""

    def run(self) -> None:
        """Evaluate, and print the table."""
        from probemb_adapters.experiments.own_clouds import run_evaluation
        from probemb_adapters.training import start_fabric

        fabric = start_fabric(accelerator=self.accelerator)
        if is_of_images(self.model, self.channel):
            from probemb_adapters.experiments.images import folders

            print(folders.run_evaluation(self.model, self.folder, self.output, self.channel, fabric))
        else:
            print(run_evaluation(self.model, self.folder, self.output, fabric))
