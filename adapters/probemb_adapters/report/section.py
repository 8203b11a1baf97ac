"""A part of the report's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probemb_adapters.report.charts import Chart
from probemb_adapters.report.overlays import ImageResult
from probemb_adapters.report.pictures import ShapeResult
from probemb_adapters.report.tables import Table


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own.

    Attributes:
        text: plain text, paragraphs apart by an empty line.
        shapes: to look at, one at a time.
        tables, charts: below the shapes.
        classes: name of each class number of ``found.semantic``; without it classes are not named.
        noun: what an instance is here, such as "part" or "object".
        item: what one of the ``shapes`` or ``images`` is here, such as "scene".
        unit: of the positions, such as "m".
        images: to look at, one at a time.
        command: that gives these results again.
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
    images: Sequence[ImageResult] = ()
    command: str = ""
