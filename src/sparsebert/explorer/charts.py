"""What the pictures of one model are drawn from: plain rows, which are also what each picture gives as CSV."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsebert.errors import UserError
from sparsebert.explorer.chart_data import ChartData, short
from sparsebert.explorer.matrices import MOST_CELLS, zero_pictures
from sparsebert.explorer.models import ShownModel
from sparsebert.explorer.prune_charts import prune_chart
from sparsebert.records import ModelResult
from sparsebert.reports.figures import cut_models
from sparsebert.reports.film import read_film
from sparsebert.reports.maps import describe, tree_names
from sparsebert.reports.training import by_matrix, describe_training, matrix_words, phase_spans, place_of
from sparsebert.reports.visits import cells, describe_tree, read_trees
from sparsebert.reports.zeros import describe_zeros

# Logged steps below which there is no line to draw.
_FEWEST_STEPS = 2


@dataclass(frozen=True)
class ModelCharts:
    """The pictures of a model, and a line for each file beside its record that is damaged."""

    charts: tuple[ChartData, ...]
    problems: tuple[str, ...]


def model_charts(model: ShownModel) -> ModelCharts:
    """The pictures that the record holds numbers for."""
    result = model.first[1]
    # One that has lost single weights has all of its heads and neurons: their map would look as if nothing were gone.
    cut = (_heads(result), _neurons(result)) if result in cut_models(model.family) else ()
    charts: list[ChartData | None] = [*cut, prune_chart(model), _zeros(result)]
    problems = []
    beside: tuple[Callable[[], Iterable[ChartData | None]], ...] = (
        lambda: [_places(model)],
        lambda: [_timeline(result)],
        lambda: [_film(model)],
        lambda: _trees(model),
    )
    for draw in beside:
        try:
            charts += draw()
        except UserError as error:
            problems.append(str(error))
    return ModelCharts(tuple(chart for chart in charts if chart is not None), tuple(problems))


def _heads(model: ModelResult) -> ChartData:
    shape = model.shape
    known = "at their places" if shape.kept_heads else "as many as are left: the record does not say which"
    shade = "; the stronger the colour, the more the block's output would lose without the head"
    return ChartData(
        kind="heads",
        title="Attention heads",
        caption=f"A row a layer, heads {known}{shade if shape.head_importance else ''}.",
        words=describe(model),
        columns=("layer", "head", "kept", "importance"),
        rows=tuple(_head_rows(model)),
        more={"heads": shape.full_heads, "layers": len(shape.heads), "dropped": _counted(shape.dropped_layers)},
    )


def _head_rows(model: ModelResult) -> Iterator[tuple[int, int, int, float | None]]:
    shape = model.shape
    for layer, count in enumerate(shape.heads):
        kept = shape.kept_heads[layer] if shape.kept_heads else tuple(range(count))
        for head in range(shape.full_heads):
            worth = short(shape.head_importance[layer][head]) if shape.head_importance else None
            yield layer + 1, head + 1, int(head in kept), worth


def _neurons(model: ModelResult) -> ChartData | None:
    shape, trees = model.shape, tree_names(model)
    if not shape.full_neurons:
        return None
    rows = tuple((layer + 1, kept, shape.full_neurons) for layer, kept in enumerate(shape.neurons))
    said = {str(layer + 1): f"trees {name}" for layer, name in trees.items()}
    said |= {str(layer + 1): "layer dropped" for layer in shape.dropped_layers}
    return ChartData(
        kind="neurons",
        title="Neurons of the feed-forward blocks",
        caption=f"A row a layer, of {shape.full_neurons:,} neurons in the largest.",
        words=describe(model),
        columns=("layer", "neurons", "of"),
        rows=rows,
        more={"said": said},
    )


def _zeros(model: ModelResult) -> ChartData | None:
    zeros = by_matrix(model)
    if not zeros:
        return None
    return ChartData(
        kind="zeros",
        title="Zeros in each matrix",
        caption="Part of each matrix that was zero when training ended, before dead heads and neurons were cut out.",
        words=describe_zeros(model),
        columns=("layer", "matrix", "zeros"),
        rows=tuple((layer, _matrix_name(matrix), short(part)) for (layer, matrix), part in zeros.items()),
        more={},
    )


def _matrix_name(matrix: str) -> str:
    """`attention.self.query` as `attention query`."""
    return " ".join(filter(None, reversed(matrix_words(matrix))))


def _places(model: ShownModel) -> ChartData | None:
    """Where the zeros are, where the weights of a sparse model lie beside its record."""
    result = model.first[1]
    places = dict(zip(result.sparsity_by_tensor, by_matrix(result), strict=True))
    home = model.file.parent / result.folder
    pictures = zero_pictures(home, list(places))
    if not pictures:
        return None
    rows = tuple(
        (places[name][0], _matrix_name(places[name][1]), row, *(round(part, 3) for part in cells))
        for name, picture in pictures.items()
        for row, cells in enumerate(picture.tolist(), start=1)
    )
    wide = max(picture.shape[1] for picture in pictures.values())
    return ChartData(
        kind="places",
        title="Where the zeros are",
        caption="As the model is saved: each tile is one matrix, its outputs downwards. A cell is no weight, it is "
        f"the share of zeros in a part of the matrix: at most {MOST_CELLS} parts each way, of equal size.",
        words=f"Shares of zeros in parts of {len(pictures)} matrices; the CSV has the numbers",
        columns=("layer", "matrix", "row of cells", *map(str, range(1, wide + 1))),
        rows=rows,
        more={},
    )


def _timeline(model: ModelResult) -> ChartData | None:
    spans = phase_spans(model)
    logged = [(span, row) for span in spans for row in span.rows]
    if len(logged) < _FEWEST_STEPS:
        return None
    more = list(dict.fromkeys(name for _, row in logged for name in row.more))
    rows = tuple(
        (span.start + row.step, span.name, row.sparsity, short(row.loss), *(row.more.get(name) for name in more))
        for span, row in logged
    )
    return ChartData(
        kind="timeline",
        title="Sparsity and loss over the training",
        caption="The phases one after the other. The slider moves through the steps that were logged.",
        words=describe_training(model),
        columns=("step", "phase", "sparsity", "loss", *map(_logged_name, more)),
        rows=rows,
        more={"starts": [span.start for span in spans[1:]]},
    )


def _film(model: ShownModel) -> ChartData | None:
    """How the masks moved, where a sparse training left a film of at least two frames."""
    parts = read_film(model.file, model.first[1])
    if sum(len(part.steps) for part in parts) < _FEWEST_STEPS:
        return None
    rows = tuple(
        (part.start + int(part.steps[frame]), part.phase, *(short(float(one[frame])) for one in part.counted))
        for part in parts
        for frame in range(len(part.steps))
    )
    # In the order of the other pictures; what is no matrix of a layer comes last.
    order = {name: place for place, name in enumerate(model.first[1].sparsity_by_tensor)}
    tiles = [
        [
            {"layer": layer, "matrix": _matrix_name(matrix), **_encoded(picture)}
            for name, picture in sorted(part.pictures.items(), key=lambda one: order.get(one[0], len(order)))
            for layer, matrix in [place_of(name)]
        ]
        for part in parts
    ]
    last = rows[-1]
    return ChartData(
        kind="film",
        title="How the masks moved",
        caption="Each tile is one matrix that rules cover, its outputs downwards; a cell is the share of zeros in a "
        "part of it, as the masks were at that step. What came back and went again between two looks is not seen.",
        words=f"{len(rows)} pictures of the masks; at step {last[0]:,} {100 * last[2]:.1f}% are pruned",
        columns=("step", "phase", "pruned", "went since the row before", "came back since the row before"),
        rows=rows,
        more={"tiles": tiles, "frames": [len(part.steps) for part in parts]},
    )


def _encoded(picture: np.ndarray) -> dict[str, Any]:
    """Frames [frames, rows, columns] of bytes as a page reads them."""
    return {"down": picture.shape[1], "across": picture.shape[2], "levels": b64encode(picture.tobytes()).decode()}


def _logged_name(name: str) -> str:
    """`rule0/reactivated` as a reader counts rules: `reactivated (rule 1)`."""
    rule, slash, what = name.partition("/")
    number = rule.removeprefix("rule")
    return f"{what.replace('_', ' ')} (rule {int(number) + 1})" if slash and number.isdecimal() else name


def _trees(model: ShownModel) -> Iterator[ChartData]:
    trees = read_trees(model.file, model.first[1])
    for tree in trees:
        tokens = int(tree.visits[0])
        rows: list[tuple[Any, ...]] = []
        for level, visits in enumerate(tree.levels, start=1):
            ratio, unused = cells(visits, tokens)
            pairs = zip(ratio, unused, strict=True)
            rows += [
                (level, cell, short(float(share)), short(float(part)))
                for cell, (share, part) in enumerate(pairs, start=1)
            ]
        words = describe_tree(tree)
        yield ChartData(
            kind="visits",
            title=words.partition(";")[0],
            caption="A row a level, the root at the top; a cell is a node, or several neighbours deep down. Colour: "
            "tokens that come by, over an even share; empty: no token ever does.",
            words=words,
            columns=("level", "cell", "tokens over an even share", "nodes never visited"),
            rows=tuple(rows),
            more={},
        )


def _counted(layers: Sequence[int]) -> list[int]:
    """From 1, as people do."""
    return [layer + 1 for layer in layers]
