"""Tables, page and files of numbers of the ScanNet experiment, the paper's rows beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from probemb_adapters.experiments.paper import read_paper
from probemb_adapters.experiments.run import write_metrics, write_results
from probemb_adapters.experiments.scannet.evaluation import METRICS, Evaluation
from probemb_adapters.experiments.scannet.options import Options
from probemb_adapters.report import Chart, Line, Row, Section, Table, fit_chart, loss_chart
from probemb_lib.metrics.scannet import THRESHOLDS


def tables(evaluations: Sequence[Evaluation], options: Options) -> list[Table]:
    """Methods × AP, AP50, AP25 with the paper's rows below; for each method classes × the same."""
    rows = [Row(e.name, list(e.values().values())) for e in evaluations]
    for row in read_paper("scannet_table6.csv"):
        values = [float(row[f"val_{key}"]) for key in ("map", "ap50", "ap25")]
        rows.append(Row(f"{row['method']} (paper)", values, quoted=True))
    quoted = "as published by the paper, on ScanNet's validation scenes"
    text = ""
    if options.root is None:
        quoted += ", which is another data set: these numbers cannot be compared with those above"
        text = "Measured on open rooms, not on ScanNet."
    found = [Table("Validation scenes, per cent", list(METRICS), rows, text=text, quoted=quoted)]
    for e in evaluations:
        result = e.metric.compute()
        counts = result["class_gt_count"].tolist()
        rows = [
            Row(name, [counts[c], *(float(100 * result[f"class_{key}"][c]) for key in METRICS.values())])
            for c, name in enumerate(e.classes)
            if counts[c]
        ]
        found.append(Table(f"Classes, {e.name}", ["instances", *METRICS], rows))
    return found


def charts(evaluations: Sequence[Evaluation]) -> list[Chart]:
    """AP over the IoU threshold, precision and recall of each class, choice of the parameter, losses."""
    order = np.argsort(THRESHOLDS)  # 0.25 is the last of them
    lines = []
    for e in evaluations:
        means = np.nanmean(e.metric.compute()["class_ap_per_threshold"], axis=0)
        lines.append(Line(e.name, np.array(THRESHOLDS)[order], means[order]))
    found = [Chart("Average precision over the IoU threshold", "IoU threshold", "AP, mean of the classes", lines)]
    for e in evaluations:
        counts = e.metric.compute()["class_gt_count"].tolist()
        curves = [
            Line(name, *reversed(e.metric.curve(class_id, 0.5)))
            for name, class_id, count in zip(e.classes, e.metric.class_ids, counts, strict=True)
            if count
        ]
        title = f"Precision and recall, IoU above 0.5: {e.name}"
        found.append(Chart(title, "recall", "precision", curves, unit_square=True))
    for e in evaluations:
        if e.fit is not None:
            fitted = fit_chart(e.fit, "AP50")
            parameter = "threshold τ" if e.name == "probabilistic" else "lowest seed value"
            title, mark = f"Choice of the clustering's parameter: {e.name}", (e.fit.threshold, f"{e.fit.threshold:g}")
            found.append(replace(fitted, title=title, x=parameter, mark=mark))
        if e.history:
            found.append(replace(loss_chart([epoch["loss"] for epoch in e.history]), title=f"Training: {e.name}"))
    return found


def write_numbers(evaluations: Sequence[Evaluation], options: Options, engine: str) -> None:
    """metrics.json and metrics.csv; ``engine`` is what computed the convolutions."""
    lines: list[Sequence[Any]] = [("method", "source", "class", "metric", "percent")]
    methods = {}
    for e in evaluations:
        result = e.metric.compute()
        by_class = {
            name: {metric: float(100 * result[f"class_{key}"][c]) for metric, key in METRICS.items()}
            for c, name in enumerate(e.classes)
        }
        methods[e.name] = {
            **e.values(),
            "setting": e.setting,
            "held_out_ap50": dict(zip(e.fit.grid, e.fit.metrics, strict=True)) if e.fit else {},
            "classes": by_class,
            "class_instances": dict(zip(e.classes, result["class_gt_count"].tolist(), strict=True)),
            "training": list(e.history),
        }
        for name, values in {"all": e.values(), **by_class}.items():
            lines += [(e.name, "measured", name, metric, round(value, 3)) for metric, value in values.items()]
    paper = read_paper("scannet_table6.csv")
    for row in paper:
        for metric, key in (("AP", "map"), ("AP50", "ap50"), ("AP25", "ap25")):
            lines.append((row["method"], "paper, ScanNet val", "all", metric, row[f"val_{key}"]))
    data = "open rooms" if options.root is None else "ScanNet"
    if options.objects is not None:
        data += f" with the objects of {options.objects}"
    written = {"data": data, "engine": engine, "methods": methods, "paper": paper}
    write_metrics(options.output, written, options, lines)


def write_page(evaluations: Sequence[Evaluation], options: Options, text: str) -> str:
    """A section for each method's scenes; tables and curves of all in the first. Returns what to print."""
    sections = [
        Section(
            f"Objects found: {e.name}",
            text if i == 0 else "",
            shapes=e.scenes,
            tables=tables(evaluations, options) if i == 0 else (),
            charts=charts(evaluations) if i == 0 else (),
            classes=("background", *e.classes),
            noun="object",
            item="scene",
            unit="m",
        )
        for i, e in enumerate(evaluations)
    ]
    return write_results("Objects found in room scans", sections, options)
