"""Texts in, outputs out, by a program of an exported folder, without torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from sparsebert.data.batches import (
    TokenRow,
    cheapest_groups,
    outputs_in_groups,
    padded,
    rounded_length,
    rounded_rows,
)
from sparsebert.data.file_tokenizer import FILE, FileTokenizer
from sparsebert.data.tokens import OFFSETS, SHORTEST, Reader, ReadTexts, TokenColumns
from sparsebert.deployment.manifest import Manifest, ProgramFile, check_files
from sparsebert.errors import UserError
from sparsebert.runtimes.program import Program, RuntimeUnavailableError, cannot_run, open_program
from sparsebert.tasks.kind import task_kind


@dataclass(frozen=True)
class Exported:
    """A program of an exported folder, opened, and how its texts are read; `batch` texts go together."""

    manifest: Manifest
    program: Program
    reader: Reader
    batch: int

    def logits(
        self, first: Sequence[str], second: Sequence[str] | None, done: Callable[[int], None]
    ) -> Iterator[ReadTexts]:
        """Yield outputs [texts, outputs] of some texts at a time, in their order; of words [texts, tokens, outputs].

        `done` is told how many texts are ready after each batch. Raises UserError for texts without tokens.
        """
        for columns, cut in self.reader.windows(first, second):
            outputs = outputs_in_groups(columns, self.groups(columns), self.run, done)
            yield ReadTexts(outputs, cut, columns.get(OFFSETS))

    def warm_up(self, seconds: float) -> int:
        """Ask a program that takes long over each new shape in those of its batches, the smallest first.

        Ends with the last shape, or once `seconds` have passed; gives how many shapes were asked.
        """
        asked, end = 0, time.perf_counter() + seconds
        for rows, length in self._shapes() if self.program.few_shapes else ():
            if time.perf_counter() > end:
                break
            ones, zeros = np.ones((rows, length), np.int64), np.zeros((rows, length), np.int64)
            self.program.run({name: zeros if name == "token_type_ids" else ones for name in self.program.inputs})
            asked += 1
        return asked

    def _shapes(self) -> list[tuple[int, int]]:
        """Rows and tokens of every batch that may come."""
        texts = 2 if self.reader.apart else 1
        rows = {texts * rounded_rows(count) for count in range(1, self.batch + 1)}
        lengths = {self._rounded(length) for length in range(1, self.reader.limit + 1)}
        return sorted(product(rows, lengths), key=lambda shape: (shape[0] * shape[1], shape))

    def groups(self, columns: TokenColumns, call: int | None = None) -> list[list[int]]:
        """Which rows go through together, if a call takes as long as `call` tokens; none = as the program has it."""
        lengths, call = self.reader.longest(columns), self.program.call_tokens if call is None else call
        if not self.program.few_shapes:
            return cheapest_groups(lengths, self.batch, call)
        return cheapest_groups(lengths, self.batch, call, rounded_rows, self._rounded)

    def _rounded(self, longest: int) -> int:
        return max(longest, min(rounded_length(longest), self.manifest.max_length))

    def run(self, rows: Sequence[TokenRow]) -> np.ndarray:
        """The first output [rows, ...] in fp32 of one batch.

        For a program that takes long over each new shape, the last row comes several times and rows are longer, so that
        there are few.
        """
        manifest, asked = self.manifest, list(rows)
        if not self.program.few_shapes:
            arrays = padded(asked, manifest.pad_token_id, manifest.pad_token_type_id)
            return self.program.run(arrays).astype(np.float32, copy=False)
        asked += asked[-1:] * (rounded_rows(len(asked)) - len(asked))
        arrays = padded(asked, manifest.pad_token_id, manifest.pad_token_type_id, self._rounded)
        output = self.program.run(arrays).astype(np.float32, copy=False)[: len(rows)]
        longest = int(arrays["attention_mask"].any(axis=0).sum())
        return output[:, :longest] if output.ndim > 2 else output


def file_reader(manifest: Manifest, folder: Path, max_length: int | None = None) -> Reader:
    """How the folder's texts are read, up to `max_length` tokens, none = what it was exported for.

    Raises UserError for a longer one.
    """
    if max_length is not None and not SHORTEST <= max_length <= manifest.max_length:
        allowed = f"{SHORTEST} to {manifest.max_length}"
        raise UserError("The length does not fit the exported model", got=max_length, allowed=allowed)
    tokenizer = FileTokenizer(folder / FILE, manifest.pad_token_id, manifest.pad_token_type_id)
    kind = None if manifest.kind is None else task_kind(manifest.kind)
    length = max_length or manifest.max_length
    return Reader.of_kind(kind, tokenizer, length, None, manifest.vocab_size, manifest.segments)


def open_exported(
    manifest: Manifest, folder: Path, program: ProgramFile, reader: Reader, batch: int, threads: int | None
) -> Exported:
    """Open one of the folder's programs; `threads` none = as many as this process may use cores.

    Raises RuntimeUnavailableError where it cannot run here, and UserError where its files are not what they were,
    and for a number of threads that is none.
    """
    if threads is not None and threads < 1:
        raise UserError("That is no number of threads", got=threads, allowed="1 or more")
    reason = cannot_run(program.engine, program.precision)
    if reason is not None:
        raise RuntimeUnavailableError(program.runtime, reason)
    check_files(program, folder)
    used = all_cores() if threads is None else threads
    return Exported(
        manifest, open_program(program.engine, folder / program.file, used, program.precision), reader, batch
    )


def all_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
