"""What `make demo` shows, in one page: what trained networks find, what minutes of training give, and a hard case.

Nuclei in images, parts of chairs and objects in rooms are found by checkpoints that come with the project. Then
PointNet++ learns for some minutes on this machine. Last comes real furniture: few models, many kinds, far from solved.
None of the samples was seen in training.
"""

from __future__ import annotations

import probemb_adapters.passive_threads  # noqa: F401  # before torch is loaded

# isort: split

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import tyro
from lightning_fabric import Fabric

from probemb_adapters.experiments import partnet, scannet
from probemb_adapters.experiments.images import evaluation as images
from probemb_adapters.experiments.images.model import Model as ImageModel
from probemb_adapters.experiments.images.results import image_results
from probemb_adapters.images import read_nuclei, read_sides
from probemb_adapters.report import Row, Section, Table, loss_chart, table_text, write_report, write_table
from probemb_adapters.report.overlays import overlay_sheet
from probemb_adapters.report.pictures import contact_sheet
from probemb_adapters.report.tally import typical
from probemb_adapters.training import start_fabric
from probemb_shapes.demo_data import PROJECT, partnet_folder, scannet_folder

CHECKPOINTS = PROJECT / "checkpoints"
NUCLEI = PROJECT / "data" / "nuclei" / "nuclei.npz"
POINTS = 2_048  # of a chair
MIN_POINTS = 10  # of a part that is found
FURNITURE_SCORE = 0.74  # from there on parts of furniture are shown: of the highest F1 on the validation models
SHOWN = 8  # samples of each kind, at most


@dataclass
class DemoOptions:
    """Settings of the demo."""

    epochs: int = 14
    """of the training, 40 steps each"""
    epoch_shapes: int = 160
    """chairs of an epoch"""
    chairs: int = 1_000
    """generated chairs to train on; a tenth of it for validation and for test"""
    rooms: int = 25
    """rooms to write, of which each fifth is for test"""
    samples: int | None = None
    """use only so many images and shapes, for a quick look"""
    output: Path = Path("runs/demo")
    """folder for the report, the pictures and the numbers"""


class Result(NamedTuple):
    """What was found in the test samples of one kind, of which the section shows some."""

    section: Section
    samples: int
    ap50: float  # per cent

    def row(self) -> Row:
        tallies = [sample.tally() for sample in self.section.shapes or self.section.images]
        return Row(
            self.section.title, [self.samples, str(tallies[typical([tally.f1 for tally in tallies])]), self.ap50]
        )


def nuclei(demo: DemoOptions) -> Result:
    """The checkpoint of nuclei on every third test image."""
    test = read_sides(read_nuclei(NUCLEI), NUCLEI)["test"][::3][: demo.samples]
    found = images.evaluate("nuclei", ImageModel.load(CHECKPOINTS / "nuclei.safetensors"), test)
    ap50 = 100 * found.ap["AP50"]
    section = Section(
        "Nuclei in microscope images",
        f"A U-Net after 36 minutes of training on one core, on {len(test)} of the 79 test images: AP50 {ap50:.1f} %. "
        "On all of them:",
        images=image_results(found, test, SHOWN),
        noun="object",
        item="image",
        command="python examples/nuclei_unet.py --evaluate checkpoints/nuclei.safetensors",
    )
    return Result(section, len(test), ap50)


def chairs(demo: DemoOptions, fabric: Fabric) -> Result:
    """The checkpoint of chairs, which names the parts, on generated test chairs."""
    model = partnet.Model.load(CHECKPOINTS / "chair.safetensors")
    options = partnet.Options(
        category="Chair",
        level=3,
        points=POINTS,
        generated_shapes=demo.chairs,
        threshold=model.threshold,
        max_shapes=demo.samples,
        report_shapes=SHOWN,
    )
    return parts(
        "Parts of chairs",
        "PointNet++ after 1,400 steps on generated chairs, on {} new ones, parts with names: AP50 {:.1f} %. Again:",
        "python examples/partnet_pointnet2.py --evaluate checkpoints/chair.safetensors --category Chair --level 3 "
        f"--points {POINTS} --threshold {model.threshold}",
        model,
        partnet.resolve(options),
        fabric,
    )


def rooms(demo: DemoOptions, fabric: Fabric) -> Result:
    """The checkpoint of rooms on rooms with furniture that training has not seen."""
    model = scannet.Model.load(CHECKPOINTS / "rooms.safetensors")
    options = scannet.resolve(
        scannet.Options(rooms=demo.rooms, max_scenes=demo.samples, submission=False, output=demo.output)
    )
    scenes = scannet.evaluation_scenes(scannet_folder(options.rooms, fabric), options)
    metric, shown = scannet.evaluate_model("rooms", model, scenes, options, fabric)
    ap50 = 100 * metric.compute()["ap50"]
    section = Section(
        "Objects in rooms",
        f"MinkowskiNet on {len(shown)} rooms with furniture that training has not seen, objects without names: AP50 "
        f"{ap50:.1f} %. Again:",
        shapes=shown,
        classes=("background", *model.classes),
        noun="object",
        item="room",
        unit="m",
        command=f"python examples/scannet_minkowski.py --evaluate checkpoints/rooms.safetensors --rooms {demo.rooms}",
    )
    return Result(section, len(shown), ap50)


