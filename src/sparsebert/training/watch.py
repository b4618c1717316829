"""What a training is scored on while it goes on, and what that decides: an early end, and which model is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparsebert.data.labels import labels_of
from sparsebert.recipe.schema import Evaluate
from sparsebert.records import Evaluation
from sparsebert.tasks.kind import TaskKind
from sparsebert.tasks.metrics import score
from sparsebert.training.collate import Collator
from sparsebert.training.evaluate import predict_logits
from sparsebert.training.together import same

PREFIX = "eval_"
LOSS = f"{PREFIX}loss"
HELD_OUT_OF_TRAINING = "held_out_of_training"


@dataclass(frozen=True)
class Watch:
    """Encoded rows of `split` that are not trained on, names of their labels, and the metrics, the main one first.

    `left_out` is how many of the rows that a teacher was asked about are among them.
    """

    evaluate: Evaluate
    rows: Dataset
    split: str
    kind: TaskKind
    names: tuple[str, ...]
    metrics: tuple[str, ...]
    left_out: int = 0

    def scores(self, model: PreTrainedModel, collate: Collator) -> dict[str, float]:
        """The mean loss and the metrics that have a value, as transformers names those of an evaluation."""
        outputs = same(lambda: predict_logits(model, self.rows, collate, kind=self.kind))
        labels = labels_of(self.rows)
        scored = self.kind.scored(outputs, labels, self.names)
        found = {"loss": self.kind.mean_loss(outputs, labels), **score(self.metrics, *scored)}
        return {f"{PREFIX}{name}": value for name, value in found.items() if math.isfinite(value)}

    def arguments(self, steps: int, per_epoch: float) -> dict[str, Any]:
        """The TrainingArguments of an evaluation every so often, in a training of `steps` optimiser steps."""
        every = max(1, self.evaluate.every.in_steps(steps, per_epoch))
        return {
            "eval_strategy": "steps",
            "eval_steps": every,
            # The best of the models is one that was saved.
            "save_steps": every,
            "load_best_model_at_end": self.keeps_best,
            "metric_for_best_model": self.main,
            "greater_is_better": True,
        }

    @property
    def main(self) -> str:
        """What the Trainer calls the main metric."""
        return f"{PREFIX}{self.metrics[0]}"

    def loss_at(self, step: int, state: TrainerState) -> float:
        """The loss of the evaluation at a step, infinite where none has a value."""
        return min(
            (entry[LOSS] for entry in state.log_history if entry["step"] == step and LOSS in entry), default=math.inf
        )

    @property
    def keeps_best(self) -> bool:
        """Whether the model in the end is the best of those that were scored."""
        return self.evaluate.keep == "best"

    def callbacks(self, save_steps: int) -> list[TrainerCallback]:
        """What ends the training early, and what saves it between evaluations too."""
        ends = [EarlyEnd(self)] if self.evaluate.patience is not None else []
        return [SaveOften(save_steps), *ends]

    def has_ended(self, state: TrainerState) -> bool:
        """Whether the last evaluations, as many as patience has, all came after the best one."""
        if self.evaluate.patience is None or state.best_global_step is None:
            return False
        steps = [entry["step"] for entry in state.log_history if any(key.startswith(PREFIX) for key in entry)]
        return sum(step > state.best_global_step for step in steps) >= self.evaluate.patience

    def evaluations(self, log: Sequence[dict[str, float]]) -> tuple[Evaluation, ...]:
        """What the log of a training says of its evaluations."""
        return tuple(
            Evaluation(
                step=int(entry["step"]),
                split=self.split,
                scores={name: entry[PREFIX + name] for name in self.metrics if PREFIX + name in entry},
                loss=entry.get(LOSS),
            )
            for entry in log
            if any(key.startswith(PREFIX) for key in entry)
        )


class SaveOften(TrainerCallback):
    """Checkpoints every so many steps, where those of the Trainer come with the evaluations."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """The Trainer looks at this after every step."""
        if state.global_step % self._steps == 0:
            control.should_save = True


class EarlyEnd(TrainerCallback):
    """Ends a training whose scores no longer rise.

    It looks at the log, which is a part of every checkpoint, and keeps nothing of its own: that of transformers begins
    to count anew after an interruption.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Every evaluation is followed by a checkpoint, and by then it is known whether it was the best."""
        if self._watch.has_ended(state):
            control.should_training_stop = True
