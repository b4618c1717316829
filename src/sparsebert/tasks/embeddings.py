"""A text has a vector, and texts that say alike have vectors that lie close.

There are no labels: what the model itself gives before it is made smaller is what it is to give afterwards, so that
its vectors stay comparable with those that are stored already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.errors import UserError
from sparsebert.tasks.kind import ConstantAnswer, Passage, TaskKind, TextColumn
from sparsebert.tasks.metric import Metric, UndefinedMetricError

if TYPE_CHECKING:
    import torch

NEIGHBOURS = 10
# Texts whose similarities to all others are held at once.
_AT_ONCE = 512


@dataclass(frozen=True)
class Embeddings(TaskKind):
    """Labels are the vectors of the model that is made smaller; outputs are those of the smaller one."""

    head = "embeddings"
    problem_type = None
    metrics = ("cosine", "neighbours")
    named = False
    exclusive = False
    num_outputs = None
    labelled = False
    texts = 1

    def from_text(self, column: TextColumn) -> tuple[Sequence[Any], tuple[str, ...]]:
        """Raises UserError, as there is no column of labels."""
        raise _no_labels(column.where)

    def label_names(self, values: Sequence[Any], where: str) -> tuple[str, ...]:
        """None."""
        return ()

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[Any]:
        """Raises UserError, as there is no column of labels."""
        raise _no_labels(where)

    def outputs(self, output: Any) -> torch.Tensor:
        """Vectors [texts, dimensions]."""
        return output.logits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One less the cosine of the vectors of a text."""
        import torch.nn.functional as F

        return 1 - F.cosine_similarity(outputs, labels.to(outputs.dtype), dim=-1).mean()

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """One less the cosine of the vectors of a text."""
        return 1 - cosine(outputs, labels)

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """One less the cosine of the vectors of a text."""
        return 1 - cosine(student, teacher)

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """How far vectors are from the teacher's, and how far those of a batch lie otherwise to each other.

        One less the cosine (Reimers and Gurevych 2020, arXiv:2004.09813, with the cosine for their squared error), and
        the mean absolute difference of the cosines of any two texts (relational distillation, Park et al. 2019,
        arXiv:1904.05068). There are no probabilities, so that `temperature` changes nothing.
        """
        import torch.nn.functional as F

        own, taught = (F.normalize(side, dim=-1) for side in (student, teacher.to(student.dtype)))
        apart = (own @ own.T - taught @ taught.T).abs()
        # The diagonal is always 0.
        pairs = max(1, len(own) * (len(own) - 1))
        return 1 - (own * taught).sum(dim=-1).mean() + apart.sum() / pairs

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """The mean direction."""
        return ConstantAnswer(directions(labels).mean(axis=0), "always giving the mean vector")

    def answer(self, names: Sequence[str], outputs: np.ndarray, passage: Passage | None = None) -> dict[str, Any]:
        """The vector."""
        return {"embedding": outputs.tolist()}


def _no_labels(where: str) -> UserError:
    return UserError("Texts of kind embeddings have no labels", got=where, fix="name the columns of texts alone")


def cosine(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Mean cosine of the two vectors of a text, -1 to 1."""
    return float(cosines(outputs, labels).mean())


def neighbours(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Part of the ten texts nearest to each text, by the cosine of `labels`, that are so by `outputs` too, 0-1.

    Undefined with fewer than twelve texts, where nearly all others would be among the ten.
    """
    return float(_shared_neighbours(outputs, labels).mean())


def cosines(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cosine of the two vectors in each row [rows]; 0 for a vector of zeros."""
    return (directions(outputs) * directions(labels)).sum(axis=-1)


def _shared_neighbours(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """For each text, the part of its nearest by the one that are its nearest by the other [texts]."""
    if len(outputs) < NEIGHBOURS + 2:
        raise UndefinedMetricError(f"ten neighbours need {NEIGHBOURS + 2} texts or more")
    sides = directions(outputs).astype(np.float32), directions(labels).astype(np.float32)
    found = []
    for start in range(0, len(outputs), _AT_ONCE):
        own, taught = (_nearest(side, slice(start, start + _AT_ONCE)) for side in sides)
        found.append((own[:, :, None] == taught[:, None, :]).any(axis=-1).mean(axis=-1))
    return np.concatenate(found)


def _nearest(directions: np.ndarray, part: slice) -> np.ndarray:
    """Numbers of the texts nearest to those of a part, without themselves [texts of the part, NEIGHBOURS]."""
    similar = directions[part] @ directions.T
    similar[np.arange(len(similar)), np.arange(len(directions))[part]] = -np.inf
    return np.argpartition(-similar, NEIGHBOURS, axis=-1)[:, :NEIGHBOURS]


def directions(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1 [texts, numbers] in float64; one of zeros stays."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.finfo(np.float64).tiny)


def _resampled_cosine(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    values = cosines(outputs, labels)
    return np.concatenate([values[rows].mean(axis=-1) for rows in drawn])


def _resampled_neighbours(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    """The texts whose neighbours are compared are drawn; where neighbours are looked for stays as it is."""
    try:
        values = _shared_neighbours(outputs, labels)
    except UndefinedMetricError:
        return np.concatenate([np.full(len(rows), np.nan) for rows in drawn])
    return np.concatenate([values[rows].mean(axis=-1) for rows in drawn])


def _fits(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return len(outputs) == 2 and outputs == labels


EMBEDDINGS = Embeddings()
COSINE = Metric(cosine, _resampled_cosine, _fits)
# All texts are equally near under an answer that is always the same.
NEIGHBOURS_KEPT = Metric(neighbours, _resampled_neighbours, _fits, of_constant=0.0)
