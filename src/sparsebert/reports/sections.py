"""The results on the page, block by block: what came out, drawn and in tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsebert.records import Decisions, ModelResult, Record
from sparsebert.reports import figures
from sparsebert.reports.blocks import PageBlock, PageRow, in_scroll
from sparsebert.reports.compare import comparison_table
from sparsebert.reports.curves import Curve, curve_table
from sparsebert.reports.decisions import (
    agreement_words,
    decided_table,
    flip_table,
    judged,
)
from sparsebert.reports.escape import in_html
from sparsebert.reports.families import Family
from sparsebert.reports.ingredient_tables import component_table, ingredient_table
from sparsebert.reports.ingredients import arms, comparable
from sparsebert.reports.prune_page import prune_blocks
from sparsebert.reports.tables import family_table, timing_table
from sparsebert.reports.training import sparsity_table
from sparsebert.reports.trees import level_table, tree_table
from sparsebert.reports.usage import asking, embeds, encoding, finds_answers, has_own_head, loading, pipeline
from sparsebert.reports.visits import CELLS, MOST_TREES, Tree

_TREES = (
    '<p class="caption">Error: after block-wise distillation, of the tree against its block on tokens held out (1 = no '
    "better than the block's mean). The rest is of the finished model: nodes that no token visits, subtrees that none "
    "enters (those inside a larger one are not counted), how evenly tokens spread over the leaves (1 = evenly), and "
    "how often neighbouring tokens meet at one.</p>"
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


def results(
    groups: Sequence[Family], found: Sequence[Curve], alone: Sequence[Family], trees: Sequence[Sequence[Tree]]
) -> Iterator[PageRow]:
    """Tables of all families; pictures of those in no curve, as those of every point would be too many to look at.

    `alone` are the families that are no points of the curves `found`, `trees` those of each of them.
    """
    if found:
        bars = "Bars: minimum–maximum over seeds, or of one run the 95% interval where it is recorded."
        lines = "Every point is of runs of its own; a line joins only points that are medians of several runs."
        caption = f'<p class="caption">{bars} {lines}</p>'
        yield (PageBlock("Score against sparsity", caption + figures.curve(found), "figure"),)
        yield (PageBlock("Score by sparsity", in_scroll(curve_table(found))),)
    if not groups:
        return
    yield from prune_blocks(groups)
    named = len(groups) > 1
    if len(alone) > 1 and any(family.first.main_metric for family in alone):
        yield (PageBlock("Side by side", in_scroll(comparison_table(alone))),)
    yield from ((block,) for block in _ingredients(alone))
    yield (PageBlock("Models", in_scroll(family_table(groups), "cards")),)
    yield from ((block,) for block in _score(groups))
    bars = (*_times(alone, named), *_sizes(alone, named))
    # Those of several families have too much in them to stand side by side.
    yield from [(block,) for block in bars] if named or not bars else [bars]
    yield from ((block,) for block in _use(alone, named))
    yield from _decided(alone, named)
    yield from _layers(alone, trees, named)
    timings = timing_table(groups)
    if timings.sections:
        yield (PageBlock("Timings", in_scroll(timings, "inline")),)


def _ingredients(groups: Sequence[Family]) -> Iterator[PageBlock]:
    if not comparable(groups):
        return
    found = arms(groups)
    for table in (ingredient_table(found), component_table(found)):
        if table is not None:
            yield PageBlock(table.title, in_scroll(table))


def _score(groups: Sequence[Family]) -> Iterator[PageBlock]:
    plot = figures.pareto(groups)
    several = any(len(family.records) > 1 for family in groups)
    bars = "Bars: minimum–maximum over the runs." if several else "Bars: the ranges of the table above."
    line = (
        "A line joins neighbours on the Pareto front of one search, and only where the faster one is surely faster and "
        "surely scores less: their intervals of speedup, and of the change from dense, do not overlap."
    )
    caption = f'<p class="caption">Up and to the right is better. {bars} {line}</p>'
    if plot:
        yield PageBlock("Score against measured speed", caption + plot, "figure")


def _times(groups: Sequence[Family], named: bool) -> Iterator[PageBlock]:
    bars = "".join(f"<div>{drawn}</div>" for family in groups if (drawn := figures.latencies(family, named)))
    several = any(len(family.records) > 1 for family in groups)
    spread = "minimum–maximum over the runs" if several else "quartiles of the rounds"
    caption = f'<p class="caption">The whole model, in the setting of the target. Bars: {spread}.</p>'
    if bars:
        yield PageBlock("Time of a forward pass", f'{caption}<div class="bars">{bars}</div>', "figure")


def _sizes(groups: Sequence[Family], named: bool) -> Iterator[PageBlock]:
    caption = '<p class="caption">Parameters of each model by part, and the size of its file.</p>'
    bars = "".join(f"<div>{figures.sizes(family, named)}</div>" for family in groups)
    if bars:
        yield PageBlock("Where the parameters are", f'{caption}<div class="bars">{bars}</div>', "figure")


def _use(groups: Sequence[Family], named: bool) -> Iterator[PageBlock]:
    """Code for the last model of each family; the others differ in their folder's name."""
    parts = []
    for family in groups:
        model = family.first.models[-1]
        heading = f"<h3>{in_html(family.label)}</h3>" if named else ""
        codes = _codes(model)
        parts.append(heading + "".join(f'<pre class="code">{in_html(code)}</pre>' for code in codes))
    folders = "Folders are beside the run's record; the other models are loaded alike."
    if parts:
        yield PageBlock("Use a model", f'<p class="caption">{folders}</p>{"".join(parts)}')


