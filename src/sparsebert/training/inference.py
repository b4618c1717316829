"""Texts in, logits out, in any runtime: texts of like length go together, and many are read a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.data.batches import TokenRow, cheapest_groups, groups_by_length, outputs_in_groups, rows_of
from sparsebert.data.tokens import OFFSETS, Reader, ReadTexts, TokenColumns
from sparsebert.runtimes.program import CALL_TOKENS
from sparsebert.runtimes.runtime import ModelInputs, Prepared, Runtime
from sparsebert.training.collate import Batch, PaddingCollator

SHORTEST_ROUNDED = 16
"""Tokens: what the shortest texts are padded to for a program of one shape."""


@dataclass
class Inference:
    """A model, how it reads texts, the name of the runtime, and how many texts go together."""

    model: PreTrainedModel
    reader: Reader
    collate: PaddingCollator
    runtime: str
    batch: int
    _flexible: Prepared | None = field(default=None, init=False)
    _programs: dict[tuple[int, ...], Prepared] = field(default_factory=dict, init=False)

    def logits(
        self, first: Sequence[str], second: Sequence[str] | None, done: Callable[[int], None]
    ) -> Iterator[ReadTexts]:
        """Yield logits [texts, outputs] of some texts at a time, in their order; of words [texts, tokens, outputs].

        `done` is told how many texts are ready after each batch. Raises UserError for texts without tokens, and for a
        runtime that cannot run here.
        """
        for columns, cut in self.reader.windows(first, second):
            yield ReadTexts(self._window(columns, min(self.batch, len(first)), done), cut, columns.get(OFFSETS))

    def _window(self, columns: TokenColumns, size: int, done: Callable[[int], None]) -> np.ndarray:
        lengths = self.reader.longest(columns)
        groups = groups_by_length(lengths, size)
        self.prepare(rows_of(columns, groups[len(groups) // 2]), size)
        if self._flexible is not None and self.model.device.type == "cpu":
            groups = cheapest_groups(lengths, size, CALL_TOKENS)
        return outputs_in_groups(columns, groups, lambda rows: self.run(rows, size).float().cpu().numpy(), done)

    @torch.inference_mode()
    def prepare(self, rows: Sequence[TokenRow], size: int | None = None) -> None:
        """Ask the runtime once, with a batch of middling length; where it takes that shape alone, for every shape.

        `size` is how many texts go together, none = `batch`. A runtime chooses kernels by the tokens of a batch, so it
        must not wait for more texts than there are. Raises UserError for a runtime that cannot run here.
        """
        if self._flexible is not None or self._programs:
            return
        example = self._rounded(self.collate(rows), size or self.batch)
        prepared = self._of(example)
        if prepared.any_shape:
            self._flexible = prepared
        else:
            self._programs[tuple(example["input_ids"].shape)] = prepared

    @torch.inference_mode()
    def run(self, rows: Sequence[TokenRow], size: int | None = None) -> torch.Tensor:
        """The model's first output [rows, ...] for one batch, where the model is, in the runtime's dtype.

        Of an output for every token the second dimension is that of the longest row, or longer.
        """
        batch = self.collate(rows)
        if self._flexible is not None:
            return self._flexible.run(self._here(batch))
        batch = self._rounded(batch, size or self.batch)
        shape = tuple(batch["input_ids"].shape)
        if shape not in self._programs:
            self._programs[shape] = self._of(batch)
        return self._programs[shape].run(self._here(batch))[: len(rows)]

    def _of(self, batch: Batch) -> Prepared:
        runtime: Runtime = registry.get("runtime", self.runtime)
        return runtime.prepare(self.model, self._here(batch))

    def _here(self, batch: Batch) -> ModelInputs:
        return {name: value.to(self.model.device) for name, value in batch.items()}

    def _rounded(self, batch: Batch, size: int) -> Batch:
        """Padded to `size` texts, by copies of the last one, and to one of few lengths: a program is of one shape."""
        rows, length = batch["input_ids"].shape
        texts = 2 if self.reader.apart else 1
        wanted = SHORTEST_ROUNDED
        while wanted < length:
            wanted *= 2
        more = min(wanted, self.reader.limit) - length
        fillers = {"input_ids": self.collate.token, "attention_mask": 0, "token_type_ids": self.collate.segment}
        # Of a pair that is read apart, both rows.
        whole = torch.arange(texts * size)
        whole = torch.where(whole < rows, whole, rows - texts + whole % texts)
        return {
            name: torch.nn.functional.pad(value, (0, max(more, 0)), value=fillers[name])[whole]
            for name, value in batch.items()
        }
