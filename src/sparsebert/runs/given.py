"""Models and data that are given as objects, kept as files: a run is its recipe and its inputs, and is gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparsebert.errors import UserError
from sparsebert.files import digest, digests, folder_beside
from sparsebert.models.load import save_model
from sparsebert.models.wrapped import refuse_wrapped
from sparsebert.training.fingerprint import digest_of

SPLITS = ("train", "validation")
# What a fast tokenizer keeps of its last call.
OF_A_CALL = ("padding", "truncation")


def model_name(model: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, home: Path) -> str:
    """The name as it is, or the folder in `home` where the model lies under a digest of it and its tokenizer.

    Raises UserError for a model without its tokenizer, a tokenizer beside a name, and what is no model or no tokenizer
    of transformers.
    """
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise UserError("A model that is named has its own tokenizer", got=model, fix="give the model object too")
        return str(model)
    _check_objects(model, tokenizer)
    assert tokenizer is not None
    found = hashlib.sha256(digest_of(model.state_dict().items()).encode())
    found.update(model.config.to_json_string().encode())
    found.update(_tokenizer_digest(tokenizer, home).encode())
    folder = home / f"model-{found.hexdigest()[:16]}"
    if not folder.is_dir():
        save_model(model, tokenizer, folder)
    return str(folder)


def _check_objects(model: Any, tokenizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(
            "The model is neither a name nor a model of transformers", got=type(model).__name__, fix="give one of them"
        )
    refuse_wrapped(model)
    if tokenizer is None:
        raise UserError("A model object needs its tokenizer", got=type(model).__name__, fix="give it as tokenizer=")
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(
            "The tokenizer is none of transformers",
            got=type(tokenizer).__name__,
            fix="give what AutoTokenizer.from_pretrained gives",
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise UserError("The model has no weights, as it lies on the device meta", fix="load it with its weights")


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase, home: Path) -> str:
    """Of all that it is saved as, but for what its last call left: to use it makes it no other one."""
    with folder_beside(home / "tokenizer") as place:
        tokenizer.save_pretrained(place)
        file = place / "tokenizer.json"
        if file.is_file():
            values = json.loads(file.read_bytes())
            file.write_text(json.dumps({key: one for key, one in values.items() if key not in OF_A_CALL}))
        return json.dumps(digests([place], place))


def data_path(data: str | Path | Dataset | Mapping[str, Dataset] | None, home: Path) -> str | None:
    """The path as it is, or the folder in `home` where the splits lie as parquet under a digest of their content.

    Takes one Dataset, or a DatasetDict or mapping with `train` and perhaps `validation`. Raises UserError for others.
    """
    if data is None or isinstance(data, str | Path):
        return None if data is None else str(data)
    splits = {"train": data} if isinstance(data, Dataset) else _splits(data)
    with folder_beside(home / "data") as place, _without_bars():
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


@contextmanager
def _without_bars() -> Iterator[None]:
    """Inside, `datasets` draws none: they would go to stderr where nothing is to be said too."""
    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()
