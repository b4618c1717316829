"""One HTML file that needs nothing else: no network, no script. Every text of a record is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sparsebert.errors import UserError
from sparsebert.files import write_text_atomically
from sparsebert.records import Record
from sparsebert.reports import figures
from sparsebert.reports.blocks import PageBlock, PageRow, contents, drawn, in_scroll
from sparsebert.reports.cards import summary_cards
from sparsebert.reports.curves import Curve, curves, outside
from sparsebert.reports.details import detail_table
from sparsebert.reports.document import html_document
from sparsebert.reports.escape import in_html
from sparsebert.reports.families import Family, families, short_name
from sparsebert.reports.methods import duration, environment_table, methods
from sparsebert.reports.render import as_html
from sparsebert.reports.sections import results
from sparsebert.reports.study_blocks import study_rows
from sparsebert.reports.tables import runs_text
from sparsebert.reports.theme import pictures_wanted
from sparsebert.reports.verdict import sentences
from sparsebert.reports.visits import Tree, read_trees

# Families whose results are told in words at the top; of more they are folded in.
MOST_VERDICTS = 4


def write_report(
    records: Sequence[Record],
    out: Path,
    png_folder: Path | None = None,
    runs: Sequence[Path] = (),
    first: Sequence[PageRow] = (),
) -> Path:
    """Write the report of these records to `out`, and its figures as PNG into `png_folder`. Returns `out`.

    Records that differ in the seed only are shown as one family; failed ones with their message and no scores. `runs`
    are where the records lie, in the same order: what is kept beside them is shown too. `first` are blocks that stand
    before all others. Raises UserError without records.
    """
    if not records:
        raise UserError("There is nothing to report", fix="give at least one run's folder or record.json")
    groups, found = families(records), curves(records)
    alone = outside(groups, found)
    places = {id(record): run for record, run in zip(records, runs, strict=True)} if runs else {}
    trees = [_trees_of(family, places) for family in alone]
    if png_folder is not None and pictures_wanted():
        figures.write_pngs(groups, png_folder, found, trees, alone)
    studies = list(study_rows(runs))
    write_text_atomically(out, _page(records, groups, found, alone, trees, first, studies))
    return out


def _trees_of(family: Family, places: Mapping[int, Path]) -> list[Tree]:
    """The trees of a family's first run, where that is known."""
    run = places.get(id(family.first))
    return [] if run is None else [tree for model in family.first.models for tree in read_trees(run, model)]


def _page(
    records: Sequence[Record],
    groups: Sequence[Family],
    found: Sequence[Curve],
    alone: Sequence[Family],
    trees: Sequence[Sequence[Tree]],
    first: Sequence[PageRow],
    studies: Sequence[PageRow],
) -> str:
    """The whole page as text; `alone` are the families that are no points of curves, `trees` those of each of them."""
    title = _title(records, groups)
    failed = [record for record in records if record.status == "failed"]
    told = results(groups, found, alone, trees)
    shown = [*first, *_failed(failed), *told, *studies, *_background(groups, failed)]
    tiles = summary_cards(groups[0]) if len(groups) == 1 else ""
    parts = [_header(title, records, groups, failed), tiles, contents(shown), *map(drawn, shown)]
    return html_document(title, parts)


def _title(records: Sequence[Record], groups: Sequence[Family]) -> str:
    subjects = {(_subject(record), record.task) for record in (g.first for g in groups)} or {
        (_subject(record), record.task) for record in records
    }
    if len(subjects) > 1:
        return f"Comparison of {len(groups) or len(records)} families of models"
    subject, task = subjects.pop()
    return f"{subject} on {task}"


def _subject(record: Record) -> str:
    return short_name(str(record.recipe.get("model", "Model")))


def _header(title: str, records: Sequence[Record], groups: Sequence[Family], failed: Sequence[Record]) -> str:
    dates = sorted({record.created[:10] for record in records})
    # Models are timed on the CPU, also where a GPU trained them.
    cpus = dict.fromkeys(record.environment.cpu for record in records)
    meta = [" to ".join(dict.fromkeys((dates[0], dates[-1]))), ", ".join(cpus)]
    meta += [runs_text(groups[0])] if len(groups) == 1 else [f"{len(groups)} families"] if groups else []
    meta += [f"{len(failed)} failed run{'s' if len(failed) > 1 else ''}"] if failed else []
    verdict = "".join(_verdict(family, len(groups) > 1) for family in groups)
    if len(groups) > MOST_VERDICTS:
        verdict = f"<details><summary>The {len(groups)} families in words</summary>{verdict}</details>"
    return f'<header><h1>{in_html(title)}</h1><p class="meta">{in_html(" · ".join(meta))}</p>{verdict}</header>'


def _verdict(family: Family, named: bool) -> str:
    said = " ".join(f"<strong>{in_html(name)}</strong>: {in_html(text)}" for name, text in sentences(family))
    about = [f"<em>{in_html(family.label)}</em>"] if named else []
    about += [f"medians of {in_html(runs_text(family))}"] if len(family.records) > 1 else []
    lead = f"{', '.join(about)}. " if about else ""
    return f'<p class="verdict">{lead}{said}</p>' if said else ""


def _background(groups: Sequence[Family], failed: Sequence[Record]) -> Iterator[PageRow]:
    if groups:
        listed = "".join(_methods(family, len(groups) > 1) for family in groups)
        yield (PageBlock("How each number was measured", listed),)
        yield (PageBlock("Training and checks", in_scroll(detail_table(groups), "cards")),)
        notes = "".join(_notes(family) for family in groups)
        if notes:
            yield (PageBlock("Notes", f"<ul>{notes}</ul>"),)
    yield (PageBlock("Environment", as_html(environment_table(groups, failed)), "facts"),)
    records = [record for family in groups for record in family.records]
    if records:
        yield (PageBlock("Commands and recipes", "".join(map(_recipe, records))),)


def _methods(family: Family, named: bool) -> str:
    heading = f"<h3>{in_html(family.label)}</h3>" if named else ""
    listed = "".join(f"<dt>{in_html(name)}</dt><dd>{in_html(text)}</dd>" for name, text in methods(family))
    return f'{heading}<dl class="how">{listed}</dl>'


def _notes(family: Family) -> str:
    said = dict.fromkeys(note for record in family.records for note in record.notes)
    return "".join(f"<li>{in_html(note)}</li>" for note in said)


def _recipe(record: Record) -> str:
    took = f"last start took {duration(record.seconds)}"
    summary = f"seed {record.seed} · recipe {record.recipe_hash} · {record.created} · {took}"
    return (
        f"<pre>{in_html(record.command)}</pre><details><summary>{in_html(summary)}</summary>"
        f"<pre>{in_html(_yaml(record.recipe))}</pre></details>"
    )


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _failed(failed: Sequence[Record]) -> Iterator[PageRow]:
    if failed:
        body = "".join(f"<article>{_failure(record)}</article>" for record in failed)
        yield (PageBlock("Failed: no scores", body, "failed"),)


def _failure(record: Record) -> str:
    step = "" if record.failed_step is None else f" at step {record.failed_step:,}"
    about = f"{_subject(record)} on {record.task}, seed {record.seed}: stopped{step}, {record.created}"
    message = record.message or "No message was recorded."
    return f"<p><strong>{in_html(message)}</strong></p><p>{in_html(about)}</p>{_recipe(record)}"
