"""Records to tables, figures, one HTML page and model cards. Reads records only, without torch."""

from sparsebert.reports.card import model_card
from sparsebert.reports.curves import curve_table, curves
from sparsebert.reports.families import Family, families
from sparsebert.reports.page import write_report
from sparsebert.reports.render import as_html, as_markdown, as_rich
from sparsebert.reports.rows import as_json, family_rows, timing_rows
from sparsebert.reports.tables import Table, family_table, timing_table

__all__ = [
    "Family",
    "Table",
    "as_html",
    "as_json",
    "as_markdown",
    "as_rich",
    "curve_table",
    "curves",
    "families",
    "family_rows",
    "family_table",
    "model_card",
    "timing_rows",
    "timing_table",
    "write_report",
]
