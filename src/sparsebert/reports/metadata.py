"""The front matter of a model card: what the hub reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sparsebert.records import ModelResult, Record
from sparsebert.reports.families import short_name
from sparsebert.reports.usage import embeds, fills_masks, finds_answers, needs_sparsebert, tags_words

# Zeros, a part of the encoder's weights, that come about by themselves, as where half precision rounds to them.
_CHANCE = 0.01
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def base_name(record: Record) -> str:
    """The hub name or folder of the model that the run began with."""
    return str(record.recipe.get("model") or "model")


def is_new(record: Record) -> bool:
    """Whether the run began with new weights: the name that these have of their configuration is none of the hub."""
    return record.recipe.get("config") is not None


def is_hub_name(name: str) -> bool:
    """Whether a model's name could be one of the hub, and is no folder here."""
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def front_matter(record: Record, model: ModelResult) -> str:
    """YAML between two rules. Scores are as the metric is defined (accuracy 0-1), which is what the hub expects."""
    base = base_name(record)
    library = "sentence-transformers" if embeds(model) else "transformers"
    values: dict[str, Any] = {"library_name": library, "pipeline_tag": _task(model)}
    values |= {"license": "unknown"} if is_new(record) else _license(base)
    if is_hub_name(base) and not is_new(record):
        values["base_model"] = base
    values["tags"] = ["sparsebert", *_tags(record, model)]
    if model.scores:
        values["model-index"] = [{"name": f"{short_name(base)}-{model.name}", "results": [_result(record, model)]}]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def is_whole(model: ModelResult) -> bool:
    """Whether nothing was removed of the model: it has the shape of its family, all entries, and hardly a zero."""
    cut = model.target_kind is not None or model.vocabulary is not None or needs_sparsebert(model)
    return not cut and model.sparsity.encoder_linear < _CHANCE


def _tags(record: Record, model: ModelResult) -> list[str]:
    if is_new(record) and not model.sparsity.encoder_linear:
        return ["masked-lm"]
    return [] if is_whole(model) else ["pruning", "structured-pruning", "compressed"]


def _task(model: ModelResult) -> str:
    if embeds(model):
        return "sentence-similarity"
    if tags_words(model):
        return "token-classification"
    if finds_answers(model):
        return "question-answering"
    return "fill-mask" if fills_masks(model) else "text-classification"


def _license(base: str) -> dict[str, str]:
    """That of the base model, whatever it is: a record does not hold it."""
    if not is_hub_name(base):
        return {"license": "unknown"}
    return {
        "license": "other",
        "license_name": "as-the-base-model",
        "license_link": f"https://huggingface.co/{base}",
    }


def _result(record: Record, model: ModelResult) -> dict[str, Any]:
    # The hub has one data set a result; of several splits the first is that of the main scores.
    split = model.scores[0].split
    metrics = [
        {"type": score.metric, "name": score.metric, "value": round(score.value, 4)}
        for score in model.scores
        if score.split == split
    ]
    return {
        "task": {"type": _task(model)},
        "dataset": {"name": record.task, "type": record.task, "split": split},
        "metrics": metrics,
    }
