"""Two texts that belong together, such as a question and its answer, have vectors that lie closer than those of others.

The other pairs of a batch, and of a split, are what does not belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.tasks.embeddings import EMBEDDINGS, Embeddings, cosines
from sparsebert.tasks.kind import ConstantAnswer
from sparsebert.tasks.metric import Metric, UndefinedMetricError
from sparsebert.tasks.retrieval import nearest_documents

if TYPE_CHECKING:
    import torch

SCALE = 20.0
"""By which cosines are multiplied in the loss: a softmax with a temperature of 0.05, as in sentence-transformers."""


@dataclass(frozen=True)
class EmbeddingPairs(Embeddings):
    """Outputs are the vectors of both texts of a pair, one behind the other [pairs, 2 * dimensions].

    Labels are those of the dense model. The loss does without them, and what is learned from a teacher goes by them.
    """

    metrics = ("positive_mrr", "pair_cosine")
    texts = 2
    apart = True
    by_first = True
    columns = ("anchor", "positive")

    def outputs(self, output: Any) -> torch.Tensor:
        """Vectors [pairs, 2 * dimensions]; a pair fills two rows of a batch."""
        return output.logits.reshape(len(output.logits) // 2, -1)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the second texts of a batch, by their cosines to the first text whose own is one of them.

        Henderson et al. 2017, arXiv:1705.00652, section 4.4; MultipleNegativesRankingLoss of sentence-transformers.
        """
        import torch
        import torch.nn.functional as F

        first, second = (F.normalize(side, dim=-1) for side in outputs.chunk(2, dim=-1))
        return F.cross_entropy(SCALE * first @ second.T, torch.arange(len(outputs), device=outputs.device))

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """One less the cosine of the vectors of a text to the dense model's: a batch is what the loss is of."""
        return 1 - pair_cosine(outputs, labels)

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """One less the cosine of the vectors of a text."""
        return 1 - pair_cosine(student, teacher)

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """As of embeddings, of all texts of the batch."""
        own, taught = (side.reshape(2 * len(side), -1) for side in (student, teacher))
        return EMBEDDINGS.distillation(own, taught, temperature)

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """The mean direction of each side."""
        means = [EMBEDDINGS.constant(side, names).outputs for side in np.split(labels, 2, axis=-1)]
        return ConstantAnswer(np.concatenate(means), "always giving the mean vector")


def positive_mrr(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Mean reciprocal rank of each pair's second text among those of all pairs, within ten, by cosine to the first.

    Undefined with fewer than two pairs.
    """
    return float(_reciprocal_ranks(outputs).mean())


def pair_cosine(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Mean cosine of the two vectors of a text, over both sides of all pairs, -1 to 1."""
    return float(_pair_cosines(outputs, labels).mean())


def _reciprocal_ranks(outputs: np.ndarray) -> np.ndarray:
    if len(outputs) < 2:
        raise UndefinedMetricError("one pair has no other that its texts could be taken for")
    first, second = np.split(np.asarray(outputs, dtype=np.float64), 2, axis=-1)
    nearest = np.array(nearest_documents(first, second))
    hits = nearest == np.arange(len(nearest))[:, None]
    return np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)


def _pair_cosines(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each pair the mean over its two texts [pairs]."""
    sides = zip(np.split(outputs, 2, axis=-1), np.split(labels, 2, axis=-1), strict=True)
    return np.mean([cosines(own, taught) for own, taught in sides], axis=0)


def _resampled_ranks(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    """The pairs that count are drawn; among which texts theirs are looked for stays as it is."""
    try:
        values = _reciprocal_ranks(outputs)
    except UndefinedMetricError:
        return np.concatenate([np.full(len(rows), np.nan) for rows in drawn])
    return np.concatenate([values[rows].mean(axis=-1) for rows in drawn])


def _resampled_cosines(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    values = _pair_cosines(outputs, labels)
    return np.concatenate([values[rows].mean(axis=-1) for rows in drawn])


def _fits(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return len(outputs) == 2 and outputs == labels and outputs[1] % 2 == 0


EMBEDDING_PAIRS = EmbeddingPairs()
# All texts are equally near under an answer that is always the same.
POSITIVE_MRR = Metric(positive_mrr, _resampled_ranks, _fits, of_constant=0.0)
PAIR_COSINE = Metric(pair_cosine, _resampled_cosines, _fits)
