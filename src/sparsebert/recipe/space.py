"""What a search may change in a recipe: ranges and choices by dotted key, from a file or from the command line.

A range of two whole numbers (`100` to `5000`) gives whole numbers; one with a point in it (`1.0` to `5.0`) any number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from sparsebert.errors import UserError, unknown
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import read_value, with_values
from sparsebert.recipe.plain_yaml import NotPlainError, check_plain, read_yaml
from sparsebert.recipe.schema import Plain

SHIPPED = Path(__file__).parents[1] / "spaces"
FORMS = "KEY=LOW:HIGH, KEY=LOW:HIGH:log, KEY=LOW:HIGH:STEP, KEY=A,B,C, a YAML file, or a name of the spaces that ship"
# What decides the rows that settings are scored on, or what a trial is: not what is searched.
FIXED = (
    *("schema", "kind", "name", "seed", "data_seed", "hold_out"),
    *("task", "data", "columns", "train_examples", "measure", "score_train"),
    *("text", "column", "vocabulary", "train_tokenizer", "validation", "validation_rows", "masking"),
)
TINY = 1e-9


class ValueRange(Plain, frozen=True):
    """Numbers from `low` to `high`, both included."""

    low: int | float = Field(description="smallest value")
    high: int | float = Field(description="largest value")
    log: bool = Field(default=False, description="true = drawn evenly by order of magnitude")
    step: int | float | None = Field(default=None, description="between two values; null = any, or every whole number")

    @field_validator("low", "high", "step", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """Texts that read as numbers are, as YAML takes `1e-5` for text; true and false are none."""
        if isinstance(value, bool):
            raise ValueError(f"a range is of numbers, got {str(value).lower()}")
        return value

    @model_validator(mode="after")
    def _sound(self) -> ValueRange:
        if not self.low < self.high:
            raise ValueError(
                f"the range {self.low:g} to {self.high:g} is empty: its low end must be below its high end"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"a range by order of magnitude (log) must lie above 0, got {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("a range by order of magnitude (log) has no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"the step must be above 0 and fit into the range, got {self.step:g}")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(one, int) for one in (self.low, self.high, *([self.step] if self.step else [])))

    @property
    def last(self) -> int | float:
        """The largest value that steps reach."""
        if self.step is None:
            return self.high
        return self.low + math.floor((self.high - self.low) / self.step + TINY) * self.step

    @property
    def ends(self) -> tuple[Any, ...]:
        """What a recipe must take for it to take all of the range."""
        return (self.low, self.last)

    def holds(self, value: object) -> bool:
        """Whether a value is one of the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.last:
            return False
        if self.whole and value != int(value):
            return False
        step = self.step or (1 if self.whole else None)
        return step is None or abs((value - self.low) / step - round((value - self.low) / step)) < TINY


