"""What lies beside the weights in a model's folder, and has to go along with them: tokenizer, pooling, settings, card.

sentence-transformers, for one, keeps modules in sub-folders, without which the same weights give other embeddings.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from sparsebert.errors import UserError

MODULES = "modules.json"
# The model itself in any of transformers' formats, shards and indices included; not the weights of adapters.
_WEIGHTS = re.compile(
    r"((model|packed)([.-].+)?\.safetensors|(pytorch|tf|flax)_model([.-].+)?\.(bin|h5|msgpack))(\.index.*\.json)?"
)
# What git and the hub's client keep, and states of a training.
_NO_PART = re.compile(r"\..*|__pycache__|checkpoint-\d+")


def companions(folder: Path) -> tuple[Path, ...]:
    """Paths below `folder` of all that belongs to its model but its weights, those in sub-folders included.

    Hidden files and folders, and checkpoints of a training, belong to no model. Raises UserError for a link that leads
    out of the folder (the hub's cache, where files are links to its blobs, is fine), for what is neither file nor
    folder, and where modules.json names a sub-folder that is not there.
    """
    homes = [folder.resolve()]
    if folder.parent.name == "snapshots":
        homes.append((folder.parent.parent / "blobs").resolve())
    found: list[Path] = []
    for parent, names, files in os.walk(folder, onerror=_raise):
        names[:] = sorted(name for name in names if not _NO_PART.fullmatch(name))
        here = [Path(parent) / name for name in sorted(files) if not _NO_PART.fullmatch(name)]
        for path in (*here, *(Path(parent) / name for name in names)):
            _check(path, homes)
        found += [path.relative_to(folder) for path in here]
    _check_modules(folder)
    return tuple(path for path in found if not is_weights(str(path)))


def is_weights(name: str) -> bool:
    """Whether a file of a model's folder holds its weights, in any of transformers' formats, or is their index."""
    return _WEIGHTS.fullmatch(name) is not None


def carry_over(folder: Path, names: Iterable[Path], destination: Path) -> tuple[Path, ...]:
    """Copy files from `folder` to the same places below `destination`, unless taken. Returns what was copied."""
    new = tuple(name for name in names if not (destination / name).exists())
    for name in new:
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, destination / name)
    return new


def _raise(error: OSError) -> None:
    raise UserError("A folder of the model cannot be read", got=error.filename, fix="make it readable") from None


def _check(path: Path, homes: Iterable[Path]) -> None:
    inside = any(path.resolve().is_relative_to(home) for home in homes)
    if not inside or not (path.is_file() or (path.is_dir() and not path.is_symlink())):
        raise UserError(
            "Only files and folders of the model's own can be carried over",
            got=f"{path}, {'a link' if path.is_symlink() else 'neither file nor folder'}",
            fix="remove it, or put a copy in its place",
        )


def _check_modules(folder: Path) -> None:
    """A download may have left out the sub-folders."""
    file = folder / MODULES
    if not file.is_file():
        return
    try:
        # One that only scales to length 1 has nothing to keep: the hub has no folder of it.
        needed = [
            entry["path"] for entry in json.loads(file.read_text("utf-8")) if not entry["type"].endswith(".Normalize")
        ]
        missing = [path for path in needed if not (folder / path).is_dir()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError("The list of modules is not readable", got=file, fix="download it again") from None
    if missing:
        raise UserError(
            f"{MODULES} names folders that are not there",
            got=", ".join(missing),
            fix="download the whole model, `hf download NAME --local-dir FOLDER`, and give that folder",
        )
