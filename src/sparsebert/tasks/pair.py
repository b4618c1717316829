"""Two texts that are read apart, each by the same encoder: a class of the pair, or how similar they are.

The networks for paraphrase and similarity of Oscanoa, "Improving BERT computational efficiency" (Stanford CS224N),
section 4.1. Both texts of a pair go through the encoder on their own, unlike in a cross-encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.errors import UserError
from sparsebert.tasks.classification import Classification
from sparsebert.tasks.kind import ConstantAnswer
from sparsebert.tasks.regression import Regression

if TYPE_CHECKING:
    import torch

LOWEST, HIGHEST = 0.0, 5.0
"""The scale of similarities, as in the semantic textual similarity tasks of SemEval."""


@dataclass(frozen=True)
class PairClassification(Classification):
    """A pair has one of several labels; the logit of the first is always 0, so that two need one output of a model.

    The cross-entropy of logits (0, z) is the binary cross-entropy of z.
    """

    head = "pair_classification"
    metrics = ("accuracy", "f1")
    apart = True
    texts = 2


@dataclass(frozen=True)
class PairSimilarity(Regression):
    """A pair has a similarity from 0 to 5."""

    head = "pair_similarity"
    apart = True
    texts = 2

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[float]:
        """The similarities. Raises UserError for one that is not of the scale."""
        found = super().labels(values, names, where)
        for row, value in enumerate(found, start=1):
            if not LOWEST <= value <= HIGHEST:
                allowed = f"{LOWEST:g} to {HIGHEST:g}"
                raise UserError(f"{where}, row {row}: not of the scale of similarities", got=value, allowed=allowed)
        return found

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Absolute error."""
        import torch.nn.functional as F

        return F.l1_loss(outputs.squeeze(-1), labels.to(outputs.dtype))

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Absolute error."""
        return float(np.mean(np.abs(outputs[:, 0] - labels)))

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """The median, which has the least absolute error."""
        return ConstantAnswer(np.array([np.median(labels)]), "always giving the median")


PAIR_CLASSIFICATION = PairClassification()
PAIR_SIMILARITY = PairSimilarity()
