"""The places of the page where one looks at one shape or image of a section at a time, with its list to choose from."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib.image
import numpy as np

from probemb_adapters.report.overlays import Array, ImageResult, image_panels, shown_slice
from probemb_adapters.report.payload import shape_payload
from probemb_adapters.report.pictures import middle
from probemb_adapters.report.section import Section
from probemb_adapters.report.tally import Tally, typical

_PANELS = {
    "input": "Input",
    "truth": "Ground truth",
    "found": "Prediction",
    "sigma": "Uncertainty",
    "mean": "Embedding μ",
    "uncertainty": "Uncertainty",  # of images
}


def shape_viewer(section: Section, number: int, max_points: int) -> str:
    """Clouds to turn; `page.js` draws them from the JSON here.

    Args:
        number: of the section, for the ids.
        max_points: of a shape that are drawn.
    """
    payloads = [
        shape_payload(
            shape,
            max_points,
            section=section.title,
            classes=section.classes,
            noun=section.noun,
            unit=section.unit,
        )
        for shape in section.shapes
    ]
    keys = [f"shape-{number}-{i}" for i in range(len(payloads))]
    chooser = _chooser(section, keys, [shape.name for shape in section.shapes], [s.tally() for s in section.shapes])
    data = "".join(
        f'<script type="application/json" id="{key}">{script_json(payload)}</script>'
        for key, payload in zip(keys, payloads, strict=True)
    )
    panels = "".join(
        _panel(kind, '<span class="choice"></span>', '<div class="plot"></div><div class="key"></div>')
        for kind in _PANELS
        if any(payload.get(kind) is not None for payload in payloads)
    )
    return (
        f'<div class="viewer">{chooser}'
        '<div class="about"><span class="name"></span><button type="button" class="reset">reset view</button></div>'
        f'<div class="row">{panels}</div><div class="instances"></div>{data}</div>'
    )


def image_viewer(section: Section, number: int) -> str:
    """Images as they are, with what was found drawn over them."""
    tallies = [image.tally() for image in section.images]
    keys = [f"image-{number}-{i}" for i in range(len(tallies))]
    opened, rows = typical([tally.f1 for tally in tallies]), []
    for i, (key, image, tally) in enumerate(zip(keys, section.images, tallies, strict=True)):
        legends = _legends(image, tally)
        panels = "".join(
            _panel(
                kind,
                "",
                f'<img src="{_webp(picture)}" alt="{escape(f"{_PANELS[kind]}: {image.name}")}">'
                f'<div class="key">{legends[kind]}</div>',
            )
            for kind, picture in image_panels(image).items()
        )
        rows.append(f'<div class="row" id="{key}"{"" if i == opened else " hidden"}>{panels}</div>')
    chooser = _chooser(section, keys, [image.name for image in section.images], tallies)
    return f'<div class="images">{chooser}{"".join(rows)}</div>'


def _chooser(section: Section, keys: Sequence[str], names: Sequence[str], tallies: Sequence[Tally]) -> str:
    """A button for each, pressed on the typical one, and what was found in all of them."""
    opened, chips = typical([tally.f1 for tally in tallies]), []
    for i, (key, name, tally) in enumerate(zip(keys, names, tallies, strict=True)):
        says = f"{tally.found} found" if tally.true is None else f"{tally.right}/{tally.true}"
        wrong = (
            f"<i>{tally.found - tally.right} false</i>" if tally.true is not None and tally.found > tally.right else ""
        )
        chips.append(
            f'<button type="button" class="chip" data-shape="{key}" aria-pressed="{str(i == opened).lower()}">'
            f"{escape(name)} <small>{says}{wrong}</small></button>"
        )
    count = f"{len(chips)} {escape(section.item)}{'s' if len(chips) > 1 else ''}"
    judged = [tally for tally in tallies if tally.true is not None]
    if judged:
        right, true, found = (sum(getattr(t, name) or 0 for t in judged) for name in ("right", "true", "found"))
        count += f": {right} of {true} {escape(section.noun)}s found, {found - right} false detections at IoU 0.5."
    if len(chips) > 1:
        typical_open = " Open is the one with the median F1; choose another (found / true):"
        count += typical_open if judged else ". Choose one:"
    return f'<p class="count">{count}</p><div class="chips">{"".join(chips)}</div>'


def _panel(kind: str, choice: str, body: str) -> str:
    return (
        f'<figure class="panel" data-kind="{kind}"><figcaption><span>{_PANELS[kind]}</span>{choice}'
        f'<button type="button" class="enlarge" title="larger or smaller">⤢</button></figcaption>{body}</figure>'
    )


def _legends(image: ImageResult, tally: Tally) -> dict[str, str]:
    """Below the pictures of an image."""
    found = f"<span>{tally.found} found</span>"
    truth = ""
    if tally.true is not None:
        missed, false = tally.true - tally.right, tally.found - tally.right
        truth = f"<span>{tally.right} of {tally.true} found</span>"
        truth += f'<span><span class="swatch missed"></span>{missed} missed</span>' if missed else ""
        found = f"<span>{tally.right} right</span>"
        found += f'<span><span class="swatch false"></span>{false} false</span>' if false else ""
    bar = ""
    if image.uncertainty is not None:
        low, high = middle(image.uncertainty[image.found > 0])
        ticks = ((5, low), (50, (low + high) / 2), (95, high))
        bar = '<div class="bar viridis"></div><div class="ticks">{}</div><span>1 − score · κ</span>'.format(
            "".join(f'<span style="left:{at}%">{value:.2f}</span>' for at, value in ticks)
        )
    z = shown_slice(image)
    of_slice = "" if z is None else f"<span>slice {z + 1} of {len(image.image)}</span>"
    return {"input": of_slice, "truth": truth, "found": found, "uncertainty": bar}


def _webp(picture: Array) -> str:
    """A picture (H, W, 3) in [0, 1] as the address of an image."""
    file = io.BytesIO()
    matplotlib.image.imsave(
        file, np.rint(255 * picture).astype(np.uint8), format="webp", pil_kwargs={"quality": 90, "method": 6}
    )
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def script_json(data: Any) -> str:
    """JSON that cannot end the script it stands in: that takes a "<", which is written as an escape."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
