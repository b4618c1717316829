"""Records to tables, figures, one HTML page and model cards. Reads records only, without torch."""

from sparsebert.report.card import model_card
from sparsebert.report.curves import curve_table, curves
from sparsebert.report.families import Family, families
from sparsebert.report.page import write_report
from sparsebert.report.render import as_html, as_markdown, as_rich
from sparsebert.report.rows import as_json, family_rows, timing_rows
from sparsebert.report.tables import Table, family_table, timing_table

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
