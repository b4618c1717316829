"""What an export starts from: the model in torch, how it reads texts, and the texts to check and to calibrate with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sparsebert.data.batches import TokenRow, groups_by_length, inputs_of, outputs_in_groups
from sparsebert.data.load import load_task
from sparsebert.data.tokens import TARGETS, Reader, TokenColumns
from sparsebert.deployment.plain import inference_of
from sparsebert.errors import UserError
from sparsebert.models.heads import saved_kind
from sparsebert.models.limits import reading_length, token_limits
from sparsebert.models.load import load_config, load_tokenizer
from sparsebert.models.source import ModelSource
from sparsebert.modes import evaluating
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.schema import Columns
from sparsebert.runs.context import RunContext, set_up
from sparsebert.runtimes.runtime import only_output, ready
from sparsebert.tasks.kind import task_kind
from sparsebert.training.collate import PaddingCollator, padding_collator
from sparsebert.training.inference import Inference

CHECKED_TEXTS = 64
JUDGED_TEXTS = 256
BATCH = 32
# Columns of encoded rows that are not looked at for answers.
_NO_INPUTS = ("label", TARGETS, "length", "row")


@dataclass(frozen=True)
class Wish:
    """What to export: a model, its programs by the names of their runtimes, and where to.

    `recipe` names the task and the data that programs are scored on, and whose train rows set scales, as many as
    `calibration` but no more than leaves a quarter of them to judge by; none = no scores. With `max_drop` a program may
    lose so many points of the main metric, no more. In programs of int8 as many linear layers stay in float32 as `kept`
    says: those whose rounding moves the answers most.
    """

    model: str
    output: Path
    runtimes: tuple[str, ...]
    recipe: Recipe | None = None
    calibration: int = 300
    max_drop: float | None = None
    max_length: int | None = None
    kept: int = 0


@dataclass(frozen=True)
class Subject:
    """The model in torch in float32, how it reads, and token rows: to check with, to calibrate with, to judge by."""

    model: PreTrainedModel
    kind: str | None
    tokenizer: PreTrainedTokenizerBase
    reader: Reader
    collate: PaddingCollator
    context: RunContext[Recipe] | None
    checked: TokenColumns
    expected: np.ndarray
    calibration: tuple[TokenColumns, ...]
    judged: TokenColumns | None


def subject_of(wish: Wish, source: ModelSource, calibrated: Sequence[str]) -> Subject:
    """Read all that is needed; `calibrated` are the runtimes of the wish whose scales are set by texts.

    Raises UserError for data that cannot be read or is missing, and for a model that is not fine-tuned for it.
    """
    if wish.recipe is None:
        if calibrated:
            raise UserError(
                f"In {', '.join(calibrated)} texts set the scales of a model's numbers, and there are none",
                fix="name the model's task or data: --task, --data",
            )
        opened = inference_of(source, wish.max_length, "eager", BATCH)
        return _without_data(opened)
    length = wish.max_length or reading_length(load_config(source), load_tokenizer(source))
    # Nothing is trained, so that no row has to be kept from a training.
    columns = _alone(wish.recipe.columns)
    given = {"model": wish.model, "max_length": length, "threshold_rows": 0, "columns": columns}
    context = set_up(wish.recipe.model_copy(update=given), wish.output)
    if not context.is_tuned:
        raise UserError(f"{wish.model} is not fine-tuned for the task", got=context.spec.name)
    model, tokenizer = context.start(), context.tokenizer
    reader = Reader.of_kind(context.kind, tokenizer, tokenizer.model_max_length, *token_limits(model.config))
    collate = padding_collator(tokenizer)
    order = np.random.default_rng(wish.recipe.data_seed).permutation(len(context.train))
    calibration = min(wish.calibration, len(order) - min(JUDGED_TEXTS, len(order) // 4))
    chosen, judged = np.split(order[: calibration + JUDGED_TEXTS], [calibration])
    checked = columns_of(context.validations[context.task.validation_name], range(CHECKED_TEXTS))
    # A program gives logits of all tokens, and is not scored by those that were hidden.
    kind = None if context.kind.hides_tokens else context.spec.kind
    return Subject(
        model,
        kind,
        tokenizer,
        reader,
        collate,
        context,
        checked,
        torch_outputs(model, collate, checked, kind),
        tuple(columns_of(context.train, [int(row)]) for row in chosen),
        columns_of(context.train, judged.tolist()) if len(judged) else None,
    )


def _alone(columns: Columns) -> Columns:
    """Of pairs whose vectors are made one by one the first texts, as texts by themselves: so a program reads them."""
    kind = task_kind(columns.kind)
    if kind.head != "embeddings" or not kind.apart:
        return columns
    return columns.model_copy(update={"kind": "embeddings", "text": (columns.text or kind.columns)[:1]})


def _without_data(opened: Inference) -> Subject:
    """Checked on texts that ship with the package."""
    kind = saved_kind(opened.model.config)
    texts = packaged_texts()
    pairs = kind is not None and (task_kind(kind).apart or task_kind(kind).by_span)
    checked, _ = opened.reader.read(texts, texts[::-1] if pairs else None)
    model = ready(opened.model, torch.float32)
    expected = torch_outputs(model, opened.collate, checked, kind)
    tokenizer = opened.reader.tokenizer
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return Subject(model, kind, tokenizer, opened.reader, opened.collate, None, checked, expected, (), None)


def packaged_texts() -> list[str]:
    """Texts that ship with the package."""
    return list(load_task("reviews", None, Columns()).validation["text_a"][:CHECKED_TEXTS])


def columns_of(rows: Dataset, chosen: Sequence[int]) -> TokenColumns:
    """The token columns of some rows of an encoded data set; numbers beyond its end are passed over."""
    part = rows.select([row for row in chosen if row < len(rows)])
    return {name: list(part[name]) for name in part.column_names if name not in _NO_INPUTS}


def torch_outputs(
    model: PreTrainedModel, collate: PaddingCollator, columns: TokenColumns, kind: str | None
) -> np.ndarray:
    """The first output of the model in torch for each text, as `by_text` has it."""
    with evaluating(model), torch.inference_mode():
        return by_text(columns, lambda rows: only_output(model(**inputs_of(collate(rows)))).numpy(), kind)


def by_text(columns: TokenColumns, run: Callable[[list[TokenRow]], np.ndarray], kind: str | None) -> np.ndarray:
    """What `run` gives [rows, ...]; of words or tokens where the `kind` of the task is of these, else of the first."""
    every = kind is not None and task_kind(kind).of_tokens

    def of_texts(rows: list[TokenRow]) -> np.ndarray:
        outputs = run(rows)
        return outputs if every or outputs.ndim < 3 else outputs[:, 0]

    groups = groups_by_length([len(ids) for ids in columns["input_ids"]], BATCH)
    return outputs_in_groups(columns, groups, of_texts)
