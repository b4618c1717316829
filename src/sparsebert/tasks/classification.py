"""A text has one of several labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.tasks.class_names import class_ids, class_names, refuse_missing_words
from sparsebert.tasks.divergence import mean_divergence, softened_divergence
from sparsebert.tasks.kind import ConstantAnswer, Passage, TaskKind, TextColumn

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Classification(TaskKind):
    """Labels are words or whole numbers; outputs are logits of a softmax."""

    head = "classification"
    problem_type = "single_label_classification"
    metrics = ("accuracy", "matthews")
    named = True
    exclusive = True
    num_outputs = None

    def from_text(self, column: TextColumn) -> tuple[Sequence[str], tuple[str, ...]]:
        """The same. Raises UserError for words that stand for a missing value."""
        refuse_missing_words(column.values, column.where)
        return column.values, ()

    def label_names(self, values: Sequence[Any], where: str) -> tuple[str, ...]:
        """As `class_names` has them."""
        return class_names(values, where)

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[int]:
        """Class numbers."""
        return class_ids(values, names, where)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """The classes."""
        return labels

    def recognises(self, num_labels: int | None, problem_type: str | None) -> bool:
        """As transformers reads a configuration: one label without a problem type is a number to predict."""
        return problem_type == self.problem_type or (problem_type is None and num_labels != 1)

    def outputs(self, output: Any) -> torch.Tensor:
        """Logits [texts, classes]."""
        return output.logits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, in nats."""
        import torch.nn.functional as F

        return F.cross_entropy(outputs, labels)

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Cross-entropy, in nats."""
        from scipy.special import log_softmax

        return float(-np.mean(log_softmax(outputs, axis=-1)[np.arange(len(labels)), labels]))

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """KL(teacher || student), in nats."""
        return mean_divergence(teacher, student)

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """T^2 KL(teacher || student) of softened logits."""
        return softened_divergence(student, teacher, temperature)

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """The class that most texts have."""
        usual = int(np.bincount(labels).argmax())
        return ConstantAnswer(np.eye(len(names))[usual], f'always saying "{names[usual]}"')

    def answer(self, names: Sequence[str], outputs: np.ndarray, passage: Passage | None = None) -> dict[str, Any]:
        """The most probable class, its probability, and those of all."""
        chances = np.exp(outputs - outputs.max())
        chances /= chances.sum()
        best = int(chances.argmax())
        every = dict(zip(names, chances.tolist(), strict=True))
        return {"label": names[best], "probability": float(chances[best]), "probabilities": every}


CLASSIFICATION = Classification()
