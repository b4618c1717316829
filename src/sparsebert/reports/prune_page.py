"""Prune curves on the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsebert.reports.blocks import PageBlock, PageRow, in_scroll
from sparsebert.reports.escape import in_html
from sparsebert.reports.families import Family
from sparsebert.reports.figures import picture
from sparsebert.reports.prune_curve import PrunedNetworks, prune_groups
from sparsebert.reports.prune_plots import prune_plot, speed_plot, weight_plot
from sparsebert.reports.prune_tables import drop_sentences, drop_table, networks_text, point_table

_CURVES = (
    "Nothing was trained after a removal. Dashes: the whole network; dots: a constant answer. Bars: {bars}. Each point "
    "of a line is the same {networks} without more; layers are skipped, so that the residual stream passes by."
)
_SPEEDS = (
    "Measured in the same rounds as the whole network, in the first setting and runtime. A product of dense matrices "
    "takes as long where most weights are zero; the runtime `sparse` leaves zeros out."
)
_WEIGHTS = (
    "All layers together, before anything was removed; of the {whose}. Two separate peaks of |w| would mean that there "
    "are weights of two sorts. Zeros are left out; bins reach four times the "
    "root mean square of their kind."
)


def prune_blocks(groups: Sequence[Family]) -> Iterator[PageRow]:
    """Where curves begin to lose, the curves, the weights, and every point; nothing where no run has curves."""
    found = prune_groups(record for family in groups for record in family.records)
    if not found:
        return
    yield (PageBlock("Score as more is removed", "".join(_curves(one, len(found) > 1) for one in found), "figure"),)
    yield (PageBlock("Where it begins to lose", in_scroll(drop_table(found))),)
    speeds = "".join(_speeds(one, len(found) > 1) for one in found)
    if speeds:
        yield (PageBlock("Speed as more is removed", speeds, "figure"),)
    yield (PageBlock("How the weights are spread", "".join(_weights(one, len(found) > 1) for one in found), "figure"),)
    yield (PageBlock("All points of the curves", "".join(_points(one, len(found) > 1) for one in found)),)


def _curves(group: PrunedNetworks, named: bool) -> str:
    one = len(group.records) == 1
    bars = "95% interval by bootstrap over the examples" if one else "minimum–maximum over the networks, around medians"
    caption = _CURVES.format(bars=bars, networks="network" if one else networks_text(group))
    words = "; ".join(f"{label}: {said}" for label, said in drop_sentences(group))
    return _heading(group, named) + _caption(caption) + picture(lambda theme: prune_plot(group, theme), words)


def _speeds(group: PrunedNetworks, named: bool) -> str:
    words = "Speedup of the whole model against sparsity; the numbers are in the table of all points"
    drawn = picture(lambda theme: speed_plot(group, theme), words)
    return _heading(group, named) + _caption(_SPEEDS) + drawn if drawn else ""


def _weights(group: PrunedNetworks, named: bool) -> str:
    kinds = group.studies[0].weights
    whose = "network" if len(group.records) == 1 else "first network"
    words = f"Histograms of the weights of {', '.join(one.kind for one in kinds)}"
    drawn = picture(lambda theme: weight_plot(kinds, theme), words)
    return _heading(group, named) + _caption(_WEIGHTS.format(whose=whose)) + drawn if drawn else ""


def _points(group: PrunedNetworks, named: bool) -> str:
    return _heading(group, named) + in_scroll(point_table(group), "inline")


def _heading(group: PrunedNetworks, named: bool) -> str:
    return f"<h3>{in_html(group.label)}</h3>" if named else ""


def _caption(text: str) -> str:
    return f'<p class="caption">{in_html(text)}</p>'
