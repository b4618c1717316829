"""Load models and tokenizers, stock and shrunk, with errors a user can act on; save them atomically."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sparsebert.errors import UserError
from sparsebert.files import folder_beside
from sparsebert.models.families import family_named, family_of, is_shrunk
from sparsebert.models.heads import AUTO, Kind, has_task_head, saved_kind
from sparsebert.models.layout import base_of
from sparsebert.models.pack import write_packed
from sparsebert.models.source import (
    CONVERT,
    PACKED_FILE,
    ModelSource,
    has_tokenizer,
    has_weights,
    quiet,
    resolve,
    weight_files,
)

__all__ = [
    "Kind",
    "ModelSource",
    "Packing",
    "check_finite",
    "has_task_head",
    "load_config",
    "load_model",
    "load_tokenizer",
    "resolve",
    "save_model",
]

# What transformers raises for values of a configuration that do not go together.
_MISFITS = (ValueError, TypeError, KeyError, ImportError, StrictDataclassError)


@dataclass(frozen=True)
class Packing:
    """How a packed file is written; `bf16` rounds its matrices to bfloat16."""

    bf16: bool = False


def load_model(
    source: ModelSource | Path | str,
    num_labels: int | None = None,
    kind: Kind | None = None,
    attention: str | None = None,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Load a model in evaluation mode; `kind` none = for classes if their number is given, else as what it was saved.

    A task head that the file lacks, or has for other labels, is drawn at random; a base model has a pooler only if the
    file has one. `attention` is a transformers implementation (`sdpa`, `eager` …), none = the model's default; `dtype`
    none = as saved. Regression has one label. Raises UserError for a family that is not supported, for a configuration
    that no model can be built from, and for weights that are missing, truncated, of the wrong shape, of more layers
    than the configuration has, or not finite.
    """
    folder = _folder(source)
    config = load_config(folder)
    if kind is None and num_labels is not None:
        kind = "classification"
    new_head = kind is not None and _set_task(config, num_labels, kind)
    auto = AUTO[kind or saved_kind(config)]
    _check_files(folder)
    try:
        with quiet():
            model, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=dtype or "auto",
                attn_implementation=attention,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
            )
    except _MISFITS as error:
        how = f" with attention '{attention}'" if attention else ""
        raise UserError(f"No model can be built from {folder / 'config.json'}{how}: {_reason(error)}") from error
    _drop_new_pooler(model, report)
    _check_report(model, report, folder, new_head)
    check_finite(model)
    return model.eval()


def load_config(source: ModelSource | Path | str) -> PretrainedConfig:
    """Read a model's configuration. Raises UserError if it is missing, not JSON, or of an unsupported family."""
    file = _folder(source) / "config.json"
    if not file.is_file():
        raise UserError("The folder has no config.json, so it is not a model", got=file.parent)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not readable: {error}", fix="download it again") from None
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UserError(f"{file} names no model_type")
    family_named(values["model_type"])
    try:
        with quiet():
            return AutoConfig.from_pretrained(file.parent, local_files_only=True)
    except (*_MISFITS, AttributeError) as error:
        raise UserError(f"{file} is not valid: {_reason(error)}") from error


def load_tokenizer(source: ModelSource | Path | str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer. Raises UserError if the folder has none."""
    folder = _folder(source)
    if not has_tokenizer(folder):
        raise UserError("The folder has no tokenizer", got=folder)
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        needs = "pip install sentencepiece tiktoken" if any(folder.glob("*.model")) else ""
        raise UserError(f"The tokenizer in {folder} cannot be loaded: {_reason(error)}", fix=needs) from None


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, packing: Packing | None = None
) -> None:
    """Write safetensors and JSON into `folder`, replacing what is there; a reader never sees half a model.

    With `packing`, matrices with many zeros are stored as kept values and their places; only models of this package's
    own classes load from that. Raises UserError if the disk does not take it; then nothing is left behind.
    """
    if packing is not None and not is_shrunk(model.config):
        raise UserError("A stock model has no packed form", got=type(model).__name__, fix="shrink it first")
    try:
        with folder_beside(folder) as place, quiet():
            written = place / folder.name
            model.save_pretrained(written)
            if packing is not None:
                _pack(written, packing)
            if tokenizer is not None:
                tokenizer.save_pretrained(written)
            # Some of these files are made for their owner only.
            for file in written.iterdir():
                file.chmod(0o644)
            _swap(written, folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"The model could not be written: {error}", got=folder, fix="free some disk space") from None


def _pack(folder: Path, packing: Packing) -> None:
    plain = folder / "model.safetensors"
    write_packed(load_file(plain), folder / PACKED_FILE, packing.bf16)
    plain.unlink()


def check_finite(model: PreTrainedModel) -> None:
    """Raise UserError, naming the tensor, if a weight is NaN or infinite."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(
                "The weights hold a NaN or an infinite number", got=name, fix="download or train the model again"
            )


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _folder(source: ModelSource | Path | str) -> Path:
    if isinstance(source, ModelSource):
        return source.path
    return resolve(str(source)).path


def _set_task(config: PretrainedConfig, num_labels: int | None, kind: Kind) -> bool:
    """Write the task into the configuration; True if it had another number of labels."""
    if kind not in ("classification", "regression"):
        return False
    config.problem_type = "regression" if kind == "regression" else "single_label_classification"
    wanted = 1 if kind == "regression" else num_labels
    if wanted is None or config.num_labels == wanted:
        return False
    config.num_labels = wanted
    return True


def _check_files(folder: Path) -> None:
    if not has_weights(folder):
        raise UserError("The folder has no weights in the safetensors format", got=folder, fix=CONVERT)
    for name in weight_files(folder):
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / name} is damaged or cut short: {error}", fix="download it again") from None


def _check_report(model: PreTrainedModel, report: dict[str, Any], folder: Path, new_head: bool) -> None:
    absent = set(report["missing_keys"]) | {entry[0] for entry in report["mismatched_keys"]}
    if new_head or type(model).__name__ not in (model.config.architectures or ()):
        # Another task than the file was saved for: heads, and the pooler that belongs to them, may be new.
        prefix = "" if base_of(model) is model else f"{model.base_model_prefix}."
        pooler = f"{prefix}pooler."
        absent = {name for name in absent if name.startswith(prefix) and not name.startswith(pooler)}
    layers = re.escape(family_of(model.config).layers)
    own = re.compile(rf"({re.escape(model.base_model_prefix)}\.)?{layers}\.\d+\..*(weight|bias)")
    unused = [name for name in report["unexpected_keys"] if own.fullmatch(name)]
    if unused:
        raise UserError(
            f"The layers in {folder} hold {len(unused)} tensors that a model of its config.json does not use",
            got=min(unused),
            fix="give it the config.json that it was saved with",
        )
    if absent:
        raise UserError(
            f"The weights in {folder} do not fit its config.json: {len(absent)} tensors missing or of another shape",
            got=min(absent),
            fix="download the folder again",
        )


def _drop_new_pooler(model: PreTrainedModel, report: dict[str, Any]) -> None:
    """A base model whose file has no pooler is saved and loaded without one."""
    family, missing = family_of(model.config), set(report["missing_keys"])
    pooler = {name for name, _ in model.named_parameters() if name.startswith("pooler.")}
    if base_of(model) is model and family.optional_pooler and pooler and pooler <= missing:
        model.register_module("pooler", None)
        report["missing_keys"] = sorted(missing - pooler)


def _swap(written: Path, folder: Path) -> None:
    with folder_beside(folder) as place:
        old = place / folder.name
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(written, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