class Choices(Plain, frozen=True):
    """Some values, of any kind that a recipe holds."""

    choices: tuple[Any, ...] = Field(min_length=2, description="the values")

    @field_validator("choices")
    @classmethod
    def _apart(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for one in value:
            check_plain(one)
        if len({json.dumps(one, sort_keys=True) for one in value}) < len(value):
            raise ValueError("two choices are the same")
        return value

    @property
    def ends(self) -> tuple[Any, ...]:
        """What a recipe must take: all of them."""
        return self.choices


SpacePart = ValueRange | Choices
Space = Mapping[str, SpacePart]


def read_space(texts: Sequence[str]) -> dict[str, SpacePart]:
    """Ranges and choices by dotted key, from texts of the forms in FORMS. Later ones win over those of files.

    Raises UserError for a text of no such form, a file that is not readable, an empty or reversed range, a logarithmic
    one that does not lie above 0, and a key that is given twice on the command line.
    """
    files: dict[str, SpacePart] = {}
    given: dict[str, SpacePart] = {}
    for text in texts:
        key, found, values = text.partition("=")
        key = key.strip()
        if not found or Path(text).is_file():
            files |= _of_file(text)
        elif key in given:
            raise UserError("Two ranges are of the same key", got=text)
        else:
            given[key] = _typed(key, values.strip(), text)
    space = files | given
    if not space:
        raise UserError("A search needs something to search", fix=f"give --space as {FORMS}")
    return space


def space_of(values: Mapping[str, Any], where: object) -> dict[str, SpacePart]:
    """Ranges and choices from plain values. Raises UserError, with `where` they stand, for what is none."""
    return {key: _part(key, part, where) for key, part in values.items()}


def check_space(recipe: Recipe, space: Space) -> None:
    """Raises UserError for a key that the recipe has not, or that is none to search, and for values that it refuses.

    Ranges are tried at both ends, choices one by one, each with all other values as the recipe has them.
    """
    for key, part in space.items():
        if key.split(".")[0] in FIXED:
            raise UserError("This key decides what trials are scored on, so it cannot be searched", got=key)
        for value in part.ends:
            with_values(recipe, {key: value})


def own_values(recipe: Recipe, space: Space) -> dict[str, Any] | None:
    """The recipe's own values of all keys, as the space has them; None where one of them lies outside."""
    found = {}
    for key, part in space.items():
        own = value_at(recipe, key)
        if isinstance(part, Choices):
            inside = [one for one in part.choices if value_at(with_values(recipe, {key: one}), key) == own]
        else:
            inside = [own] if part.holds(own) else []
        if not inside:
            return None
        found[key] = inside[0]
    return found


def value_at(recipe: Recipe, key: str) -> Any:
    """What a recipe has at a dotted key, as a plain value; None where that has no such part."""
    at: Any = recipe.plain()
    for part in key.split("."):
        if isinstance(at, list) and part.isdecimal() and int(part) < len(at):
            at = at[int(part)]
        else:
            at = at.get(part) if isinstance(at, dict) else None
    return at


def shipped_spaces() -> list[str]:
    """Names of the search spaces that come with the package, in order."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def _of_file(text: str) -> dict[str, SpacePart]:
    path = Path(text) if Path(text).is_file() else SHIPPED / f"{text}.yaml"
    if not path.is_file():
        if Path(text).suffix or "=" in text:
            raise UserError("The search space is not to be found", got=text, allowed=FORMS)
        raise unknown("search space", text, shipped_spaces())
    try:
        values = read_yaml(path.read_text(encoding="utf-8-sig"))
    except (NotPlainError, UnicodeDecodeError) as error:
        raise UserError(f"The search space is not readable: {error}", got=path) from None
    if not isinstance(values, dict) or not values:
        raise UserError("The search space must hold a mapping of keys to ranges and choices", got=path)
    return space_of(values, path)


def _typed(key: str, values: str, text: str) -> SpacePart:
    """A range or choices as it was typed."""
    if not key or not values:
        raise UserError("A range must have a form that is known", got=text, allowed=FORMS)
    parts = values.split(":")
    # Names of one's own have a colon too, package.module:name, and so have mappings.
    if len(parts) not in (2, 3) or not _is_number(parts[0]):
        return _part(key, {"choices": read_value(f"[{values}]", "The choices of a key are not YAML", text)}, text)
    numbers = [read_value(part, "A range is not readable", text) for part in parts]
    more = {} if len(parts) == 2 else {"log": True} if numbers[2] == "log" else {"step": numbers[2]}
    return _part(key, {"low": numbers[0], "high": numbers[1], **more}, text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _part(key: str, values: Any, where: object) -> SpacePart:
    if not isinstance(values, dict):
        raise UserError(f"{key} needs `low` and `high`, or `choices`", got=where)
    kind = Choices if "choices" in values else ValueRange
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        at = first["loc"][0] if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            raise unknown(f"word of the range of {key}", str(at), kind.model_fields) from None
        said = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{key}: {f'{at}: ' if at else ''}{said}", got=where) from None
