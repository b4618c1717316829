"""Figures for the page (inline, light and dark) and as PNG files."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparsebert.files import write_bytes_atomically
from sparsebert.records import ModelResult, Shape
from sparsebert.reports import values as v
from sparsebert.reports.bars import latency_plot, size_plot
from sparsebert.reports.curves import Curve, CurvePoint, curve_plot
from sparsebert.reports.escape import in_html
from sparsebert.reports.families import Family
from sparsebert.reports.maps import describe, shape_map
from sparsebert.reports.plots import pareto_plot
from sparsebert.reports.prune_curve import prune_groups
from sparsebert.reports.prune_plots import prune_plot, speed_plot, weight_plot
from sparsebert.reports.rows import family_rows
from sparsebert.reports.theme import DARK, LIGHT, Theme, pictures_wanted, to_png, to_svg
from sparsebert.reports.training import describe_training, timeline_plot
from sparsebert.reports.verdict import sentences
from sparsebert.reports.visits import Tree, describe_tree, visit_key, visit_map
from sparsebert.reports.zeros import describe_zeros, zeros_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of the part of a file's name that says of which family it is.
LONGEST = 40
# Part of the neurons of a layer from which on a bar cannot be told from a full one.
NEARLY_ALL = 0.95


def pareto(groups: Sequence[Family]) -> str:
    """The plot of score against speed as HTML; empty where no model has both."""
    said = (f"{family.label}, {name}: {text}" for family in groups for name, text in sentences(family))
    words = " ".join(said)
    return picture(lambda theme: pareto_plot(groups, theme), words)


def maps(family: Family, with_name: bool) -> str:
    """One map a model, side by side where there is room; under the family's name if asked."""
    heading = f"<h3>{in_html(family.label)}</h3>" if with_name else ""
    models = cut_models(family)
    drawn = (picture(lambda theme, m=m: shape_map([m], theme), f"{m.name}: {describe(m)}") for m in models)
    return f'{heading}<div class="maps">{"".join(drawn)}</div>' if models else ""


def zeros(family: Family, with_name: bool) -> str:
    """One picture a sparse model, of the zeros in its matrices; empty without. Under the name if asked."""
    heading = f"<h3>{in_html(family.label)}</h3>" if with_name else ""
    models = _first_models(family)
    drawn = "".join(picture(lambda theme, m=m: zeros_map(m, theme), f"{m.name}: {describe_zeros(m)}") for m in models)
    return heading + drawn if drawn else ""


def latencies(family: Family, with_name: bool) -> str:
    """The bars of the times of a forward pass as HTML; empty where none was measured."""
    heading = f"<h3>{in_html(family.label)}</h3>" if with_name else ""
    said = (f"{row.name} {v.show(row.latency_ms, v.digits)} ms" for row in family_rows([family]))
    drawn = picture(lambda theme: latency_plot(family, theme), ", ".join(said))
    return heading + drawn if drawn else ""


def cut_models(family: Family) -> list[ModelResult]:
    """The models to draw layer by layer: all but those that have lost single weights, whose bars would look full."""
    return [model for model in _first_models(family) if not (model.sparsity_by_tensor and _looks_whole(model.shape))]


def _first_models(family: Family) -> list[ModelResult]:
    return [family.runs(name)[0][1] for name in family.names]


def _looks_whole(shape: Shape) -> bool:
    return {*shape.heads} == {shape.full_heads} and min(shape.neurons) > NEARLY_ALL * shape.full_neurons


def visits(trees: Sequence[Tree]) -> str:
    """The key of the colours and one picture a tree as HTML; empty without trees."""
    if not trees:
        return ""
    key = picture(visit_key, "Colours: from an eighth of an even share of the tokens to eight times it; never visited")
    drawn = (picture(lambda theme, t=tree: visit_map([t], theme), describe_tree(tree)) for tree in trees)
    return f'<div class="key">{key}</div><div class="trees">{"".join(drawn)}</div>'


