"""A text has any number of labels, also none.

The label column holds lists of words or whole numbers in JSONL and parquet. In CSV it holds text in which `|` divides
the labels, as in `food|service`; an empty cell is a text without labels. Or each label has a column of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsebert.errors import UserError
from sparsebert.tasks.class_names import class_name, in_order, listed, refuse_missing_word
from sparsebert.tasks.kind import ConstantAnswer, Passage, TaskKind, TextColumn
from sparsebert.tasks.metric import Metric, UndefinedMetricError
from sparsebert.tasks.resampled import Drawn, weights
from sparsebert.tasks.thresholds import choose_thresholds

if TYPE_CHECKING:
    import torch

SEPARATOR = "|"


def _log_chance(outputs: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -outputs)


def _chance(outputs: np.ndarray) -> np.ndarray:
    return np.exp(_log_chance(outputs))


@dataclass(frozen=True)
class MultiLabel(TaskKind):
    """Outputs are logits of independent sigmoids; a label is given where its probability is above its threshold.

    `thresholds` are a model's own, one a label, above 0 and below 1; none = one half for all.
    """

    thresholds: tuple[float, ...] = ()

    head = "classification"
    problem_type = "multi_label_classification"
    metrics = ("micro_f1", "macro_f1")
    named = True
    exclusive = False
    num_outputs = None
    has_thresholds = True

    def deciding_at(self, thresholds: Sequence[float]) -> MultiLabel:
        """With a model's own thresholds."""
        return replace(self, thresholds=tuple(thresholds))

    def margins(self, outputs: np.ndarray) -> np.ndarray:
        """Logits less those of the thresholds: a label is given where that is above 0."""
        if not self.thresholds:
            return outputs
        limits = np.array(self.thresholds)
        return outputs - np.log(limits / (1 - limits))

    def chosen_thresholds(self, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        """One for each label (see tasks/thresholds.py)."""
        return choose_thresholds(outputs, labels)

    def from_columns(self, columns: Mapping[str, Sequence[Any]], file: str) -> tuple[list[list[str]], tuple[str, ...]]:
        """Of each row the names of the columns with a 1. Raises UserError for a value that is not 0 or 1."""
        given = {
            name: [_is_one(value, file, name, row) for row, value in enumerate(values, start=1)]
            for name, values in columns.items()
        }
        never = [name for name, values in given.items() if not any(values)]
        note = f"no row of {file} has the label {', '.join(never)}: a model cannot learn to give it"
        rows = [
            [name for name, one in zip(given, values, strict=True) if one]
            for values in zip(*given.values(), strict=True)
        ]
        return rows, (note,) if never else ()

    def from_text(self, column: TextColumn) -> tuple[list[list[str]], tuple[str, ...]]:
        """Lists of what stands between separators. Raises UserError for words that stand for a missing value."""
        values = [_parts(text, f"{column.where}, row {row}") for row, text in enumerate(column.values, start=1)]
        without = sum(not parts for parts in values)
        note = f"{without} of {len(values)} rows of {column.file} have an empty label: these texts have no label"
        return values, (note,) if without else ()

    def label_names(self, values: Sequence[Any], where: str) -> tuple[str, ...]:
        """All labels that a text has. Raises UserError where all texts have the same."""
        sets = [frozenset(names) for names in _names(values, where)]
        if len(set(sets)) < 2:
            got = ", ".join(in_order(sets[0])) or "none"
            raise UserError(f"{where}: every row has the same labels, so there is nothing to learn", got=got)
        return in_order(frozenset().union(*sets))

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[list[float]]:
        """1.0 for each label that a text has, 0.0 for the others."""
        known = frozenset(names)
        rows = _names(values, where)
        for row, found in enumerate(rows, start=1):
            other = next((name for name in found if name not in known), None)
            if other is not None:
                what = f"{where}, row {row}: not in the label set"
                raise UserError(what, got=f"'{other}'", allowed=listed(names))
        return [[float(name in found) for name in names] for found in rows]

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """The number of the rarest label that a text has, so that no label is held out as a whole."""
        rarest = np.where(labels > 0, labels.sum(axis=0), np.inf).argmin(axis=1)
        return np.where(labels.any(axis=1), rarest, labels.shape[1])

    def recognises(self, num_labels: int | None, problem_type: str | None) -> bool:
        """As transformers reads a configuration."""
        return problem_type == self.problem_type

    def outputs(self, output: Any) -> torch.Tensor:
        """Logits [texts, labels]."""
        return output.logits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy, in nats, a mean over texts and labels."""
        import torch.nn.functional as F

        return F.binary_cross_entropy_with_logits(outputs, labels)

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Binary cross-entropy, in nats, a mean over texts and labels."""
        return float(-np.mean(labels * _log_chance(outputs) + (1 - labels) * _log_chance(-outputs)))

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """KL(teacher || student) of each label's probability, in nats, a sum over labels."""
        sides = [
            _chance(sign * teacher) * (_log_chance(sign * teacher) - _log_chance(sign * student)) for sign in (1, -1)
        ]
        return float(np.mean(np.sum(sides, axis=(0, 2))))

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """T^2 times the binary cross-entropy against the teacher's softened probabilities."""
        import torch
        import torch.nn.functional as F

        target = torch.sigmoid(teacher / temperature)
        return temperature**2 * F.binary_cross_entropy_with_logits(student / temperature, target)

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """As many of the most frequent labels as have the highest micro-F1."""
        counts = labels.sum(axis=0)
        order = np.argsort(-counts, kind="stable")
        given = np.arange(1, len(names) + 1) * len(labels)
        best = int(np.argmax(2 * counts[order].cumsum() / (given + counts.sum()))) + 1
        outputs = np.full(len(names), -1.0)
        outputs[order[:best]] = 1.0
        return ConstantAnswer(outputs, f'always saying "{listed([names[int(place)] for place in order[:best]])}"')

    def answer(self, names: Sequence[str], outputs: np.ndarray, passage: Passage | None = None) -> dict[str, Any]:
        """The labels with a probability above their threshold, in the model's order, and the probabilities of all."""
        chosen = [name for name, margin in zip(names, self.margins(outputs), strict=True) if margin > 0]
        return {"labels": chosen, "probabilities": dict(zip(names, _chance(outputs).tolist(), strict=True))}


MULTILABEL = MultiLabel()


# What compares equal to 1, such as true and 1.0, is 1 too.
_ONES = {1: True, 0: False, "1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


def _is_one(value: Any, file: str, name: str, row: int) -> bool:
    """Whether a cell of a label's own column says 1; in CSV it is text."""
    said = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(said, str | bool | int | float) or said not in _ONES:
        got = "nothing" if said is None or said == "" else f"'{value}'"
        raise UserError(f"{file}, column '{name}', row {row}: not 0 or 1", got=got, allowed="0 or 1")
    return _ONES[said]


def _parts(text: str, where: str) -> list[str]:
    """The labels of a CSV file's cell."""
    parts = text.split(SEPARATOR) if text.strip() else []
    for part in parts:
        if not part.strip():
            what = f"{where}: nothing stands on one side of a '{SEPARATOR}'"
            fix = f"write labels as in food{SEPARATOR}service, and nothing for a text without labels"
            raise UserError(what, got=f"'{text}'", fix=fix)
        refuse_missing_word(part, where)
    return parts


def _names(values: Sequence[Any], where: str) -> list[list[str]]:
    found = []
    for row, value in enumerate(values, start=1):
        place = f"{where}, row {row}"
        if value is None:
            raise UserError(f"{place}: the label is missing", fix="write [] for a text without labels")
        if not isinstance(value, list):
            fix = 'write ["food", "service"], and [] for a text without labels'
            raise UserError(f"{place}: labels must be a list", got=type(value).__name__, fix=fix)
        found.append([class_name(one, place) for one in value])
    return found


def micro_f1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """F1 of all labels of all texts together, 0-1. Undefined if no text has a label and none is given."""
    return _f1(outputs, labels, "micro")


def macro_f1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Mean over labels of each one's F1, 0-1, without those that no text has and none is given.

    Of classes too, `labels` [rows]: the largest output is the one class given.
    """
    return _f1(*_as_sets(outputs, labels), "macro")


def _f1(outputs: np.ndarray, labels: np.ndarray, average: str) -> float:
    # Predicting loads the kind, and needs no metrics.
    from sklearn.metrics import f1_score

    # Labels without a value are left out of the mean; the annotation of this argument knows only text.
    left_out: Any = np.nan
    given = outputs > 0
    if not given.any() and not labels.any():
        raise UndefinedMetricError("no text has a label, and none is given")
    return float(f1_score(labels > 0, given, average=average, zero_division=left_out))


def _resampled_micro(outputs: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    right, wrong = _sums(outputs, labels, drawn)
    return _ratio(2 * right.sum(axis=1), (2 * right + wrong).sum(axis=1))


def _resampled_macro(outputs: np.ndarray, labels: np.ndarray, drawn: Drawn) -> np.ndarray:
    right, wrong = _sums(*_as_sets(outputs, labels), drawn)
    defined = right + wrong > 0
    each = np.where(defined, _ratio(2 * right, 2 * right + wrong), 0.0)
    return _ratio(each.sum(axis=1), defined.sum(axis=1))


def _sums(outputs: np.ndarray, labels: np.ndarray, drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """How often each label was rightly given, and how often wrongly or not [resamples, labels]."""
    given, true = outputs > 0, labels > 0
    right, wrong = (given & true).astype(np.float64), (given != true).astype(np.float64)
    counted = [(weights(rows) @ right, weights(rows) @ wrong) for rows in drawn]
    return np.concatenate([one for one, _ in counted]), np.concatenate([other for _, other in counted])


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)


def _as_sets(outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes as sets of one label each; sets as they are."""
    if labels.ndim == 2:
        return outputs, labels
    every = np.eye(outputs.shape[-1])
    return every[outputs.argmax(axis=-1)], every[labels]


def _of_sets(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return len(outputs) == 2 and outputs == labels


def _of_sets_or_classes(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return _of_sets(outputs, labels) or (len(outputs) == 2 and outputs[1] > 1 and labels == outputs[:1])


MICRO_F1 = Metric(micro_f1, _resampled_micro, _of_sets)
MACRO_F1 = Metric(macro_f1, _resampled_macro, _of_sets_or_classes)
