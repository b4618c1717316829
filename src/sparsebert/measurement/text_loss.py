"""How unlikely a masked language model finds a text, by its pseudo-log-likelihood.

Salazar et al. 2020, "Masked Language Model Scoring", arXiv:1910.14659, equation 1; here negative, a mean over tokens.
Each token is masked once, so a text of n tokens takes n forward passes, and all go in batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from sparsebert.data.batches import TokenRow
from sparsebert.data.tokens import TokenColumns
from sparsebert.errors import UserError
from sparsebert.training.inference import Inference

# Each text is as many rows as it has tokens, so far fewer than with one row a text fill the same memory.
WINDOW_TEXTS = 256
Place = tuple[int, int]
"""The number of a text, and the position of one of its tokens."""


@dataclass(frozen=True)
class TextLoss:
    """How many tokens of a text were masked, each once, and their mean negative log-probability in nats.

    `loss` is none for a text of special tokens only. `right` of the tokens are those that the model names first.
    """

    tokens: int
    loss: float | None
    right: int = 0

    @property
    def pseudo_perplexity(self) -> float | None:
        """The exponential of the loss."""
        return None if self.loss is None else float(np.exp(self.loss))


def text_losses(
    inference: Inference, texts: Sequence[str], done: Callable[[int], None]
) -> Iterator[tuple[list[TextLoss], int]]:
    """Yield losses, and how many texts were cut, for some texts at a time, in their order.

    The model gives logits [batch, length, vocabulary]. `done` is told how many texts are ready after each batch. An
    unknown word is a token of the text as any other. Raises UserError for a tokenizer without a mask token, for texts
    without tokens, and for a runtime that cannot run here.
    """
    tokenizer = inference.reader.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    mask, special = _mask_token(tokenizer, inference.reader.vocab_size), _special_tokens(tokenizer)
    for columns, cut in inference.reader.windows(texts, size=WINDOW_TEXTS):
        yield _losses(inference, columns, mask, special, done), len(cut)


def loss_sums(inference: Inference, texts: Sequence[str], done: Callable[[int], None]) -> np.ndarray:
    """Of each text the sum of its tokens' losses, how many of them the model names first, and how many there are.

    The columns are those of the outputs of MaskedLM [texts, 3]. Raises UserError as `text_losses` does.
    """
    found = [one for part, _ in text_losses(inference, texts, done) for one in part]
    return np.array([[one.tokens * (one.loss or 0.0), one.right, one.tokens] for one in found], dtype=np.float64)


def _losses(
    inference: Inference, columns: TokenColumns, mask: int, special: frozenset[int], done: Callable[[int], None]
) -> list[TextLoss]:
    ids = columns["input_ids"]
    order = sorted(range(len(ids)), key=lambda text: (len(ids[text]), text))
    places = [(text, at) for text in order for at, token in enumerate(ids[text]) if token not in special]
    groups = [places[start : start + inference.batch] for start in range(0, len(places), inference.batch)]
    if groups:
        inference.prepare(_masked(columns, groups[len(groups) // 2], mask))
    found: list[list[float]] = [[] for _ in ids]
    right = [0] * len(ids)
    tokens = Counter(text for text, _ in places)
    done(len(ids) - len(tokens))
    for group in groups:
        logits = inference.run(_masked(columns, group, mask))
        for (text, _), loss, first in zip(group, *_judged(logits, ids, group), strict=True):
            found[text].append(loss)
            right[text] += first
        done(sum(len(found[text]) == tokens[text] for text in {text for text, _ in group}))
    return [
        TextLoss(len(each), float(np.mean(each)) if each else None, first)
        for each, first in zip(found, right, strict=True)
    ]


def _masked(columns: TokenColumns, group: Sequence[Place], mask: int) -> list[TokenRow]:
    """For each place the whole text, with the mask there and nowhere else."""
    rows = [{name: values[text] for name, values in columns.items()} for text, _ in group]
    for row, (_, at) in zip(rows, group, strict=True):
        row["input_ids"] = [*row["input_ids"][:at], mask, *row["input_ids"][at + 1 :]]
    return rows


def _judged(logits: torch.Tensor, ids: list[list[int]], group: Sequence[Place]) -> tuple[list[float], list[bool]]:
    """Of the token that stands at each place, its negative log-probability in nats, and whether it is the likeliest.

    `logits` are [places, length, vocabulary].
    """
    at = torch.tensor([at for _, at in group], device=logits.device)
    wanted = torch.tensor([ids[text][at] for text, at in group], device=logits.device)
    # Chosen before they become float32: one position of each row is needed, and a vocabulary is large.
    chosen = logits[torch.arange(len(group), device=logits.device), at].float()
    losses = F.cross_entropy(chosen, wanted, reduction="none")
    return losses.tolist(), (chosen.argmax(dim=-1) == wanted).tolist()


def _mask_token(tokenizer: PreTrainedTokenizerBase, size: int | None) -> int:
    found = tokenizer.mask_token_id
    if not isinstance(found, int) or (size is not None and found >= size):
        raise UserError(
            "The loss of a text needs a mask token that tokenizer and model know",
            got="none" if found is None else f"id {found}, where vocab_size is {size}",
            fix="use the model's own tokenizer, or set tokenizer.mask_token and save it",
        )
    return found


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """What marks a place, not what a text says; tokenizers count the token of unknown words among them."""
    marks = {token for name, token in tokenizer.special_tokens_map.items() if name != "unk_token"}
    tokens = [token for token in tokenizer.all_special_tokens if token in marks or token != tokenizer.unk_token]
    # Annotated for one token and for many.
    numbers: Any = tokenizer.convert_tokens_to_ids(tokens)
    return frozenset(numbers)
