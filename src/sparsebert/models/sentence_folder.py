"""The files of sentence-transformers beside a model: which modules make a text's vector, read and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from sparsebert.errors import UserError
from sparsebert.models.companions import MODULES
from sparsebert.models.config import read_json, shown
from sparsebert.models.families import family_of
from sparsebert.models.sentence import KEY, POOLINGS, SentenceVector, vector_of

_TRANSFORMER_FILE, _LIBRARY_FILE = "sentence_bert_config.json", "config_sentence_transformers.json"
_POOLING_FOLDER, _NORMALIZE_FOLDER = "1_Pooling", "2_Normalize"
_NO_LENGTH = 10**9
# Names that every version of sentence-transformers knows.
_TYPES = "sentence_transformers.models."
_OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def take_vector(config: PretrainedConfig, folder: Path) -> None:
    """Write into a configuration how the vectors of the model in `folder` are made, where its files say so.

    Modules that are not supported are left for `check_vector` to name: the encoder may be wanted for something else.
    """
    if not (folder / MODULES).is_file():
        return
    try:
        vars(config)[KEY] = _read(folder).plain()
    except UserError:
        forget_vector(config)


def forget_vector(config: PretrainedConfig) -> None:
    """Leave out of a configuration how vectors are made: the model has another head."""
    vars(config).pop(KEY, None)


def set_vector(config: PretrainedConfig, folder: Path, how: SentenceVector) -> None:
    """Write into a configuration how vectors are to be made of the encoder in `folder`, whatever head it had.

    Raises UserError for a model of which its own files say that.
    """
    if vector_of(config) is not None or (folder / MODULES).is_file():
        raise UserError(
            "The model's own files say how its vectors are made", got=f"pooling {how.pooling[0]}", fix="leave it out"
        )
    vars(config)[KEY] = how.plain()
    config.architectures = [family_of(config).model_class("base").rpartition(":")[2]]


def take_activation(config: PretrainedConfig, folder: Path) -> None:
    """Write into a configuration what a cross-encoder of sentence-transformers makes of its score, where a file says.

    It stands beside the model there; in the configuration, where every version looks too, it goes along with it.
    """
    file = folder / _LIBRARY_FILE
    held = read_json(file) if file.is_file() else {}
    if held.get("model_type") == "CrossEncoder" and isinstance(held.get("activation_fn"), str):
        vars(config)["sentence_transformers"] = {"activation_fn": held["activation_fn"]}


def check_vector(config: PretrainedConfig, folder: Path) -> None:
    """Raise UserError for a model of which nothing says how the vector of a text is made, or in a way unknown here."""
    if vector_of(config) is not None:
        return
    if (folder / MODULES).is_file():
        _read(folder)
    raise UserError(
        "Nothing says how the vectors of tokens become the vector of a text",
        got=f"no {MODULES} in {folder}",
        fix="name the pooling (--pooling mean), or save the model with sentence-transformers",
    )


def sentence_length(folder: Path) -> int | None:
    """Tokens that sentence-transformers reads of a text; none where its files do not say."""
    file = folder / _TRANSFORMER_FILE
    if not (folder / MODULES).is_file() or not file.is_file():
        return None
    length = read_json(file).get("max_seq_length")
    return length if isinstance(length, int) and length > 0 else None


def length_note(folder: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """A line where the folder says that more of a text is read than its tokenizer reads; empty if not."""
    length, own = sentence_length(folder), int(tokenizer.model_max_length)
    if length is None or length <= own:
        return ""
    return (
        f"The folder says that {length:,} tokens of a text are read, and its tokenizer {own:,}: so many are, and saved"
    )


def write_sentence_files(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Write what sentence-transformers needs to load the base model in `folder` and give the same vectors."""
    how = vector_of(config)
    assert how is not None, "a model of embeddings"
    modules = [("Transformer", ""), ("Pooling", _POOLING_FOLDER)]
    modules += [("Normalize", _NORMALIZE_FOLDER)] if how.normalize else []
    named = [
        {"idx": place, "name": str(place), "path": path, "type": _TYPES + kind}
        for place, (kind, path) in enumerate(modules)
    ]
    _write(folder / MODULES, named)
    old = {name: mode in how.pooling for name, mode in _OLD_NAMES.items()}
    # Several stand in an order that old names cannot say.
    several = {"pooling_mode": list(how.pooling)} if len(how.pooling) > 1 else {}
    _write(folder / _POOLING_FOLDER / "config.json", {"word_embedding_dimension": config.hidden_size, **old, **several})
    # Else its pooler, which no vector needs, would be drawn at random, with a warning.
    without = {"model_args": {"add_pooling_layer": False}} if family_of(config).optional_pooler else {}
    # A tokenizer without a length of its own says a number that no text reaches.
    longest = _NO_LENGTH if tokenizer is None else tokenizer.model_max_length
    length = {"max_seq_length": int(longest)} if longest < _NO_LENGTH else {}
    _write(folder / _TRANSFORMER_FILE, {**length, "do_lower_case": False, **without})
    _write(folder / _LIBRARY_FILE, {"prompts": dict(how.prompts), "similarity_fn_name": how.similarity})


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read(folder: Path) -> SentenceVector:
    """What the files say. Raises UserError for modules that are not supported here."""
    kinds = _modules(folder)
    names = [kind.rpartition(".")[2] for kind, _ in kinds]
    if names[:2] != ["Transformer", "Pooling"] or names[2:] not in ([], ["Normalize"]):
        raise UserError(
            "The modules that make the vector of a text are not supported",
            got=", ".join(names) or "none",
            allowed="Transformer, Pooling, and Normalize",
        )
    library = folder / _LIBRARY_FILE
    held = read_json(library) if library.is_file() else {}
    if held.get("default_prompt_name") is not None:
        raise UserError(
            "The model puts a prompt before every text by default",
            got=held["default_prompt_name"],
            fix=f"take default_prompt_name out of {library.name}, and put it before your texts",
        )
    own = folder / _TRANSFORMER_FILE
    if own.is_file() and read_json(own).get("do_lower_case") is True:
        raise UserError(
            "Texts are made lower case before the tokenizer reads them, which is not done here",
            got=f"do_lower_case in {own.name}",
            fix="set it to false, if the tokenizer does so by itself",
        )
    prompts = held.get("prompts")
    return SentenceVector(
        _pooling(folder / kinds[1][1] / "config.json"),
        "Normalize" in names,
        prompts if isinstance(prompts, dict) else {},
        held.get("similarity_fn_name"),
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Type and folder of each module."""
    file = folder / MODULES
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return [(str(one["type"]), str(one["path"])) for one in content]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} does not name modules by type and path ({type(error).__name__})") from None


def _pooling(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        raise UserError(f"{file} is missing", fix="download the whole folder again")
    held = read_json(file)
    if held.get("include_prompt") is False:
        raise UserError("The model leaves prompts out of its vectors, which is not supported", got=f"{file.name}")
    new = held.get("pooling_mode")
    if new is None:
        found = tuple(mode for name, mode in _OLD_NAMES.items() if held.get(name))
    else:
        found = (new,) if isinstance(new, str) else tuple(new)
    if not found or any(mode not in POOLINGS for mode in found):
        raise UserError("Pooling of an unknown mode", got=shown(new or found), allowed=", ".join(POOLINGS))
    return found
