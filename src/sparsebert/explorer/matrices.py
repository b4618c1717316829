"""Where the zeros of a model are, from its weights beside the record: coarse pictures, read without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from sparsebert.errors import UserError
from sparsebert.sparse.coarse import coarse

WEIGHTS = "model.safetensors"
# Of a picture, each way.
MOST_CELLS = 24
# How safetensors calls the numbers that numpy has.
_READABLE = ("F64", "F32", "F16")


def zero_pictures(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Of each of these matrices its share of zeros, 0-1, in cells of about the same size [rows, columns].

    Empty where `folder` has no plain file of weights, as after packing. Matrices that the file lacks, or has in numbers
    that numpy does not know, are left out. Raises UserError for a file that is damaged.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        return {}
    stat = file.stat()
    return dict(_pictures(file, stat.st_mtime_ns, stat.st_size, tuple(names)))


@lru_cache(maxsize=16)
def _pictures(file: Path, changed: int, size: int, names: tuple[str, ...]) -> tuple[tuple[str, np.ndarray], ...]:
    """Kept, as reading takes longer than a click may; `changed` and `size` tell one content from another."""
    try:
        with safe_open(file, framework="numpy") as content:
            present = set(content.keys())
            wanted = [name for name in names if name in present]
            return tuple(_each(content, wanted))
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file.name} is damaged or cut short: {error}", fix="make the model again; its numbers are in the record"
        ) from None


def _each(content: safe_open, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        part = content.get_slice(name)
        if part.get_dtype() in _READABLE and len(part.get_shape()) == 2 and min(part.get_shape()) > 0:
            yield name, coarse(np.asarray(content.get_tensor(name)) == 0, MOST_CELLS)
