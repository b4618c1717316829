"""Every word of a text has a tag: entities in IOB2, IOBES or BILOU, or one tag for each word, such as a part of speech.

A model gives tags for tokens; that of a word is the one of its first token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sparsebert.errors import UserError
from sparsebert.tasks.class_names import class_name, listed
from sparsebert.tasks.divergence import mean_divergence, softened_divergence
from sparsebert.tasks.entities import (
    BEGIN,
    INSIDE,
    OUTSIDE,
    entities,
    first_tokens,
    in_tag_order,
    marks_entities,
    tag_codes,
    tag_parts,
    types_of,
    words_in,
)
from sparsebert.tasks.kind import IGNORED, ConstantAnswer, Passage, TaskKind, TextColumn
from sparsebert.tasks.metric import Metric, UndefinedMetricError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TaggedWords(TaskKind):
    """Values of the label column are lists of words, each with its place in the text: `start`, `end` and `tag`.

    Outputs are logits of a softmax over tags. Only those of first tokens of words count.
    """

    head = "tokens"
    problem_type = None
    metrics = ("entity_f1", "tag_accuracy")
    named = True
    exclusive = True
    num_outputs = None
    texts = 1
    by_word = True

    def from_text(self, column: TextColumn) -> NoReturn:
        """Raises UserError: a cell is no list."""
        raise UserError(
            "Tags of words do not fit into the cells of CSV", got=column.file, allowed=".conll, .jsonl, .parquet"
        )

    def label_names(self, values: Sequence[Any], where: str) -> tuple[str, ...]:
        """All tags, `O` first, then type by type, each with both of `B` and `I`; other tags alphabetically.

        Raises UserError where all words have the same.
        """
        found = {class_name(word["tag"], f"{where}, row {row}") for row, words in _rows(values) for word in words}
        if len(found) < 2:
            got = listed(sorted(found)) or "none"
            raise UserError(f"{where}: every word has the same tag, so there is nothing to learn", got=got)
        parts = [one for name in found if (one := tag_parts(name)) is not None]
        if marks_entities(found) and {letter for letter, _ in parts} <= {BEGIN, INSIDE}:
            # A type of which no entity of several words was seen may have one elsewhere.
            found |= {OUTSIDE} | {f"{letter}-{kind}" for _, kind in parts for letter in (BEGIN, INSIDE)}
        return in_tag_order(found)

    def labels(self, values: Sequence[Any], names: tuple[str, ...], where: str) -> list[list[list[int]]]:
        """For each text its words: where each starts and ends, and the number of its tag."""
        ids = {name: number for number, name in enumerate(names)}
        found = []
        for row, words in _rows(values):
            other = next((word["tag"] for word in words if word["tag"] not in ids), None)
            if other is not None:
                raise UserError(f"{where}, row {row}: not in the tag set", got=f"'{other}'", allowed=listed(names))
            found.append([[word["start"], word["end"], ids[word["tag"]]] for word in words])
        return found

    def outputs(self, output: Any) -> torch.Tensor:
        """Logits [texts, tokens, tags]."""
        return output.logits

    def counted(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits of the first tokens of words [words, tags]."""
        return outputs[labels != IGNORED]

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, in nats, a mean over words."""
        import torch.nn.functional as F

        return F.cross_entropy(outputs.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    def mean_loss(self, outputs: np.ndarray, labels: np.ndarray) -> float:
        """Cross-entropy, in nats, a mean over words."""
        from scipy.special import log_softmax

        counted = labels != IGNORED
        own = labels[counted]
        return float(-np.mean(log_softmax(outputs[counted], axis=-1)[np.arange(len(own)), own]))

    def scored(self, outputs: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the tags that are given, and of those that are right, both [texts, words] (see `tag_codes`).

        A word without a token of its own lies in that of the word before it, and goes on as that does.
        """
        codes = tag_codes(names)
        given = np.where(outputs.any(axis=-1), codes[outputs.argmax(axis=-1)], 0)
        for word in range(1, given.shape[1]):
            before = given[:, word - 1]
            # What begins in the word before goes on in this one.
            goes_on = before + before % 2
            given[:, word] = np.where(outputs[:, word].any(axis=-1), given[:, word], goes_on)
        return given, np.where(labels == IGNORED, IGNORED, codes[np.maximum(labels, 0)])

    def divergence(self, teacher: np.ndarray, student: np.ndarray) -> float:
        """KL(teacher || student), in nats, a mean over words; there is none where the teacher's outputs are 0."""
        real = teacher.any(axis=-1)
        return mean_divergence(teacher[real], student[real])

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """T^2 KL(teacher || student) of softened logits [words, tags], a mean over words."""
        return softened_divergence(student, teacher, temperature)

    def constant(self, labels: np.ndarray, names: Sequence[str]) -> ConstantAnswer:
        """The tag that most words have."""
        usual = int(np.bincount(labels[labels != IGNORED]).argmax())
        return ConstantAnswer(np.eye(len(names))[usual], f'tagging every word "{names[usual]}"', axes=2)

    def answer(self, names: Sequence[str], outputs: np.ndarray, passage: Passage | None = None) -> dict[str, Any]:
        """The entities of a passage, or of other tags every word: label, text, place, and mean probability of its tags.

        Words behind the place where the text was cut are in none.
        """
        assert passage is not None, "where tokens stand is known"
        words = words_in(passage.text)
        tokens = [(token, word) for token, word in zip(first_tokens(words, passage), words, strict=True) if token >= 0]
        logits = outputs[np.array([token for token, _ in tokens], dtype=int)]
        chances = np.exp(logits - logits.max(axis=-1, keepdims=True))
        best = chances.max(axis=-1) / chances.sum(axis=-1)
        codes, types = tag_codes(names)[logits.argmax(axis=-1)], types_of(names)
        spans = []
        for kind, first, end in entities(codes.tolist()):
            token, (_, last) = tokens[end - 1]
            # Words without a token of their own are in that of the word before them.
            left, right = tokens[first][1][0], max(last, passage.offsets[token][1])
            spans.append(
                {
                    "label": types[kind],
                    "text": passage.text[left:right],
                    "start": left,
                    "end": right,
                    "probability": float(best[first:end].mean()),
                }
            )
        return {"spans": spans}


