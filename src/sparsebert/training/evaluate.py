"""A model's logits on a data set."""

from __future__ import annotations

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from sparsebert.modes import evaluating
from sparsebert.training.collate import Collator, batches_by_length, inputs_of

EVAL_BATCH = 64


def predict_logits(model: nn.Module, encoded: Dataset, collate: Collator, batch_size: int = EVAL_BATCH) -> np.ndarray:
    """Logits [rows, labels] in fp32, in the order of the data set; the model's training mode is left as it was."""
    device = next(model.parameters()).device
    logits: dict[int, np.ndarray] = {}
    with evaluating(model), torch.inference_mode():
        for rows, batch in batches_by_length(encoded, collate, batch_size):
            inputs = {key: value.to(device) for key, value in inputs_of(batch).items()}
            for row, values in zip(rows, model(**inputs).logits.float().cpu().numpy(), strict=True):
                logits[row] = values
    return np.stack([logits[row] for row in range(len(encoded))])
