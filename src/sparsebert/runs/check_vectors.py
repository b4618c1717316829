"""Two models of embeddings on texts whose likeness is known: scored pairs, or documents that queries are to find.

Besides each model on its own, old vectors with new ones: a stored index need not be made anew where these go together.
And two cross-encoders, which put the passages of a query in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sparsebert.data.retrieval import RetrievalSet
from sparsebert.deployment.predictor import Predictor
from sparsebert.errors import UserError
from sparsebert.records import Score
from sparsebert.runs.scoring import mean_score, split_scores
from sparsebert.tasks.embeddings import cosines
from sparsebert.tasks.kind import ConstantAnswer
from sparsebert.tasks.retrieval import nearest_documents, retrieval_values
from sparsebert.tasks.table import TaskSpec

PAIRS = TaskSpec("pairs", ("text", "text_2"), (), ("spearman", "pearson"), "", kind="regression")
Told = Callable[[int], None]
_OTHER_LENGTHS = "the vectors are of different lengths, so that old and new ones cannot be mixed"


class PairedScores(NamedTuple):
    """Scores of the first model, of the second, and of the second's vectors beside those that the first has stored.

    The last are none where there are no vectors, and where these are of different lengths. So is `apart`, the largest
    difference of two outputs at the same place. `notes` say what was counted.
    """

    first: tuple[Score, ...]
    second: tuple[Score, ...]
    mixed: tuple[Score, ...]
    apart: float | None
    notes: tuple[str, ...] = ()


def pair_scores(
    models: tuple[Predictor, Predictor], sides: Sequence[Sequence[str]], likeness: np.ndarray, done: Told
) -> PairedScores:
    """Correlation of cosines with how alike the two texts of each pair are said to be [pairs], the more the liker."""
    vectors = [[model.outputs(side, None, done) for side in sides] for model in models]
    own = [cosines(one, other)[:, None] for one, other in vectors]
    constant = ConstantAnswer(np.zeros(1), "always giving the same")

    def scored(outputs: np.ndarray, before: np.ndarray | None) -> tuple[Score, ...]:
        return tuple(split_scores(PAIRS, "pairs", outputs, likeness, constant, before))

    alone = scored(own[0], None), scored(own[1], own[0])
    if vectors[0][0].shape != vectors[1][0].shape:
        return PairedScores(*alone, (), None, (_OTHER_LENGTHS,))
    # The second side stands for what is stored.
    mixed = scored(cosines(vectors[1][0], vectors[0][1])[:, None], own[0])
    return PairedScores(*alone, mixed, _apart(*vectors))


def retrieval_scores(models: tuple[Predictor, Predictor], given: RetrievalSet, done: Told) -> PairedScores:
    """What each model finds among the documents, and what the second model's queries find among the first's."""
    documents = [model.outputs(given.documents, None, done) for model in models]
    queries = [model.outputs(given.queries, None, done) for model in models]
    for one in (*documents, *queries):
        _check_finite(one)
    notes = [f"{len(given.queries):,} queries, {len(given.documents):,} documents"]
    notes += [f"{given.unjudged:,} queries without a relevant document are left out"] if given.unjudged else []
    alike = sum(one is not None for one in given.own)
    notes += [f"{alike:,} queries are documents themselves, by their ids, and are not to find these"] if alike else []
    before = retrieval_values(nearest_documents(queries[0], documents[0], given.own), given.relevant)

    def found(asked: np.ndarray, stored: np.ndarray) -> tuple[Score, ...]:
        values = retrieval_values(nearest_documents(asked, stored, given.own), given.relevant)
        return tuple(mean_score(name, own, before[name]) for name, own in values.items())

    first = tuple(mean_score(name, own) for name, own in before.items())
    second = found(queries[1], documents[1])
    if queries[0].shape != queries[1].shape:
        return PairedScores(first, second, (), None, (*notes, _OTHER_LENGTHS))
    mixed = found(queries[1], documents[0])
    return PairedScores(first, second, mixed, _apart(*zip(documents, queries, strict=True)), tuple(notes))


def ranking_scores(
    models: tuple[Predictor, Predictor], sides: Sequence[Sequence[str]], grades: np.ndarray, done: Told
) -> PairedScores:
    """How each model orders the second texts of each first one, whose grades [pairs] are above 0 where they are right.

    Queries with a passage only, and without a right one, say nothing of an order. Raises UserError if there is no
    other.
    """
    places: dict[str, list[int]] = {}
    for row, query in enumerate(sides[0]):
        places.setdefault(query, []).append(row)
    asked = [rows for rows in places.values() if len(rows) > 1 and (grades[rows] > 0).any()]
    if not asked:
        raise UserError("No query has two passages, one of them right", got=f"{len(places)} queries")
    relevant = [{row: float(grades[row]) for row in rows if grades[row] > 0} for rows in asked]
    outputs = [model.outputs(sides[0], sides[1], done)[:, 0] for model in models]
    for own in outputs:
        _check_finite(own)
    # Of equal scores the wrong passage first: a model that says the same of all is not to live on the file's order.
    orders = [[sorted(rows, key=lambda row: (-own[row], grades[row])) for rows in asked] for own in outputs]
    first, second = (retrieval_values(order, relevant) for order in orders)
    return PairedScores(
        tuple(mean_score(name, own) for name, own in first.items()),
        tuple(mean_score(name, own, first[name]) for name, own in second.items()),
        (),
        float(np.abs(outputs[0] - outputs[1]).max()),
        (f"{len(asked):,} of {len(places):,} queries have two passages or more, one of them right",),
    )


def _check_finite(outputs: np.ndarray) -> None:
    if not np.isfinite(outputs).all():
        raise UserError("A model's outputs are not finite, so they have no order")


def _apart(*pairs: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(*pairs, strict=True))