def training(demo: DemoOptions, fabric: Fabric) -> Result:
    """What some minutes of training on generated chairs give, without the names of the parts."""
    options = partnet.resolve(
        partnet.Options(
            category="Chair",
            level=3,
            class_agnostic=True,
            points=POINTS,
            generated_shapes=demo.chairs,
            epochs=demo.epochs,
            epoch_shapes=demo.epoch_shapes,
            learning_rate=3e-3,
            max_norm=5.0,
            width=0.5,
            initial_std=0.1,
            threshold=0.35,
            refine=True,
            max_shapes=demo.samples,
            report_shapes=SHOWN,
            output=demo.output,
        )
    )
    model = partnet.new_model(("part",), options, fabric)
    data, _ = partnet.training_data(partnet_folder(options.category, options.generated_shapes, fabric), options)
    start = time.perf_counter()
    history = partnet.train_model(model, data, partnet.objective(options), options, fabric)
    minutes = (time.perf_counter() - start) / 60
    model.save(demo.output / "model.safetensors")
    found = parts(
        "Parts of chairs, trained just now",
        f"PointNet++ after {minutes:.1f} minutes on this machine, on {{}} new chairs, parts without names: "
        "AP50 {:.1f} %. Again:",
        "python examples/partnet_pointnet2.py --category Chair --level 3 --class-agnostic True --width 0.5 "
        f"--initial-std 0.1 --learning-rate 3e-3 --max-norm 5 --epochs {demo.epochs} "
        f"--epoch-shapes {demo.epoch_shapes} --threshold 0.35 --refine --points {POINTS}",
        model,
        options,
        fabric,
    )
    return found._replace(section=replace(found.section, charts=[loss_chart([epoch["loss"] for epoch in history])]))


def furniture(demo: DemoOptions, fabric: Fabric) -> Result:
    """The checkpoint of furniture on real models of all kinds."""
    model = partnet.Model.load(CHECKPOINTS / "furniture.safetensors")
    options = partnet.Options(
        threshold=model.threshold, shown_score=FURNITURE_SCORE, max_shapes=demo.samples, report_shapes=SHOWN
    )
    return parts(
        "The hard case: parts of real furniture",
        "PointNet++ on {} real models, trained on 108 others and generated shapes: AP50 {:.1f} %. Few models, many "
        "kinds, far from solved. Again:",
        "python examples/partnet_pointnet2.py --evaluate checkpoints/furniture.safetensors "
        f"--threshold {model.threshold} --shown-score {FURNITURE_SCORE}",
        model,
        partnet.resolve(options),
        fabric,
    )


def parts(
    title: str, text: str, command: str, model: partnet.Model, options: partnet.Options, fabric: Fabric
) -> Result:
    """What a model finds in the test shapes; ``text`` takes their number and AP50."""
    model = model.with_clustering(replace(options, min_points=MIN_POINTS))
    root = partnet_folder(options.category, options.generated_shapes, fabric)
    unfitted = model.settings.shown_score is None  # trained just now
    val = partnet.Split(root, options, "val", fabric) if unfitted else None
    test = partnet.Split(root, options, "test", fabric)
    found = partnet.evaluate_model(title, model, root, val, test, options, fabric)
    ap50 = float(found.values()["part mAP"][1])
    section = Section(
        title,
        text.format(len(test.shapes), ap50),
        shapes=found.shapes,
        classes=model.classes if model.first_class == 0 else ("other", *model.classes),
        noun="part",
        command=f"{command} --min-points {MIN_POINTS}",
    )
    return Result(section, len(test.shapes), ap50)


def main() -> None:
    demo = tyro.cli(DemoOptions, description=__doc__)
    fabric = start_fabric(accelerator="cpu")
    results = [
        nuclei(demo),
        chairs(demo, fabric),
        rooms(demo, fabric),
        training(demo, fabric),
        furniture(demo, fabric),
    ]

    sections = [result.section for result in results]
    table = Table(
        "Found in test samples",
        ("samples", "the typical one", "AP50"),
        [result.row() for result in results],
        text="AP50: average precision at IoU 0.5 over all samples, per cent, as each kind's benchmark counts it",
    )
    text = "Each section opens on a typical sample: the median by F1 of those shown, not the best, not the first."
    page = write_report(demo.output / "report.html", "Objects found in images, shapes and rooms", sections, text=text)
    clouds = [s.shapes[typical([shape.tally().f1 for shape in s.shapes])] for s in sections if s.shapes]
    pictures = (
        overlay_sheet(sections[0].images, demo.output / "images.png", title=sections[0].title),
        contact_sheet(clouds, demo.output / "shapes.png", title="the typical sample of each kind"),
    )
    write_table(table, demo.output / "results.csv")
    print(f"\n{table_text(table)}\n\nreport    {page}\npictures  {', '.join(map(str, pictures))}")


if __name__ == "__main__":
    main()
