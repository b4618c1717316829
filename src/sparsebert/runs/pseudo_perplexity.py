"""How unlikely the models of a run find validation texts, each token hidden alone, where `loss` hides several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsebert.data.tokens import Reader
from sparsebert.measurement.text_loss import loss_sums
from sparsebert.models.limits import token_limits
from sparsebert.progress import bar_if_slow
from sparsebert.records import Score
from sparsebert.runs.context import RunContext
from sparsebert.runs.run_type import Entry
from sparsebert.runs.scoring import nats_score
from sparsebert.tasks.masked_lm import COUNT, LOSS
from sparsebert.training.collate import padding_collator
from sparsebert.training.inference import Inference

NAME = "pseudo_perplexity"
MOST_TOKENS = 2000
"""About so many are hidden, each in a forward pass of its own."""
BATCH = 32
_LETTERS_A_TOKEN = 4


def pseudo_perplexities(context: RunContext, entries: Sequence[Entry]) -> dict[str, tuple[Score, ...]]:
    """By the name of a model its score on the deciding split, beside the first one's; nothing for other kinds.

    Salazar et al. 2020, arXiv:1910.14659, section 2.3, with each model's own tokens.
    """
    if not context.kind.hides_tokens or "text_a" not in context.task.validation.column_names:
        return {}
    found: dict[str, tuple[Score, ...]] = {}
    first: np.ndarray | None = None
    for entry in entries:
        sums = _sums(entry.context or context, entry)
        found[entry.name] = (nats_score(NAME, context.task.validation_name, sums, first, perplexity=True),)
        first = sums if first is None else first
    return found


def _sums(context: RunContext, entry: Entry) -> np.ndarray:
    """Nats and tokens of some texts [texts, 2], which are the same for every model."""
    limits = token_limits(entry.model.config)
    reader = Reader.of_kind(context.kind, context.tokenizer, context.recipe.max_length, *limits)
    inference = Inference(entry.model, reader, padding_collator(context.tokenizer), "eager", BATCH)
    texts = _some(context)
    with bar_if_slow(f"Hiding each token alone from {entry.name}", len(texts)) as done:
        return loss_sums(inference, texts, done)[:, [LOSS, COUNT]]


def _some(context: RunContext) -> list[str]:
    """Texts from all over the split, by their numbers of letters, so that another tokenizer gets the same."""
    texts = list(context.task.validation["text_a"])
    letters = MOST_TOKENS * _LETTERS_A_TOKEN
    count = max(1, min(len(texts), round(letters * len(texts) / sum(map(len, texts)))))
    return [texts[place] for place in np.linspace(0, len(texts) - 1, count).round().astype(int)]