def _rows(values: Sequence[Any]) -> Iterable[tuple[int, list[dict[str, Any]]]]:
    return enumerate(values, start=1)


def entity_counts(outputs: np.ndarray, labels: np.ndarray, types: int) -> np.ndarray:
    """Of each text and type the entities that are given and right, that are given, and that are there.

    `outputs` and `labels` are codes [texts, words], as `scored` gives them; the counts are [texts, types, 3]. An entity
    is right if its type and both of its ends are.
    """
    found = np.zeros((len(labels), types, 3))
    for row, (own, right) in enumerate(zip(outputs, labels, strict=True)):
        counted = right != IGNORED
        given, there = (set(entities(side[counted].tolist())) for side in (own, right))
        for column, chosen in enumerate((given & there, given, there)):
            for kind, *_ in chosen:
                found[row, kind, column] += 1
    return found


def _counts(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same of all types together [texts, 3]."""
    return entity_counts(outputs, labels, (int(max(outputs.max(), labels.max())) + 1) // 2).sum(axis=1)


def entity_f1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Micro F1 of entities, 0-1: type and both ends have to be right. Undefined where none is there, and none given."""
    right, given, there = _counts(outputs, labels).sum(axis=0)
    if given + there == 0:
        raise UndefinedMetricError("there is no entity, and none is found")
    return float(2 * right / (given + there))


def tag_accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Part of the words whose tag is right, 0-1."""
    counted = labels != IGNORED
    return float(np.mean(outputs[counted] == labels[counted]))


def _resampled_f1(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    right, given, there = _counts(outputs, labels).T
    sums = [(2 * right[rows].sum(axis=-1), (given + there)[rows].sum(axis=-1)) for rows in drawn]
    return np.concatenate([_divided(above, below) for above, below in sums])


def _resampled_accuracy(outputs: np.ndarray, labels: np.ndarray, drawn: Iterable[np.ndarray]) -> np.ndarray:
    counted = labels != IGNORED
    right, words = ((outputs == labels) & counted).sum(axis=-1), counted.sum(axis=-1)
    return np.concatenate([_divided(right[rows].sum(axis=-1), words[rows].sum(axis=-1)) for rows in drawn])


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0)


def _fits(outputs: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    return len(outputs) == 2 and outputs == labels


TOKENS = TaggedWords()
ENTITY_F1 = Metric(entity_f1, _resampled_f1, _fits)
TAG_ACCURACY = Metric(tag_accuracy, _resampled_accuracy, _fits)
