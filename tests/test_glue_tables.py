"""The tables of GLUE: what stands in which cell, on screen, in Markdown, LaTeX and HTML."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from glue_records import DENSE, SPARSE_90, all_nine, failed_glue, glue_record
from sparsebert.records import Record, Score
from sparsebert.reports.glue import GlueScores, Reference, average_table, glue_scores, glue_table, metric_table
from sparsebert.reports.latex import as_latex, in_latex
from sparsebert.reports.render import as_html, as_markdown, as_rich
from sparsebert.reports.tables import Cell, Section, Table


def three_seeds() -> GlueScores:
    """Seed by seed every metric one point higher; seed 2 of RTE failed."""
    records = [
        glue_record(task, [value + seed for value in values], seed)
        for seed in range(3)
        for task, values in DENSE.items()
        if (task, seed) != ("rte", 2)
    ]
    return glue_scores([*records, failed_glue("rte", 2)], {"rte": 1})


def row(table: Table, first: str, section: int = 0) -> dict[str, Cell]:
    cells = next(cells for cells in table.sections[section].rows if cells[0].text == first)
    return dict(zip((column.text for column in table.columns), cells, strict=True))


def test_the_table_has_the_shape_of_the_usual_ones():
    table = glue_table(glue_scores(all_nine()))
    assert [column.text for column in table.columns] == [
        "",
        "BERT score",
        "GLUE score",
        "CoLA",
        "MNLI",
        "MRPC",
        "QNLI",
        "QQP",
        "RTE",
        "SST-2",
        "STS-B",
        "WNLI",
    ]
    assert [column.small for column in table.columns][3:6] == ["Matthews", "m/mm", "F1/acc"]
    cells = row(table, "one run")
    assert [cells[name].text for name in ("BERT score", "GLUE score", "MNLI", "MRPC", "WNLI")] == [
        "75.3",
        "73.2",
        "78.2/79.0",
        "86.5/80.4",
        "56.3",
    ]
    # Of one run the interval over the examples stands below.
    assert cells["CoLA"].small == "30.1–34.1"
    assert table.sections[0].heading == "bert, finetuned"


def test_median_spread_and_best_stand_side_by_side():
    table = glue_table(three_seeds())
    assert [cells[0].text for cells in table.sections[0].rows] == [
        "median of 3 runs",
        "minimum–maximum",
        "best per task",
        "majority class",
    ]
    assert row(table, "median of 3 runs")["CoLA"] == Cell("33.1")
    assert row(table, "minimum–maximum")["MRPC"] == Cell("83.4–85.4")
    assert row(table, "best per task")["CoLA"] == Cell("34.1", "of 3")


def test_a_failed_run_is_marked_and_takes_its_seed_from_the_mean():
    table = glue_table(three_seeds())
    cells = row(table, "median of 3 runs")
    assert cells["RTE"] == Cell("60.8", "1 failed")
    assert cells["GLUE score"].small == "n = 2"
    assert "RTE: 1 run without a result." in table.notes


def test_a_task_of_which_all_runs_failed_has_a_column_and_no_score():
    records = [record for record in all_nine() if record.task != "rte"]
    table = glue_table(glue_scores([*records, failed_glue("rte")], {"rte": 1}))
    assert row(table, "one run")["RTE"] == Cell("–", "1 failed")
    assert not any(column.text == "GLUE score" for column in table.columns)


def test_rows_of_no_official_split_have_medians_and_baselines_too():
    def run(seed: int, value: float) -> Record:
        record = glue_record("rte", [value], seed)
        scores = tuple(one.model_copy(update={"split": "held_out", "baseline": 0.5}) for one in record.models[0].scores)
        return record.model_copy(update={"models": (record.models[0].model_copy(update={"scores": scores}),)})

    table = glue_table(glue_scores([run(0, 90), run(1, 60), run(2, 61)]))
    assert row(table, "median of 3 runs")["RTE"].text == "61.0"
    assert row(table, "majority class")["RTE"].text == "50.0"


def test_what_is_no_glue_score_is_not_called_one():
    records = [*(one for one in all_nine() if one.task != "mnli"), glue_record("mnli", [78.24])]
    table = glue_table(glue_scores(records))
    heads = {column.text: column.small for column in table.columns}
    assert heads["Mean of nine"] == "not the official one, see below" and heads["MNLI"] == "m"
    assert "Mean of nine is no GLUE score: MNLI mismatched dev is missing." in table.notes
    assert not any("GLUE score" in text for text in heads)


def test_models_of_one_run_are_sections_and_per_cent_is_of_the_one_named():
    models = {task: {"dense": DENSE[task], "4x": SPARSE_90[task]} for task in DENSE}
    scores = glue_scores([glue_record(task, models=own) for task, own in models.items()])
    reference = scores.as_reference("dense", "dense")
    table = glue_table(GlueScores(scores.tasks, scores.averages, {}, reference))
    assert [section.heading for section in table.sections] == ["bert, dense", "bert, 4x"]
    small = row(table, "% of dense", section=1)
    assert (small["RTE"].text, row(table, "% of dense")["RTE"].text) == (f"{100 * 61.73 / 60.29:.1f}%", "100.0%")
    assert row(average_table(scores), "GLUE score", section=1)["Median"].text == "74.0"


def test_per_cent_of_what_is_absent_or_zero_is_a_dash():
    scores = glue_scores(all_nine())
    other = GlueScores(scores.tasks, scores.averages, {}, Reference("old", {"cola": 0.0}, {}))
    cells = row(glue_table(other), "% of old")
    assert {cells[name].text for name in ("CoLA", "RTE", "GLUE score")} == {"–"}


def test_metric_by_metric():
    more = [
        Score(metric="accuracy", value=0.812, split="validation", examples=1043, baseline=0.6913),
        Score(metric="matthews", value=0.55, split="train", examples=8551),
        Score(metric="loss", value=0.1234, split="train", examples=8551),
    ]
    table = metric_table(glue_scores([glue_record("cola", more=more), glue_record("mnli")]))
    matthews, accuracy = (row(table, name) for name in ("CoLA Matthews", "CoLA Accuracy"))
    assert (matthews["Median"].text, matthews["On train"].text, matthews["Loss on train"].text) == (
        "32.1",
        "55.0",
        "0.123",
    )
    assert (accuracy["Median"].text, accuracy["Majority"].text) == ("81.2", "69.1")
    assert row(table, "MNLI Accuracy, mismatched")["Median"].text == "79.0"
    # One run has no spread, and nothing was evaluated on the way.
    assert {"Min–max", "Best", "Highest seen"}.isdisjoint(column.text for column in table.columns)


def test_choices_are_named_in_the_table():
    records = [
        glue_record("rte", [60 + rate], seed=seed, training={"learning_rate": rate * 1e-5})
        for rate in (2, 3, 4, 5)
        for seed in (0, 1)
    ]
    table = glue_table(glue_scores(records))
    assert row(table, "median of 2 runs")[""].small == "chosen on dev"
    assert any("RTE learning_rate=5e-05 chosen on dev among 4" in note for note in table.notes)
    assert row(table, "best per task")["RTE"] == Cell("65.0", "of 8")


BAD = r"a_b & 5% of $x$ #1 {y} ~^\ <i> | [z]"
TABLE = Table(BAD, (Cell("Model"), Cell("x_1", BAD)), (Section(BAD, ((Cell("[a]"), Cell("−1.0")),)),), (BAD,))


def test_latex_is_escaped_and_has_a_line_a_row():
    text = as_latex(TABLE)
    escaped = r"a\_b \& 5\% of \$x\$ \#1 \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{} "
    escaped += r"\textless{}i\textgreater{} \textbar{} [z]"
    assert f"\\caption{{{escaped}}}" in text
    assert f"Model & \\shortstack{{x\\_1\\\\{{\\scriptsize {escaped}}}}} \\\\" in text
    assert f"\\multicolumn{{2}}{{l}}{{\\emph{{{escaped}}}}} \\\\\n{{}}[a] & $-$1.0 \\\\\n\\bottomrule" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2
    # Nothing but what was meant is left to TeX: each brace has its own.
    bare = re.sub(r"\\[{}\\]", "", text)
    assert bare.count("{") == bare.count("}")


@pytest.mark.parametrize(("text", "wanted"), [("*a", "{}*a"), ("a\n b", "a b"), ("3×", r"3$\times$"), ("", "")])
def test_in_latex(text, wanted):
    assert in_latex(text) == wanted


def test_markdown_and_html_are_escaped():
    assert r"a\_b &amp; 5% of \$x\$ \#1" in as_markdown(TABLE) and r"\[a\]" in as_markdown(TABLE)

    class Found(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.tags.add(tag)

    found = Found()
    found.feed(as_html(TABLE))
    assert "i" not in found.tags and "th" in found.tags


def test_it_is_drawn_for_the_terminal():
    out = io.StringIO()
    Console(file=out, width=160).print(as_rich(glue_table(three_seeds())))
    assert "median of 3 runs" in out.getvalue() and "GLUE score" in out.getvalue()
