"""How large the embeddings of tokens are: by the length of a token, by how often it occurs, and by dimension.

Gordon et al. 2020, arXiv:2002.08307, figure 7 (right): short subwords have small values, and would be pruned first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsebert.reports.charts import ChartLine, LinePanel, StudyChart, written
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.ranks import rank_correlation
from sparsebert.studies.study import CheckpointStudy

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints

QUESTION = "How large are the embeddings of tokens?"
DEFINITION = (
    "Norm: Euclidean norm of a token's row of the word embeddings. Length: letters of the token, without the mark that "
    "it goes on a word or begins one; of byte-level tokenizers, bytes. Occurs: how often the tokenizer gives it in the "
    "texts. Special and unused (`[unused1]`) tokens are left out. Below median: part of the values of a smaller "
    "magnitude than the median of all that are looked at, which pruning half of the matrix by magnitude would remove. "
    "Rank correlations are Spearman's, over tokens. Of dimensions the five with the smallest and the five with the "
    "largest mean magnitude are listed."
)
EXAMPLES = 10_000
# Longer tokens are put together.
LONGEST = 12
_LISTED = 5
_COLUMNS = (
    StudyColumn("part", "Tokens"),
    StudyColumn("tokens", "Number", form="count"),
    StudyColumn("mean_norm", "Norm", "mean"),
    StudyColumn("sd_norm", "Norm", "sd"),
    StudyColumn("mean_magnitude", "|w|", "mean"),
    StudyColumn("below_median", "Below median", form="percent"),
)


@dataclass(frozen=True)
class TokenEmbeddings:
    """Of a checkpoint: rows of the word embeddings [tokens, hidden], letters of each token, and how often it occurs."""

    name: str
    values: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class _Summary:
    """Of one checkpoint: rows by part, rank correlations of the norm with length and count, means by dimension."""

    rows: dict[str, tuple[int, float, float, float, float]]
    with_length: float | None
    with_count: float | None
    dimensions: np.ndarray


def embedding_magnitudes(found: Sequence[TokenEmbeddings], settings: Mapping[str, str] | None = None) -> StudyResult:
    """Of each checkpoint."""
    made = {one.name: _summary(one) for one in found}
    rows = [StudyRow(name, (part, *values)) for name, summary in made.items() for part, values in summary.rows.items()]
    return StudyResult(
        "embedding-magnitudes",
        QUESTION,
        _sentence(*next(iter(made.items()))),
        DEFINITION,
        tuple(made),
        _COLUMNS,
        tuple(rows),
        _chart(made),
        settings=settings or {},
        notes=tuple(_correlations(name, one) for name, one in made.items()),
    )


def _summary(one: TokenEmbeddings) -> _Summary:
    sizes, norms = np.abs(one.values.astype(np.float64)), np.linalg.norm(one.values.astype(np.float64), axis=1)
    below = sizes < np.median(sizes)

    def row(own: np.ndarray) -> tuple[int, float, float, float, float]:
        means = (float(norms[own].mean()), float(norms[own].std()))
        return (int(own.sum()), *means, float(sizes[own].mean()), float(below[own].mean()))

    parts = {"all": np.ones(len(norms), dtype=bool)}
    parts |= {_letters(length): _of_length(one.lengths, length) for length in range(1, LONGEST + 1)}
    parts |= {name: (one.counts >= low) & (one.counts < high) for name, low, high in _count_bins(one.counts)}
    rows = {name: row(own) for name, own in parts.items() if own.any()}
    dimensions = sizes.mean(axis=0)
    order = np.argsort(dimensions, kind="stable")
    for place in sorted({*order[:_LISTED].tolist(), *order[-_LISTED:].tolist()}, key=lambda at: dimensions[at]):
        listed = (len(norms), float("nan"), float("nan"), float(dimensions[place]), float(below[:, place].mean()))
        rows[f"dimension {place + 1}"] = listed
    return _Summary(rows, rank_correlation(norms, one.lengths), rank_correlation(norms, one.counts), dimensions)


def _of_length(lengths: np.ndarray, length: int) -> np.ndarray:
    return lengths >= length if length == LONGEST else lengths == length


def _letters(length: int) -> str:
    return f"{length} letter{'s' if length > 1 else ''}" + (" and more" if length == LONGEST else "")


def _count_bins(counts: np.ndarray) -> list[tuple[str, int, int]]:
    """None, one, and from there on powers of four: a name, the least, and the first above."""
    bins, low = [("never occurs", 0, 1), ("occurs once", 1, 2)], 2
    while low <= counts.max(initial=0):
        high = 4 if low == 2 else 4 * low
        bins.append((f"occurs {low:,}-{high - 1:,} times", low, high))
        low = high
    return bins


def _correlations(name: str, one: _Summary) -> str:
    wrote = [written(value, "correlation") for value in (one.with_length, one.with_count)]
    return f"{name}: rank correlation of the norm with length {wrote[0]}, with how often a token occurs {wrote[1]}."


def _chart(made: Mapping[str, _Summary]) -> StudyChart:
    by_length, by_count, by_dimension = [], [], []
    count_names = list(dict.fromkeys(name for one in made.values() for name in one.rows if "occurs" in name))
    lengths = [_letters(length) for length in range(1, LONGEST + 1)]
    for name, one in made.items():
        by_length.append(_line(name, one, lengths, 1.0))
        by_count.append(_line(name, one, count_names, 0.0))
        ordered = np.sort(one.dimensions)
        x = tuple(np.linspace(0, 100, len(ordered)).tolist())
        by_dimension.append(ChartLine(name, x, tuple(ordered.tolist())))
    ticks = tuple(name.removeprefix("occurs ").removesuffix(" times").split("-")[0] for name in count_names)
    ticks = tuple({"never occurs": "0", "once": "1"}.get(name, name) for name in ticks)
    return StudyChart(
        (
            LinePanel("Norm by length (band: sd)", f"Letters ({LONGEST}: and more)", "Norm", tuple(by_length)),
            LinePanel("Norm by how often it occurs (band: sd)", "Occurs, from", "Norm", tuple(by_count), ticks),
            LinePanel("Dimensions, smallest first", "Dimensions, %", "Mean |w|", tuple(by_dimension)),
        ),
        columns=3,
    )


def _line(name: str, one: _Summary, parts: Sequence[str], start: float) -> ChartLine:
    known = [(place + start, one.rows[part]) for place, part in enumerate(parts) if part in one.rows]
    x, mean = tuple(place for place, _ in known), tuple(row[1] for _, row in known)
    low, high = (tuple(row[1] + sign * row[2] for _, row in known) for sign in (-1, 1))
    return ChartLine(name, x, mean, low, high)


def _sentence(name: str, one: _Summary) -> str:
    lengths = [part for part in one.rows if "letter" in part]
    first, last = lengths[0], lengths[-1]
    norms = [written(one.rows[part][1], "number") for part in (first, last)]
    wrote = [written(value, "correlation") for value in (one.with_length, one.with_count)]
    return (
        f"In {name} the norm of a token's embedding goes with its length by a rank correlation of {wrote[0]} "
        f"({norms[0]} of {first}, {norms[1]} of {last}) and with how often it occurs by {wrote[1]}."
    )


def _ask(asked: AskedCheckpoints) -> StudyResult:
    from sparsebert.studies.task_rows import common_length, texts_of, token_rows
    from sparsebert.studies.token_embeddings import token_embeddings

    rows, where = texts_of(asked.options, EXAMPLES)
    length = common_length(list(asked.sources.values()))
    found = []
    for name, model in asked.models():
        source = asked.sources[name]
        asked.progress(f"Counting tokens for {name}")
        found.append(token_embeddings(name, model, source, token_rows(source, rows, length)))
    return embedding_magnitudes(found, {"Texts": f"{where}, up to {length} tokens each"})


EMBEDDING_MAGNITUDES = CheckpointStudy(
    "norms of token embeddings by a token's length, by how often it occurs, and by dimension",
    _ask,
    takes=("task", "texts", "examples"),
)
