"""Tables to LaTeX, for the packages booktabs and graphicx. Every text is escaped."""

from __future__ import annotations

from sparsebert.progress import plain
from sparsebert.reports.tables import Cell, Table

_LETTERS = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
}


def in_latex(text: str) -> str:
    """For the inside of a paragraph or of a table's cell: letters are shown, and none is read as a command."""
    escaped = "".join(_LETTERS.get(letter, letter) for letter in " ".join(plain(text).split()))
    # A bracket in front would be read as an option of the line's end before it.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def as_latex(table: Table) -> str:
    """A `table` as wide as the text, one group of rows a section, with the notes below."""
    columns = "l" + "r" * (len(table.columns) - 1)
    lines = [
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{in_latex(table.title)}}}",
        r"\resizebox{\textwidth}{!}{%",
        f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line(table.columns),
    ]
    for section in table.sections:
        lines.append(r"\midrule")
        if section.heading:
            lines.append(f"\\multicolumn{{{len(table.columns)}}}{{l}}{{\\emph{{{in_latex(section.heading)}}}}} \\\\")
        lines += map(_line, section.rows)
    lines += [r"\bottomrule", r"\end{tabular}}", *(f"\\par{{\\footnotesize {in_latex(one)}}}" for one in table.notes)]
    return "\n".join([*lines, r"\end{table}", ""])


def _line(cells: tuple[Cell, ...]) -> str:
    return " & ".join(map(_cell, cells)) + r" \\"


def _cell(cell: Cell) -> str:
    text = in_latex(cell.text)
    return f"\\shortstack{{{text}\\\\{{\\scriptsize {in_latex(cell.small)}}}}}" if cell.small else text
