"""How alike the hidden states of checkpoints are, layer by layer: cosine similarity, and linear CKA.

Gordon et al. 2020, arXiv:2002.08307, figure 2 (right), for cosines; Kornblith et al. 2019, arXiv:1905.00414, for linear
centred kernel alignment (section 3), which also compares layers of other numbers and widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.errors import UserError
from sparsebert.reports.charts import ChartLine, HeatPanel, LinePanel, Panel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.study import EXAMPLES, CheckpointStudy

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "How alike are the hidden states, layer by layer?"
DEFINITION = (
    "Hidden states of the same tokens of the same texts, without padding, in the first checkpoint and in another. "
    "Layer 0 is what goes into the first layer, layer n what comes out of layer n of the dense model. "
    "Cosine: mean over tokens of the cosine of the angle between the two states. "
    "CKA: linear centred kernel alignment |Y'X|^2 / (|X'X| |Y'Y|) with Frobenius norms, X and Y the states [tokens, "
    "hidden] less their means: 1 for states that are the same but for a rotation and a factor. "
    "Chance: the same with the tokens of one side shuffled."
)
_MOST_PANELS = 4
_COLUMNS = (
    StudyColumn("layer", "Layer"),
    StudyColumn("cosine", "Cosine", "mean", "correlation"),
    StudyColumn("cosine_sd", "Cosine", "sd of tokens", "correlation"),
    StudyColumn("cosine_by_chance", "Cosine", "chance", "correlation"),
    StudyColumn("cka", "CKA", form="correlation"),
    StudyColumn("cka_by_chance", "CKA", "chance", "correlation"),
)


@dataclass(frozen=True)
class Features:
    """Hidden states [tokens, hidden] of a checkpoint by layer of the dense model, 0 = before the first."""

    name: str
    layers: Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Likeness:
    """Of two layers' states. Cosines are None where widths differ or a state is zero, CKA where tokens are alike."""

    cosine: float | None
    cosine_sd: float | None
    cosine_by_chance: float | None
    cka: float | None
    cka_by_chance: float | None


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """Of each token [tokens]; None where the widths differ, or a state has no direction."""
    if first.shape != second.shape:
        return None
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return None if not sizes.all() else np.einsum("ij,ij->i", first, second) / sizes


@dataclass(frozen=True)
class Centred:
    """States less their means [tokens, hidden] in float64, and the norm of their covariances, by which CKA divides."""

    states: np.ndarray
    norm: float

    @classmethod
    def of(cls, states: np.ndarray) -> Centred:
        """Of states [tokens, hidden]."""
        centred = states.astype(np.float64) - states.mean(axis=0, dtype=np.float64)
        return cls(centred, float(np.linalg.norm(centred.T @ centred)))

    def shuffled(self, order: np.ndarray) -> Centred:
        """The same with the tokens in another order."""
        return Centred(self.states[order], self.norm)


def linear_cka(first: Centred, second: Centred) -> float | None:
    """Of states of the same tokens; None where one side is constant."""
    norms = first.norm * second.norm
    return float(np.square(np.linalg.norm(second.states.T @ first.states)) / norms) if norms else None


def likeness(first: np.ndarray, second: np.ndarray, order: np.ndarray) -> Likeness:
    """`order` shuffles the tokens of the second side, for chance."""
    own, shuffled = cosines(first, second), cosines(first, second[order])
    one, other = Centred.of(first), Centred.of(second)
    return Likeness(
        None if own is None else float(own.mean()),
        None if own is None else float(own.std()),
        None if shuffled is None else float(shuffled.mean()),
        linear_cka(one, other),
        linear_cka(one, other.shuffled(order)),
    )


