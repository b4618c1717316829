"""What is said of vectors by a classifier that SetFit trained goes along with the models that a run makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparsebert.models.heads import head_of
from sparsebert.models.load import load_config
from sparsebert.models.setfit import carry_head, head_file
from sparsebert.models.source import resolve
from sparsebert.runs.context import RunContext
from sparsebert.runs.run_type import Entry


def carry_heads(context: RunContext[Any], entries: Sequence[Entry]) -> tuple[str, ...]:
    """Put the head of the recipe's model beside each entry that gives vectors of the same length; notes about that."""
    embedding = [entry for entry in entries if head_of(entry.model) == "embeddings"]
    source = resolve(context.recipe.model) if embedding else None
    head = None if source is None else head_file(source.path)
    if source is None or head is None:
        return ()
    width = load_config(source).hidden_size
    for entry in embedding:
        if entry.model.config.hidden_size == width:
            carry_head(source.path, entry.folder)
    return (
        f"{head.name}, the classifier of a SetFit model, lies beside every model as it was. It is a pickle, and was "
        "not opened: `sparsebert check --trust-head` tells how many texts get another class",
    )
