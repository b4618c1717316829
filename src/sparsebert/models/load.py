"""Load models and tokenizers, stock and shrunk, with errors a user can act on; save them atomically."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sparsebert.errors import UserError
from sparsebert.files import folder_beside
from sparsebert.models.config import (
    CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    check_kept_hidden,
    check_no_code,
    check_shape,
    first_line,
    read_config,
    read_json,
)
from sparsebert.models.families import HeadName, family_of, is_shrunk
from sparsebert.models.heads import AUTO, head_of, saved_head
from sparsebert.models.layout import base_of
from sparsebert.models.sentence import SentenceVector, vector_of
from sparsebert.models.sentence_folder import (
    check_vector,
    forget_vector,
    sentence_length,
    set_vector,
    take_activation,
    take_vector,
    write_sentence_files,
)
from sparsebert.models.source import ModelSource, has_tokenizer, quiet, resolve
from sparsebert.models.storage import Packing, store
from sparsebert.models.thresholds import set_thresholds, thresholds_of
from sparsebert.models.weights import check_files, check_report, check_size
from sparsebert.tasks.kind import TaskKind, task_kind

# What transformers and torch raise for values of a configuration that do not go together.
_MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


def load_model(
    source: ModelSource | Path | str,
    num_labels: int | None = None,
    kind: str | None = None,
    attention: str | None = None,
    dtype: torch.dtype | None = None,
    head: HeadName | None = None,
    vector: SentenceVector | None = None,
) -> PreTrainedModel:
    """Load a model in evaluation mode, for a task of a `kind`, or with a `head`.

    Without both it is for classes if their number is given, else what it was saved as.
    A task head that the file lacks, or has for other labels, is drawn at random; a base model has a pooler only if the
    file has one. `attention` is a transformers implementation (`sdpa`, `eager` …), none = the model's default; `dtype`
    none = as saved. `vector` says how an encoder of which no file says it makes vectors of texts. Raises UserError
    for a family that is not supported, for a configuration
    that no model can be built from, and for weights that are missing, truncated, of the wrong shape, of more layers
    than the configuration has, or not finite.
    """
    folder = _folder(source)
    config = load_config(folder)
    if vector is not None:
        set_vector(config, folder, vector)
    if kind is None and num_labels is not None:
        kind = "classification"
    task = None if kind is None else task_kind(kind)
    new_head = task is not None and _set_task(config, num_labels, task)
    chosen = head or (task.head if task else saved_head(config))
    family_of(config).check_head(chosen)
    if chosen == "embeddings":
        check_vector(config, folder)
    else:
        forget_vector(config)
    auto = AUTO[chosen]
    held = check_files(folder)
    check_size(_without_values(auto, config, attention, folder), held, folder)
    with quiet():
        model, report = auto.from_pretrained(
            folder,
            config=config,
            dtype=dtype or "auto",
            attn_implementation=attention,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    _drop_new_pooler(model, report)
    check_report(model, report, folder, new_head)
    check_finite(model)
    return model.eval()


def described_model(source: ModelSource | Path | str) -> PreTrainedModel:
    """The encoder that a model's configuration describes, on `meta`: shapes without weights, which are not read.

    Raises UserError as `load_config`, and for a configuration that no model can be built from.
    """
    folder = _folder(source)
    return _without_values(AUTO["base"], load_config(folder), None, folder)


def load_config(source: ModelSource | Path | str) -> PretrainedConfig:
    """Read a model's configuration.

    Raises UserError if it is missing, not JSON, not valid, of an unsupported family, or of a model that would be
    computed as another one, such as one with code of its own.
    """
    folder = _folder(source)
    read_config(folder)
    file = folder / CONFIG_FILE
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _MISFITS as error:
        raise UserError(f"{file} is not valid: {first_line(error)}") from error
    if is_shrunk(config):
        check_shape(config.to_dict(), file)
        check_kept_hidden(config.kept_hidden, config.hidden_size, config.original_hidden, file)
    take_vector(config, folder)
    vector_of(config)
    take_activation(config, folder)
    thresholds_of(config, str(file))
    return config


def load_tokenizer(source: ModelSource | Path | str) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer. Raises UserError if the folder has none, or one that is damaged or has its own code."""
    folder = _folder(source)
    if not has_tokenizer(folder):
        raise UserError("The folder has no tokenizer", got=folder)
    own = folder / TOKENIZER_CONFIG_FILE
    if own.is_file():
        check_no_code(read_json(own), own)
    config = load_config(folder)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=config, local_files_only=True, trust_remote_code=False
            )
            tokenizer("")
    except Exception as error:
        # The library of the fast tokenizers raises the base class itself.
        if not (isinstance(error, (*_MISFITS, OSError)) or type(error) is Exception):
            raise
        needs = "pip install sentencepiece tiktoken" if any(folder.glob("*.model")) else ""
        raise UserError(f"The tokenizer in {folder} cannot be loaded: {first_line(error)}", fix=needs) from error
    length = sentence_length(folder)
    if length is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, length)
    return tokenizer


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path, packing: Packing | None = None
) -> None:
    """Write safetensors and JSON into `folder`, replacing what is there; a reader never sees half a model.

    With `packing`, matrices with many zeros are stored as kept values and their places, and weights are rounded as it
    says; only models of this package's own classes load from a packed file. The model in memory stays as it is: what
    was rounded is what loads again. Raises UserError for weights that cannot be rounded, and if the disk does not take
    them; then nothing is left behind.
    """
    if packing is not None and not packing.plain and not is_shrunk(model.config):
        raise UserError("A stock model has no packed form", got=type(model).__name__, fix="shrink it first")
    try:
        with folder_beside(folder) as place, quiet():
            written = place / folder.name
            saved = saved_part(model)
            saved.save_pretrained(written)
            if saved is not model:
                write_sentence_files(model.config, tokenizer, written)
            if packing is not None:
                store(written, saved, packing)
            if tokenizer is not None:
                tokenizer.save_pretrained(written)
            # Some of these files are made for their owner only.
            for file in written.iterdir():
                file.chmod(0o644)
            _swap(written, folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"The model could not be written: {error}", got=folder, fix="free some disk space") from None


