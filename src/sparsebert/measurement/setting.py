"""What models are timed on: random tokens of one shape, or texts of the user's with the lengths that they have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparsebert.counts import example_inputs
from sparsebert.data.batches import groups_by_length, inputs_of, rows_of
from sparsebert.data.tokens import Reader, TokenColumns
from sparsebert.errors import UserError
from sparsebert.models.limits import reading_length, segment_types
from sparsebert.models.load import load_tokenizer
from sparsebert.models.source import ModelSource
from sparsebert.runtimes.program import Arrays
from sparsebert.runtimes.whole import rows_a_text
from sparsebert.training.collate import padding_collator

# On which outputs are compared, at the least; of one alone, decisions agree on all or none.
SEQUENCES = 32


@dataclass(frozen=True)
class Setting:
    """The shape of the input, in examples and tokens."""

    batch: int
    length: int


@dataclass(frozen=True)
class Given:
    """What all models of a setting are given.

    batches: for each model, integer arrays [texts, tokens] by name; row by row the same for all. timed: how many of
    them, from the first, make a measurement. tokens: in those, as the first model reads them, without padding. texts:
    of the user's, none where tokens are random. length: tokens of an input; of texts the mean, rounded.
    """

    batches: Mapping[str, Sequence[Arrays]]
    timed: int
    batch: int
    length: int
    tokens: int
    texts: int | None = None

    @property
    def words(self) -> str:
        """The setting in words."""
        what = f"length {self.length}" if self.texts is None else f"{self.texts} texts"
        return f"batch {self.batch}, {what}"


@dataclass(frozen=True)
class RealTexts:
    """Texts, or pairs, and the tokenizer of each model, which reads as much of a text as the model was trained at."""

    first: Sequence[str]
    second: Sequence[str] | None
    tokenizers: Mapping[str, PreTrainedTokenizerBase]

    def given(self, models: Mapping[str, PreTrainedModel], batch: int) -> Given:
        """The texts, `batch` of like length at a time, from the shortest to the longest.

        Which of them meet is for all models as the first one reads them. Raises UserError for a batch of none, and for
        texts that a model cannot read.
        """
        if batch < 1:
            raise UserError("A batch needs at least one text", got=batch)
        columns = {name: self._read(name, model) for name, model in models.items()}
        lengths = [len(ids) for ids in next(iter(columns.values()))["input_ids"]]
        groups = groups_by_length(lengths, batch)
        batches = {
            name: [_padded(self.tokenizers[name], read, group) for group in groups] for name, read in columns.items()
        }
        tokens, count = sum(lengths), len(lengths)
        return Given(batches, len(groups), batch, round(tokens / count), tokens, count)

    def _read(self, name: str, model: PreTrainedModel) -> TokenColumns:
        tokenizer, config = self.tokenizers[name], model.config
        limits = reading_length(config, tokenizer), config.vocab_size, segment_types(config)
        return Reader(tokenizer, *limits, apart=rows_a_text(model) > 1).read(self.first, self.second)[0]


def _padded(tokenizer: PreTrainedTokenizerBase, columns: TokenColumns, group: Sequence[int]) -> Arrays:
    batch = padding_collator(tokenizer)(rows_of(columns, group))
    return {name: tensor.numpy() for name, tensor in inputs_of(batch).items()}


def real_texts(sources: Mapping[str, ModelSource], first: Sequence[str], second: Sequence[str] | None) -> RealTexts:
    """Texts or pairs, read by each model's own tokenizer."""
    return RealTexts(first, second, {name: load_tokenizer(source) for name, source in sources.items()})


def random_tokens(models: Mapping[str, PreTrainedModel], setting: Setting, seed: int) -> Given:
    """Tokens without padding, the same for every model; of as many batches as hold SEQUENCES the first is timed.

    Raises UserError for a shape that a model cannot take.
    """
    count = math.ceil(SEQUENCES / setting.batch) if setting.batch > 0 else 1
    inputs = example_inputs(list(models.values()), setting.batch * count, setting.length, seed)
    batches = [{name: tensor.chunk(count)[part].numpy() for name, tensor in inputs.items()} for part in range(count)]
    return Given(dict.fromkeys(models, batches), 1, setting.batch, setting.length, setting.batch * setting.length)
