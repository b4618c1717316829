"""What a type of run is: one object that checks, and makes models. `run` knows no more of it than this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic

from transformers import PreTrainedModel, TrainerCallback

from sparsebert.counts import Footprint
from sparsebert.data.load import Task
from sparsebert.recipe.base import Recipe
from sparsebert.records import Inputs, ModelResult
from sparsebert.runs.context import Predictions, R, RunContext, set_up, task_of
from sparsebert.runs.inputs import inputs_of


@dataclass(frozen=True)
class Entry:
    """One finished model of a run, before the final measurement.

    `facts` are the fields of `records.ModelResult` that only the run type knows; what every model has is measured.
    `context` has the train rows as this model reads them, none = as the run has them.
    """

    name: str
    folder: Path
    model: PreTrainedModel
    predictions: Predictions
    facts: Mapping[str, Any] = field(default_factory=dict)
    context: RunContext[Any] | None = None


@dataclass(frozen=True)
class Start:
    """The model that training started from, before it was changed; sizes and sparsities are against it."""

    model: PreTrainedModel
    footprint: Footprint


@dataclass(frozen=True)
class Made:
    """What a run made: its models, the dense one first where there is one, and notes about them.

    Sizes are against the first entry, or against `start` where that is given. Scores and times are against the first
    entry; where that is not the dense model (`has_dense` false), times are against `start`, and scores against nothing.
    """

    entries: Sequence[Entry]
    notes: tuple[str, ...] = ()
    start: Start | None = None
    has_dense: bool = True


class RunType(ABC, Generic[R]):
    """One type of run. The class of its recipes says what can be asked of it."""

    recipe: ClassVar[type[Recipe]]

    def set_up(self, recipe: R, folder: Path, callbacks: Sequence[TrainerCallback]) -> RunContext[R]:
        """Data, tokenizer and model; most types of run have one task. Raises UserError; nothing is written."""
        return set_up(recipe, folder, callbacks)

    def task(self, recipe: R) -> Task:
        """What a run of this recipe reads, without its model. Raises UserError for data that cannot be read."""
        return task_of(recipe)

    def inputs(self, recipe: R, task: Task) -> Inputs:
        """What a run is made from, besides its recipe. Raises UserError for a model that is not there."""
        return inputs_of(recipe, task)

    @abstractmethod
    def check(self, context: RunContext[R]) -> int:
        """How many steps the run will announce, measuring and report aside.

        Trains and writes nothing. Raises UserError for what cannot be done with this recipe, model and task.
        """

    @abstractmethod
    def make(self, context: RunContext[R]) -> Made:
        """Make the models, each in a folder of its own in `context.folder`, going on from what is on disk there."""

    def conclude(self, context: RunContext[R], models: Sequence[ModelResult]) -> Sequence[str]:
        """Notes about the measured models; most types of run have none of their own."""
        return ()
