"""What a run shows: tables, charts, one page with the clouds to turn, pictures."""

from probemb_adapters.report.page import (
    Chart,
    Line,
    Row,
    Section,
    Table,
    fit_chart,
    loss_chart,
    precision_recall_charts,
    write_report,
)

__all__ = [
    "Chart",
    "Line",
    "Row",
    "Section",
    "Table",
    "fit_chart",
    "loss_chart",
    "precision_recall_charts",
    "write_report",
]
