"""Records → typed DataFrame: the columns of every table as objects, comparisons, claims and effects."""

from harness.table.column import Column, Kind, Latex, Note, Place
from harness.table.columns import COLUMNS, list_columns, make_columns
from harness.table.records import COMPARISON_COLUMNS, compare_records, list_record_columns, make_records
from harness.table.results import Results, make_results

__all__ = [
    "COLUMNS",
    "COMPARISON_COLUMNS",
    "Column",
    "Kind",
    "Latex",
    "Note",
    "Place",
    "Results",
    "compare_records",
    "list_columns",
    "list_record_columns",
    "make_columns",
    "make_records",
    "make_results",
]
