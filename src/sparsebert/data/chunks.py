"""From documents to token ids, a chunk at a time, in this process or in others.

Processes that only turn text into tokens import this module, so it needs neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from sparsebert.errors import UserError

THREADS = "TOKENIZERS_PARALLELISM"
LETTERS_A_CHUNK, DOCUMENTS_A_CHUNK = 1 << 18, 1 << 11
# Chunks that wait for each process, so that none is idle while the text is read.
_WAITING = 3


@dataclass(frozen=True)
class Chunk:
    """Documents of one file that follow each other; `place` is how many of the file's bytes are read after them."""

    file: int
    place: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Tokens:
    """Token ids of a chunk's documents, one after the other [tokens]; of each document its length and its side."""

    ids: np.ndarray
    lengths: np.ndarray
    held_out: np.ndarray


class Encoder:
    """Turns texts into token ids without special tokens; what a text writes like one, such as "[SEP]", is text.

    `tokenizer` is the serialised form of a fast tokenizer, and `held_out` the share of documents to hold out: those
    whose text has a small hash, so that equal documents are always on the same side.
    """

    def __init__(self, tokenizer: str, held_out: float = 0.0) -> None:
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.encode_special_tokens = True
        self._limit = int(held_out * 2**64)

    def encode(self, texts: tuple[str, ...]) -> Tokens:
        """The tokens of some documents."""
        rows = [found.ids for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
        return Tokens(ids, lengths, np.fromiter(map(self._is_held_out, texts), bool, len(rows)))

    def _is_held_out(self, text: str) -> bool:
        if not self._limit:
            return False
        # The name is the seed: other programs that hold out by a hash take other documents.
        found = hashlib.blake2b(text.encode("utf-8"), digest_size=8, person=b"sparsebert")
        return int.from_bytes(found.digest(), "big") < self._limit


def encoded(chunks: Iterable[Chunk], tokenizer: str, held_out: float, processes: int) -> Iterator[tuple[Chunk, Tokens]]:
    """The chunks and their tokens, in order; as many are held as `processes` need.

    Raises UserError if a process is ended from outside.
    """
    if processes == 1:
        encoder = Encoder(tokenizer, held_out)
        for chunk in chunks:
            with one_thread():
                tokens = encoder.encode(chunk.texts)
            yield chunk, tokens
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, spawn, initializer=_begin, initargs=(tokenizer, held_out))
    waiting: deque[tuple[Chunk, Future[Tokens]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, _submit(pool, chunk.texts)))
            if len(waiting) > processes * _WAITING:
                first, tokens = waiting.popleft()
                yield first, tokens.result()
        while waiting:
            first, tokens = waiting.popleft()
            yield first, tokens.result()
    except BrokenProcessPool:
        said = "A process that turned text into tokens was ended from outside"
        raise UserError(said, fix="see whether memory ran out, or use fewer processes") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, texts: tuple[str, ...]) -> Future[Tokens]:
    try:
        return pool.submit(_encode, texts)
    except OSError as error:
        # `submit` starts processes as it needs them, with pipes that are closed once another process has ended.
        raise BrokenProcessPool from error


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, `tokenizers` starts no threads, after which it would warn in every process that is forked."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before


_of_this_process: list[Encoder] = []


def _begin(tokenizer: str, held_out: float) -> None:
    # Ctrl-C is for the first process, which then ends this one; if that is killed, this one ends itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ[THREADS] = "false"
    _of_this_process.append(Encoder(tokenizer, held_out))


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _encode(texts: tuple[str, ...]) -> Tokens:
    return _of_this_process[0].encode(texts)
