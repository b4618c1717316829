"""What a run of several heads shares: a context for each of their tasks, and scores of each and of all together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, TrainerCallback

from sparsebert.data.load import Task
from sparsebert.models.labels import name_labels
from sparsebert.models.load import load_model
from sparsebert.models.pair_classes import SENTIMENT, set_head_dropout
from sparsebert.models.source import ModelSource
from sparsebert.models.split import HEADS
from sparsebert.recipe.multitask import NAME, MultitaskRecipe
from sparsebert.records import Decisions, Score
from sparsebert.runs.context import Predictions, RunContext, set_up
from sparsebert.tasks.bootstrap import interval, resampled_scores
from sparsebert.tasks.kind import ConstantAnswer
from sparsebert.tasks.metrics import constant_scores
from sparsebert.tasks.table import TaskSpec, task_spec
from sparsebert.training.evaluate import predict_logits

OVERALL = "overall"
RESAMPLES = 1000
SPEC = TaskSpec(
    name=NAME,
    columns=(),
    labels=task_spec(HEADS[SENTIMENT]).labels,
    metrics=(OVERALL,),
    description="sst5, quora and sts together, scored by the mean of their main metrics",
)


@dataclass(frozen=True)
class HeadsContext(RunContext[MultitaskRecipe]):
    """A context for each head; the validation splits of all are named by their tasks, as `sst5 validation`."""

    parts: Mapping[str, RunContext[MultitaskRecipe]] = field(default_factory=dict)

    @cached_property
    def constant(self) -> ConstantAnswer:
        """Of each task its own, so that there are no outputs that would be all of them."""
        return ConstantAnswer(np.zeros(0), "the constant answer to each task")

    def predict(self, model: PreTrainedModel) -> Predictions:
        """Outputs of the head of each validation split."""
        return {
            _name(part, split): _outputs(model, head, part, split)
            for head, part in self.parts.items()
            for split in part.validations
        }

    def main_value(self, predictions: Predictions) -> float | None:
        """The mean of the tasks' main metrics on the splits that decide; None where one has no value."""
        values = [part.main_value(_own(part, predictions)) for part in self.parts.values()]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) else None

    def score(self, predictions: Predictions, dense: Predictions | None = None) -> tuple[Score, ...]:
        """The mean of the main metrics, then every task's metrics on its validation splits, beside chance."""
        each = [
            one.model_copy(update={"split": _name(part, one.split)})
            for part in self.parts.values()
            for one in part.score(_own(part, predictions), None if dense is None else _own(part, dense))
        ]
        overall = self._overall(predictions)
        return (*each,) if overall is None else (overall, *each)

    def train_scores(self, model: PreTrainedModel) -> tuple[Score, ...]:
        """Every task's metrics and mean loss on its train rows."""
        return tuple(
            one.model_copy(update={"split": _name(part, one.split)})
            for head, part in self.parts.items()
            for one in part.train_scores(_OneHead.of(model, head))
        )

    def decide(self, predictions: Predictions, dense: Predictions | None = None) -> Decisions | None:
        """None: decisions are of one task."""
        return None

    def load(self, source: ModelSource | Path) -> PreTrainedModel:
        """A model with all heads, in float32; those that its file lacks are drawn at random."""
        labels = len(SPEC.labels)
        model = load_model(source, num_labels=labels, kind=SPEC.kind, dtype=torch.float32, head="multitask")
        name_labels(model.config, SPEC.labels)
        set_head_dropout(model, self.recipe.head_dropout)
        return model

    def _overall(self, predictions: Predictions) -> Score | None:
        """With an interval over the examples of each task, which are drawn apart from each other's."""
        value = self.main_value(predictions)
        if value is None:
            return None
        drawn, bases, examples = [], [], 0
        for seed, part in enumerate(self.parts.values()):
            split, metric = part.task.validation_name, part.spec.main_metric
            labels = part.labels(split)
            always, _ = part.kind.scored(part.constant.everywhere(labels), labels, part.spec.labels)
            outputs, labels = part.kind.scored(predictions[_name(part, split)], labels, part.spec.labels)
            drawn.append(resampled_scores(metric, outputs, labels, RESAMPLES, seed))
            bases.append(constant_scores([metric], always, labels)[metric])
            examples += len(labels)
        low, high = interval(np.mean(drawn, axis=0)) or (None, None)
        base = float(np.mean(bases))
        split = next(iter(self.parts.values())).task.validation_name
        return Score(metric=OVERALL, value=value, split=split, examples=examples, low=low, high=high, baseline=base)


class _OneHead(torch.nn.Module):
    """A multitask model as one of one head."""

    def __init__(self, model: PreTrainedModel, head: str) -> None:
        super().__init__()
        self.model, self.head = model, head

    @classmethod
    def of(cls, model: PreTrainedModel, head: str) -> PreTrainedModel:
        """In the type that whoever calls a model asks for; it is only called."""
        made: object = cls(model, head)
        return made  # type: ignore[return-value]

    def forward(self, **inputs: torch.Tensor) -> object:
        return self.model(**inputs, head=self.head)


def set_up_heads(
    recipe: MultitaskRecipe, folder: Path, callbacks: Sequence[TrainerCallback] = ()
) -> RunContext[MultitaskRecipe]:
    """As `set_up`, for the tasks of all heads. Raises UserError before anything is written."""
    parts = {head: set_up(recipe.model_copy(update={"task": task}), folder, callbacks) for head, task in HEADS.items()}
    first, *others = parts.values()
    for part in parts.values():
        # Loaded to be checked; the run loads a model of its own.
        part._opened.clear()
    shared = [note for note in first.notes if all(note in part.notes for part in others)]
    own = [f"{part.spec.name}: {note}" for part in parts.values() for note in part.notes if note not in shared]
    return HeadsContext(
        recipe,
        folder,
        together([part.task for part in parts.values()]),
        first.tokenizer,
        first.train,
        {_name(part, split): rows for part in parts.values() for split, rows in part.validations.items()},
        first.collate,
        (*shared, *own),
        callbacks=tuple(callbacks),
        parts=parts,
    )


def together(tasks: Sequence[Task]) -> Task:
    """All rows of all tasks by name, of which a run keeps digests."""
    first, *others = tasks
    rows = {f"{task.spec.name} train": task.train for task in others}
    for task in tasks:
        splits = {task.validation_name: task.validation, **task.more_validation}
        rows |= {f"{task.spec.name} {split}": one for split, one in splits.items()}
    name = f"{first.spec.name} {first.validation_name}"
    return Task(SPEC, first.train, rows.pop(name), name, rows, any(task.subset for task in tasks))


def _name(part: RunContext[MultitaskRecipe], split: str) -> str:
    return f"{part.spec.name} {split}"


def _own(part: RunContext[MultitaskRecipe], predictions: Predictions) -> Predictions:
    return {split: predictions[_name(part, split)] for split in part.validations}


def _outputs(model: PreTrainedModel, head: str, part: RunContext[MultitaskRecipe], split: str) -> np.ndarray:
    return predict_logits(_OneHead.of(model, head), part.validations[split], part.collate, kind=part.kind)
