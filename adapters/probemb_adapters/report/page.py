"""A report of a run as one HTML file: clouds to turn with the mouse, curves and tables; it needs no network.

The numbers of each shape lie in the page as base64, positions once and in 16 bits; `page.js` beside this file draws
them with plotly.js, which is copied into the page. A browser has about 16 WebGL contexts: a section therefore shows one
shape at a time, which one chooses, and only sections in view hold contexts.
"""

from __future__ import annotations

import base64
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probemb_adapters.files import replaced_file
from probemb_adapters.report.pictures import ShapeResult, instance_colors, match_shape, z_up
from probemb_lib import ThresholdFit
from probemb_lib.metrics import PartNetAP

try:
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise ImportError(f'the report needs plotly ({error}): pip install "probemb-lib[viz]"') from error

Array = np.ndarray[Any, np.dtype[Any]]

NONE = "#d4d4d4"
FALSE = ("#d7191c", "#ff5a4f", "#a50f15", "#f03b20", "#ff8578")
MISSED = ("#1a1a1a", "#4a4a52", "#2b2f38", "#5a5250", "#38302c")
_KEPT = 16  # points of each instance that subsampling keeps, so that none is out of sight
_PANELS = {
    "input": "Input",
    "truth": "Ground truth",
    "found": "Prediction",
    "sigma": "Uncertainty σ",
    "mean": "Embedding μ",
}


class Row(NamedTuple):
    """One line of a table.

    Attributes:
        name: such as a method.
        values: one a column; floats are rounded, None is a dash.
        quoted: the values are those of a publication, and are marked so.
    """

    name: str
    values: Sequence[float | int | str | None]
    quoted: bool = False


@dataclass(frozen=True)
class Table:
    """Named rows of values, such as methods × IoU thresholds.

    Attributes:
        columns: their heads, without that of the names.
        text: said above it.
        quoted: where the quoted rows come from, said below.
        decimals: of floats.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    text: str = ""
    quoted: str = "as published by the paper"
    decimals: int = 1


class Line(NamedTuple):
    """A named line of a chart; numbers that are not finite leave a gap."""

    name: str
    x: Sequence[float] | Array
    y: Sequence[float] | Array


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis.

    Attributes:
        mark: a value of x to mark with a vertical line, and what to write there.
        unit_square: both axes from 0 to 1, as for precision and recall.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    text: str = ""
    mark: tuple[float, str] | None = None
    unit_square: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own.

    Attributes:
        text: plain text, paragraphs apart by an empty line.
        shapes: to look at, one at a time.
        tables, charts: below the shapes.
        classes: name of each class number of ``found.semantic``; without it classes are not named.
        noun: what an instance is here, such as "part" or "object".
        item: what one of the ``shapes`` is here, such as "scene".
        unit: of the positions, such as "m".
    """

    title: str
    text: str = ""
    shapes: Sequence[ShapeResult] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    classes: Sequence[str] | None = None
    noun: str = "instance"
    item: str = "shape"
    unit: str = ""


def precision_recall_charts(metrics: Mapping[str, PartNetAP], classes: Sequence[str]) -> list[Chart]:
    """Precision over recall, a chart for each IoU threshold and a line for each method and class with ground truth.

    Args:
        metrics: evaluators by the name of the method, with equal thresholds.
        classes: names of their 0-based classes; a single one is not named in the charts.

    Raises:
        ValueError: no evaluator, or evaluators whose thresholds or number of classes differ from the first's or from
            ``classes``.
    """
    if not metrics:
        raise ValueError("expected at least one evaluator, got none")
    thresholds = next(iter(metrics.values())).iou_thresholds
    for name, metric in metrics.items():
        if metric.iou_thresholds != thresholds or metric.num_classes != len(classes):
            raise ValueError(
                f"{name}: expected thresholds {thresholds} and {len(classes)} classes, got {metric.iou_thresholds} "
                f"and {metric.num_classes}"
            )
    valid = {name: metric.compute()["class_valid"] for name, metric in metrics.items()}
    charts = []
    for threshold in thresholds:
        lines = []
        for name, metric in metrics.items():
            for c in np.flatnonzero(valid[name]).tolist():
                precision, recall = metric.curve(c, threshold)
                label = [name] * (len(metrics) > 1 or len(classes) == 1) + [classes[c]] * (len(classes) > 1)
                lines.append(Line(": ".join(label), recall, precision))
        charts.append(
            Chart(f"Precision and recall, IoU above {threshold:g}", "recall", "precision", lines, unit_square=True)
        )
    return charts