def _codes(model: ModelResult) -> tuple[str, ...]:
    """Ways to run a model from its folder."""
    if has_own_head(model):
        return (loading(model, model.folder),)
    shell = asking(model.folder, finds_answers(model), "'A sentence.'")
    if embeds(model):
        return encoding(model, model.folder), shell
    return pipeline(model, model.folder), loading(model, model.folder), shell


def _decided(groups: Sequence[Family], named: bool) -> Iterator[PageRow]:
    drawn, told = "", ""
    for family in groups:
        heading = f"<h3>{in_html(family.label)}</h3>" if named else ""
        matrices = "".join(_matrix(model.name, decisions) for model, decisions in judged(family))
        drawn += f'{heading}<div class="matrices">{matrices}</div>' if matrices else ""
        flips = flip_table(family)
        told += heading + in_scroll(flips, "texts") if flips.sections else ""
    caption = "Rows: the true class. Columns: the class given. Below a number: its part of the row."
    if any(decisions.types for family in groups for _, decisions in judged(family)):
        caption = "Entities of each type: F1, which part of them is found, and which part of those given is right."
    if drawn:
        yield (PageBlock("What the models decide", f'<p class="caption">{caption}{_first_seed(groups)}</p>{drawn}'),)
    if told:
        caption = f"Some of the validation examples on which a model and the dense one disagree.{_first_seed(groups)}"
        yield (PageBlock("Texts that are decided otherwise", f'<p class="caption">{caption}</p>{told}'),)


def _matrix(name: str, decisions: Decisions) -> str:
    table = decided_table(name, decisions)
    same = agreement_words(decisions)
    small = f'<p class="caption">{in_html(same) or "&nbsp;"}</p>'
    return f"<div><h3>{in_html(name)}</h3>{small}{in_scroll(table, 'matrix')}</div>"


def _layers(groups: Sequence[Family], trees: Sequence[Sequence[Tree]], named: bool) -> Iterator[PageRow]:
    maps = "".join(figures.maps(family, named) for family in groups)
    if maps:
        yield (PageBlock("What is left of each layer", _map_caption(groups) + maps),)
    yield from _training(groups, named)
    records = [record for family in groups for record in family.records]
    if tree_table(records).sections:
        yield (PageBlock("Fast feedforward layers", _fast_feedforward(records, groups, trees, named)),)


def _training(groups: Sequence[Family], named: bool) -> Iterator[PageRow]:
    plots = "".join(figures.training(family, named) for family in groups)
    if plots:
        caption = f'<p class="caption">The phases of the training, one after the other.{_first_seed(groups)}</p>'
        yield (PageBlock("What the training did", caption + plots, "figure"),)
    table = sparsity_table(groups)
    if table.sections:
        drawn = "".join(figures.zeros(family, named) for family in groups)
        numbers = f"<details><summary>As a table</summary>{in_scroll(table, 'inline')}</details>"
        yield (PageBlock(table.title, f'{_ZEROS}<div class="zeros">{drawn}</div>{numbers}'),)


def _fast_feedforward(
    records: Sequence[Record], groups: Sequence[Family], trees: Sequence[Sequence[Tree]], named: bool
) -> str:
    levels = f"<details><summary>Level by level</summary>{in_scroll(level_table(records), 'inline')}</details>"
    return f"{_TREES}{in_scroll(tree_table(records))}{levels}{_visits(groups, trees, named)}"


def _visits(groups: Sequence[Family], trees: Sequence[Sequence[Tree]], named: bool) -> str:
    if not any(trees):
        return ""
    more = f" At most {MOST_TREES} trees of a layer are shown." if _has_more(trees) else ""
    more += _first_seed(groups)
    drawn = (
        (f"<h3>{in_html(family.label)}</h3>" if named and own else "") + figures.visits(own)
        for family, own in zip(groups, trees, strict=True)
    )
    return _VISITS.format(more=more) + "".join(drawn)


def _has_more(trees: Sequence[Sequence[Tree]]) -> bool:
    return any(tree.number == MOST_TREES - 1 for own in trees for tree in own)


def _map_caption(groups: Sequence[Family]) -> str:
    models = [model for family in groups for model in figures.cut_models(family)]
    known = all(model.shape.kept_heads for model in models)
    shaded = any(model.shape.head_importance for model in models)
    squares = (
        "attention heads at their places, coloured where they are left"
        if known
        else "attention heads left, of those the dense model has; where the record does not say which, counted only"
    )
    shade = "; the stronger the colour, the more the block's output would lose without it" if shaded else ""
    return (
        f'<p class="caption">One row a layer, the first at the top. Squares: {squares}{shade}. '
        f"Bar: neurons of the feed-forward part left.{_first_seed(groups)}</p>"
    )


def _first_seed(groups: Sequence[Family]) -> str:
    return " Of several seeds, the first is shown." if any(len(family.records) > 1 for family in groups) else ""