def feature_similarity(
    found: Sequence[Features], seed: int = 0, settings: Mapping[str, str] | None = None
) -> StudyResult:
    """The first checkpoint against each other one. Raises UserError where they share no layer."""
    first, *others = found
    tokens = len(next(iter(first.layers.values())))
    order = np.random.default_rng(seed).permutation(tokens)
    alike: dict[str, dict[int, Likeness]] = {}
    for other in others:
        shared = [layer for layer in first.layers if layer in other.layers]
        alike[other.name] = {layer: likeness(first.layers[layer], other.layers[layer], order) for layer in shared}
    rows = [
        StudyRow(f"{first.name} vs {name}", (f"layer {layer}" if layer else "embeddings", *_row(one)))
        for name, layers in alike.items()
        for layer, one in layers.items()
    ]
    return StudyResult(
        "feature-similarity",
        QUESTION,
        _sentence(first.name, alike),
        DEFINITION,
        tuple(one.name for one in found),
        _COLUMNS,
        tuple(rows),
        _chart(first, others, alike),
        heading="pair",
        settings={**(settings or {}), "Tokens": f"{tokens:,}"},
        notes=() if len(others) <= _MOST_PANELS else (f"The figure has cells of {_MOST_PANELS} pairs only.",),
    )


def _row(one: Likeness) -> tuple[float | None, ...]:
    return (one.cosine, one.cosine_sd, one.cosine_by_chance, one.cka, one.cka_by_chance)


def _chart(first: Features, others: Sequence[Features], alike: Mapping[str, Mapping[int, Likeness]]) -> StudyChart:
    panels: list[Panel] = []
    for title, value in (("Cosine", lambda one: one.cosine), ("CKA", lambda one: one.cka)):
        lines = [
            ChartLine(name, tuple(map(float, layers)), tuple(value(one) for one in layers.values()))
            for name, layers in alike.items()
        ]
        if any(y is not None for line in lines for y in line.y):
            panels.append(LinePanel(f"{title} to {first.name}", "Layer", title, tuple(lines)))
    own = [Centred.of(states) for states in first.layers.values()]
    for other in others[:_MOST_PANELS]:
        theirs = [Centred.of(states) for states in other.layers.values()]
        cells = tuple(tuple(linear_cka(a, b) for b in theirs) for a in own)
        rows, columns = (tuple(map(str, one.layers)) for one in (first, other))
        panels.append(
            HeatPanel(
                f"CKA of {first.name} and {other.name}",
                rows,
                columns,
                cells,
                "correlation",
                row_label=f"Layer of {first.name}",
                column_label=f"Layer of {other.name}",
                low=0.0,
                high=1.0,
            )
        )
    return StudyChart(tuple(panels))


def _sentence(first: str, alike: Mapping[str, Mapping[int, Likeness]]) -> str:
    """Of the checkpoint whose last common layer is least like the first one's."""
    ends = {name: (max(layers), layers[max(layers)]) for name, layers in alike.items() if layers}
    if not ends:
        raise UserError("The checkpoints have no layer in common", got=", ".join((first, *alike)))
    name = min(ends, key=lambda one: (_order(ends[one][1]), one))
    layer, last = ends[name]
    least = min(alike[name], key=lambda one: (_order(alike[name][one]), one))
    worst = alike[name][least]
    lowest = written(worst.cka, "correlation")
    where = f" and least like it at layer {least} (CKA {lowest})" if lowest != written(last.cka, "correlation") else ""
    cosine = "" if last.cosine is None else f"cosine {written(last.cosine, 'correlation')}, "
    return f"At layer {layer} {name} is like {first} by {cosine}CKA {written(last.cka, 'correlation')}{where}."


def _order(one: Likeness) -> float:
    return one.cka if one.cka is not None else np.inf


def _ask(asked: AskedCheckpoints) -> StudyResult:
    from sparsebert.studies.features import features
    from sparsebert.studies.task_rows import check_same_tokens, common_length, texts_of, token_rows

    rows, where = texts_of(asked.options, EXAMPLES)
    length = common_length(list(asked.sources.values()))
    tokens = {name: token_rows(source, rows, length) for name, source in asked.sources.items()}
    check_same_tokens(tokens)
    found = []
    for name, model in asked.models():
        asked.progress(f"Reading with {name}")
        found.append(features(name, model, tokens[name], asked.options.seed))
    asked.progress("Comparing layers")
    return feature_similarity(found, asked.options.seed, {"Texts": f"{where}, up to {length} tokens each"})


FEATURE_SIMILARITY = CheckpointStudy(
    "how alike hidden states are layer by layer, by cosine and CKA", _ask, fewest=2, takes=("task", "texts", "examples")
)
