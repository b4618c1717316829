"""Of a text those whose vectors are nearest to its own, as two models of embeddings see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.errors import UserError
from sparsebert.live.bench import Errand
from sparsebert.live.latest import Latest
from sparsebert.live.pool import Pool, Side
from sparsebert.live.texts import TextQueue

if TYPE_CHECKING:
    from sparsebert.deployment.predictor import Predictor

NEAREST = 5
BATCH = 32
MOST_KEPT = 4
"""So many sets of vectors, each of a model and a list of texts, are kept for the next text."""


@dataclass
class Neighbourhood:
    """Reads lists of texts, and keeps the vectors of the latest; used on one thread."""

    _kept: Latest[np.ndarray] = field(default_factory=lambda: Latest(MOST_KEPT))

    def look(self, job: Errand, pool: Pool, sides: tuple[Side, Side], text: str, queue: TextQueue) -> None:
        """Report the NEAREST texts of the queue for both, by cosine; the text itself is none of them.

        A model that gives no vectors has a `problem` in the place of its texts, and the other one has its own.
        Raises UserError where the queue holds no other text.
        """
        texts = [one for one in dict.fromkeys(queue.first) if one.strip() != text.strip()]
        if not texts:
            raise UserError("There is no other text than the one asked about", fix="choose a file that holds more")
        told: list[dict[str, Any]] = []
        for side in sides:
            job.report({"line": f"Opening {side.model.name} …", "sides": told})
            job.go_on()
            try:
                told = [*told, {"name": side.model.name, "nearest": self._nearest(job, pool, side, text, texts)}]
            except UserError as error:
                job.go_on()
                told = [*told, {"name": side.model.name, "problem": str(error)}]
        job.report({"line": "", "sides": told, "texts": len(texts), "same": _same(told)})

    def _nearest(self, job: Errand, pool: Pool, side: Side, text: str, texts: Sequence[str]) -> list[dict[str, Any]]:
        predictor = pool.open(side, BATCH)
        if predictor.kind_name != "embeddings":
            raise UserError("The model gives no vectors", got=predictor.kind_name, fix="choose one of embeddings")
        key = (side.model.now, side.way, tuple(texts))
        vectors = self._kept.get(key, lambda: _vectors(job, predictor, texts))
        cosines = vectors @ _vectors(job, predictor, [text])[0]
        order = np.argsort(-cosines, kind="stable")[:NEAREST]
        return [{"text": texts[place], "cosine": float(cosines[place])} for place in order]


def _vectors(job: Errand, predictor: Predictor, texts: Sequence[str]) -> np.ndarray:
    """Of length one, a row a text; a vector of zeros, which has no direction, stays one."""
    rows: list[Sequence[float]] = []
    for start in range(0, len(texts), BATCH):
        job.report(job.found | {"line": f"{start:,} of {len(texts):,} texts"})
        job.go_on()
        for answers, _ in predictor.answers(texts[start : start + BATCH]):
            rows += [one["embedding"] for one in answers]
    found = np.asarray(rows)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(lengths > 0, lengths, 1)


def _same(told: Sequence[Mapping[str, Any]]) -> int | None:
    """How many texts both name; none where one of them has none."""
    named = [{one["text"] for one in side["nearest"]} for side in told if "nearest" in side]
    return len(named[0] & named[1]) if len(named) == 2 else None
