"""Models and data that are given as objects, kept as files: a run is its recipe and its inputs, and is gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparsebert.errors import UserError
from sparsebert.files import digest, folder_beside
from sparsebert.models.load import save_model
from sparsebert.training.fingerprint import digest_of

SPLITS = ("train", "validation")


def model_name(model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, home: Path) -> str:
    """The name as it is, or the folder in `home` where the model lies under a digest of its weights and configuration.

    Raises UserError for a model without its tokenizer, and for a tokenizer beside a name.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise UserError("A model that is named has its own tokenizer", got=model, fix="give the model object too")
        return str(model)
    if tokenizer is None:
        raise UserError("A model object needs its tokenizer", got=type(model).__name__, fix="give tokenizer=...")
    found = hashlib.sha256(digest_of(model.state_dict().items()).encode())
    found.update(model.config.to_json_string().encode())
    folder = home / f"model-{found.hexdigest()[:16]}"
    if not folder.is_dir():
        save_model(model, tokenizer, folder)
    return str(folder)


def data_path(data: str | Path | Dataset | Mapping[str, Dataset] | None, home: Path) -> str | None:
    """The path as it is, or the folder in `home` where the splits lie as parquet under a digest of their content.

    Takes one Dataset, or a DatasetDict or mapping with `train` and perhaps `validation`. Raises UserError for others.
    """
    if data is None or isinstance(data, str | Path):
        return None if data is None else str(data)
    splits = {"train": data} if isinstance(data, Dataset) else _splits(data)
    with folder_beside(home / "data") as place:
        files = [place / f"{name}.parquet" for name in splits]
        for rows, file in zip(splits.values(), files, strict=True):
            rows.to_parquet(file)
        content = hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()
        folder = home / f"data-{content[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.replace(folder / file.name)
    return str(folder)


def _splits(data: Any) -> dict[str, Dataset]:
    kinds = isinstance(data, DatasetDict | Mapping) and all(isinstance(rows, Dataset) for rows in data.values())
    if not kinds or "train" not in data:
        raise UserError(
            "The data are no datasets.Dataset and no mapping of them with a split `train`",
            got=type(data).__name__,
            fix="give a Dataset, a DatasetDict with train and validation, or a path",
        )
    return {name: data[name] for name in SPLITS if name in data}
