"""The context: what every step of a run shares. Data, tokeniser, folders, and how a model is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from sparsebert.counts import example_inputs
from sparsebert.data.labels import labels_of, with_labels
from sparsebert.data.load import Task, load_task
from sparsebert.data.threshold_rows import without_threshold_rows
from sparsebert.errors import UserError
from sparsebert.measurement.setting import Setting
from sparsebert.models.heads import check_start, saved_head
from sparsebert.models.labels import draw_head, name_labels, take_labels
from sparsebert.models.load import load_config, load_model, load_tokenizer
from sparsebert.models.sentence_folder import length_note
from sparsebert.models.source import ModelSource, resolve
from sparsebert.models.thresholds import thresholds_of
from sparsebert.progress import Steps, bar_if_slow, line
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.schema import Training
from sparsebert.records import TRAIN, Decisions, Inputs, Score
from sparsebert.reports import values as v
from sparsebert.runs.notes import has_head, notes_about, notes_about_teachers, notes_about_thresholds
from sparsebert.runs.scoring import decisions, hidden_loss_score, split_scores
from sparsebert.runs.start import check_kind, check_pooling, start_config, vector_asked
from sparsebert.runs.token_rows import apart_rows, collator_of, encoded_splits, fit_tokenizer, in_parts, numbered
from sparsebert.tasks.kind import ConstantAnswer, TaskKind, task_kind
from sparsebert.tasks.metrics import score
from sparsebert.tasks.table import TaskSpec
from sparsebert.training.collate import Collator, EpochOrder, padding_collator
from sparsebert.training.evaluate import predict_logits
from sparsebert.training.masked_texts import MaskedTexts, PassOrder
from sparsebert.training.text_rows import Hider

Predictions = dict[str, np.ndarray]
R = TypeVar("R", bound=Recipe)
TOLERANCE = 1e-4
_GIVE = {
    "embeddings": "name how the vectors of tokens become one, --pooling mean, or give a folder of sentence-transformers"
}


@dataclass(frozen=True)
class RunContext(Generic[R]):
    """Token rows of both splits (`row` numbers the train rows), and where things go.

    Rows of `task` are what models read at once; `undivided` has them as they came, none = no text was divided.
    `threshold_rows` are those that no training sees, so that models choose thresholds on them; none = they do not.
    `callbacks` are the user's own, of every training, which is also logged to `report_to`. Inside a `share()` no other
    run trains the same dense model.
    """

    recipe: R
    folder: Path
    task: Task
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    validations: dict[str, Dataset]
    collate: Collator
    notes: tuple[str, ...]
    inputs: Inputs | None = None
    steps: Steps = field(default_factory=lambda: Steps(0))
    callbacks: tuple[TrainerCallback, ...] = ()
    report_to: tuple[str, ...] = ()
    share: Callable[[], AbstractContextManager[None]] = nullcontext
    threshold_rows: Dataset | None = None
    undivided: Task | None = None
    _opened: list[PreTrainedModel] = field(default_factory=list)

    @property
    def spec(self) -> TaskSpec:
        """The task's table entry."""
        return self.task.spec

    @property
    def whole(self) -> Task:
        """The task with its texts whole, before long ones were divided."""
        return self.undivided or self.task

    @property
    def kind(self) -> TaskKind:
        """The kind of the task."""
        return task_kind(self.spec.kind)

    def has_head(self, config: PretrainedConfig) -> bool:
        """Whether a saved model is fine-tuned for the task."""
        return has_head(config, self.spec)

    @property
    def is_tuned(self) -> bool:
        """Whether the recipe's model is fine-tuned for the task."""
        return self.has_head(start_config(self.recipe))

    def drawn(self, rows: Any, training: Training) -> tuple[Any, Sampler[Any] | None]:
        """Train rows as a training draws them, and in which order; none = those of like length together.

        Where tokens are hidden, others are in every pass.
        """
        if not self.kind.hides_tokens:
            return rows, None
        hider = Hider.of(self.tokenizer, self.recipe.masking, self.recipe.seed)
        order = EpochOrder(rows["length"], training.batch_size, self.recipe.seed)
        return MaskedTexts(rows, hider), PassOrder(order)

    @property
    def work(self) -> Path:
        """Intermediate files: safe to delete once the run has finished."""
        return self.folder / "work"

    @property
    def setting(self) -> Setting:
        """Batch and length that targets are about."""
        return self._setting(self.recipe.measure.batch, self.recipe.measure.length)

    @property
    def settings(self) -> list[Setting]:
        """All settings to report, the target's first, without repeats."""
        found = [self.setting, *(self._setting(*pair) for pair in self.recipe.measure.also)]
        return list(dict.fromkeys(found))

    def predict(self, model: PreTrainedModel) -> Predictions:
        """What metrics take [rows, outputs] on every validation split: outputs, less those that decide."""
        return self.margins(model, {split: self.outputs(model, rows) for split, rows in self.validations.items()})

    def margins(self, model: PreTrainedModel, outputs: Predictions) -> Predictions:
        """The same for given outputs of a model, or of a program that was made of it."""
        if not self.kind.has_thresholds:
            return outputs
        kind = self.kind.deciding_at(thresholds_of(model.config))
        return {split: kind.margins(rows) for split, rows in outputs.items()}

    def outputs(self, model: PreTrainedModel, rows: Dataset) -> np.ndarray:
        """Outputs [rows, outputs] for token rows, such as logits."""
        return predict_logits(model, rows, self.collate, kind=self.kind)

    def labels(self, split: str) -> np.ndarray:
        """What the rows of a validation split are labelled."""
        return labels_of(self.validations[split])

    @cached_property
    def constant(self) -> ConstantAnswer:
        """The best answer that does not look at the text, by the train rows."""
        return self.kind.baseline(labels_of(self.train), self.labels(self.task.validation_name), self.spec.labels)

    def main_value(self, predictions: Predictions) -> float | None:
        """The main metric on the split that decides, on its own; None where it has no value."""
        split, name = self.task.validation_name, self.spec.main_metric
        return score([name], *self.scored(split, predictions[split])).get(name)

    def scored(self, split: str, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What metrics take of outputs on a validation split, and of its labels."""
        return self.kind.scored(outputs, self.labels(split), self.spec.labels)

    def score(self, predictions: Predictions, dense: Predictions | None = None) -> tuple[Score, ...]:
        """The task's metrics on every validation split, beside chance; one that is undefined is left out.

        With those of the dense model, also how far from it. Of hidden tokens also their mean loss.
        """
        found: list[Score] = []
        for split, outputs in predictions.items():
            before = None if dense is None else dense[split]
            found += split_scores(self.spec, split, outputs, self.labels(split), self.constant, before)
            if self.kind.hides_tokens:
                found.append(hidden_loss_score(split, outputs, before, self.constant))
        return tuple(found)

    def train_scores(self, model: PreTrainedModel) -> tuple[Score, ...]:
        """The task's metrics and the mean loss on the train rows."""
        outputs, labels = self.outputs(model, self.train), labels_of(self.train)
        margins = self.margins(model, {TRAIN: outputs})[TRAIN]
        loss = Score(metric="loss", value=self.kind.mean_loss(outputs, labels), split=TRAIN, examples=len(labels))
        return (*split_scores(self.spec, TRAIN, margins, labels, self.constant), loss)

    def decide(self, predictions: Predictions, dense: Predictions | None = None) -> Decisions | None:
        """What was decided on the validation split that decides, and where otherwise than by the dense model."""
        split = self.task.validation_name
        before = None if dense is None else dense[split]
        return decisions(self.spec, self.task.validation, predictions[split], self.labels(split), before)

    def load(self, source: ModelSource | Path) -> PreTrainedModel:
        """A model with the task's head and labels, in float32, also where its file is not: halves cannot be trained."""
        labels = self.spec.labels
        model = load_model(source, num_labels=len(labels) or None, kind=self.spec.kind, dtype=torch.float32)
        if labels and self.has_head(model.config):
            take_labels(model, labels)
        elif labels:
            if _has_rows(load_config(source), self.kind, len(labels)):
                draw_head(model)
            name_labels(model.config, labels)
        return model

    def start(self) -> PreTrainedModel:
        """The recipe's model with the task's head and label names, to look at and not to change."""
        if not self._opened:
            self._opened.append(self._open())
        return self._opened[0]

    def fresh(self) -> PreTrainedModel:
        """The same, to be changed by the caller; the seed decides what is new in it."""
        return self._opened.pop() if self._opened else self._open()

    def _open(self) -> PreTrainedModel:
        source, vector = resolve(self.recipe.model), vector_asked(self.recipe)
        set_seed(self.recipe.seed)
        if vector is not None:
            return load_model(source, kind=self.spec.kind, dtype=torch.float32, vector=vector)
        return self.load(source)

    def say(self, name: str, predictions: Predictions) -> None:
        """Print the main metric of a model."""
        value = self.main_value(predictions)
        line(f"{name}: {self.spec.main_metric} " + ("undefined" if value is None else v.fraction(value)))

    def checked_difference(self, masked: PreTrainedModel, small: PreTrainedModel) -> float:
        """The largest |logit| difference relative to the largest logit. Raises RuntimeError if that is no rounding."""
        probe = self.probe()
        with torch.inference_mode():
            expected, got = (self.kind.outputs(model(**probe)) for model in (masked, small))
        difference = float((expected - got).abs().max() / expected.abs().max().clamp_min(1e-6))
        if difference > TOLERANCE:
            raise RuntimeError(f"the cut model differs from the masked one by {difference:.2e}, relative")
        return difference

    def probe(self) -> dict[str, torch.Tensor]:
        """A small padded batch for output checks."""
        rows = self.validations[self.task.validation_name]
        batch = self.collate([rows[index] for index in range(min(8, len(rows)))])
        return {key: value for key, value in batch.items() if key != "labels"}

    def _setting(self, batch: int, length: int | None) -> Setting:
        if length is None:
            length = int(np.median(list(self.validations[self.task.validation_name]["length"])))
        return Setting(batch, length)


def task_of(recipe: Recipe) -> Task:
    """The task of a recipe, with the rows that it asks for. Raises UserError for data that cannot be read."""
    task = load_task(recipe.task, recipe.data, recipe.columns, recipe.data_seed, recipe.train_examples, recipe.hold_out)
    return without_threshold_rows(task, recipe.threshold_rows, recipe.data_seed)


def set_up(
    recipe: R,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    further: Callable[[PreTrainedTokenizerBase, Task], Sequence[PreTrainedTokenizerBase]] = lambda own, task: (),
) -> RunContext[R]:
    """Load data and tokeniser; `further` ones will read the texts too, such as what is made of the model's own.

    Raises UserError for anything the user can mend, before anything is written.
    """
    source = resolve(recipe.model)
    check_start(load_config(source), source.name)
    check_kind(recipe, load_config(source))
    whole = task_of(recipe)
    check_pooling(recipe, task_kind(whole.spec.kind))
    config, tokenizer = start_config(recipe), load_tokenizer(source)
    _check_says_something(recipe, whole.spec, config)
    task = in_parts(recipe, whole, tokenizer, config, partial(further, tokenizer))
    train, encoded = encoded_splits(recipe, task, tokenizer, config)
    fixed = task_kind(task.spec.kind).labelled
    notes = [
        *task.notes,
        length_note(source.path, tokenizer),
        *fit_tokenizer(tokenizer, train.max_length if fixed else None),
    ]
    notes += [f"{name}: {note}" for name, one in {TRAIN: train, **encoded}.items() for note in one.notes]
    notes += [*notes_about(config, task.spec), *notes_about_thresholds(config, task)]
    notes += notes_about_teachers(recipe.given_teachers, task.spec.labels)
    context = RunContext(
        recipe,
        folder,
        task,
        tokenizer,
        numbered(train.dataset),
        {name: one.dataset for name, one in encoded.items()},
        collator_of(tokenizer, task),
        tuple(note for note in notes if note),
        callbacks=tuple(callbacks),
        threshold_rows=apart_rows(recipe, task, tokenizer, config),
        undivided=whole,
    )
    # Damaged weights and lengths without positions are found before anything is written.
    for setting in context.settings:
        example_inputs([context.start()], setting.batch, setting.length)
    return _labelled_by_model(context) if context.kind.by_model else context


def _check_says_something(recipe: Recipe, spec: TaskSpec, config: PretrainedConfig) -> None:
    """Raise UserError for a task without labels where no model is there whose outputs could stand for them."""
    kind = task_kind(spec.kind)
    if kind.hides_tokens and not has_head(config, spec):
        raise UserError(
            "The model has no head that names hidden tokens",
            got=", ".join(config.architectures or ()) or "no architectures in its config.json",
            fix="give a masked language model, or make one of it with `sparsebert pretrain MODEL --text`",
        )
    if not kind.by_model or recipe.given_teachers or has_head(config, spec):
        return
    raise UserError(
        f"The model gives nothing of kind {spec.kind} that a smaller one could be made to keep",
        got=", ".join(config.architectures or ()) or "no architectures in its config.json",
        fix=_GIVE.get(kind.head, "give a model of sentence-transformers, a CrossEncoder for ranking"),
    )


def _labelled_by_model(context: RunContext[R]) -> RunContext[R]:
    """The same with what a model says of each row as its label: the recipe's first teacher, else its own model."""
    teachers = context.recipe.given_teachers
    if not teachers:
        return _labelled(context, context.start(), context.train, context.validations, context.collate)
    source = resolve(teachers[0])
    config = load_config(source)
    if not context.has_head(config):
        raise UserError("The teacher is not fine-tuned for this task", got=source.name, fix="give teacher: dense")
    # It may read with another tokenizer.
    tokenizer = load_tokenizer(source)
    train, encoded = encoded_splits(context.recipe, context.task, tokenizer, config)
    validations = {name: one.dataset for name, one in encoded.items()}
    return _labelled(context, context.load(source), train.dataset, validations, padding_collator(tokenizer))


def _labelled(
    context: RunContext[R],
    model: PreTrainedModel,
    train: Dataset,
    validations: dict[str, Dataset],
    collate: Collator,
) -> RunContext[R]:
    """The context's rows, each with what a model says of the row in its place, which is encoded for that model."""

    def said(rows: Dataset, what: str) -> np.ndarray:
        with bar_if_slow(f"Asking the model about {what} texts", len(rows)) as done:
            return predict_logits(model, rows, collate, kind=context.kind, done=done)

    found = {name: with_labels(rows, said(validations[name], name)) for name, rows in context.validations.items()}
    return replace(context, train=with_labels(context.train, said(train, TRAIN)), validations=found)


def reads_by(context: RunContext[R], tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> RunContext[R]:
    """The same run for models with another tokenizer."""
    train, encoded = encoded_splits(context.recipe, context.task, tokenizer, config)
    validations = {name: one.dataset for name, one in encoded.items()}
    if context.kind.by_model:
        # The same texts, of which the same is to be said.
        train = replace(train, dataset=with_labels(train.dataset, labels_of(context.train)))
        validations = {name: with_labels(rows, context.labels(name)) for name, rows in validations.items()}
    return replace(
        context,
        tokenizer=tokenizer,
        train=numbered(train.dataset),
        validations=validations,
        collate=collator_of(tokenizer, context.task),
        threshold_rows=apart_rows(context.recipe, context.task, tokenizer, config),
        _opened=[],
    )


def _has_rows(config: PretrainedConfig, kind: TaskKind, num_labels: int) -> bool:
    """Whether a saved classifier is of as many labels as are wanted, so that loading keeps its rows."""
    return config.num_labels == num_labels and saved_head(config) == kind.head