def training(family: Family, with_name: bool) -> str:
    """One plot a sparse training, of sparsity and loss; empty where none was logged. Under the name if asked."""
    heading = f"<h3>{in_html(family.label)}</h3>" if with_name else ""
    models = _first_models(family)
    drawn = "".join(picture(lambda theme, m=m: timeline_plot(m, theme), describe_training(m)) for m in models)
    return heading + drawn if drawn else ""


def sizes(family: Family, with_name: bool) -> str:
    """The bars of parameters and file sizes as HTML."""
    heading = f"<h3>{in_html(family.label)}</h3>" if with_name else ""
    return heading + picture(lambda theme: size_plot(family, theme), f"Parameters and file sizes of {family.label}")


def curve(found: Sequence[Curve]) -> str:
    """The plot of score against sparsity as HTML; empty without curves."""
    words = "; ".join(f"{one.label}: {', '.join(map(_point, one.points))}" for one in found)
    return picture(lambda theme: curve_plot(found, theme), words)


def _point(point: CurvePoint) -> str:
    spread = v.show_spread(point.score, v.percent)
    told = f" ({spread})" if spread else ""
    return f"{v.percent(point.score.mid)}{told} at {v.fraction(point.sparsity.mid)}"


def write_pngs(
    groups: Sequence[Family],
    folder: Path,
    found: Sequence[Curve] = (),
    trees: Sequence[Sequence[Tree]] = (),
    alone: Sequence[Family] | None = None,
) -> list[Path]:
    """Write `pareto.png`, `curves.png`, and a `map`, `size` and `latency` picture a family, into `folder`.

    Returns the paths.

    Pictures of single families are of `alone`, None = of all.
    What has nothing to show is left out. A family also has a `zeros` picture of a sparse model, a `training` picture
    where its training was logged, and a `visits` picture where it has trees; `trees` holds those of each family.
    Prune curves have a `prune-curve`, a `prune-speed` and a `weights` picture for all networks of one kind together.
    """
    single = groups if alone is None else alone
    several = len(single) > 1
    drawn = [("pareto", pareto_plot(groups)), ("curves", curve_plot(found))]
    for number, family in enumerate(single, start=1):
        ending = f"-{number}-{_slug(family.label)}" if several else ""
        models, cut = _first_models(family), cut_models(family)
        drawn += [(f"map{ending}", shape_map(cut))] if cut else []
        drawn += [(f"size{ending}", size_plot(family)), (f"latency{ending}", latency_plot(family))]
        drawn += [(f"zeros{ending}", zeros_map(model)) for model in models]
        drawn += [(f"training{ending}", timeline_plot(model)) for model in models]
        drawn += [(f"visits{ending}", visit_map(own)) for own in trees[number - 1 : number] if own]
    drawn += _prune_pictures(groups)
    return [_write(folder / f"{name}.png", figure) for name, figure in drawn if figure is not None]


def _prune_pictures(groups: Sequence[Family]) -> list[tuple[str, Figure | None]]:
    found = prune_groups(record for family in groups for record in family.records)
    endings = [f"-{number}-{_slug(one.label)}" if len(found) > 1 else "" for number, one in enumerate(found, 1)]
    drawn: list[tuple[str, Figure | None]] = []
    for one, end in zip(found, endings, strict=True):
        drawn += [(f"prune-curve{end}", prune_plot(one)), (f"prune-speed{end}", speed_plot(one))]
        drawn.append((f"weights{end}", weight_plot(one.studies[0].weights)))
    return drawn


def picture(draw: Callable[[Theme], Figure | None], words: str) -> str:
    """A figure for light and dark screens as HTML, with what it shows in words.

    Empty where there is none to draw, or none is wanted.
    """
    if not pictures_wanted():
        return ""
    light, dark = draw(LIGHT), draw(DARK)
    if light is None or dark is None:
        return ""
    return (
        f'<figure><picture><source srcset="{_uri(dark)}" media="screen and (prefers-color-scheme: dark)">'
        f'<img src="{_uri(light)}" alt="{in_html(words)}"></picture></figure>'
    )


def _uri(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(to_svg(figure)).decode("ascii")


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower())[:LONGEST].strip("-") or "family"


def _write(path: Path, figure: Figure) -> Path:
    write_bytes_atomically(path, to_png(figure))
    return path
