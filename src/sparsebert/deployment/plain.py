"""Models of transformers made ready to read texts: fine-tuned ones, and masked language models."""

from __future__ import annotations

from functools import partial

from transformers import PretrainedConfig, PreTrainedModel

from sparsebert import registry
from sparsebert.data.tokens import SHORTEST, Reader
from sparsebert.deployment.manifest import is_exported
from sparsebert.deployment.predictor import AUTO, Opened, Openers
from sparsebert.errors import UserError
from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.files import home_of
from sparsebert.models.heads import LANGUAGE_MODEL, TASKS, foreign_head, saved_head, saved_kind
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.limits import position_limit, reading_length, token_limits
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.named import is_run, open_model, sources
from sparsebert.models.sentence import vector_of
from sparsebert.models.source import ModelSource, resolve
from sparsebert.models.thresholds import thresholds_of
from sparsebert.tasks.kind import task_kind
from sparsebert.timing import torch_threads
from sparsebert.training.collate import padding_collator
from sparsebert.training.inference import Inference


def fine_tuned(model: str) -> ModelSource:
    """Find a model by name. Raises UserError for a run, and for a model without a head for one answer a text."""
    source = _single(model)
    config = load_config(source)
    if saved_head(config) == "multitask":
        raise UserError(f"{model} has three heads", fix="take it apart with `sparsebert split`, and ask one of them")
    head = foreign_head(config)
    if head is not None:
        raise UserError(f"predict does not know the head of {model}", got=head, allowed=f"models for {TASKS}")
    kind = saved_kind(config)
    if kind is None:
        filled = "`sparsebert predict` alone fills its masks; " if saved_head(config) == "masked_lm" else ""
        fix = f"{filled}fine-tune it first, with `sparsebert finetune`"
        raise UserError(f"{model} is not fine-tuned for a task", got=_classes(config), fix=fix)
    if task_kind(kind).exclusive and config.num_labels == 1:
        raise UserError(
            f"{model} has a single class, which every text would get",
            got=f"problem_type {config.problem_type} with one label",
            allowed="two labels or more, or another problem_type",
        )
    return source


def masked_lm(model: str) -> ModelSource:
    """Find a masked language model by name. Raises UserError for a run, and for a model with another head."""
    source = _single(model)
    config = load_config(source)
    if saved_head(config) != "masked_lm":
        allowed = f"classes that end in {LANGUAGE_MODEL}"
        raise UserError(
            f"--loss needs a masked language model, and {model} is none", got=_classes(config), allowed=allowed
        )
    return source


def is_masked_lm(model: str) -> bool:
    """Whether that is a model with a head for hidden tokens. Raises UserError for a run."""
    return not is_exported(home_of(model)) and saved_head(load_config(_single(model))) == "masked_lm"


def _single(model: str) -> ModelSource:
    if is_run(model):
        raise UserError("That is a run, not a model", got=model, allowed=", ".join(sources([model])))
    return resolve(model)


def _classes(config: PretrainedConfig) -> str:
    return ", ".join(config.architectures or ()) or "no architectures in its config.json"


# Below it no kernel of the package is faster than a dense product.
FEWEST_ZEROS = 0.5


def open_plain(model: str, runtime: str, max_length: int | None, batch: int, threads: int | None) -> Openers:
    """How a fine-tuned model is opened: in `runtime`; with AUTO in `eager`, and `sparse` where it has zeros or trees.

    Raises UserError for a model that `fine_tuned` refuses, and for an unknown runtime.
    """
    loaded = inference_of(check_plain(model, runtime, max_length), max_length, "eager", batch)
    config = loaded.model.config
    name = saved_kind(config)
    assert name is not None, "the model is for no known task"

    def opened(runtime: str) -> Opened:
        if registry.get("runtime", runtime).calibrated:
            raise UserError(
                f"In {runtime} texts set the scales of a model's numbers",
                fix="make its program first: sparsebert export, with --task or --data",
            )
        inference = Inference(loaded.model, loaded.reader, loaded.collate, runtime, batch)
        return Opened(inference, partial(torch_threads, threads))

    found = ("eager", "sparse") if _is_sparse(loaded.model) else ("eager",)
    names = found if runtime == AUTO else (runtime,)
    return Openers(names, name, label_names(config), loaded.reader.limit, opened, thresholds_of(config))


def check_plain(model: str, runtime: str, max_length: int | None) -> ModelSource:
    """Find a fine-tuned model; its weights are not looked at.

    Raises UserError for one that `fine_tuned` refuses, for an unknown runtime, and for a length that is too short.
    """
    if runtime != AUTO:
        registry.check("runtime", runtime)
    source = fine_tuned(model)
    _check_length(load_config(source), max_length)
    return source


def _is_sparse(model: PreTrainedModel) -> bool:
    if any(isinstance(module, FastFeedForward) for module in model.modules()):
        return True
    weights = [model.get_parameter(name) for name in encoder_linear_names(model)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros > FEWEST_ZEROS * sum(weight.numel() for weight in weights)


def label_names(config: PretrainedConfig) -> tuple[str, ...]:
    """The names of a model's outputs, none of vectors and of places in texts.

    Those of one name get their numbers too: they would share one probability.
    """
    if vector_of(config) is not None or saved_head(config) == "spans":
        return ()
    found = [name for _, name in sorted((config.id2label or {}).items())]
    if len(found) != config.num_labels:
        return tuple(f"LABEL_{number}" for number in range(config.num_labels or 0))
    return tuple(f"{name} ({row})" if found.count(name) > 1 else name for row, name in enumerate(found))


def inference_of(source: ModelSource, max_length: int | None, runtime: str, batch: int) -> Inference:
    """The model, loaded, to read `batch` texts at a time up to `max_length` tokens, none = what it reads by itself.

    Raises UserError for a length that is too short for a text.
    """
    model, tokenizer = open_model(source), load_tokenizer(source)
    config = model.config
    _check_length(config, max_length)
    wanted = max_length or reading_length(config, tokenizer)
    name = saved_kind(config)
    reader = Reader.of_kind(task_kind(name) if name else None, tokenizer, wanted, *token_limits(config))
    return Inference(model, reader, padding_collator(tokenizer), runtime, batch)


def _check_length(config: PretrainedConfig, max_length: int | None) -> None:
    limit = position_limit(config)
    if max_length is not None and max_length < SHORTEST:
        allowed = f"{SHORTEST} or more" if limit is None else f"{SHORTEST} to {limit}"
        raise UserError("--max-length is too short for a text", got=max_length, allowed=allowed)