def fit_chart(fit: ThresholdFit, metric: str = "mAP at IoU 0.5") -> Chart:
    """The validation metric over the clustering threshold τ, the best one marked."""
    return Chart(
        "Choice of the clustering threshold",
        "threshold τ",
        f"{metric} on validation",
        [Line("validation", fit.grid, fit.metrics)],
        mark=(fit.threshold, f"τ = {fit.threshold:g}"),
    )


def loss_chart(history: Sequence[float], name: str = "training") -> Chart:
    """The mean loss of each epoch."""
    return Chart("Training", "epoch", "loss", [Line(name, range(1, len(history) + 1), history)])


def write_report(
    path: str | Path,
    title: str,
    sections: Sequence[Section],
    *,
    text: str = "",
    settings: Mapping[str, object] | None = None,
    max_points: int = 8000,
) -> Path:
    """Write the page: an explanation, the sections, and the settings and versions of the run, folded.

    Equal input gives an equal file. It is complete or not there.

    Args:
        path: the HTML file; its folder is made.
        title: of the page.
        sections: at least one.
        text: said below the title; plain text.
        settings: anything with a telling ``str``; a mapping within is listed under its key.
        max_points: of a shape that are drawn, the same ones in all panels. All are counted.

    Returns:
        ``path``.

    Raises:
        ValueError: no section, ``max_points`` < 1, tensors of a shape, rows of a table or numbers of a line that do
            not fit together, an embedding that is not finite.
    """
    if not sections:
        raise ValueError("expected at least one section, got none")
    if max_points < 1:
        raise ValueError(f"max_points: expected at least 1, got {max_points}")
    folder = Path(__file__).parent
    body = "\n".join(_section(section, i, max_points) for i, section in enumerate(sections))
    guide = _guide([shape for section in sections for shape in section.shapes])
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>{escape(title)}</title>
<style>
{(folder / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>{_paragraphs(text)}</header>
<div id="errors" role="alert" hidden></div>
<noscript><p>The pictures and curves of this page are drawn by JavaScript, which is off here.</p></noscript>
{guide}
{body}
{_settings(settings or {})}
<script>
{get_plotlyjs()}
</script>
<script>
{(folder / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""
    with replaced_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _guide(shapes: Sequence[ShapeResult]) -> str:
    """What one sees, in a few sentences; nothing is said of what the page does not show."""
    if not shapes:
        return ""
    judged = [
        (
            "many",
            "<b>Same colour on both sides</b>: found. Prediction and truth overlap by more than half (IoU above 0.5).",
        ),
        (FALSE[0], "<b>Red</b> in the prediction: a false detection, which matches nothing true."),
        (MISSED[0], "<b>Black</b> in the ground truth: missed by the prediction."),
        (NONE, "<b>Grey</b>: belongs to nothing."),
        ("sigma", "<b>Uncertainty</b>: dark blue is sure, yellow is unsure."),
    ]
    plain = [("many", "<b>Each colour</b> is one instance that was found."), *judged[3:]]
    rows = judged if any(shape.truth is not None for shape in shapes) else plain
    items = "".join(f"<li>{_swatch(color)}<span>{words}</span></li>" for color, words in rows)
    return (
        '<aside class="guide"><h2>How to read the pictures</h2><p>A network took the points of the <i>input</i> and '
        "split them into single instances: the parts of a piece of furniture, or the objects of a room. For each point "
        "it gives a Gaussian: a place <i>μ</i>, which should be the same for all points of an instance, and how unsure "
        "it is of that place, <i>σ</i>. Points whose Gaussians overlap become one instance.</p>"
        f"<ul>{items}</ul><p><b>Drag</b> to turn, all pictures of a row turn together. <b>Ctrl + wheel</b> or pinch to "
        "zoom. Point at the cloud for details, click a line of the list to see it alone.</p></aside>"
    )


def _swatch(color: str) -> str:
    fills = {
        "many": "linear-gradient(90deg, #1f77b4 33%, #ff7f0e 33% 66%, #2ca02c 66%)",
        "sigma": "linear-gradient(90deg, #440154, #26828e, #fde725)",
    }
    return f'<span class="swatch" style="background:{fills.get(color, color)}"></span>'


def _section(section: Section, number: int, max_points: int) -> str:
    tables = "".join(_table(table) for table in section.tables)
    charts = "".join(_chart(chart) for chart in section.charts)
    return (
        f"<section><h2>{escape(section.title)}</h2>{_paragraphs(section.text)}"
        + (_viewer(section, number, max_points) if section.shapes else "")
        + (f'<div class="tables">{tables}</div>' if tables else "")
        + (f'<div class="charts">{charts}</div>' if charts else "")
        + "</section>"
    )


def _viewer(section: Section, number: int, max_points: int) -> str:
    payloads = [_payload(shape, section, max_points) for shape in section.shapes]
    chips, data = [], []
    for i, (shape, payload) in enumerate(zip(section.shapes, payloads, strict=True)):
        right, true, false = payload["right"], payload["true"], payload["false"]
        says = f"{len(shape.found)} found" if true is None else f"{right}/{true}"
        wrong = f"<i>{false} false</i>" if false else ""
        key = f"shape-{number}-{i}"
        chips.append(
            f'<button type="button" class="chip" data-shape="{key}" aria-pressed="false">'
            f"{escape(shape.name)} <small>{says}{wrong}</small></button>"
        )
        data.append(f'<script type="application/json" id="{key}">{_json(payload)}</script>')
    panels = "".join(
        f'<figure class="panel" data-kind="{kind}"><figcaption><span>{name}</span><span class="choice"></span>'
        '<button type="button" class="enlarge" title="larger or smaller">⤢</button></figcaption>'
        '<div class="plot"></div><div class="key"></div></figure>'
        for kind, name in _PANELS.items()
        if any(payload[kind] is not None for payload in payloads)
    )
    judged = [payload for payload in payloads if payload["true"] is not None]
    total = ""
    if judged:
        right, true, false = (sum(payload[key] for payload in judged) for key in ("right", "true", "false"))
        total = f": {right} of {true} {escape(section.noun)}s found, {false} false detections at IoU 0.5"
    choose = "Choose one (found / true):" if judged else "Choose one:"
    count = f"{len(payloads)} {escape(section.item)}{'s' if len(payloads) > 1 else ''}{total}. {choose}"
    return (
        f'<div class="viewer"><p class="count">{count}</p><div class="chips">{"".join(chips)}</div>'
        f'<div class="about"><span class="name"></span><button type="button" class="reset">reset view</button></div>'
        f'<div class="row">{panels}</div><div class="parts"></div>{"".join(data)}</div>'
    )


def _payload(shape: ShapeResult, section: Section, max_points: int) -> dict[str, Any]:
    """All that the page needs to know of a shape."""
    _check(shape)
    count = len(shape.found)
    label = shape.found.label.cpu().numpy()
    truth = None if shape.truth is None else shape.truth.cpu().clamp_min(-1).numpy()
    chosen = _choose(label, truth, max_points)
    found: list[dict[str, Any]] = [
        {
            "class": _class(section, int(shape.found.semantic[k])),
            "score": round(float(shape.found.score[k]), 3),
            "points": int(n),
        }
        for k, n in enumerate(np.bincount(label[label >= 0], minlength=count))
    ]
    colors = _hex(instance_colors(count))
    true: list[dict[str, Any]] = []
    right = 0
    if truth is not None:
        matches = match_shape(shape)
        true_of_found, found_of_true = matches.true_of_found.tolist(), matches.found_of_true.tolist()
        own = _hex(instance_colors(len(found_of_true)))
        sizes = np.bincount(truth[truth >= 0], minlength=len(own))
        best_true, best_found = _best(matches.iou), _best(matches.iou.T)
        for k, entry in enumerate(found):
            entry |= {"match": true_of_found[k], "best": best_true[k]}
        for g, n in enumerate(sizes.tolist()):
            name = None if shape.truth_classes is None else _class(section, int(shape.truth_classes[g]))
            shown = own[g] if found_of_true[g] >= 0 else MISSED[g % len(MISSED)]
            true.append(
                {"class": name, "points": n, "match": found_of_true[g], "best": best_found[g], "own": own[g]}
                | {"color": shown}
            )
        false = iter(range(count))
        colors = [own[g] if g >= 0 else FALSE[next(false) % len(FALSE)] for g in true_of_found]
        right = sum(g >= 0 for g in true_of_found)
    for entry, color in zip(found, colors, strict=True):
        entry["color"] = color
    pos = z_up(shape.pos.detach().cpu().float().numpy(), shape.up)[chosen]
    mean: dict[str, Any] | None = None
    if shape.mean is not None:
        mu = shape.mean.detach().cpu().float()[:, :3].numpy()
        if shape.mean.shape[1] == 3:
            mu = z_up(mu, shape.up)
        seeds = mu[shape.found.seed.cpu().numpy()]
        mean = _quantized(np.concatenate([mu[chosen], seeds])) | {"dim": shape.mean.shape[1]}
    spread = shape.log_std.shape[1]
    axes = ["σ"] if spread == 1 else [f"σ{a}" for a in "xyz"] if spread == 3 else [f"σ{a + 1}" for a in range(spread)]
    return {
        "name": shape.name,
        "noun": section.noun,
        "unit": section.unit,
        "drawn": len(chosen),
        "points": len(shape.pos),
        "right": right,
        "true": None if truth is None else int((sizes > 0).sum()),
        "false": None if truth is None else count - right,
        "input": _quantized(pos),
        "rgb": None if shape.rgb is None else _encoded(_bytes(shape.rgb)[chosen]),
        "truth": None if truth is None else {"label": _encoded(truth[chosen].astype("<i4")), "instances": true},
        "found": {"label": _encoded(label[chosen].astype("<i4")), "instances": found},
        "sigma": _quantized(shape.log_std.detach().cpu().float().numpy()[chosen]) | {"axes": axes},
        "mean": mean,
        "none": NONE,
    }


def _check(shape: ShapeResult) -> None:
    n = len(shape.pos)
    if shape.pos.shape != (n, 3) or n == 0:
        raise ValueError(f"{shape.name}: expected pos (N, 3) of at least one point, got {tuple(shape.pos.shape)}")
    per_point: dict[str, Tensor | None] = {"truth": shape.truth, "found.label": shape.found.label}
    for name, labels in per_point.items():
        if labels is not None and labels.shape != (n,):
            raise ValueError(f"{shape.name}: expected {name} ({n},), one a point, got {tuple(labels.shape)}")
    for name, value in {"log_std": shape.log_std, "mean": shape.mean, "rgb": shape.rgb}.items():
        if value is None:
            continue
        if value.ndim != 2 or len(value) != n or value.shape[1] == 0:
            raise ValueError(f"{shape.name}: expected {name} ({n}, D), a row for each point, got {tuple(value.shape)}")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{shape.name}: {name} is not finite")
    if not bool(shape.pos.isfinite().all()):
        raise ValueError(f"{shape.name}: pos is not finite")
    if shape.rgb is not None and shape.rgb.shape[1] != 3:
        raise ValueError(f"{shape.name}: expected rgb ({n}, 3), got {tuple(shape.rgb.shape)}")


def _choose(label: Array, truth: Array | None, max_points: int) -> Array:
    """Rows of the points that are drawn: a random subset that holds some points of each instance."""
    n = len(label)
    if n <= max_points:
        return np.arange(n)
    order = np.random.default_rng(0).permutation(n)
    first = np.zeros(n, np.bool_)
    for ids in (label, truth):
        if ids is not None:
            ranked = np.argsort(ids[order], kind="stable")
            sorted_ids = ids[order][ranked]
            rank = np.arange(n) - np.searchsorted(sorted_ids, sorted_ids)  # within the instance
            first[ranked[(rank < _KEPT) & (sorted_ids >= 0)]] = True
    return np.asarray(order[np.argsort(~first, kind="stable")][:max_points])


def _best(iou: Tensor) -> list[list[float] | None]:
    """Column and value of the highest IoU in each row; None where nothing overlaps."""
    if iou.shape[1] == 0:
        return [None] * len(iou)
    return [
        [at, round(value, 3)] if value > 0 else None
        for value, at in zip(*(x.tolist() for x in iou.max(1)), strict=True)
    ]


def _class(section: Section, number: int) -> str | None:
    if section.classes is None:
        return None
    if not 0 <= number < len(section.classes):
        raise ValueError(f"{section.title}: class {number} has no name, there are {len(section.classes)}")
    return section.classes[number]


def _quantized(x: Array) -> dict[str, Any]:
    """Columns of x (N, D) in 16 bits between their least and greatest values."""
    low, high = x.min(0).astype(np.float64), x.max(0).astype(np.float64)
    scale = np.where(high > low, high - low, 1.0) / 65535
    return {
        "low": low.tolist(),
        "scale": scale.tolist(),
        "values": _encoded(np.rint((x - low) / scale).astype("<u2")),
    }


def _encoded(x: Array) -> dict[str, str]:
    if x.dtype == np.dtype("<i4") and (x.size == 0 or x.max() < 1 << 15):
        x = x.astype("<i2")
    return {
        "dtype": x.dtype.str[1:],
        "bdata": base64.b64encode(np.ascontiguousarray(x).tobytes()).decode("ascii"),
    }


def _bytes(rgb: Tensor) -> Array:
    colors = rgb.detach().cpu()
    if colors.is_floating_point():
        colors = (colors.clamp(0, 1) * 255).round()
    return colors.to(torch.uint8).numpy()


def _hex(colors: Array) -> list[str]:
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.rint(colors * 255).astype(int).tolist()]


def _table(table: Table) -> str:
    rows = []
    for row in table.rows:
        if len(row.values) != len(table.columns):
            raise ValueError(
                f"{table.title}, {row.name}: expected {len(table.columns)} values, one a column, got {len(row.values)}"
            )
        cells = "".join(f"<td>{_cell(value, table.decimals)}</td>" for value in row.values)
        mark = (' class="quoted"', " *") if row.quoted else ("", "")
        rows.append(f'<tr{mark[0]}><th scope="row">{escape(row.name)}{mark[1]}</th>{cells}</tr>')
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    source = f'<p class="source">* {escape(table.quoted)}</p>' if any(row.quoted for row in table.rows) else ""
    return (
        f'<div class="table"><h3>{escape(table.title)}</h3>{_paragraphs(table.text)}<div class="wide"><table>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{source}</div>"
    )


def _cell(value: float | int | str | None, decimals: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.{decimals}f}" if isinstance(value, float) else escape(str(value))


def _chart(chart: Chart) -> str:
    lines = []
    for line in chart.lines:
        x, y = (np.asarray(v, np.float64) for v in (line.x, line.y))
        if x.ndim != 1 or x.shape != y.shape:
            raise ValueError(f"{chart.title}, {line.name}: expected as many x as y, got {x.shape} and {y.shape}")
        lines.append({"name": line.name, "x": _numbers(x), "y": _numbers(y)})
    data = {
        "x": chart.x,
        "y": chart.y,
        "lines": lines,
        "mark": chart.mark and [float(chart.mark[0]), chart.mark[1]],
        "square": chart.unit_square,
    }
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>{_paragraphs(chart.text)}'
        f'<div class="plot"></div><script type="application/json">{_json(data)}</script></figure>'
    )


def _numbers(x: Array) -> list[float | None]:
    """Five digits are more than a screen shows; JSON has no NaN."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in x.tolist()]


def _settings(settings: Mapping[str, object]) -> str:
    versions = {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("torch", "numpy", "plotly")
    }
    entries: dict[str, object] = {**settings, "versions": versions}
    rows = []
    for key, value in entries.items():
        inner = value if isinstance(value, Mapping) else {"": value}
        rows += [f"<tr><th>{escape(f'{key} {k}'.strip())}</th><td>{escape(str(v))}</td></tr>" for k, v in inner.items()]
    return (
        '<details class="settings"><summary>Settings and versions of this run</summary>'
        f'<div class="wide"><table>{"".join(rows)}</table></div></details>'
    )


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(p.strip())}</p>" for p in text.split("\n\n") if p.strip())


def _json(data: object) -> str:
    """JSON that cannot end the script it stands in: that takes a "<", which is written as an escape."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
