"""The first cut of `compress`, where it is asked for: entries of the tokenizer, and rows of the embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparsebert.data.hold_out import row_texts
from sparsebert.data.load import Task
from sparsebert.data.smaller_vocabulary import (
    choose_entries,
    count_changed,
    count_entries,
    cut_tokenizer,
    entries_of,
    kept_ids,
)
from sparsebert.data.text import decoded
from sparsebert.errors import UserError
from sparsebert.models.load import load_config, load_tokenizer, save_model
from sparsebert.models.smaller_vocabulary import cut_vocabulary
from sparsebert.progress import line
from sparsebert.recipe.compress import CompressRecipe, FewerEntries
from sparsebert.records import VocabularyLeft
from sparsebert.runs.context import RunContext, reads_by
from sparsebert.runs.dense import EXACT, Dense
from sparsebert.runs.run_type import Entry
from sparsebert.runs.sparse_model import packing_of, save_made
from sparsebert.runs.stages import Stage, once
from sparsebert.runs.thresholds import choose_own

NAME = "vocabulary"
MANY = 0.1
"""Part of the validation texts that are read in other pieces, above which a run says so."""


class CutEntries(BaseModel):
    """What is left, as it is kept on disk."""

    model_config = ConfigDict(frozen=True)

    left: VocabularyLeft


@dataclass(frozen=True)
class SmallerVocabulary:
    """The run as models with fewer entries see it, the dense model with fewer, its entry, and the bytes that went."""

    context: RunContext[CompressRecipe]
    dense: Dense
    entry: Entry
    left: VocabularyLeft
    bytes_gone: int

    @property
    def notes(self) -> tuple[str, ...]:
        """A warning where many new texts will be read otherwise than before."""
        if self.left.texts_changed <= MANY * self.left.texts:
            return ()
        return (
            f"With fewer entries {self.left.texts_changed / self.left.texts:.0%} of the validation texts are read in "
            "other pieces. More of your texts (--vocabulary-text) or entries (--vocabulary N) make it fewer",
        )


def ids_that_stay(whole: Task, tokenizer: PreTrainedTokenizerBase, wanted: FewerEntries) -> list[int]:
    """Ids of a run's tokenizer, by the texts of its task before these are divided.

    Raises UserError for files that cannot be read, and as `choose_entries` does.
    """
    if wanted.entries is not None:
        listed = [entry for entry in _lines(wanted.entries) if entry]
        unknown = sorted(set(listed) - entries_of(tokenizer))
        if unknown:
            raise UserError(f"The tokenizer lacks {len(unknown)} entries of {wanted.entries}", got=repr(unknown[0]))
        return kept_ids(tokenizer, choose_entries(tokenizer, dict.fromkeys(listed, 1)))
    texts = [*_texts(whole.train), *(text for file in wanted.texts for text in _lines(file))]
    return kept_ids(tokenizer, choose_entries(tokenizer, count_entries(tokenizer, texts), wanted.most))


def smaller_vocabulary(context: RunContext[CompressRecipe], dense: Dense, wanted: FewerEntries) -> SmallerVocabulary:
    """The dense model without the entries that nothing needs, kept in `vocabulary/`, as the next ones start from it."""
    folder = context.folder / NAME
    packing = packing_of(context.recipe)
    exact = context.work / f"{NAME}-{EXACT}" if packing.rounds else folder
    context.steps.begin("The vocabulary")

    def work() -> CutEntries:
        ids = ids_that_stay(context.whole, context.tokenizer, wanted)
        tokenizer = cut_tokenizer(context.tokenizer, ids)
        small = cut_vocabulary(dense.model, ids)
        if context.threshold_rows is not None:
            choose_own(reads_by(context, tokenizer, small.config), small)
        save_model(small, tokenizer, exact)
        if packing.rounds:
            save_made(small, tokenizer, folder, packing)
        # A text, such as one that several questions are about, is one text.
        texts = list(dict.fromkeys(_texts(context.whole.validation)))
        changed = count_changed(context.tokenizer, tokenizer, ids, texts)
        left = VocabularyLeft(
            entries=len(ids), before=dense.model.config.vocab_size, texts_changed=changed, texts=len(texts)
        )
        return CutEntries(left=left)

    made = once(
        Stage(context.work / f"{NAME}.json", (*dict.fromkeys((folder, exact)),)), CutEntries, work, after=dense.digest
    )
    left = made.result.left
    line(f"{NAME}: {left.entries:,} of {left.before:,} entries stay")
    line(f"Read in other pieces: {left.texts_changed:,} of {left.texts:,} validation texts")
    reading = reads_by(context, load_tokenizer(folder), load_config(folder))
    model, trained = context.load(folder), context.load(exact)
    smaller = Dense(trained, dense.trained, dense.shape, made.digest)
    predictions = reading.predict(model)
    reading.say(NAME, predictions)
    entry = Entry(NAME, folder, model, predictions, {"shape": dense.shape, "vocabulary": left}, reading)
    return SmallerVocabulary(reading, smaller, entry, left, _bytes(dense.model) - _bytes(trained))


def _texts(rows: Dataset) -> list[str]:
    """The texts of rows; both sides of pairs."""
    return [text for one in row_texts(rows) for text in one]


def _lines(file: str) -> list[str]:
    if not Path(file).is_file():
        raise UserError("A vocabulary is chosen by texts, a number or a file, and there is no such file", got=file)
    return [text.removesuffix("\r") for text in decoded(Path(file).read_bytes(), file).split("\n")]


def _bytes(model: PreTrainedModel) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())
