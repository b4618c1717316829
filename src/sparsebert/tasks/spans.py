"""A question about a text has its answer in the text, or none there: extractive question answering.

A model gives two logits for each token: that the answer starts there, and that it ends there. Those of the first token
of all say that there is none. A text that is longer than the model reads comes as several windows, a row each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sparsebert.errors import UserError
from sparsebert.tasks.answers import (
    LOWEST,
    NO_ANSWER,
    FoundAnswer,
    answer_scores,
    best_answer,
    grouped,
    pieces_in,
    pieces_of,
)
from sparsebert.tasks.divergence import mean_divergence, softened_divergence
from sparsebert.tasks.kind import IGNORED, ConstantAnswer, Passage, TaskKind, TextColumn
from sparsebert.tasks.metric import Metric, UndefinedMetricError
from sparsebert.tasks.thresholds import FEWEST, RESAMPLES

if TYPE_CHECKING:
    import torch

EXACT, F1 = 0, 1
"""Columns of what metrics take."""
EVEN = 0.5
_LEAST = 1e-6


@dataclass(frozen=True)
class Spans(TaskKind):
    """Labels are objects, one a window: its `question`, a number, all right `answers`, and its `text`.

    `start` and `end` are where in the text the answer to learn lies, -1 where it does not. Outputs are logits [windows,
    1 + pieces, 2] of a start and of an end; see `pieces_in`. `threshold` is the probability from which on an answer is
    given; None = always.
    """

    threshold: float | None = None

    head = "spans"
    problem_type = None
    metrics = ("answer_f1", "exact_match", "answered_f1", "unanswered_f1")
    named = False
    exclusive = False
    num_outputs = 2
    texts = 2
    together = 1
    by_span = True
    has_thresholds = True

    def deciding_at(self, thresholds: Sequence[float]) -> Spans:
        """The kind as a model decides that gives an answer from one probability on, none = always."""
        return replace(self, threshold=thresholds[0] if thresholds else None)

    def margins(self, outputs: np.ndarray) -> np.ndarray:
        """Logits among which that of no answer is moved to where it decides."""
        moved = np.array(outputs)
        if self.threshold is None:
            moved[..., 0, :] = LOWEST
        else:
            moved[..., 0, :] += np.log(self.threshold / (1 - self.threshold)) / 2
        return moved

    def chosen_thresholds(self, outputs: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
        """The probability from which on answers have the highest F1, the mean over resamples of the questions.

        The search of the official script (find_best_thresh), whose one best place on few questions is left to chance.
        """
        rows = _questions(labels)
        right = [labels[own[0]]["answers"] for own in rows]
        without = sum(not answers for answers in right)
        if not without:
            return ()
        if min(without, len(rows) - without) < FEWEST:
            return (EVEN,)
        found = sorted(
            ((*_best(outputs, labels, own), answers) for own, answers in zip(rows, right, strict=True)),
            key=lambda one: -one[0].lead,
        )
        leads = np.array([best.lead for best, _, _ in found])
        # What an answer is worth, less what is given up where there is none.
        worth = [answer_scores(text, answers)[F1] - float(not answers) for _, text, answers in found]
        sides = np.concatenate([[leads[0] + 1], leads, [leads[-1] - 1]])
        limits = (sides[:-1] + sides[1:]) / 2
        drawn = np.random.default_rng(0).multinomial(len(leads), np.full(len(leads), 1 / len(leads)), size=RESAMPLES)
        sums = np.concatenate([np.zeros((RESAMPLES, 1)), np.cumsum(drawn * np.array(worth), axis=1)], axis=1)
        best = sums == sums.max(axis=1, keepdims=True)
        chance = 1 / (1 + np.exp(-float(((best * limits).sum(axis=1) / best.sum(axis=1)).mean())))
        return (round(float(np.clip(chance, _LEAST, 1 - _LEAST)), 6),)

    def default_thresholds(self, labels: np.ndarray) -> tuple[float, ...]:
        """One half where some questions have no answer."""
        return () if all(label["answers"] for label in labels) else (EVEN,)

    def from_text(self, column: TextColumn) -> NoReturn:
        """Raises UserError: a cell is no list of answers."""
        raise UserError(
            "Answers with their places do not fit into the cells of CSV",
            got=column.file,
            allowed=".json as SQuAD has it, .jsonl, .parquet",
        )

    def label_names(self, values: Sequence[Any], where: str) -> tuple[str, ...]:
        """None. Raises UserError where no question has an answer."""
        if not any(value["start"] >= 0 for value in values):
            raise UserError(f"{where}: no question has an answer in its text, so there is nothing to learn")
        return ()

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[Any]:
        """The same: what is read is checked already (data/squad.py)."""
        return list(values)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Whether a question has an answer."""
        return np.array([int(bool(label["answers"])) for label in labels])

    def outputs(self, output: Any) -> torch.Tensor:
        """Logits [windows, tokens, 2] of a start and of an end."""
        import torch

        return torch.stack([output.start_logits, output.end_logits], dim=-1)

    def counted(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits [2 windows, tokens], a row each for start and end; LOWEST where no answer can start or end.

        Their mean over the places that count is 0: it changes no probability, and must not count as a change.
        """
        # A teacher that reads with another tokenizer has no logits, 0, where none of its tokens starts or ends.
        real = (labels != IGNORED) & (outputs != 0)
        own = outputs * real
        centred = own - own.sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True).clamp_min(1)
        return centred.masked_fill(~real, LOWEST).transpose(1, 2).flatten(0, 1)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats over all tokens, a mean over starts and ends, as transformers has it.

        `labels` [windows, tokens, 2] are 1 at the start and at the end, 0 elsewhere, and IGNORED at other tokens.
        """
        import torch.nn.functional as F

        return F.cross_entropy(outputs.transpose(1, 2).flatten(0, 1), (labels == 1).int().argmax(dim=1).flatten())

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Cross-entropy in nats over the places where an answer can start or end, a mean over starts and ends."""
        from scipy.special import log_softmax

        places = np.array([target_of(label) for label in labels])
        chosen = np.arange(len(places))[:, None], places, [0, 1]
        losses = -log_softmax(_of_places(outputs), axis=1)[chosen]
        # Where no token begins with the answer, a model was not asked for that place.
        return float(losses[outputs[chosen] != 0].mean())

    def scored(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Exact match and F1 of each question [questions, 2], and 1 for each that has an answer, else 0 [questions]."""
        rows = _questions(labels)
        right = [labels[own[0]]["answers"] for own in rows]
        said = (_best(outputs, labels, own) for own in rows)
        given = [text if found.given else NO_ANSWER for found, text in said]
        scores = [answer_scores(*pair) for pair in zip(given, right, strict=True)]
        return np.array(scores), np.array([int(bool(answers)) for answers in right])

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """KL(teacher || student) of starts and of ends, in nats, a mean over windows and both."""
        sides = (_of_places(one).transpose(0, 2, 1).reshape(-1, one.shape[1]) for one in (teacher, student))
        return mean_divergence(*sides)

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """T^2 KL(teacher || student) of softened logits [2 windows, tokens], a mean over starts and ends."""
        return softened_divergence(student, teacher, temperature)

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """That there is no answer."""
        return ConstantAnswer(np.ones((1, 2)), "always saying that there is no answer")

    def answer(self, names: Sequence[str], outputs: np.ndarray, passage: Passage | None = None) -> dict[str, Any]:
        """The answer, its place in letters and its probability, and the probability that there is one.

        `outputs` [places, 2] are those of all windows of the passage; an empty place begins each of them. Where none is
        given `answer` is empty and `start` and `end` are None; `probability` is then that of there being none.
        """
        assert passage is not None, "where tokens stand is known"
        begins = [place for place, (start, end) in enumerate(passage.offsets) if start == end]
        borders = zip(begins, [*begins[1:], len(passage.offsets)], strict=True)
        found = best_answer([(outputs[one:other], passage.offsets[one + 1 : other]) for one, other in borders])
        chance, limit = found.answerable, self.threshold
        if found.span is None or (limit is not None and chance < limit):
            return {"answer": NO_ANSWER, "start": None, "end": None, "probability": 1 - chance, "answerable": chance}
        start, end = found.span
        text = passage.text[start:end]
        return {"answer": text, "start": start, "end": end, "probability": found.chance, "answerable": chance}


def target_of(label: Mapping[str, Any]) -> tuple[int, int]:
    """The places of a window, counted from that of no answer, where the answer to learn starts and ends."""
    if label["start"] < 0:
        return 0, 0
    found = pieces_of((label["start"], label["end"]), pieces_in(label["text"]))
    return (0, 0) if found is None else (found[0] + 1, found[1] + 1)


def _questions(labels: np.ndarray) -> list[list[int]]:
    """The windows of each question."""
    return list(grouped([label["question"] for label in labels]))


def _best(outputs: np.ndarray, labels: np.ndarray, rows: Sequence[int]) -> tuple[FoundAnswer, str]:
    """The best span in the windows of a question, and its text, empty where there is none."""
    found = best_answer([(outputs[row], pieces_in(labels[row]["text"])) for row in rows])
    text = labels[rows[found.window]]["text"]
    return found, NO_ANSWER if found.span is None else text[slice(*found.span)]


def _of_places(outputs: np.ndarray) -> np.ndarray:
    """Logits with LOWEST where there is no token."""
    return np.where(outputs == 0, LOWEST, outputs).astype(np.float64)


def _mean(scores: np.ndarray, chosen: np.ndarray, column: int, what: str) -> float:
    if not chosen.any():
        raise UndefinedMetricError(what)
    return float(scores[chosen, column].mean())


def exact_match(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Part of the questions whose answer is right, 0-1; `outputs` and `labels` as `scored` gives them."""
    return float(outputs[:, EXACT].mean())


def answer_f1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """F1 of the words of each answer, 0-1, a mean over questions."""
    return float(outputs[:, F1].mean())


def answered_f1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The same of the questions that have an answer (HasAns_f1); undefined where all have one, as it is F1 then."""
    if labels.all():
        raise UndefinedMetricError("every question has an answer")
    return _mean(outputs, labels == 1, F1, "no question has an answer")


def unanswered_f1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Part of the questions without an answer to which none is given, 0-1 (NoAns_f1)."""
    return _mean(outputs, labels == 0, F1, "every question has an answer")


def _resampled(
    outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray], column: int, has_answer: int | None = None
) -> np.ndarray:
    counts = np.ones(len(labels)) if has_answer is None else (labels == has_answer).astype(float)
    values = outputs[:, column] * counts
    parts = [(values[rows].sum(axis=-1), counts[rows].sum(axis=-1)) for rows in drawn]
    return np.concatenate(
        [np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0) for above, below in parts]
    )


def _resampled_exact(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    return _resampled(outputs, labels, drawn, EXACT)


def _resampled_f1(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    return _resampled(outputs, labels, drawn, F1)


def _resampled_answered(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    return _resampled(outputs, labels, drawn, F1, 1)


def _resampled_unanswered(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    return _resampled(outputs, labels, drawn, F1, 0)


def _fits(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return len(outputs) == 2 and outputs[1] == 2 and labels == outputs[:1]


SPANS = Spans()
EXACT_MATCH = Metric(exact_match, _resampled_exact, _fits)
ANSWER_F1 = Metric(answer_f1, _resampled_f1, _fits)
ANSWERED_F1 = Metric(answered_f1, _resampled_answered, _fits)
UNANSWERED_F1 = Metric(unanswered_f1, _resampled_unanswered, _fits)
