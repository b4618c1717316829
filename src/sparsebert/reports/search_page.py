"""The page about one search or several side by side, and its pictures as PNG."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sparsebert.files import write_bytes_atomically, write_text_atomically
from sparsebert.records.searched import SearchRecord
from sparsebert.reports.blocks import PageBlock, PageRow, contents, drawn, in_scroll
from sparsebert.reports.document import html_document
from sparsebert.reports.escape import in_html
from sparsebert.reports.figures import picture
from sparsebert.reports.render import as_html
from sparsebert.reports.search_plots import front_plot, history_plot, importance_plot, steps_plot, value_plot
from sparsebert.reports.search_tables import (
    ThresholdRow,
    best_table,
    chosen_table,
    short_key,
    space_keys,
    threshold_table,
)
from sparsebert.reports.searched import Searched
from sparsebert.reports.tables import Cell, Section, Table
from sparsebert.reports.theme import Theme, pictures_wanted, to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawing = Callable[..., "Figure | None"]


def write_search_page(
    found: Sequence[Searched], rows: Sequence[ThresholdRow], out: Path, png_folder: Path | None = None
) -> Path:
    """Write the page about searches to `out`, and its pictures as PNG into `png_folder`. Returns `out`.

    `rows` are the steps that each search took to each score.
    """
    drawings = list(_drawings(found, rows))
    if png_folder is not None and pictures_wanted():
        for name, _, _, draw in drawings:
            if (figure := draw()) is not None:
                write_bytes_atomically(png_folder / f"{name}.png", to_png(figure))
    shown = [*_tables(found, rows, drawings), *_background(found)]
    title = f"Search: {found[0].label}" if len(found) == 1 else f"{len(found)} searches side by side"
    parts = [_header(title, found), contents(shown), *map(drawn, shown)]
    write_text_atomically(out, html_document(title, parts))
    return out


def _drawings(found: Sequence[Searched], rows: Sequence[ThresholdRow]) -> Iterator[tuple[str, str, str, Drawing]]:
    """Names of files, headings, captions, and what draws a picture in a theme."""
    keys = list(dict.fromkeys(key for one in found for key in space_keys(one)))
    for key in keys:
        name = short_key(key, keys)
        caption = (
            "Every trial is one run; bars are 95% intervals over the held-out examples. Dashed: a constant answer."
        )
        yield f"value-{_slug(name)}", f"Score against {name}", caption, _themed(value_plot, found, key)
    if rows:
        caption = "The fastest of all trials that were scored while they trained; the table says of how many."
        yield "steps", "Steps to a score", caption, _themed(steps_plot, rows, found[0].aim.name)
    caption = "The line is the best score so far, which rises with the number of trials whatever is tried."
    yield "history", "Best so far", caption, _themed(history_plot, found)
    for number, one in enumerate(found, 1):
        end = f"-{number}" if len(found) > 1 else ""
        name = f" of {one.label}" if len(found) > 1 else ""
        yield (
            f"front{end}",
            f"Pareto front{name}",
            "Numbers are those of the trials that were chosen and run again.",
            _themed(front_plot, one),
        )
        if one.search is not None and one.search.importance is not None:
            share = one.search.importance
            caption = f"By {share.evaluator}, of {share.trials} trials; it says nothing of values that were not tried."
            yield f"importance{end}", f"What the score depends on{name}", caption, _themed(importance_plot, share)


def _themed(plot: Drawing, *given: object) -> Drawing:
    return lambda *theme: plot(*given, *theme)


def _tables(
    found: Sequence[Searched], rows: Sequence[ThresholdRow], drawings: Sequence[tuple[str, str, str, Drawing]]
) -> Iterator[PageRow]:
    if any(one.search is not None and one.search.chosen for one in found):
        yield (PageBlock("What was chosen", in_scroll(chosen_table(found))),)
    for _, heading, caption, draw in drawings:
        if figure := picture(_one_theme(draw), heading):
            table = in_scroll(threshold_table(rows, found[0].aim)) if heading == "Steps to a score" else ""
            told = f'<p class="caption">{in_html(caption)}</p>'
            yield (PageBlock(heading, told + figure + table, "figure"),)
    yield (PageBlock("Best trials", in_scroll(best_table(found))),)


def _one_theme(draw: Drawing) -> Callable[[Theme], Figure | None]:
    return lambda theme: draw(theme)


def _header(title: str, found: Sequence[Searched]) -> str:
    meta = " · ".join(dict.fromkeys(f"{one.label}: {len(one.runs)} trials with a score" for one in found))
    notes = [(one, note) for one in found if one.search is not None for note in one.search.notes]
    said = "".join(
        f'<p class="verdict">{f"<em>{in_html(one.label)}</em>. " if len(found) > 1 else ""}{in_html(note)}.</p>'
        for one, note in notes
    )
    return f'<header><h1>{in_html(title)}</h1><p class="meta">{in_html(meta)}</p>{said}</header>'


def _background(found: Sequence[Searched]) -> Iterator[PageRow]:
    searches = [(one.label, one.search) for one in found if one.search is not None]
    if not searches:
        return
    sections = tuple(Section(label if len(searches) > 1 else "", _facts(search)) for label, search in searches)
    yield (PageBlock("How it was searched", as_html(Table("", (Cell(""), Cell("")), sections)), "facts"),)
    unfinished = "".join(
        f"<li>{in_html(f'{label}, {trial.name}: {trial.state}. {trial.message or str()}')}</li>"
        for label, search in searches
        for trial in search.trials
        if trial.state != "finished"
    )
    if unfinished:
        yield (PageBlock("Trials without a score", f"<ul>{unfinished}</ul>"),)
    told = "".join(f"<pre>{in_html(search.command)}</pre>{_recipe(search)}" for _, search in searches)
    yield (PageBlock("Commands and recipes", told),)


def _facts(search: SearchRecord) -> tuple[tuple[Cell, ...], ...]:
    """Pairs of what decides a search, and what it was."""
    told = [
        ("Objectives", ", ".join(f"{aim.name} ({aim.direction})" for aim in search.objectives)),
        ("Scored on", f"{search.held_out_rows:,} train rows that were held out"),
        ("Model", search.of or "the last of each run"),
        *((f"Space: {key}", _range(part)) for key, part in search.space.items()),
        ("Sampler", _options(search.sampler)),
        ("Pruner", "none" if search.pruner is None else _options(search.pruner)),
        ("Storage", search.storage),
        ("Trials ran", search.workers),
        ("Processor", search.environment.cpu),
    ]
    return tuple((Cell(name), Cell(text)) for name, text in told)


def _range(part: dict[str, object]) -> str:
    choices = part.get("choices")
    if isinstance(choices, list):
        return ", ".join(map(str, choices))
    step = "" if part.get("step") is None else f", in steps of {part['step']}"
    return f"{part['low']} to {part['high']}{', by order of magnitude' if part.get('log') else ''}{step}"


def _options(options: dict[str, object]) -> str:
    return ", ".join(str(value) if key == "kind" else f"{key} {value}" for key, value in options.items())


def _recipe(search: SearchRecord) -> str:
    text = yaml.safe_dump(search.recipe, sort_keys=False, allow_unicode=True)
    return f"<details><summary>The recipe that trials change</summary><pre>{in_html(text)}</pre></details>"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
