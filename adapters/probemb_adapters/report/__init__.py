"""What a run shows: tables, charts, one page with the clouds to turn, pictures.

Tables and charts come without plotly and matplotlib; the page, which needs both, is imported when it is asked for.
"""

from typing import TYPE_CHECKING

from probemb_adapters.report.charts import Chart, Line, fit_chart, loss_chart, precision_recall_charts
from probemb_adapters.report.tables import Row, Table, table_text, write_table

if TYPE_CHECKING:
    from probemb_adapters.report.page import write_report
    from probemb_adapters.report.section import Section
else:

    def __getattr__(name: str) -> object:
        if name not in ("Section", "write_report"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from probemb_adapters.report import page

        return getattr(page, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "Chart",
    "Line",
    "Row",
    "Section",
    "Table",
    "fit_chart",
    "loss_chart",
    "precision_recall_charts",
    "table_text",
    "write_report",
    "write_table",
]
