"""The splits of a task of the table, from a folder `DIR/<task>/<split>.parquet` or from the Hugging Face hub."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import constants

from sparsebert.data.declared import declared_names, with_names
from sparsebert.data.read import read_file
from sparsebert.errors import UserError
from sparsebert.tasks.table import SUBSET, TaskSpec

HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RawSplit:
    """Rows as they were stored, the name of the split they truly are, and what was decided when they were read."""

    name: str
    rows: pa.Table
    notes: tuple[str, ...] = ()

    @property
    def is_subset(self) -> bool:
        """Whether this is a part of the official split, whose score must not pass for an official one."""
        return self.name.endswith(SUBSET)


def folder_splits(spec: TaskSpec, folder: Path) -> dict[str, RawSplit]:
    """Splits in the task's folder, keyed by official name; `<split>_subset.parquet` serves where the split is not.

    Raises UserError if the train or the deciding validation split is missing or unreadable.
    """
    home = next((folder / name for name in spec.folders if (folder / name).is_dir()), None)
    if home is None:
        raise UserError(f"No folder '{spec.name}' in the data folder", got=folder, fix=_layout(spec))
    found = {}
    for split in (spec.train_split, *spec.validation_splits):
        names = [name for name in (split, f"{split}{SUBSET}") if (home / f"{name}.parquet").is_file()]
        if names:
            found[split] = RawSplit(names[0], _file_rows(spec, home / f"{names[0]}.parquet"))
    for split in (spec.train_split, spec.validation_splits[0]):
        if split not in found:
            raise UserError(f"No {split}.parquet or {split}_subset.parquet for task '{spec.name}'", got=home)
    return found


def _file_rows(spec: TaskSpec, file: Path) -> pa.Table:
    """The rows of a file, with names for numbers where it declares the task's own names in another order."""
    raw = read_file(file, (spec.label, *spec.columns))
    names = declared_names(raw, spec.label, file.name)
    reordered = names != spec.labels and sorted(names) == sorted(spec.labels)
    return with_names(raw, spec.label, names, file.name) if reordered else raw


def hub_splits(spec: TaskSpec) -> dict[str, RawSplit]:
    """Official splits from the hub, or from its cache when HF_HUB_OFFLINE is set; keyed by name.

    Raises UserError within seconds if neither can be reached, with the way to give a local folder.
    """
    splits = (spec.train_split, *spec.validation_splits)
    try:
        if not constants.HF_HUB_OFFLINE:
            reach_hub()
        loaded = {split: RawSplit(split, _hub_rows(spec, split)) for split in splits}
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise UserError(
            f"Cannot load task '{spec.name}' from the Hugging Face hub ({type(error).__name__})",
            got=":".join(spec.source),
            fix=f"give a local folder with --data DIR ({_layout(spec)}), or use --task reviews, which needs no network",
        ) from None
    return loaded


def reach_hub() -> None:
    """Raise OSError if nothing answers; `datasets` would retry for half a minute before it says so."""
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return
    except urllib.error.URLError as error:
        # A certificate that Python does not trust was still sent by a host; the hub's client has its own list.
        if not isinstance(error.reason, ssl.SSLError):
            raise


def _hub_rows(spec: TaskSpec, split: str) -> pa.Table:
    loaded = load_dataset(*spec.source, split=split)
    if not isinstance(loaded, Dataset):
        raise ValueError(f"split {split} is a {type(loaded).__name__}")
    return loaded.data.table


def _layout(spec: TaskSpec) -> str:
    files = " and ".join(f"DIR/{spec.name}/{s}.parquet" for s in (spec.train_split, spec.validation_splits[0]))
    return f"it must hold {files}"
