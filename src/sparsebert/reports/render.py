"""Tables to text: for the terminal, Markdown and HTML. Every text is escaped for where it goes."""

from __future__ import annotations

import rich.box
import rich.table
from rich.console import Group, RenderableType
from rich.text import Text

from sparsebert.reports.escape import in_html, in_markdown, plain
from sparsebert.reports.tables import Cell, Section, Table


def as_rich(table: Table) -> Group:
    """Tables for the terminal, one a section, with the notes below; record texts are never read as markup."""
    parts: list[RenderableType] = []
    for section in table.sections:
        if section.heading:
            parts.append(Text(plain(section.heading), style="italic"))
        parts.append(_rich_section(table, section))
        parts.append(Text())
    return Group(*parts, Text(plain("\n".join(table.notes)), style="dim"))


def as_markdown(table: Table) -> str:
    """Pipe tables, one a section, with the notes below; small print follows in brackets."""
    rule = "|" + "|".join(["---"] + ["---:"] * (len(table.columns) - 1)) + "|"
    blocks = []
    for section in table.sections:
        if section.heading:
            blocks.append(f"**{in_markdown(section.heading)}**")
        blocks.append("\n".join([_line(table.columns), rule, *map(_line, section.rows)]))
    blocks.append("\n".join(f"- {in_markdown(note)}" for note in table.notes))
    return "\n\n".join(blocks) + "\n"


def as_html(table: Table, css_class: str = "") -> str:
    """A `<table>` with one `<tbody>` a section; each cell carries its column's name for narrow screens."""
    bodies = [f'<table class="{css_class}">', _html_head(table.columns)]
    names = [", ".join(filter(None, (column.text, column.small))) for column in table.columns]
    for section in table.sections:
        bodies.append("<tbody>")
        if section.heading:
            span = len(table.columns)
            heading = in_html(section.heading)
            bodies.append(f'<tr class="section"><th colspan="{span}" scope="rowgroup">{heading}</th></tr>')
        bodies += [_html_row(row, names) for row in section.rows]
        bodies.append("</tbody>")
    notes = "".join(f"<li>{in_html(note)}</li>" for note in table.notes)
    return "".join(bodies) + "</table>" + (f'<ul class="notes">{notes}</ul>' if notes else "")


def _rich_section(table: Table, section: Section) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for index, column in enumerate(table.columns):
        drawn.add_column(_rich_cell(column), justify="right" if index else "left", overflow="fold")
    for row in section.rows:
        drawn.add_row(*map(_rich_cell, row))
    return drawn


def _rich_cell(cell: Cell) -> Text:
    text = Text(plain(cell.text))
    return text.append(f"\n{plain(cell.small)}", style="dim") if cell.small else text


def _line(cells: tuple[Cell, ...]) -> str:
    texts = [f"{cell.text} ({cell.small})" if cell.small else cell.text for cell in cells]
    return "| " + " | ".join(map(in_markdown, texts)) + " |"


def _html_head(columns: tuple[Cell, ...]) -> str:
    if not any(column.text for column in columns):
        return ""
    cells = "".join(f'<th scope="col">{_html_cell(column)}</th>' for column in columns)
    return f"<thead><tr>{cells}</tr></thead>"


def _html_row(row: tuple[Cell, ...], names: list[str]) -> str:
    first = f'<th scope="row">{_html_cell(row[0])}</th>'
    rest = (
        f'<td data-column="{in_html(name)}">{_html_cell(cell)}</td>'
        for name, cell in zip(names[1:], row[1:], strict=True)
    )
    return f"<tr>{first}{''.join(rest)}</tr>"


def _html_cell(cell: Cell) -> str:
    small = f"<small>{in_html(cell.small)}</small>" if cell.small else ""
    return f"<span>{in_html(cell.text)}{small}</span>"
