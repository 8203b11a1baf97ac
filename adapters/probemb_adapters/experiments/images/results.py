"""Tables, files and pictures of a run on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from probemb_adapters.experiments.images.evaluation import Evaluation, predict_all
from probemb_adapters.experiments.images.model import Model
from probemb_adapters.experiments.images.options import Options
from probemb_adapters.experiments.run import versions, write_metrics
from probemb_adapters.files import replaced_file
from probemb_adapters.images import LabelledImage, read_split
from probemb_adapters.images.check import FOR_VOLUMES
from probemb_adapters.images.files import name_of, read_image, write_labels
from probemb_adapters.images.pairs import Array
from probemb_adapters.report import Row, Section, Table, loss_chart, table_text, write_report
from probemb_adapters.report.overlays import ImageResult, overlay_sheet
from probemb_lib import label_image, object_csv

FEWEST = 5  # fields for an interval: drawn from fewer, it says little of other images
SHOWN = 8  # images of the page and the contact sheet
_RESULTS = ("_labels.tif", "_objects.csv", ".png")  # of an image in prediction


def fields_of(images: Sequence[LabelledImage], options: Options) -> list[str]:
    """What hangs together in the intervals: the column `field` of the split, where there is one, else each image."""
    path = options.split or options.data.resolve().with_name("split.csv")  # the folder may be "."
    try:
        fields = read_split(path, "field")
    except (FileNotFoundError, ValueError):
        fields = {}
    return [fields.get(image.name, image.name) for image in images]


def results_table(evaluations: Sequence[Evaluation], images: Sequence[LabelledImage], fields: Sequence[str]) -> Table:
    """Per cent; AP at three thresholds, the mean over 0.5 to 0.9, and the mean over images; the interval of AP50 over
    fields drawn with replacement, where there are `FEWEST` or more."""
    number = len(set(fields))
    few = number < FEWEST
    rows = []
    for e in evaluations:
        interval = None if few else "{:.1f} to {:.1f}".format(*(100 * v for v in e.interval(fields)))
        first, *others = (100 * v for v in (e.ap["AP50"], e.ap["AP75"], e.ap["AP90"], e.ap["AP"], e.image_ap))
        rows.append(Row(e.name, [first, interval, *others]))
    count = sum(len(np.unique(image.label[image.label > 0])) for image in images if image.label is not None)
    return Table(
        "Average precision",
        ("AP50", "95 %", "AP75", "AP90", "AP 50-90", "AP50 by image"),
        rows,
        text=f"{len(images)} images with {count} objects; AP = TP / (TP + FP + FN) in per cent"
        + f"; no interval from {number}, which takes {FEWEST} images that are no tiles of each other" * few,
    )


def metrics_of(evaluations: Sequence[Evaluation], history: Sequence[dict[str, float]]) -> dict[str, Any]:
    """AP50 to AP90 and their mean of the first method at the top, all of them under `methods`."""
    methods = {
        e.name: {**e.ap, "AP50_by_image": e.image_ap, "images": len(e.metric), "fitted": e.fitted} for e in evaluations
    }
    return {**evaluations[0].ap, "methods": methods, "history": list(history)}


def image_results(evaluation: Evaluation, images: Sequence[LabelledImage], count: int = SHOWN) -> list[ImageResult]:
    """At most ``count`` of the images with what was found in them, from all over the side."""
    uncertainty: Sequence[Array | None] = evaluation.uncertainty or [None] * len(images)
    every = max(1, -(-len(images) // count))
    return [
        ImageResult(image.name, image.image, image.label, found, unsure)
        for image, found, unsure in zip(images[::every], evaluation.found[::every], uncertainty[::every], strict=True)
    ]


def write_results(
    title: str,
    evaluations: Sequence[Evaluation],
    images: Sequence[LabelledImage],
    options: Options,
    history: Sequence[dict[str, float]],
) -> str:
    """Everything into the output folder; what to print: the table, and where the files are."""
    folder = options.output
    table = results_table(evaluations, images, fields_of(images, options))
    lines = [("method", *table.columns), *((row.name, *row.values) for row in table.rows)]
    metrics = write_metrics(folder, metrics_of(evaluations, history), options, lines)
    shown = image_results(evaluations[0], images)
    sheet = overlay_sheet(shown, folder / "images.png", title=evaluations[0].name)
    charts = [loss_chart([epoch["loss"] for epoch in history])] if history else []
    of = f", {len(shown)} of {len(images)}" if len(shown) < len(images) else ""
    section = Section(f"Test images{of}", tables=[table], charts=charts, noun="object", item="image", images=shown)
    page = write_report(
        folder / "report.html", title, [section], settings={"options": asdict(options), "versions": versions()}
    )
    return f"\n{table_text(table)}\n\nreport   {page}\npicture  {sheet}\nmetrics  {metrics}"


def run_prediction(model: Model, options: Options) -> str:
    """Label image, table of objects and overlay of each file of ``--predict``; what to print.

    Raises:
        SystemExit: two files of one name, or a result that would replace one of the files; after the others, with what
            was found in them, files that cannot be read, and volumes.
    """
    names = [name_of(path) for path in options.predict]
    if len(set(names)) < len(names):
        raise SystemExit(f"--predict: results are named after the files, expected different names, got {names}")
    results = {(options.output / f"{name}{end}").resolve() for name in names for end in _RESULTS}
    if own := [str(path) for path in options.predict if path.resolve() in results]:
        raise SystemExit(f"{own[0]}: expected another --output folder for the results, which would replace this file")
    lines, failed = [], []
    shown: list[ImageResult] = []
    rows: list[Row] = []
    for path in options.predict:
        try:
            image = LabelledImage(name_of(path), read_image(path, channel=options.channel), None)
            if image.image.ndim != 2:
                raise ValueError(f"{path}: expected an image (H, W), got a volume {image.image.shape}; {FOR_VOLUMES}")
        except (OSError, ValueError) as error:
            failed.append(str(error))
            continue
        shape = (1, *image.image.shape)
        (output,) = predict_all(model, [image], image.name)
        instances = model.cluster(*output)
        label = label_image(instances, shape)[0].numpy()
        of_labels, of_objects, picture = (options.output / f"{image.name}{end}" for end in _RESULTS)
        write_labels(of_labels, label)
        with replaced_file(of_objects) as temporary:
            temporary.write_text(object_csv(instances, shape), encoding="utf-8", newline="")
        result = ImageResult(image.name, image.image, None, label)
        overlay_sheet([result], picture)
        shown += [result] if len(shown) < SHOWN else []
        rows.append(Row(image.name, [result.tally().found, *image.image.shape]))
        lines.append(f"{image.name}: {int(label.max(initial=0))} objects")
    if shown:
        table = Table("Images", ("objects", "rows", "columns"), rows)
        section = Section("Images", tables=[table], noun="object", item="image", images=shown)
        page = write_report(
            options.output / "report.html",
            "Objects found in images",
            [section],
            settings={"options": asdict(options), "versions": versions()},
        )
        lines += [f"label images, tables and pictures in {options.output}", f"report   {page}"]
    if failed:
        raise SystemExit("\n".join([*lines, f"{len(failed)} of {len(names)} files were left out", *failed]))
    return "\n".join(lines)
