"""Tables as CSV, and without the packages that pictures, pages and experiments need."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from probemb_adapters.report import Row, Table, write_table


def test_tables_as_csv(tmp_path: Path) -> None:
    rows = [Row("ours", [12.3456, None, 7]), Row("theirs", ["–", 2.0, 3], quoted=True)]
    write_table(Table("Validation, AP", ["AP", "AP50", "n"], rows, text="Open rooms."), tmp_path / "new" / "table.csv")
    with (tmp_path / "new" / "table.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [["Validation, AP", "AP", "AP50", "n"], ["ours", "12.346", "", "7"], ["theirs", "–", "2.0", "3"]]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["table.csv"]


BARE = """
import sys
for name in ("plotly", "matplotlib", "tyro", "torch_geometric", "plyfile", "lightning_fabric"):
    sys.modules[name] = None  # as if it were not installed
from probemb_adapters.report.tables import Table, table_text
from probemb_adapters.report import Row, fit_chart, loss_chart, precision_recall_charts, write_table
print(table_text(Table("Validation", ["AP"], [Row("ours", [12.345])])))
try:
    from probemb_adapters.report import write_report
except ImportError as error:
    print(error)
"""


def test_tables_and_charts_need_no_extra() -> None:
    """Nor does asking for them import the page, which says what it wants."""
    result = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    title, head, row, message = result.stdout.splitlines()
    assert (title, head.split(), row.split()) == ("Validation", ["AP"], ["ours", "12.3"])
    assert 'pip install -e ".[viz]"' in message
