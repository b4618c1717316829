"""Every text has tokens that are hidden, and the model says which they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F

from sparsebert.errors import UserError
from sparsebert.tasks.divergence import softened_divergence
from sparsebert.tasks.kind import IGNORED, ConstantAnswer, Passage, TaskKind, TextColumn
from sparsebert.tasks.metric import Metric

TOKENS_AT_ONCE = 4096
LOSS, RIGHT, COUNT = 0, 1, 2
"""Columns of the outputs."""


@dataclass(frozen=True)
class MaskedLM(TaskKind):
    """Labels are the tokens of a text, IGNORED where nothing is predicted [texts, length].

    Outputs [texts, 3] are sums over a text's hidden tokens: of their negative log-likelihood in nats, of those whose
    likeliest token is the right one, and of 1. Logits of all tokens would fill the memory.
    """

    head = "masked_lm"
    problem_type = None
    metrics = ("masked_accuracy",)
    named = False
    exclusive = False
    num_outputs = None
    labelled = False
    hides_tokens = True
    texts = 1
    kept = False

    def from_text(self, column: TextColumn) -> NoReturn:
        """There are no labels to read. Raises UserError."""
        raise _no_labels(column.where)

    def label_names(self, values: Sequence[Any], where: str) -> NoReturn:
        """There are no labels to read. Raises UserError."""
        raise _no_labels(where)

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> NoReturn:
        """There are no labels to read. Raises UserError."""
        raise _no_labels(where)

    def recognises(self, num_labels: int | None, problem_type: str | None) -> bool:
        """Never as fine-tuned for texts with labels: the class of the model alone tells."""
        return False

    def read(self, model: Any, inputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Outputs [texts, 3] of a batch, by its labels; some rows at a time, as logits take much memory."""
        labels = batch["labels"].to(inputs["input_ids"].device)
        rows = max(1, TOKENS_AT_ONCE // labels.shape[1])
        parts = [slice(start, start + rows) for start in range(0, len(labels), rows)]
        return torch.cat(
            [self._read(model, {name: value[part] for name, value in inputs.items()}, labels[part]) for part in parts]
        )

    def _read(self, model: Any, inputs: Mapping[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        hidden = labels != IGNORED
        logits = self.outputs(model(**inputs))[hidden].float()
        loss = F.cross_entropy(logits, labels[hidden], reduction="none")
        each = torch.stack([loss, (logits.argmax(dim=-1) == labels[hidden]).float(), torch.ones_like(loss)], dim=1)
        return loss.new_zeros(len(labels), 3).index_add_(0, hidden.nonzero()[:, 0], each)

    def outputs(self, output: Any) -> torch.Tensor:
        """Logits [texts, length, vocabulary]."""
        return output.logits

    def counted(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits of the hidden tokens [hidden tokens, vocabulary]."""
        return outputs[labels != IGNORED]

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of logits [texts, length, vocabulary], a mean over hidden tokens."""
        return F.cross_entropy(outputs.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """In nats a hidden token."""
        return float(outputs[:, LOSS].sum() / outputs[:, COUNT].sum())

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """How much more the student's loss is than the teacher's, in nats a hidden token."""
        return float((student - teacher)[:, LOSS].sum() / teacher[:, COUNT].sum())

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """T^2 KL(teacher || student) of softened logits [hidden tokens, vocabulary]."""
        return softened_divergence(student, teacher, temperature)

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """How often each token is hidden, whatever stands beside it: its entropy is the loss of that answer."""
        counts = np.bincount(labels[labels != IGNORED])
        shares = counts[counts > 0] / counts.sum()
        entropy = float(-(shares * np.log(shares)).sum())
        return ConstantAnswer(np.array([entropy, shares.max(), 1.0]), "always naming the most frequent token")

    def baseline(self, train: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """Tokens named by how often they are hidden in `train`, each once more than it is, as it scores on `labels`.

        Both are [texts, length].
        """
        known, asked = (each[each != IGNORED] for each in (train, labels))
        counts = np.bincount(known, minlength=int(asked.max()) + 1) + 1
        loss = float(-np.log(counts[asked] / counts.sum()).mean())
        right = float(np.mean(asked == counts.argmax()))
        return ConstantAnswer(np.array([loss, right, 1.0]), "always naming the most frequent token")

    def answer(self, names: Sequence[str], outputs: np.ndarray, passage: Passage | None = None) -> dict[str, Any]:
        """The loss a hidden token."""
        return {"loss": float(outputs[LOSS] / outputs[COUNT])}


def _no_labels(where: str) -> UserError:
    return UserError(
        "A masked language model learns from text without labels", got=where, fix="leave the label column out"
    )


def masked_accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Part of the hidden tokens whose likeliest token is the right one, 0-1. `outputs` [texts, 3] as of MaskedLM."""
    return float(outputs[:, RIGHT].sum() / outputs[:, COUNT].sum())


def _resampled(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([outputs[rows, RIGHT].sum(axis=-1) / outputs[rows, COUNT].sum(axis=-1) for rows in drawn])


def _fits(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return len(outputs) == 2 and outputs[1] == 3 and labels[:1] == outputs[:1]


MASKED_LM = MaskedLM()
MASKED_ACCURACY = Metric(masked_accuracy, _resampled, _fits)
