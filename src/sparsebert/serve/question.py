"""The body of a request: read, checked, and refused in one line that never repeats a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from sparsebert.serve.limits import Limits, RefusedError

FORMS = 'a text, a pair {"text": ..., "text_pair": ...}, or a list of texts or of pairs, not both'
ALLOWED = f"allowed is {FORMS}"


class TextPair(BaseModel):
    """Two texts that are judged together."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    text_pair: str


class Question(BaseModel):
    """What is asked of a model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    texts: str | TextPair | list[str] | list[TextPair] = Field(description=FORMS)
    top_k: int | None = Field(default=1, ge=1, description="labels of each text, the highest first; null = all")


@dataclass(frozen=True)
class Asked:
    """Texts of one request, `second` the other sides of pairs, and how many labels of each are wanted."""

    first: Sequence[str]
    second: Sequence[str] | None
    top_k: int | None


def read_question(body: bytes, limits: Limits) -> Asked:
    """Raises RefusedError: 400 for what is no JSON in UTF-8, 422 for other content, and beyond the limits."""
    try:
        content = from_json(body)
    except ValueError as error:
        raise RefusedError(400, f"The body is not JSON in UTF-8: {error}") from None
    question = _question(content, limits)
    given = question.texts
    several: Sequence[str | TextPair] = given if isinstance(given, list) else [given]
    first = [one if isinstance(one, str) else one.text for one in several]
    second = [one.text_pair for one in several if isinstance(one, TextPair)] or None
    _check(first, second, limits)
    return Asked(first, second, question.top_k)


def _question(content: Any, limits: Limits) -> Question:
    # What is long is refused before pydantic looks: it would describe everything in it that is wrong, for seconds.
    if not isinstance(content, dict) or not content.keys() <= Question.model_fields.keys():
        raise RefusedError(422, f"The body has to be an object; allowed keys: {', '.join(Question.model_fields)}")
    texts = content.get("texts")
    if isinstance(texts, list) and not 0 < len(texts) <= limits.texts:
        raise RefusedError(422, f"texts: got {len(texts)}; allowed are 1 to {limits.texts} in a request")
    items = texts if isinstance(texts, list) else [texts]
    if any(isinstance(one, dict) and len(one) != len(TextPair.model_fields) for one in items):
        raise RefusedError(422, f"texts: {ALLOWED}")
    try:
        return Question.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = first["loc"][0]
        raise RefusedError(422, f"{key}: {first['msg'] if key == 'top_k' else ALLOWED}") from None


def _check(first: Sequence[str], second: Sequence[str] | None, limits: Limits) -> None:
    for name, texts in (("text", first), ("text_pair", second or ())):
        for number, text in enumerate(texts, start=1):
            if len(text) > limits.letters:
                raise RefusedError(
                    422, f"texts: {name} {number} has {len(text)} characters; allowed are {limits.letters}"
                )
