"""The texts that a model is scored on with parts switched off: its record's validation rows, or a file of the user."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sparsebert.errors import UserError
from sparsebert.live.catalogue import AskedModel
from sparsebert.live.texts import TextQueue

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig

    from sparsebert.tasks.kind import TaskKind

MOST_ROWS, SEED = 500, 0
_FIX = "choose a file above"


@dataclass(frozen=True)
class ScoredRows:
    """Rows with `text_a`, `text_b` of pairs, and `label`; `where` they are from, and `key`, which is of just these.

    `kind` is that of their task. metric: what is computed of them, none = how much of what the model says it says
    again. names: of the labels, empty = those of the model.
    """

    rows: Dataset
    kind: TaskKind
    where: str
    key: str
    metric: str | None
    names: tuple[str, ...] = ()


def validation_rows(model: AskedModel, config: PretrainedConfig) -> ScoredRows:
    """Those of the model's record, at most MOST_ROWS of them; `config` is the model's configuration.

    Raises UserError where there is no record, where its data are not there or are others now, and for another task.
    """
    from sparsebert.models.heads import has_task_head
    from sparsebert.recipe.load import parse_recipe
    from sparsebert.runs.context import task_of
    from sparsebert.runs.inputs import rows_of
    from sparsebert.tasks.kind import task_kind

    record = model.record
    if record is None:
        raise UserError(f"{model.name} has no record that says what it was validated on", fix=_FIX)
    try:
        task = task_of(parse_recipe(record.recipe))
    except UserError as error:
        raise UserError(f"The validation examples of {model.name} are not here: {error}", fix=_FIX) from None
    spec, kind = task.spec, task_kind(task.spec.kind)
    if not has_task_head(config, kind, kind.num_outputs or len(spec.labels), spec.labels):
        raise UserError(f"{model.name} is not fine-tuned for {spec.name}, the task of its record", fix=_FIX)
    name = task.validation_name
    known = record.inputs.data.get(name) if record.inputs else None
    if known is not None and known != rows_of(task.validation):
        raise UserError(f"The validation examples of {model.name} are others now than when it was made", fix=_FIX)
    metric = spec.main_metric if kind.labelled else None
    where, key = f"{name.replace('_', ' ')} examples of {spec.name}", f"{record.recipe_hash} {record.created}"
    return _few(ScoredRows(_with_words(task.validation, kind), kind, where, key, metric, spec.labels))


def file_rows(queue: TextQueue, kind: TaskKind, names: tuple[str, ...], own_label: bool) -> ScoredRows:
    """The texts of a file, with its labels where it has any that the model could give; at most MOST_ROWS.

    `names` are the labels of the model, `own_label` says that the column was named. Raises UserError for labels that
    the model does not have, and for a named column where labels are no column.
    """
    from datasets import Dataset

    takes = kind.labelled and not kind.of_tokens
    if own_label and not takes:
        raise UserError("What this model says has no column of labels", fix="leave the label column empty")
    columns: dict[str, list[Any]] = {"text_a": list(queue.first)}
    if queue.second is not None:
        columns["text_b"] = list(queue.second)
    if queue.labels is not None and takes:
        values, _ = kind.from_text(queue.labels)
        columns["label"] = kind.labels(values, names, queue.labels.where)
    metric = kind.metrics[0] if "label" in columns else None
    key = hashlib.sha256(repr((columns, metric)).encode("utf-8", "surrogatepass")).hexdigest()
    return _few(ScoredRows(_with_words(Dataset.from_dict(columns), kind), kind, "texts of the file", key, metric))


def _few(rows: ScoredRows) -> ScoredRows:
    """MOST_ROWS of them, drawn with SEED, if they are more; `where` says so."""
    from sparsebert.studies.task_rows import drawn

    count = len(rows.rows)
    if count <= MOST_ROWS:
        return replace(rows, where=f"all {count:,} {rows.where}")
    where = f"{MOST_ROWS:,} of the {count:,} {rows.where}, drawn with seed {SEED}"
    return replace(rows, rows=drawn(rows.rows, MOST_ROWS, SEED), where=where)


def _with_words(rows: Dataset, kind: TaskKind) -> Dataset:
    """Where every word has a label and none is given: with the words, each with the first label."""
    if not kind.by_word or "label" in rows.column_names:
        return rows
    from datasets import Dataset

    from sparsebert.tasks.entities import words_in

    words = [[[*place, 0] for place in words_in(text)] for text in rows["text_a"]]
    return Dataset.from_dict({"text_a": rows["text_a"], "label": words})