def saved_part(model: PreTrainedModel) -> PreTrainedModel:
    """What of a model is in its file: of one of embeddings the encoder alone, as sentence-transformers reads it."""
    return base_of(model) if head_of(model) == "embeddings" else model


def check_finite(model: PreTrainedModel) -> None:
    """Raise UserError, naming the tensor, if a weight is NaN or infinite."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(
                "The weights hold a NaN or an infinite number", got=name, fix="download or train the model again"
            )


def _without_values(auto: Any, config: PretrainedConfig, attention: str | None, folder: Path) -> PreTrainedModel:
    """The model that a configuration describes, on `meta`. Raises UserError if there is none."""
    try:
        with quiet(), torch.device("meta"):
            return auto.from_config(copy.deepcopy(config), attn_implementation=attention, trust_remote_code=False)
    except _MISFITS as error:
        how = f" with attention '{attention}'" if attention else ""
        raise UserError(f"No model can be built from {folder / CONFIG_FILE}{how}: {first_line(error)}") from error


def _folder(source: ModelSource | Path | str) -> Path:
    if isinstance(source, ModelSource):
        return source.path
    return resolve(str(source)).path


def _set_task(config: PretrainedConfig, num_labels: int | None, kind: TaskKind) -> bool:
    """Write the task into the configuration; True if it had another number of labels."""
    config.problem_type = kind.problem_type
    wanted = kind.num_outputs or num_labels
    if wanted is None or config.num_labels == wanted:
        return False
    set_thresholds(config, ())
    config.num_labels = wanted
    return True


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
