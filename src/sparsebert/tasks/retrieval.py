"""How well vectors find documents: ranks of a query's relevant documents, query by query.

nDCG (Järvelin and Kekäläinen 2002, with the grade itself as gain, as trec_eval has it), recall, and the reciprocal rank
of the first relevant document, all within the first ten, as BEIR reports them (Thakur et al. 2021, arXiv:2104.08663).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

FIRST = 10
# Queries whose similarities to all documents are held at once.
_AT_ONCE = 128
Relevant = Mapping[int, float]
"""Grades above 0 by the number of a document."""


def nearest_documents(
    queries: np.ndarray, documents: np.ndarray, own: Sequence[int | None] | None = None
) -> list[list[int]]:
    """Numbers of the ten documents nearest to each query by the cosine, the nearest first.

    `own` are for each query the number of a document that does not count, or none.
    """
    sides = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in (queries, documents)]
    count = min(FIRST, len(documents))
    found: list[list[int]] = []
    for start in range(0, len(queries), _AT_ONCE):
        similar = sides[0][start : start + _AT_ONCE] @ sides[1].T
        for row, document in enumerate((own or ())[start : start + _AT_ONCE]):
            if document is not None:
                similar[row, document] = -np.inf
        best = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        # Equally near ones in the order of the documents, so that equal vectors give equal ranks.
        best.sort(axis=1)
        order = np.argsort(-np.take_along_axis(similar, best, axis=1), axis=1, kind="stable")
        found += np.take_along_axis(best, order, axis=1).tolist()
    return found


def retrieval_values(ranked: Sequence[Sequence[int]], relevant: Sequence[Relevant]) -> dict[str, np.ndarray]:
    """nDCG, recall and reciprocal rank of every query [queries], by name.

    `ranked` are numbers of documents, the first of which count, and each of `relevant` has a document or more.
    """
    values = [_of_query(documents[:FIRST], grades) for documents, grades in zip(ranked, relevant, strict=True)]
    return {
        name: np.array([one[place] for one in values])
        for place, name in enumerate((f"ndcg_at_{FIRST}", f"recall_at_{FIRST}", f"mrr_at_{FIRST}"))
    }


def _of_query(documents: Sequence[int], grades: Relevant) -> tuple[float, float, float]:
    gains = [grades.get(document, 0.0) for document in documents]
    hits = [rank for rank, gain in enumerate(gains, start=1) if gain > 0]
    best = sorted(grades.values(), reverse=True)[:FIRST]
    return _discounted(gains) / _discounted(best), len(hits) / len(grades), 1 / hits[0] if hits else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, start=1)))
