"""A file of texts through two models: on how many they agree, and on which they do not."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparsebert.errors import UserError
from sparsebert.live.bench import Errand
from sparsebert.live.pool import Pool, Side
from sparsebert.live.texts import TextQueue

if TYPE_CHECKING:
    from sparsebert.deployment.predictor import Predictor

Said = Mapping[str, Any]
_DECIDED = {"label", "labels", "spans", "answer"}
BATCH = 32
MOST_LISTED = 200
"""Of those on which they disagree."""


def agreement(job: Errand, pool: Pool, sides: tuple[Side, Side], queue: TextQueue) -> None:
    """Report how far it is, and in the end what they agree on.

    Raises UserError for models whose answers cannot be compared, and as a Predictor does.
    """
    predictors = []
    for side in sides:
        job.report({"line": f"Opening {side.model.name} …"})
        job.go_on()
        predictors.append(pool.open(side, BATCH))
    _check(predictors)
    answers: list[list[Said]] = [[], []]
    cut = [0, 0]
    for start in range(0, len(queue.first), BATCH):
        job.report({"line": f"{start:,} of {len(queue.first):,} texts", "done": start, "total": len(queue.first)})
        job.go_on()
        for place, predictor in enumerate(predictors):
            for rows, more in predictor.answers(*queue.part(start, start + BATCH)):
                answers[place] += rows
                cut[place] += more
        _check_widths(answers)
    names = [side.model.name for side in sides]
    job.report({"line": "", "names": names, "cut": cut, "empty": queue.empty, **compared(queue, *answers)})


def _check(predictors: Sequence[Predictor]) -> None:
    """Answers of one kind about the same labels."""
    one, other = predictors
    if one.kind_name != other.kind_name or set(one.labels) != set(other.labels):
        told = (f"{predictor.kind_name}: {', '.join(predictor.labels[:6])}" for predictor in predictors)
        raise UserError(
            "The two models answer something else", got=" against ".join(told), fix="choose two of one task"
        )


def _check_widths(answers: Sequence[Sequence[Said]]) -> None:
    one, other = (len(found[0].get("embedding", ())) for found in answers)
    if one != other:
        raise UserError(
            "Vectors of two widths cannot be compared", got=f"{one} against {other}", fix="choose two alike"
        )


def compared(queue: TextQueue, left: Sequence[Said], right: Sequence[Said]) -> dict[str, Any]:
    """`same` of so many `texts`, none where answers are numbers, and `rows` of those that differ most.

    A row is its number in the file, the text, what both say, and the `distance` between: of probabilities the largest
    difference, of values likewise. Of numbers all rows are listed, since none need be the same; `mean` is the mean
    distance.
    """
    distances = [distance(one, other) for one, other in zip(left, right, strict=True)]
    decided = all(_DECIDED & one.keys() for one in left)
    differing = [row for row in range(len(left)) if not decided or _decision(left[row]) != _decision(right[row])]
    order = sorted(differing, key=lambda row: -distances[row])
    return {
        "texts": len(left),
        "same": len(left) - len(differing) if decided else None,
        "mean": sum(distances) / len(distances),
        "rows": [_row(queue, row, left[row], right[row], distances[row]) for row in order[:MOST_LISTED]],
        "more": max(0, len(order) - MOST_LISTED),
    }


def distance(one: Said, other: Said) -> float:
    """Between two answers: the largest difference of a probability or of a value; of vectors one less their cosine.

    Of spans the part of all that the two give which only one of them gives; of answers 1 if they are not the same.
    """
    if "answer" in one:
        return float(_decision(one) != _decision(other))
    if "spans" in one:
        own, others = _places(one), _places(other)
        return len(own ^ others) / max(1, len(own | others))
    if "embedding" in one:
        return _apart(one["embedding"], other["embedding"])
    first, second = numbers(one), numbers(other)
    return max(abs(first[name] - second[name]) for name in first)


def numbers(answer: Said) -> Mapping[str, float]:
    """What an answer says of each label, or the value; nothing of vectors and places, whose numbers have no names."""
    if {"embedding", "spans", "answer"} & answer.keys():
        return {}
    return answer.get("probabilities") or answer.get("values") or {"value": answer["value"]}


def _apart(one: Sequence[float], other: Sequence[float]) -> float:
    """One less their cosine; of a vector of zeros, which has no direction, one."""
    lengths = math.hypot(*one) * math.hypot(*other)
    return 1 - sum(map(operator.mul, one, other)) / lengths if lengths else 1.0


def _decision(answer: Said) -> Any:
    """The label, or several of them in whatever order, or spans, or the place of an answer."""
    if "spans" in answer:
        return _places(answer)
    if "answer" in answer:
        return answer["start"], answer["end"]
    return answer["label"] if "label" in answer else set(answer["labels"])


def _places(answer: Said) -> set[tuple[int, int, str]]:
    return {(one["start"], one["end"], one["label"]) for one in answer["spans"]}


def _row(queue: TextQueue, row: int, left: Said, right: Said, apart: float) -> dict[str, Any]:
    pair = None if queue.second is None else queue.second[row]
    said = [_words(left), _words(right)]
    return {"number": queue.numbers[row], "text": queue.first[row], "pair": pair, "said": said, "distance": apart}


def _words(answer: Said) -> str:
    if "label" in answer:
        return f"{answer['label']}, {answer['probability']:.1%}"
    if "spans" in answer:
        return "; ".join(f"{one['label']}: {one['text']}" for one in answer["spans"]) or "none"
    if "answer" in answer:
        return f"{answer['answer'] or 'no answer'}, {answer['probability']:.1%}"
    if "labels" in answer:
        return ", ".join(answer["labels"]) or "none"
    return ", ".join(f"{value:.4g}" for value in numbers(answer).values()) or "a vector"
