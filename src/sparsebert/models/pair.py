"""Heads for two texts that one encoder reads apart: a class of the pair, or a similarity from 0 to 5.

Oscanoa, "Improving BERT computational efficiency" (Stanford CS224N), section 4.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig

from sparsebert.tasks.pair import HIGHEST, LOWEST

DROPOUT = 0.3
"""Rate of the dropout in front of a head's linear layers, where a configuration has no `head_dropout`."""


def head_dropout(config: PretrainedConfig) -> float:
    """The rate that a configuration says."""
    return float(vars(config).get("head_dropout", DROPOUT))


class PairClassificationHead(nn.Module):
    """Both embeddings side by side, dropout, a linear layer with a row for every class but the first.

    The first class has the logit 0, so that two classes are told apart by one output and binary cross-entropy.
    """

    def __init__(self, config: PretrainedConfig, classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(head_dropout(config))
        self.linear = nn.Linear(2 * config.hidden_size, classes - 1)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits [pairs, classes] of embeddings [2 pairs, hidden], the sides of a pair one below the other."""
        logits = self.linear(self.dropout(embeddings.reshape(len(embeddings) // 2, -1)))
        return F.pad(logits, (1, 0))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, which for logits (0, z) is the binary one of z."""
        return F.cross_entropy(logits, labels)

    @torch.no_grad()
    def reorder(self, order: list[int]) -> None:
        """Put the classes into another order: `order[i]` is the place that the new class i had."""
        for parameter in self.linear.parameters():
            rows = F.pad(parameter.movedim(0, -1), (1, 0)).movedim(-1, 0)[order]
            parameter.copy_((rows - rows[:1])[1:])


class PairSimilarityHead(nn.Module):
    """Dropout and a linear layer for each side (the paper has both in the plural), and the cosine of what they give."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(head_dropout(config))
        self.first, self.second = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(2))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Similarities [pairs, 1], cosines of -1 to 1 spread over 0 to 5, of embeddings [2 pairs, hidden]."""
        one, other = embeddings.reshape(len(embeddings) // 2, 2, -1).unbind(dim=1)
        cosine = F.cosine_similarity(self.first(self.dropout(one)), self.second(self.dropout(other)), dim=-1)
        return (LOWEST + (HIGHEST - LOWEST) * (cosine + 1) / 2)[:, None]

    def loss(self, similarities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Absolute error."""
        return F.l1_loss(similarities.squeeze(-1), labels.to(similarities.dtype))
