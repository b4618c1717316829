"""What a frozen teacher says, computed once and read back from disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.files import write_text_atomically
from sparsebert.models.layout import layout_of
from sparsebert.train.collate import Batch, Collator, batches_by_length, inputs_of


@dataclass(frozen=True)
class TeacherCache:
    """The teacher's logits [rows, labels] and layer outputs [layers, tokens, hidden] (half precision) on disk.

    `offsets[row]` is the first token of a row. `scale[layer]` is the mean square of that layer's outputs, by which
    hidden-state errors are divided so that every layer counts alike.
    """

    logits: np.ndarray
    hidden: np.ndarray | None
    offsets: np.ndarray
    scale: tuple[float, ...]

    def add_to(self, batch: Batch, layers: Sequence[int]) -> Batch:
        """Put `teacher_logits` [B, labels] and `teacher_hidden` [len(layers), B, T, hidden] for the rows of a batch."""
        rows = batch["rows"].tolist()
        batch["teacher_logits"] = torch.from_numpy(self.logits[rows])
        if self.hidden is not None and len(layers) > 0:
            tokens = batch["input_ids"].shape[1]
            padded = np.zeros((len(layers), len(rows), tokens, self.hidden.shape[-1]), dtype=np.float32)
            for i, row in enumerate(rows):
                start, end = int(self.offsets[row]), int(self.offsets[row + 1])
                for j, layer in enumerate(layers):
                    padded[j, i, : end - start] = self.hidden[layer, start:end]
            batch["teacher_hidden"] = torch.from_numpy(padded)
        return batch


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
    teacher: PreTrainedModel, encoded: Dataset, collate: Collator, folder: Path, hidden: bool
) -> TeacherCache:
    """Run the teacher once over `encoded` and store what it says in `folder`; a finished cache is read back.

    One without hidden states is made anew where they are wanted.
    """
    if not _holds(folder / "done.json", hidden):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        scale = _fill(teacher.eval(), encoded, collate, folder, hidden)
        write_text_atomically(folder / "done.json", json.dumps({"scale": scale, "hidden": hidden}))
    done = json.loads((folder / "done.json").read_text())
    return TeacherCache(
        np.load(folder / "logits.npy"),
        np.load(folder / "hidden.npy", mmap_mode="r") if done["hidden"] else None,
        np.load(folder / "offsets.npy"),
        tuple(done["scale"]),
    )


def _holds(done: Path, hidden: bool) -> bool:
    return done.is_file() and (not hidden or json.loads(done.read_text())["hidden"])


def _fill(teacher: PreTrainedModel, encoded: Dataset, collate: Collator, folder: Path, hidden: bool) -> list[float]:
    offsets = np.concatenate([[0], np.cumsum(np.asarray(encoded["length"], dtype=np.int64))])
    np.save(folder / "offsets.npy", offsets)
    logits: np.ndarray | None = None
    states: np.ndarray | None = None
    squares = np.zeros(0)
    with torch.inference_mode():
        for rows, batch in batches_by_length(encoded, collate, batch_size=64):
            inputs = inputs_of(batch)
            with layer_outputs(teacher) if hidden else nullcontext([]) as outputs:
                output = teacher(**inputs)
            if logits is None:
                logits = np.zeros((len(encoded), output.logits.shape[-1]), dtype=np.float32)
            logits[rows] = output.logits.float().numpy()
            if not hidden:
                continue
            layers = torch.stack(outputs).float()
            if states is None:
                shape = (len(layers), int(offsets[-1]), layers.shape[-1])
                states = np.lib.format.open_memmap(folder / "hidden.npy", "w+", dtype=np.float16, shape=shape)
                _reserve(folder / "hidden.npy")
                squares = np.zeros(len(layers))
            for i, row in enumerate(rows):
                start, end = int(offsets[row]), int(offsets[row + 1])
                values = layers[:, i, : end - start].numpy()
                states[:, start:end] = values
                squares += np.square(values).mean(axis=2).sum(axis=1)
    assert logits is not None
    np.save(folder / "logits.npy", logits)
    if states is not None:
        states.flush()
    return [float(value) for value in squares / offsets[-1]]


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
