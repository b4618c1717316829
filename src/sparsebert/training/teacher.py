"""What a frozen teacher says, computed once and read back from disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from pydantic import BaseModel, ValidationError
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.data.batches import MODEL_INPUTS, inputs_of, stacked
from sparsebert.data.tokens import SECOND, WORDS
from sparsebert.errors import UserError
from sparsebert.files import digests, write_text_atomically
from sparsebert.models.heads import kind_of
from sparsebert.models.labels import has_no_names, own_names
from sparsebert.models.layout import layout_of
from sparsebert.models.limits import position_limit
from sparsebert.tasks.kind import TaskKind
from sparsebert.training.collate import Batch, Collator, at_tokens, batches_by_length
from sparsebert.training.fingerprint import digest_of

DONE, LOGITS, HIDDEN, OFFSETS, SCALE = "done.json", "logits.npy", "hidden.npy", "offsets.npy", "scale.npy"


@dataclass(frozen=True)
class TeacherCache:
    """The teacher's logits [rows, labels] and layer outputs [layers, tokens, hidden] (half precision) on disk.

    Logits of words are [rows, words, labels]. `offsets[row]` is the first token of a row. `scale[layer]` is the mean
    square of that layer's outputs, by which hidden-state errors are divided so that every layer counts alike. `kind` is
    that of the task, and `labels` are the names of the logits' columns, if the teacher has any. `folder` is where it
    lies, if it does: another process is told that, and reads it there.
    """

    logits: np.ndarray
    hidden: np.ndarray | None
    offsets: np.ndarray
    scale: tuple[float, ...]
    kind: TaskKind
    labels: tuple[str, ...] = ()
    folder: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is not None:
            return _read, (self.folder, self.hidden is not None, self.kind, self.labels)
        return TeacherCache, tuple(getattr(self, one.name) for one in fields(self))

    def add_to(self, batch: Batch, layers: Sequence[int]) -> Batch:
        """Put `teacher_logits` [B, labels] and `teacher_hidden` [len(layers), B, T, hidden] for the rows of a batch.

        Logits of words are put at their first tokens [B, T, labels]. Raises UserError for a batch without row numbers.
        """
        if "rows" not in batch:
            raise UserError(
                "The batches do not say which rows of the teacher's they are",
                got=", ".join(batch),
                fix="number the training rows in a column `row`, and let the collator give it as `rows`",
            )
        rows = batch["rows"].tolist()
        batch["teacher_logits"] = torch.from_numpy(self.logits[rows])
        if self.kind.of_tokens:
            length = batch["input_ids"].shape[1]
            batch["teacher_logits"] = at_tokens(batch["teacher_logits"], batch[WORDS], length, 0.0)
        if self.hidden is not None and len(layers) > 0:
            shape = batch["input_ids"].shape
            # By the mask, as a collator may pad on either side; a text that is a pair may fill two rows of the batch.
            real = batch["attention_mask"].bool().numpy().reshape(len(rows), -1)
            padded = np.zeros((len(layers), *real.shape, self.hidden.shape[-1]), dtype=np.float32)
            for i, row in enumerate(rows):
                start, end = int(self.offsets[row]), int(self.offsets[row + 1])
                for j, layer in enumerate(layers):
                    padded[j, i, real[i]] = self.hidden[layer, start:end]
            batch["teacher_hidden"] = torch.from_numpy(padded).view(len(layers), *shape, -1)
        return batch


class _Done(BaseModel):
    """What a finished cache says of itself: a digest of what it is of, and one of each of its files."""

    of: str
    hidden: bool
    files: dict[str, str]


@contextmanager
def layer_outputs(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect what each layer gives [B, T, hidden] in a forward pass inside the block.

    The `hidden_states` of transformers will not do: the last of them may have gone through a norm after the layers
    (ModernBERT), and then it cannot be compared with an inner layer's.
    """
    found: list[torch.Tensor] = []

    def keep(module: object, args: object, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handles = [model.get_submodule(layer.path).register_forward_hook(keep) for layer in layout_of(model).layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def cache_teacher(
    teacher: PreTrainedModel,
    encoded: Dataset,
    collate: Collator,
    folder: Path,
    hidden: bool,
    kind: TaskKind | None = None,
) -> TeacherCache:
    """Run the teacher once over `encoded` and store what it says in `folder`; a finished cache is read back.

    `encoded` holds the token rows of the teacher's own tokenizer. A cache of another teacher or of other rows, one with
    a damaged file, and one without hidden states where they are wanted, is made anew. `kind` says what the teacher's
    outputs are, none = what its configuration tells. Raises UserError for tokens
    that the teacher does not have, and for a disk that is full.
    """
    _check_tokens(teacher, encoded)
    kind = kind or kind_of(teacher)
    of = _digest_of(teacher, encoded)
    done = _finished(folder, of, hidden)
    if done is None:
        done = _made(teacher, kind, encoded, collate, folder, hidden, of)
        # Last of all, so that a cache that was cut short does not count as one.
        write_text_atomically(folder / DONE, done.model_dump_json())
    return _read(folder, done.hidden, kind, names_of_labels(teacher))


def _read(folder: Path, hidden: bool, kind: TaskKind, labels: tuple[str, ...]) -> TeacherCache:
    return TeacherCache(
        np.load(folder / LOGITS),
        np.load(folder / HIDDEN, mmap_mode="r") if hidden else None,
        np.load(folder / OFFSETS),
        tuple(np.load(folder / SCALE).tolist()),
        kind,
        labels,
        folder,
    )


def names_of_labels(model: PreTrainedModel) -> tuple[str, ...]:
    """The names of a model's outputs, in their order; nothing for transformers' own, LABEL_0 and so on."""
    return () if has_no_names(model.config) else tuple(own_names(model.config))


def _check_tokens(teacher: PreTrainedModel, encoded: Dataset) -> None:
    """Other tokenizers than the teacher's are noticed here only where ids or lengths are out of its range."""
    lengths, ids = np.asarray(encoded["length"], dtype=np.int64), _lists(encoded, "input_ids")[1]
    supported = teacher.config.model_type.removeprefix(registry.SHRUNK_PREFIX) in registry.names("family")
    limit = position_limit(teacher.config) if supported else None
    for what, found, most in (
        ("a token id", ids, int(teacher.get_input_embeddings().get_parameter("weight").shape[0]) - 1),
        ("a text", lengths, limit),
    ):
        if most is not None and found.max(initial=0) > most:
            raise UserError(
                f"The teacher cannot read {what} of the training rows",
                got=found.max(),
                allowed=f"at most {most}",
                fix="encode the texts for the teacher with its own tokenizer, cut to its length",
            )


def _finished(folder: Path, of: str, hidden: bool) -> _Done | None:
    """What a cache says of itself if it is whole, and of this teacher and these rows."""
    try:
        done = _Done.model_validate_json((folder / DONE).read_bytes())
    except (OSError, ValidationError):
        return None
    fits = done.of == of and (done.hidden or not hidden)
    return done if fits and done.files == _digests(folder, done.hidden) else None


def _made(
    teacher: PreTrainedModel,
    kind: TaskKind,
    encoded: Dataset,
    collate: Collator,
    folder: Path,
    hidden: bool,
    of: str,
) -> _Done:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        _fill(teacher.eval(), kind, encoded, collate, folder, hidden)
        return _Done(of=of, hidden=hidden, files=_digests(folder, hidden))
    except OSError as error:
        raise UserError(
            f"The teacher's outputs could not be written: {error.strerror or error}",
            got=folder,
            fix="free some disk space",
        ) from None


def _digests(folder: Path, hidden: bool) -> dict[str, str]:
    """SHA-256 by name; a file that is not there is left out."""
    names = (LOGITS, OFFSETS, SCALE, *([HIDDEN] if hidden else []))
    return digests([folder / name for name in names], folder)


def _digest_of(teacher: PreTrainedModel, encoded: Dataset) -> str:
    """Of all that decides what the teacher says: its weights and configuration, and the rows in their order."""
    found = hashlib.sha256()
    # Not where it was read from, and by which version.
    config = {key: value for key, value in teacher.config.to_dict().items() if not key.startswith("_")}
    config.pop("transformers_version", None)
    found.update(json.dumps(config, sort_keys=True, default=str).encode())
    found.update(digest_of(teacher.state_dict().items()).encode())
    for name in (name for name in MODEL_INPUTS if name in encoded.column_names):
        found.update(name.encode())
        for part in _lists(encoded, name):
            found.update(part.tobytes())
    if SECOND in encoded.column_names:
        found.update(np.asarray(encoded[SECOND], dtype=np.int64).tobytes())
    return found.hexdigest()


def _lists(encoded: Dataset, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of a column's lists [rows], and what they hold, one after the other, however it lies in chunks."""
    table: Any = encoded.select_columns([column]).with_format("arrow")[:]
    lengths, values = (pc.call_function(name, [table[column]]) for name in ("list_value_length", "list_flatten"))
    return lengths.to_numpy().astype(np.int64), values.to_numpy().astype(np.int64)


def _fill(
    teacher: PreTrainedModel, kind: TaskKind, encoded: Dataset, collate: Collator, folder: Path, hidden: bool
) -> None:
    offsets = np.concatenate([[0], np.cumsum(_lists(encoded, "input_ids")[0])])
    np.save(folder / OFFSETS, offsets)
    logits: dict[int, np.ndarray] = {}
    states: np.ndarray | None = None
    squares = np.zeros(0)
    with torch.inference_mode():
        for rows, batch in batches_by_length(encoded, collate, batch_size=64):
            inputs = {key: value.to(teacher.device) for key, value in inputs_of(batch).items()}
            with layer_outputs(teacher) if hidden else nullcontext([]) as outputs:
                found = kind.outputs(teacher(**inputs)).float().cpu().numpy()
            logits.update(zip(rows, found, strict=True))
            if not hidden:
                continue
            layers = torch.stack(outputs).float().cpu()
            layers = layers.view(len(layers), len(rows), -1, layers.shape[-1])
            real = batch["attention_mask"].bool().view(len(rows), -1)
            if states is None:
                shape = (len(layers), int(offsets[-1]), layers.shape[-1])
                # Half precision: by far the largest file, and rounding is small beside the student's error.
                states = np.lib.format.open_memmap(folder / HIDDEN, "w+", dtype=np.float16, shape=shape)
                _reserve(folder / HIDDEN)
                squares = np.zeros(len(layers))
            for i, row in enumerate(rows):
                start, end = int(offsets[row]), int(offsets[row + 1])
                values = layers[:, i, real[i]].numpy()
                states[:, start:end] = values
                squares += np.square(values).mean(axis=2).sum(axis=1)
    np.save(folder / LOGITS, stacked(logits, list(encoded[WORDS]) if kind.of_tokens else ()))
    if states is not None:
        states.flush()
    np.save(folder / SCALE, squares / offsets[-1])


def _reserve(file: Path) -> None:
    """Take the disk space of a sparse file now: a disk that fills under a memory map kills the process."""
    with file.open("r+b") as opened:
        size = os.fstat(opened.fileno()).st_size
        try:
            os.posix_fallocate(opened.fileno(), 0, size)
        except OSError as error:
            raise UserError(
                f"The teacher's outputs do not fit on the disk: {error.strerror}",
                got=f"{size / 1e9:.1f} GB for {file}",
                fix="free disk space, or set distill.hidden to 0",
            ) from None
