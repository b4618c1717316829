"""Two models of embeddings on texts whose likeness is known: scored pairs, or documents that queries are to find.

Besides each model on its own, old vectors with new ones: a stored index need not be made anew where these go together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sparsebert.data.retrieval import RetrievalSet
from sparsebert.deployment.predictor import Predictor
from sparsebert.records import Score
from sparsebert.runs.scoring import split_scores
from sparsebert.tasks.bootstrap import RESAMPLES, difference_interval, interval
from sparsebert.tasks.kind import ConstantAnswer
from sparsebert.tasks.retrieval import nearest_documents, retrieval_values
from sparsebert.tasks.table import TaskSpec

PAIRS = TaskSpec("pairs", ("text", "text_2"), (), ("spearman", "pearson"), "", kind="regression")
Told = Callable[[int], None]


class VectorScores(NamedTuple):
    """Scores of the first model, of the second, and of the first model's vectors against the second's.

    `apart` is the largest difference of two numbers at the same place of a vector.
    """

    first: tuple[Score, ...]
    second: tuple[Score, ...]
    mixed: tuple[Score, ...]
    apart: float


def pair_scores(
    models: tuple[Predictor, Predictor], sides: Sequence[Sequence[str]], likeness: np.ndarray, done: Told
) -> VectorScores:
    """Correlation of cosines with how alike the two texts of each pair are said to be [pairs], the more the liker."""
    vectors = [[model.outputs(side, None, done) for side in sides] for model in models]
    own = [_cosines(one, other) for one, other in vectors]
    # The second side stands for what is stored.
    mixed = _cosines(vectors[1][0], vectors[0][1])
    constant = ConstantAnswer(np.zeros(1), "always giving the same")

    def scored(outputs: np.ndarray, before: np.ndarray | None) -> tuple[Score, ...]:
        return tuple(split_scores(PAIRS, "pairs", outputs, likeness, constant, before))

    apart = max(float(np.abs(one - other).max()) for one, other in zip(*vectors, strict=True))
    return VectorScores(scored(own[0], None), scored(own[1], own[0]), scored(mixed, own[0]), apart)


def retrieval_scores(models: tuple[Predictor, Predictor], given: RetrievalSet, done: Told) -> VectorScores:
    """What each model finds among the documents, and what the second model's queries find among the first's."""
    documents = [model.outputs(given.documents, None, done) for model in models]
    queries = [model.outputs(given.queries, None, done) for model in models]
    values = [
        retrieval_values(nearest_documents(asked, stored), given.relevant)
        for asked, stored in ((queries[0], documents[0]), (queries[1], documents[1]), (queries[1], documents[0]))
    ]
    apart = max(float(np.abs(one - other).max()) for one, other in (documents, queries))
    first = tuple(_mean(name, own, None) for name, own in values[0].items())
    second, mixed = (tuple(_mean(name, own, values[0][name]) for name, own in one.items()) for one in values[1:])
    return VectorScores(first, second, mixed, apart)


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosines of two vectors [pairs, 1]."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return ((one * other).sum(axis=1) / np.maximum(lengths, 1e-12))[:, None]


def _mean(name: str, values: np.ndarray, before: np.ndarray | None) -> Score:
    """The mean over queries, with its interval, and that of the change from the values `before`."""
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    own = values[draws].mean(axis=1)
    low, high = interval(own) or (None, None)
    apart = (None, None) if before is None else difference_interval(own, before[draws].mean(axis=1)) or (None, None)
    return Score(
        metric=name,
        value=float(values.mean()),
        split="queries",
        examples=len(values),
        low=low,
        high=high,
        change_low=apart[0],
        change_high=apart[1],
    )
