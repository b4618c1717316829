"""One HTML file that needs nothing else: no network, no script. Every text of a record is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sparsebert.errors import UserError
from sparsebert.files import write_text_atomically
from sparsebert.records import Record
from sparsebert.report import figures
from sparsebert.report import values as v
from sparsebert.report.compare import comparison_table
from sparsebert.report.curves import Curve, curve_table, curves, outside
from sparsebert.report.details import detail_table
from sparsebert.report.families import Family, families, short_name
from sparsebert.report.methods import duration, environment_table, methods
from sparsebert.report.render import as_html
from sparsebert.report.rows import FamilyRow, family_rows
from sparsebert.report.tables import family_table, few_runs, metric_name, runs_text, target_text, timing_table
from sparsebert.report.training import sparsity_table
from sparsebert.report.trees import level_table, tree_table
from sparsebert.report.verdict import sentences
from sparsebert.report.visits import CELLS, MOST_TREES, Tree, read_trees
from sparsebert.version import __version__

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    records: Sequence[Record], out: Path, png_folder: Path | None = None, runs: Sequence[Path] = ()
) -> Path:
    """Write the report of these records to `out`, and its figures as PNG into `png_folder`. Returns `out`.

    Records that differ in the seed only are shown as one family; failed ones with their message and no scores. `runs`
    are where the records lie, in the same order: what is kept beside them is shown too. Raises UserError without
    records.
    """
    if not records:
        raise UserError("There is nothing to report", fix="give at least one run's folder or record.json")
    groups, found = families(records), curves(records)
    alone = outside(groups, found)
    places = {id(record): run for record, run in zip(records, runs, strict=True)} if runs else {}
    trees = [_trees_of(family, places) for family in alone]
    if png_folder is not None:
        figures.write_pngs(groups, png_folder, found, trees, alone)
    write_text_atomically(out, _page(records, groups, found, alone, trees))
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
) -> str:
    """The whole page as text; `alone` are the families that are no points of curves, `trees` those of each of them."""
    title = _title(records, groups)
    failed = [record for record in records if record.status == "failed"]
    results = [*_curves(found), *_results(groups, alone, trees)]
    parts = [_header(title, records, groups, failed), _failed(failed), *results, *_background(groups, failed)]
    style = files("sparsebert.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, parts))
        + f"\n<footer>SparseBERT {escape(__version__)}</footer>\n</main>\n</body>\n</html>\n"
    )


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
    return f'<header><h1>{escape(title)}</h1><p class="meta">{escape(" · ".join(meta))}</p>{verdict}</header>' + (
        _tiles(groups[0]) if len(groups) == 1 else ""
    )


def _verdict(family: Family, named: bool) -> str:
    said = " ".join(f"<strong>{escape(name)}</strong>: {escape(text)}" for name, text in sentences(family))
    about = [f"<em>{escape(family.label)}</em>"] if named else []
    about += [f"medians of {escape(runs_text(family))}"] if len(family.records) > 1 else []
    lead = f"{', '.join(about)}. " if about else ""
    return f'<p class="verdict">{lead}{said}</p>' if said else ""


def _tiles(family: Family) -> str:
    tiles = [_tile(row) for row in family_rows([family]) if not row.dense]
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _tile(row: FamilyRow) -> str:
    facts = [("File", v.show(row.size_mb, v.megabytes)), ("Latency", v.show(row.latency_ms, _ms))]
    if row.metric:
        change = "" if row.change_points is None else f" ({v.show(row.change_points, v.signed)})"
        facts.insert(0, (metric_name(row.metric), v.show(row.score_points, v.percent) + change))
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    target = target_text(row.target_kind, row.target_value)
    small = ", ".join(filter(None, (target and f"asked: {target}", few_runs(row))))
    asked = f"<small>{escape(small)}</small>" if small else ""
    speed = escape(v.show(row.encoder_speedup, v.times))
    return (
        f'<div class="tile"><h2>{escape(row.name)}{asked}</h2>'
        f'<div class="big">{speed}<small>encoder speedup</small></div><dl>{listed}</dl></div>'
    )


def _ms(number: float) -> str:
    return f"{v.digits(number)} ms"


def _curves(found: Sequence[Curve]) -> Iterator[str]:
    if not found:
        return
    caption = '<p class="caption">Bars: minimum–maximum over seeds. Every point is a run of its own.</p>'
    yield _section("Score against sparsity", caption + figures.curve(found), "figure")
    yield _section("Score by sparsity", f'<div class="scroll">{as_html(curve_table(found))}</div>')


def _results(groups: Sequence[Family], alone: Sequence[Family], trees: Sequence[Sequence[Tree]]) -> Iterator[str]:
    """Tables of all families; pictures of those in no curve, as those of every point would be too many to look at."""
    if not groups:
        return
    if len(alone) > 1 and any(family.first.main_metric for family in alone):
        yield _section("Side by side", f'<div class="scroll">{as_html(comparison_table(alone))}</div>')
    yield _section("Models", f'<div class="scroll">{as_html(family_table(groups), "cards")}</div>')
    sizes = _size_section(alone, named=len(groups) > 1) if alone else ""
    yield f'<div class="{"" if len(groups) > 1 else "pair"}">{_score_section(groups)}{sizes}</div>'
    if alone:
        yield from _pictures(alone, trees, named=len(groups) > 1)
    table = timing_table(groups)
    if table.sections:
        yield _section("Timings", f'<div class="scroll">{as_html(table, "inline")}</div>')


def _pictures(groups: Sequence[Family], trees: Sequence[Sequence[Tree]], named: bool) -> Iterator[str]:
    maps = "".join(figures.maps(family, named) for family in groups)
    yield _section("What is left of each layer", _map_caption(groups) + maps)
    yield _training_section(groups, named)
    planted = [record for family in groups for record in family.records]
    if tree_table(planted).sections:
        yield _section("Fast feedforward layers", _tree_section(planted, groups, trees, named))


def _training_section(groups: Sequence[Family], named: bool) -> str:
    plots = "".join(figures.training(family, named) for family in groups)
    table = sparsity_table(groups)
    zeros = f'<h3>{table.title}</h3>{_ZEROS}<div class="scroll">{as_html(table, "inline")}</div>'
    body = plots + (zeros if table.sections else "")
    caption = f'<p class="caption">The phases of the training, one after the other.{_first_seed(groups)}</p>'
    return _section("What the training did", caption + body, "figure") if body else ""


_TREES = (
    '<p class="caption">Error: after teaching, of the tree against its block on tokens held out (1 = no better than '
    "the block's mean). The rest is of the finished model: nodes that no token visits, subtrees that none enters "
    "(those inside a larger one are not counted), how evenly tokens spread over the leaves (1 = evenly), and how often "
    "neighbouring tokens meet at one.</p>"
)
_ZEROS = (
    '<p class="caption">Part of each matrix that was zero when training ended, before heads and neurons without a '
    "weight were cut out.</p>"
)
_VISITS = (
    '<h3>Who visits which node</h3><p class="caption">One row a level, the root at the top; every cell a node, or '
    f"several neighbours where a level has more than {CELLS}. Cells are filled from below as far as their nodes are "
    "never visited; the number at the right says how much of the level that is.{more}</p>"
)


def _tree_section(
    records: Sequence[Record], groups: Sequence[Family], trees: Sequence[Sequence[Tree]], named: bool
) -> str:
    table = f'{_TREES}<div class="scroll">{as_html(tree_table(records))}</div>'
    levels = f'<div class="scroll">{as_html(level_table(records), "inline")}</div>'
    return f"{table}<details><summary>Level by level</summary>{levels}</details>{_visits(groups, trees, named)}"


def _visits(groups: Sequence[Family], trees: Sequence[Sequence[Tree]], named: bool) -> str:
    if not any(trees):
        return ""
    more = f" At most {MOST_TREES} trees of a layer are shown." if _has_more(trees) else ""
    more += _first_seed(groups)
    drawn = (
        (f"<h3>{escape(family.label)}</h3>" if named and own else "") + figures.visits(own)
        for family, own in zip(groups, trees, strict=True)
    )
    return _VISITS.format(more=more) + "".join(drawn)


def _has_more(trees: Sequence[Sequence[Tree]]) -> bool:
    return any(tree.number == MOST_TREES - 1 for own in trees for tree in own)


def _score_section(groups: Sequence[Family]) -> str:
    plot = figures.pareto(groups)
    several = any(len(family.records) > 1 for family in groups)
    bars = "Bars: minimum–maximum over the runs." if several else "Bars: quartiles of the speedup."
    caption = f'<p class="caption">Up and to the right is better. {bars}</p>'
    return _section("Score against measured speed", f"{caption}{plot}", "figure") if plot else ""


def _size_section(groups: Sequence[Family], named: bool) -> str:
    caption = '<p class="caption">Parameters of each model by part, and the size of its file.</p>'
    bars = "".join(f"<div>{figures.sizes(family, named)}</div>" for family in groups)
    return _section("Where the parameters are", f'{caption}<div class="bars">{bars}</div>', "figure")


def _map_caption(groups: Sequence[Family]) -> str:
    return (
        '<p class="caption">One row a layer, the first at the top. Squares: attention heads left, of those the dense '
        f"model has. Bar: neurons of the feed-forward part left.{_first_seed(groups)}</p>"
    )


def _first_seed(groups: Sequence[Family]) -> str:
    return " Of several seeds, the first is shown." if any(len(family.records) > 1 for family in groups) else ""


def _background(groups: Sequence[Family], failed: Sequence[Record]) -> Iterator[str]:
    if groups:
        yield _section("How each number was measured", "".join(_methods(family, len(groups) > 1) for family in groups))
        yield _section("Training and checks", f'<div class="scroll">{as_html(detail_table(groups), "cards")}</div>')
        notes = "".join(_notes(family) for family in groups)
        yield _section("Notes", f"<ul>{notes}</ul>") if notes else ""
    yield _section("Environment", as_html(environment_table(groups, failed)), "facts")
    records = [record for family in groups for record in family.records]
    if records:
        yield _section("Commands and recipes", "".join(map(_recipe, records)))


def _methods(family: Family, named: bool) -> str:
    heading = f"<h3>{escape(family.label)}</h3>" if named else ""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in methods(family))
    return f'{heading}<dl class="how">{listed}</dl>'


def _notes(family: Family) -> str:
    said = dict.fromkeys(note for record in family.records for note in record.notes)
    return "".join(f"<li>{escape(note)}</li>" for note in said)


def _recipe(record: Record) -> str:
    took = f"last start took {duration(record.seconds)}"
    summary = f"seed {record.seed} · recipe {record.recipe_hash} · {record.created} · {took}"
    return (
        f"<pre>{escape(record.command)}</pre><details><summary>{escape(summary)}</summary>"
        f"<pre>{escape(_yaml(record.recipe))}</pre></details>"
    )


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _failed(failed: Sequence[Record]) -> str:
    if not failed:
        return ""
    body = "".join(f"<article>{_failure(record)}</article>" for record in failed)
    return _section("Failed: no scores", body, "failed")


def _failure(record: Record) -> str:
    step = "" if record.failed_step is None else f" at step {record.failed_step:,}"
    about = f"{_subject(record)} on {record.task}, seed {record.seed}: stopped{step}, {record.created}"
    message = record.message or "No message was recorded."
    return f"<p><strong>{escape(message)}</strong></p><p>{escape(about)}</p>{_recipe(record)}"


def _section(heading: str, body: str, css_class: str = "") -> str:
    return f'<section class="{css_class}"><h2>{escape(heading)}</h2>{body}</section>'
