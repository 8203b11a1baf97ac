"""Tables, page and files of numbers of the PartNet experiment, the paper's rows beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from probemb_adapters.experiments.paper import read_paper
from probemb_adapters.experiments.partnet.evaluation import Evaluation
from probemb_adapters.experiments.partnet.options import Options
from probemb_adapters.experiments.run import write_metrics
from probemb_adapters.report import Row, Section, Table, fit_chart, loss_chart, precision_recall_charts


def paper_rows(options: Options) -> dict[str, dict[float, float]]:
    """What the paper's tables say of this category and level: method -> IoU threshold -> part mAP in per cent."""
    rows: dict[str, dict[float, float]] = {}
    if options.root is None:
        return rows  # another data set, even where a category has the same name
    for row in read_paper("partnet_map.csv"):
        if row["category"] == options.category and int(row["level"]) == options.level:
            rows.setdefault(row["method"], {})[float(row["iou_threshold"])] = float(row["map_percent"])
    return rows


def table(evaluations: Sequence[Evaluation], classes: Sequence[str], options: Options) -> list[Table]:
    """Methods × IoU thresholds, the paper's rows beside ours; and classes × thresholds of the first method."""
    ious = evaluations[0].metric.iou_thresholds
    heads = [f"{kind} @{iou:g}" for kind in ("part mAP", "shape mAP") for iou in ious]
    rows = [Row(e.name, [float(v) for values in e.values().values() for v in values]) for e in evaluations]
    for method, values in paper_rows(options).items():
        rows.append(Row(f"{method} (paper)", [*(values.get(iou) for iou in ious), *[None] * len(ious)], quoted=True))
    tables = [Table("Test split, per cent", heads, rows)]
    if len(classes) > 1:
        result = evaluations[0].metric.compute()
        rows = [
            Row(name, [int(result["class_gt_count"][c]), *(100 * result["class_ap"][:, c]).tolist()])
            for c, name in enumerate(classes)
            if result["class_valid"][c]
        ]
        tables.append(Table(f"Classes, {evaluations[0].name}", ["instances", *(f"AP @{iou:g}" for iou in ious)], rows))
    return tables


def section(
    title: str,
    text: str,
    evaluations: Sequence[Evaluation],
    classes: Sequence[str],
    options: Options,
    history: Sequence[Mapping[str, float]] = (),
) -> Section:
    """One part of the report: the first method's shapes, all methods' tables and curves."""
    charts = precision_recall_charts({e.name: e.metric for e in evaluations}, classes)
    charts += [replace(fit_chart(e.fit), title=f"Threshold: {e.name}") for e in evaluations if e.fit is not None]
    if history:
        charts.append(loss_chart([epoch["loss"] for epoch in history]))
    return Section(
        title=title,
        text=text,
        shapes=evaluations[0].shapes,
        tables=table(evaluations, classes, options),
        charts=charts,
        classes=classes if options.class_agnostic else ["other", *classes],
        noun="part",
    )


def write_numbers(
    evaluations: Sequence[Evaluation],
    classes: Sequence[str],
    options: Options,
    history: Sequence[Mapping[str, float]] = (),
) -> None:
    """metrics.json with everything, metrics.csv with a line a number."""
    lines: list[Sequence[Any]] = [("method", "source", "metric", "iou_threshold", "percent")]
    methods = {}
    for e in evaluations:
        result, ious = e.metric.compute(), e.metric.iou_thresholds
        by_class = dict(zip(classes, (100 * result["class_ap"]).T.tolist(), strict=True))
        values = {name: v.tolist() for name, v in e.values().items()}
        methods[e.name] = {
            "parameters": e.parameters,
            "validation_part_map_at_0.5": e.validation,
            **values,
            "class_ap": by_class,
            "class_instances": dict(zip(classes, result["class_gt_count"].tolist(), strict=True)),
        }
        for name, numbers in {**values, **{f"AP {c}": v for c, v in by_class.items()}}.items():
            lines += [(e.name, "measured", name, iou, round(v, 3)) for iou, v in zip(ious, numbers, strict=True)]
    for method, quoted in paper_rows(options).items():
        lines += [(method, "paper", "part mAP", iou, v) for iou, v in quoted.items()]
    metrics = {
        "methods": methods,
        "iou_thresholds": evaluations[0].metric.iou_thresholds,
        "paper": paper_rows(options),
        "training": list(history),
    }
    write_metrics(options.output, metrics, options, lines)
