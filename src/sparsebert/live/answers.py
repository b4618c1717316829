"""One text through two models: what each says of it, and how long a call takes, measured in turns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sparsebert.errors import UserError
from sparsebert.live.agreement import numbers
from sparsebert.live.bench import Errand
from sparsebert.live.pool import Pool, Side
from sparsebert.live.turns import in_turns, ratio, spread

if TYPE_CHECKING:
    from sparsebert.deployment.predictor import Predictor

MOST_LABELS = 12


def answer(job: Errand, pool: Pool, sides: tuple[Side, Side], text: str, pair: str | None) -> None:
    """Report the answers of both as soon as they are there, and after that the times of both.

    A model that cannot answer has a `problem` in the place of its labels, and the other one answers all the same.
    """
    told: list[dict[str, Any]] = []
    opened: list[Predictor] = []
    for side in sides:
        job.report({"line": f"Opening {side.model.name} …", "sides": told})
        job.go_on()
        try:
            predictor = pool.open(side, batch=1)
            told = [*told, _said(predictor, side, text, pair)]
            opened.append(predictor)
        except UserError as error:
            told = [*told, {"name": side.model.name, "problem": str(error)}]
    job.report({"line": "Measuring times, in turns …" if opened else "", "sides": told})
    second = None if pair is None else [pair]
    times = in_turns([partial(predictor.ranked, [text], second) for predictor in opened], job.go_on)
    timed = iter(times)
    told = [one if "problem" in one else one | {"ms": spread(next(timed))} for one in told]
    faster = ratio(*times) if len(times) == len(sides) else None
    job.report({"line": "", "sides": told, "faster": faster, "threads": sides[0].way.threads})


def _spans(answer: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The spans to be shown in a text, of a question its answer, if it has one; None where there are no spans."""
    if "answer" not in answer:
        return answer.get("spans")
    if answer["start"] is None:
        return []
    places = {name: answer[name] for name in ("start", "end", "probability")}
    return [{"label": "answer", "text": answer["answer"], **places}]


def _said(predictor: Predictor, side: Side, text: str, pair: str | None) -> dict[str, Any]:
    """The labels of a text with their scores, the highest first; of a vector how wide it is; or the spans of a text."""
    (((answer,), cut),) = predictor.answers([text], None if pair is None else [pair])
    scores = sorted(numbers(answer).items(), key=lambda one: one[1], reverse=True)
    return {
        "name": side.model.name,
        "runtime": predictor.runtime,
        "chances": "probabilities" in answer,
        "labels": [{"label": label, "score": score} for label, score in scores[:MOST_LABELS]],
        "more": max(0, len(scores) - MOST_LABELS),
        "given": answer.get("labels"),
        "spans": _spans(answer),
        "text": text if pair is None or "answer" not in answer else pair,
        "width": len(answer.get("embedding", ())),
        "cut": predictor.max_length if cut else None,
        "programs": side.model.is_programs,
    }
