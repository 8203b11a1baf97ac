"""`probemb train`: from a folder of labelled clouds or images to a model and its average precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from probemb_adapters.cli.images import has_images
from probemb_adapters.cli.labels import Labels


@dataclass(frozen=True)
class Train(Labels):
    """Train on a folder of labelled clouds or images of any format; write a model, numbers and a page to look at.

    They are split by file, or by subfolders train, val and test. Images are in a folder images, label images of the
    same names in a folder labels beside it; or both in one folder, as a.tif with a_labels.tif.
    """

    folder: Positional[Path]
    """of labelled clouds, or with the folders images and labels"""
    output: Path
    """folder for the model, metrics.json, report.html and the checkpoint"""
    class_names: tuple[str, ...] = ()
    """clouds: of classes that are numbers, such as 1=stem 2=leaf; by default those that the files have"""
    up: Literal["x", "y", "z"] = "z"
    """clouds: axis that points up"""
    preset: Literal["quick", "full"] = "quick"
    """quick: minutes on two cores; full: about an hour on a GPU"""
    resume: bool = False
    """go on from the last checkpoint in the output folder"""
    finish: bool = False
    """with --resume, train no further: test and write the model as the last checkpoint has it"""
    paper: bool = False
    """cluster as the paper does, without refinement"""
    steps: int | None = None
    """of the optimizer; by default the preset's, as the next two"""
    points: int | None = None
    """clouds: of one, that the network sees"""
    batch_size: int | None = None
    """clouds, or crops of images, a step"""
    width: float = 1.0
    """clouds: factor of the widths of PointNet++; 0.25 for small files and processors"""
    seed: int = 0
    """of the split and of everything random"""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute"""

    def run(self) -> None:
        """Train, and print the table."""
        from probemb_adapters.training import LAST

        try:
            print(self._train())
        except KeyboardInterrupt as error:
            kept = (self.output / LAST).exists()
            way = (
                f"the last epoch is in {self.output}, and the same command with --resume goes on from there; with "
                "--resume --finish it makes a model of it"
            )
            none = (
                "nothing is kept: the first checkpoint is written after the first epoch; start again without --resume"
            )
            raise SystemExit(f"\nprobemb: stopped; {way if kept else none}") from error

    def _train(self) -> str:
        from probemb_adapters.experiments.own_clouds import Options, run_training
        from probemb_adapters.training import start_fabric

        fabric = start_fabric(accelerator=self.accelerator)
        if has_images(self.folder, self):
            if self.points is not None or self.up != "z" or self.class_names or self.width != 1:
                raise ValueError(f"{self.folder} has images: --points, --up, --class-names and --width are for clouds")
            from probemb_adapters.experiments.images import folders

            request = folders.Request(
                output=self.output,
                preset=self.preset,
                steps=self.steps,
                batch_size=self.batch_size,
                channel=self.channel,
                resume=self.resume,
                finish=self.finish,
                seed=self.seed,
                refine=not self.paper,
            )
            return folders.run_training(self.folder, request, fabric)
        options = Options(
            instance=self.instance,
            semantic=self.semantic,
            background=self.background,
            ignored=self.ignored,
            named=self.class_names,
            up=self.up,
            preset=self.preset,
            output=self.output,
            resume=self.resume,
            finish=self.finish,
            refine=not self.paper,
            steps=self.steps,
            points=self.points,
            batch_size=self.batch_size,
            width=self.width,
            seed=self.seed,
            accelerator=self.accelerator,
        )
        return run_training(self.folder, options, fabric)
