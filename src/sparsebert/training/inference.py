"""Texts in, logits out, in any runtime: texts of like length go together, and many are read a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.data.tokens import Reader, TokenColumns
from sparsebert.runtimes.runtime import ModelInputs, Prepared, Runtime
from sparsebert.training.collate import Batch, PaddingCollator

TokenRow = dict[str, list[int]]
WINDOW_TEXTS = 4096
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
    ) -> Iterator[tuple[np.ndarray, int]]:
        """Yield fp32 logits [texts, outputs] and how many texts were cut, for some texts at a time, in their order.

        `done` is told how many texts are ready after each batch. Raises UserError for texts without tokens, and for a
        runtime that cannot run here.
        """
        for start in range(0, len(first), WINDOW_TEXTS):
            part = slice(start, start + WINDOW_TEXTS)
            columns, cut = self.reader.read(first[part], None if second is None else second[part], start)
            yield self._window(columns, done), cut

    def _window(self, columns: TokenColumns, done: Callable[[int], None]) -> np.ndarray:
        lengths = [len(ids) for ids in columns["input_ids"]]
        order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
        groups = [order[start : start + self.batch] for start in range(0, len(order), self.batch)]
        found: dict[int, np.ndarray] = {}
        self.prepare(_rows(columns, groups[len(groups) // 2]))
        for group in groups:
            outputs = self.run(_rows(columns, group)).float().cpu().numpy()
            for row, values in zip(group, outputs, strict=True):
                found[row] = values
            done(len(group))
        return np.stack([found[row] for row in range(len(lengths))])

    @torch.inference_mode()
    def prepare(self, rows: Sequence[TokenRow]) -> None:
        """Ask the runtime once, with a batch of middling length; where it takes that shape alone, for every shape.

        Raises UserError for a runtime that cannot run here.
        """
        if self._flexible is not None or self._programs:
            return
        example = self._rounded(self.collate(rows))
        prepared = self._of(example)
        if prepared.any_shape:
            self._flexible = prepared
        else:
            self._programs[tuple(example["input_ids"].shape)] = prepared

    @torch.inference_mode()
    def run(self, rows: Sequence[TokenRow]) -> torch.Tensor:
        """The model's first output [rows, ...] for one batch, where the model is, in the runtime's dtype.

        Of an output for every token the second dimension is that of the longest row, or longer.
        """
        batch = self.collate(rows)
        if self._flexible is not None:
            return self._flexible.run(self._here(batch))
        batch = self._rounded(batch)
        shape = tuple(batch["input_ids"].shape)
        if shape not in self._programs:
            self._programs[shape] = self._of(batch)
        return self._programs[shape].run(self._here(batch))[: len(rows)]

    def _of(self, batch: Batch) -> Prepared:
        runtime: Runtime = registry.get("runtime", self.runtime)
        return runtime.prepare(self.model, self._here(batch))

    def _here(self, batch: Batch) -> ModelInputs:
        return {name: value.to(self.model.device) for name, value in batch.items()}

    def _rounded(self, batch: Batch) -> Batch:
        """Padded to a full batch, by copies of its last text, and to one of few lengths: a program is of one shape."""
        rows, length = batch["input_ids"].shape
        texts = 2 if self.reader.apart else 1
        wanted = SHORTEST_ROUNDED
        while wanted < length:
            wanted *= 2
        more = min(wanted, self.reader.limit) - length
        fillers = {"input_ids": self.collate.token, "attention_mask": 0, "token_type_ids": self.collate.segment}
        # Of a pair that is read apart, both rows.
        whole = torch.arange(texts * self.batch)
        whole = torch.where(whole < rows, whole, rows - texts + whole % texts)
        return {
            name: torch.nn.functional.pad(value, (0, max(more, 0)), value=fillers[name])[whole]
            for name, value in batch.items()
        }


def _rows(columns: TokenColumns, chosen: Sequence[int]) -> list[TokenRow]:
    return [{name: values[row] for name, values in columns.items()} for row in chosen]
