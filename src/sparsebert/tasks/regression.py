"""A text has a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.tasks.decimals import with_points
from sparsebert.tasks.kind import ConstantAnswer, Passage, TaskKind, TextColumn
from sparsebert.tasks.numbers import finite_numbers

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Regression(TaskKind):
    """Labels are finite numbers; the model's one output is the number."""

    head = "classification"
    problem_type = "regression"
    metrics = ("pearson", "spearman")
    named = False
    exclusive = False
    num_outputs = 1

    def from_text(self, column: TextColumn) -> tuple[Sequence[str], tuple[str, ...]]:
        """The same, with points for decimal commas where these are not the delimiter."""
        if column.delimiter == ",":
            return column.values, ()
        numbers = with_points(column.values, column.where)
        note = f"commas in column '{column.name}' are read as decimal points"
        return numbers, (note,) if numbers != list(column.values) else ()

    def label_names(self, values: Sequence[Any], where: str) -> tuple[str, ...]:
        """None."""
        return ()

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[float]:
        """The numbers."""
        return finite_numbers(values, where)

    def recognises(self, num_labels: int | None, problem_type: str | None) -> bool:
        """As transformers reads a configuration."""
        return problem_type == self.problem_type or (problem_type is None and num_labels == 1)

    def outputs(self, output: Any) -> torch.Tensor:
        """The numbers [texts, 1]."""
        return output.logits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Squared error."""
        import torch.nn.functional as F

        return F.mse_loss(outputs.squeeze(-1), labels.to(outputs.dtype))

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Squared error."""
        return float(np.mean((outputs[:, 0] - labels) ** 2))

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """Squared error."""
        return float(np.mean((teacher - student) ** 2))

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Squared error; there are no probabilities for the temperature to soften."""
        import torch.nn.functional as F

        return F.mse_loss(student, teacher)

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """The mean."""
        return ConstantAnswer(np.array([np.mean(labels)]), "always giving the mean")

    def answer(self, names: Sequence[str], outputs: np.ndarray, passage: Passage | None = None) -> dict[str, Any]:
        """The number, or the numbers by name where a model gives several."""
        if len(outputs) == 1:
            return {"value": float(outputs[0])}
        return {"values": dict(zip(names, outputs.tolist(), strict=True))}


REGRESSION = Regression()
