"""How the nine tasks of GLUE are trained: what is set for all, what for one, and what is chosen on dev."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from sparsebert.errors import UserError, unknown
from sparsebert.files import folder_word
from sparsebert.recipe.load import setting
from sparsebert.recipe.plain_yaml import NotPlainError, read_yaml
from sparsebert.recipe.schema import Plain, Title
from sparsebert.tasks.glue import GLUE

PLANS = Path(__file__).parents[1] / "glue_plans"
USUAL_PLAN = "quick"
MOST_CHOICES = 100


class TaskPlan(Plain, frozen=True):
    """What is set, and what is chosen among, by keys of the recipe."""

    settings: dict[str, Any] = Field(default={}, description="keys of the recipe and their values")
    choices: dict[str, tuple[Any, ...]] = Field(
        default={}, description="keys of the recipe and the values that are tried; the best on dev is shown"
    )

    @field_validator("choices")
    @classmethod
    def _some(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key, values in value.items():
            if not values:
                raise ValueError(f"there is nothing to choose among for {key}")
        return value


class GluePlan(TaskPlan, frozen=True):
    """How every task is trained; `overrides` win for one task."""

    name: Title | None = Field(default=None, description="how tables call it; none = the file's name")
    source: str = Field(default="", description="where the settings are from")
    kind: str | None = Field(default=None, description="the kind of recipe that has these keys; none = any")
    tasks: tuple[str, ...] = Field(default=(), description="the tasks it is meant for; none = all nine")
    overrides: dict[str, TaskPlan] = Field(default={}, description="by task, what is set or chosen otherwise there")

    @field_validator("tasks", "overrides")
    @classmethod
    def _known(cls, value: Any) -> Any:
        for name in value:
            if name not in GLUE:
                raise ValueError(str(unknown("GLUE task", name, GLUE)))
        return value

    def of_task(self, task: str, given: Collection[str] = ()) -> list[Choice]:
        """What is tried for a task, in order; the keys that are `given` by the caller are not chosen."""
        own = self.overrides.get(task, TaskPlan())
        chosen = {**dict(_flat(self.choices)), **dict(_flat(own.choices))}
        fixed = {**dict(_flat(self.settings)), **dict(_flat(own.settings))}
        # What there is one value for is nothing to choose any more.
        decided = {*dict(_flat(own.settings)), *given}
        parts = tuple(f"{one}." for one in decided)
        chosen = {key: values for key, values in chosen.items() if key not in decided and not key.startswith(parts)}
        tried = list(itertools.islice(itertools.product(*chosen.values()), MOST_CHOICES + 1))
        if len(tried) > MOST_CHOICES:
            raise UserError("The plan tries too many settings", got=f"{task}", allowed=f"{MOST_CHOICES} a task")
        return [Choice(fixed, dict(zip(chosen, values, strict=True))) for values in tried]


@dataclass(frozen=True)
class Choice:
    """One way to train a task: values by dotted keys, those that all share apart from those that are chosen."""

    fixed: Mapping[str, Any]
    chosen: Mapping[str, Any]

    @property
    def settings(self) -> list[str]:
        """As `load_recipe` takes them."""
        return [setting(key, value) for key, value in {**self.fixed, **self.chosen}.items()]

    @property
    def words(self) -> list[str]:
        """What was chosen, as parts of a folder's name."""
        said = [f"{key.rsplit('.', 1)[-1]}={_number(value)}" for key, value in self.chosen.items()]
        return [folder_word(word) for word in said]


def glue_plan(name: str | Path) -> GluePlan:
    """A shipped plan by its name, or one from a YAML file.

    Raises UserError for an unknown name, an unreadable file, an unknown key or task, and a bad value.
    """
    file = _file(name)
    try:
        values = read_yaml(file.read_text(encoding="utf-8-sig"))
    except (NotPlainError, UnicodeDecodeError) as error:
        raise UserError(f"The plan is not readable: {error}", got=file) from None
    if not isinstance(values, dict):
        raise UserError("A plan must hold a mapping of keys to values", got=file)
    try:
        return GluePlan.model_validate({"name": file.stem} | values)
    except ValidationError as error:
        raise UserError("The plan is not valid: " + " | ".join(_problems(error)), got=file) from None


def shipped_plans() -> list[str]:
    """Names of the plans that come with the package, in order."""
    return sorted(file.stem for file in PLANS.glob("*.yaml"))


def _file(name: str | Path) -> Path:
    if Path(name).is_file():
        return Path(name)
    if str(name) in shipped_plans():
        return PLANS / f"{name}.yaml"
    raise unknown("plan for GLUE, and no file", str(name), shipped_plans())


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _problems(error: ValidationError) -> Sequence[str]:
    return [_problem(item["type"], item["loc"], item["msg"]) for item in error.errors()[:5]]


def _problem(kind: str, place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(map(str, place))
    if kind != "extra_forbidden":
        return f"{where}: {message.removeprefix('Value error, ')}"
    owner = GluePlan if len(place) == 1 else TaskPlan
    return str(unknown("key of a plan", where, owner.model_fields))
