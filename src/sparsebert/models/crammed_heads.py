"""Crammed BERT with a head for a task: for texts, and for their tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import QuestionAnsweringModelOutput, SequenceClassifierOutput, TokenClassifierOutput
from transformers.utils.generic import can_return_tuple

from sparsebert.models.crammed import CrammedBertModel, CrammedBertPreTrainedModel
from sparsebert.models.crammed_config import CrammedBertConfig
from sparsebert.tasks.kind import IGNORED


class _WithClassifier(CrammedBertPreTrainedModel):
    """The encoder, maybe a layer of `pooled` outputs for the first token, dropout, and one output a label."""

    pooled = False

    def __init__(self, config: CrammedBertConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.crammed_bert = CrammedBertModel(config)
        width = config.classifier_size if self.pooled else config.hidden_size
        if self.pooled:
            self.dense = nn.Linear(config.hidden_size, width)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(width, config.num_labels or 2)
        self.post_init()


class CrammedBertForSequenceClassification(_WithClassifier):
    """The encoder and the code's head for GLUE: of the first token a layer with tanh, dropout, and a linear layer."""

    pooled = True

    def __init__(self, config: CrammedBertConfig) -> None:
        super().__init__(config)
        # Also of subclasses, whose names say nothing that transformers knows.
        self.loss_type = "ForSequenceClassification"

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [batch, labels], and with labels the loss of the configuration's problem_type, as transformers has it.

        Without a problem_type one label is a number; several are classes for whole-numbered labels, else separate ones.
        """
        found = self.crammed_bert(input_ids, attention_mask, **kwargs)
        logits = self.classifier(self.dropout(torch.tanh(self.dense(found.last_hidden_state[:, 0]))))
        loss = None if labels is None else self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=found.hidden_states, attentions=found.attentions
        )


class CrammedBertForTokenClassification(_WithClassifier):
    """The encoder, dropout, and a linear layer for every token."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Logits [batch, length, labels], and the mean cross-entropy of tokens with another label than -100."""
        found = self.crammed_bert(input_ids, attention_mask, **kwargs)
        logits = self.classifier(self.dropout(found.last_hidden_state))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=found.hidden_states, attentions=found.attentions
        )


class CrammedBertForQuestionAnswering(_WithClassifier):
    """The encoder, dropout, and for every token whether an answer starts there, and whether it ends there."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Logits [batch, length] of start and end, and the mean of their cross-entropies."""
        found = self.crammed_bert(input_ids, attention_mask, **kwargs)
        start, end = self.classifier(self.dropout(found.last_hidden_state)).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (F.cross_entropy(start, start_positions) + F.cross_entropy(end, end_positions)) / 2
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start,
            end_logits=end,
            hidden_states=found.hidden_states,
            attentions=found.attentions,
        )
