"""Records → DataFrame → files: one row of plain numbers per row of the experiment, and its texts."""

from harness.table.document import to_plain
from harness.table.findings import Findings, make_findings
from harness.table.frame import list_columns, make_table
from harness.table.records import COMPARISON_COLUMNS, compare_records, list_record_columns, make_records
from harness.table.report import to_markdown, to_text, write_table

__all__ = [
    "COMPARISON_COLUMNS",
    "Findings",
    "compare_records",
    "list_columns",
    "list_record_columns",
    "make_findings",
    "make_records",
    "make_table",
    "to_markdown",
    "to_plain",
    "to_text",
    "write_table",
]
