"""A model's logits on a data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from sparsebert.data.batches import inputs_of, stacked
from sparsebert.data.tokens import WORDS
from sparsebert.models.heads import kind_of
from sparsebert.modes import evaluating
from sparsebert.tasks.kind import TaskKind
from sparsebert.training.collate import Collator, batches_by_length

EVAL_BATCH = 64


def predict_logits(
    model: PreTrainedModel,
    encoded: Dataset,
    collate: Collator,
    batch_size: int = EVAL_BATCH,
    kind: TaskKind | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Outputs [rows, outputs] in fp32, in the order of the data set; the model's training mode is left as it was.

    Those of words are [rows, words, outputs] (see `TaskKind.by_word`).
    `kind` says which these are, none = the one that the model's configuration tells. `done` is told of each batch how
    many rows it had.
    """
    kind = kind or kind_of(model)
    device = next(model.parameters()).device
    logits: dict[int, np.ndarray] = {}
    with evaluating(model), torch.inference_mode():
        for rows, batch in batches_by_length(encoded, collate, batch_size):
            inputs = {key: value.to(device) for key, value in inputs_of(batch).items()}
            for row, values in zip(rows, kind.read(model, inputs, batch).float().cpu().numpy(), strict=True):
                logits[row] = values
            done(len(rows))
    words = WORDS in encoded.column_names
    return stacked(logits, list(encoded[WORDS]) if words else [range(length) for length in encoded["length"]])
