"""`probemb evaluate`: the average precision of a model on labelled clouds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from probemb_adapters.experiments.own_clouds import run_evaluation
from probemb_adapters.training import start_fabric


@dataclass(frozen=True)
class Evaluate:
    """Test a model on the clouds of a folder that it has not seen in training or validation."""

    model: Positional[Path]
    """folder of a training, or a model.safetensors"""
    folder: Positional[Path]
    """of labelled clouds, labelled as those of the training"""
    output: Path | None = None
    """folder for metrics.json and report.html; by default the table is printed alone"""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""

    def run(self) -> None:
        """Evaluate, and print the table."""
        print(run_evaluation(self.model, self.folder, self.output, start_fabric(accelerator=self.accelerator)))
