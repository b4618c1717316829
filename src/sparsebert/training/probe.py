"""The loss on fixed examples, by which some criteria rank units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn
from transformers.trainer_utils import has_length

from sparsebert.errors import UserError
from sparsebert.modes import evaluating

PROBE_EXAMPLES = 256


def length_of(data: Any) -> int | None:
    """The length of a data set or a data loader; None for one that streams."""
    return len(data) if has_length(data) else None


def first_examples(dataset: Any) -> list[Any]:
    """The first rows of a data set; the first that come, of one without a length."""
    count = length_of(dataset)
    if count is None:
        return list(islice(dataset, PROBE_EXAMPLES))
    return [dataset[row] for row in range(min(PROBE_EXAMPLES, count))]


def mean_loss(
    model: nn.Module, rows: Sequence[Any], batch_size: int, collate: Callable[[Sequence[Any]], Mapping[str, Any]]
) -> float:
    """Mean loss over rows, in evaluation mode; `collate` gives what the model takes, on its device.

    Raises UserError for rows of which the model makes no loss.
    """
    total = 0.0
    with evaluating(model), torch.no_grad():
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            loss = model(**collate(part)).loss
            if loss is None:
                raise UserError("The model gives no loss for the training examples", fix="give them labels")
            total += len(part) * float(loss)
    return total / len(rows)
