"""A report of a run as one HTML file: clouds to turn with the mouse, curves and tables; it needs no network.

The numbers of each shape lie in the page as base64, positions once and in 16 bits; `page.js` beside this file draws
them with plotly.js, which lies in the page compressed. A page of many points draws fewer of the large shapes, so that
it stays below 6 MB, its images apart. A browser has about 16 WebGL contexts: a section therefore shows one
shape at a time, which one chooses, and only sections in view hold contexts.
"""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from probemb_adapters.files import missing_extra, replaced_file
from probemb_adapters.report.charts import Chart
from probemb_adapters.report.payload import FALSE, MISSED, NONE
from probemb_adapters.report.section import Section
from probemb_adapters.report.tables import Table
from probemb_adapters.report.viewers import image_viewer, script_json, shape_viewer

try:
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise missing_extra("the report needs plotly", "viz", error) from error

Array = np.ndarray[Any, np.dtype[Any]]

_PAGE_POINTS = 100_000  # that are drawn of all shapes together, 27 to 39 bytes each


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
        max_points: of a shape that are drawn, the same ones in all panels; fewer where all shapes together have more
            than 100,000. All are counted.

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
    drawn = min(max_points, _drawn([len(shape.pos) for section in sections for shape in section.shapes]))
    body = "\n".join(_section(section, i, drawn) for i, section in enumerate(sections))
    plotly = base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode("ascii")
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
{_guide(sections)}
{body}
{_settings(settings or {})}
<script type="text/plain" id="plotly">{plotly}</script>
<script>
{(folder / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""
    with replaced_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _drawn(counts: Sequence[int]) -> int:
    """Most points of a shape that are drawn: small shapes whole, the others alike, on a page about `_PAGE_POINTS`."""
    left = _PAGE_POINTS
    for i, count in enumerate(sorted(counts)):
        share = left // (len(counts) - i)
        if count > share:
            return max(1, share)
        left -= count
    return _PAGE_POINTS


def _guide(sections: Sequence[Section]) -> str:
    """What one sees, in a few sentences; nothing is said of what the page does not show."""
    shapes, images = ([x for section in sections for x in getattr(section, kind)] for kind in ("shapes", "images"))
    if not shapes and not images:
        return ""
    missed = "<b>Black</b> in the ground truth" + (", in images <b>white</b>" if images else "")
    judged = [
        (
            "many",
            "<b>Same colour on both sides</b>: found. Prediction and truth overlap by more than half (IoU above 0.5).",
        ),
        (FALSE[0], "<b>Red</b> in the prediction: a false detection, which matches nothing true."),
        (MISSED[0], f"{missed}: missed by the prediction."),
        (NONE, "<b>Grey</b>: belongs to nothing."),
        (
            "sigma",
            "<b>Uncertainty</b> of a point in its instance: dark blue is surest, yellow least sure. σ is the size "
            "of what a point belongs to.",
        ),
    ]
    plain = [("many", "<b>Each colour</b> is one instance that was found."), *judged[3:]]
    rows = judged if any(x.truth is not None for x in (*shapes, *images)) else plain
    items = "".join(f"<li>{_swatch(color)}<span>{words}</span></li>" for color, words in rows)
    points = "pixels or points" if images and shapes else "pixels" if images else "points"
    hands = (
        "<p><b>Drag</b> a cloud to turn it, all of a row turn together. <b>Ctrl + wheel</b> or pinch to zoom. Point at "
        "it for details, click a line of the list to see it alone.</p>"
    )
    return (
        '<details class="guide"><summary>How to read the pictures</summary>'
        f"<p>A network took the {points} of the <i>input</i> and "
        f"split them into instances, the {points} that belong to one thing. For each it gives a Gaussian: a place "
        "<i>μ</i>, which should be the same for all of an instance, and how far around it others count "
        "as the same, <i>σ</i>. Where Gaussians overlap, they become one instance.</p>"
        f"<ul>{items}</ul>{hands if shapes else ''}</details>"
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
        + (f"<p><code>{escape(section.command)}</code></p>" if section.command else "")
        + (image_viewer(section, number) if section.images else "")
        + (shape_viewer(section, number, max_points) if section.shapes else "")
        + (f'<div class="tables">{tables}</div>' if tables else "")
        + (f'<div class="charts">{charts}</div>' if charts else "")
        + "</section>"
    )


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
        f'<div class="plot"></div><script type="application/json">{script_json(data)}</script></figure>'
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
