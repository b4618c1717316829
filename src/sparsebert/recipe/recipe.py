"""Recipe: everything that decides a run, as frozen plain values; YAML on disk, hashable, strict about unknown keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sparsebert import registry
from sparsebert.errors import UserError, unknown
from sparsebert.recipe.plain_yaml import MOST_BYTES, NotPlainError, read_yaml
from sparsebert.recipe.schema import (
    LONGEST_NAME,
    Columns,
    Distill,
    FolderName,
    Measure,
    Phase,
    Plain,
    Recovery,
    Rule,
    Search,
    Target,
    Title,
    Training,
    Trees,
    When,
)

SCHEMA = 1
MOST_PROBLEMS = 5
SHIPPED = Path(__file__).parents[1] / "recipes"


class Recipe(Plain):
    """One run: a family of smaller models (`compress`), sparse training in phases (`train`), or trees (`fff`)."""

    schema_version: int = Field(default=SCHEMA, alias="schema", description="version of the recipe's format")
    name: Title | None = Field(
        default=None, description="how reports call it where several recipes are shown; none = the file's name"
    )
    model: str = Field(default="sentence-transformers/all-MiniLM-L6-v2", description="folder or hub name")
    task: FolderName = Field(
        default="reviews", description="a name of `sparsebert tasks`, or any other name with `data`"
    )
    data: str | None = Field(
        default=None, description="your own file or folder, or the folder of the GLUE tasks; none = the hub"
    )
    columns: Columns = Field(default=Columns(), description="where text and label sit in your own file")
    max_length: int = Field(default=128, ge=4, description="tokens; longer texts are cut")
    seed: int = Field(default=0, ge=0, lt=2**32, description="decides new weights, batches and noise")
    data_seed: int = Field(
        default=0, ge=0, lt=2**32, description="which rows: apart from `seed`, so that runs over seeds see the same"
    )
    targets: tuple[Target, ...] = Field(default=(), description="of `compress`: the models to make")
    max_drop: float | None = Field(
        default=None,
        ge=0,
        description="of `compress`, instead of targets: points of the task's main metric, 0-100, that may be lost",
    )
    criterion: str = Field(default="obs", description="of `compress`: which heads and neurons go first")
    shape: Literal["search", "layers"] = Field(
        default="search", description="of `compress`: any shape, or whole layers only"
    )
    even: bool = Field(
        default=False, description="of `compress`: one width for all layers, so that plain transformers loads it"
    )
    phases: tuple[Phase, ...] = Field(default=(), description="of `train`: stretches of training, one after the other")
    baseline: bool = Field(
        default=False,
        description="of `train`: also fine-tune the model without rules, as `dense` says, to compare with; one that is "
        "fine-tuned already is always compared with",
    )
    trees: Trees | None = Field(default=None, description="of `fff`: what takes the place of feedforward blocks")
    sparsity: float | None = Field(
        default=None, ge=0, lt=1, description="of `train`: target of every rule that names none"
    )
    packed: bool = Field(
        default=True,
        description="of `train`: save zeros as bits where that makes the file smaller; false = plain files",
    )
    train_examples: int | None = Field(
        default=None, ge=8, description="use only the first n rows, after a shuffle with data_seed"
    )
    dense: Training = Field(
        default=Training(), description="fine-tuning of the dense model, if it is not fine-tuned for the task yet"
    )
    finetune: Recovery | None = Field(
        default=Recovery(), description="of `compress` and `fff`: training of what was made; none = no training"
    )
    distill: Distill = Field(
        default=Distill(), description="of `compress` and `fff`: what is learned from the dense model"
    )
    measure: Measure = Field(default=Measure(), description="batch, length and rounds of timings")
    search: Search = Field(default=Search(), description="of `compress`: how long to look for the best shape")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @field_validator("model", "data")
    @classmethod
    def _without_last_slash(cls, value: str | None) -> str | None:
        """As completion of a folder's name leaves it: the same folder is the same recipe."""
        return value if value is None else value.rstrip("/") or value

    @field_validator("criterion")
    @classmethod
    def _known(cls, value: str) -> str:
        registry_names = registry.names("unit_criterion")
        if value not in registry_names:
            raise ValueError(str(unknown("criterion", value, registry_names)))
        return value

    @field_validator("schema_version")
    @classmethod
    def _supported(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"recipe schema {value} is not readable by this version, which reads {SCHEMA}")
        return value

    @model_validator(mode="after")
    def _one_goal(self) -> Recipe:
        if self.targets and self.max_drop is not None:
            raise ValueError("give targets or max_drop, not both")
        if self.phases and (self.targets or self.max_drop is not None):
            raise ValueError("give phases (for `train`) or targets (for `compress`), not both")
        if self.trees is not None and (self.phases or self.targets or self.max_drop is not None):
            raise ValueError(
                "give trees (for `fff`), phases (for `train`) or targets (for `compress`), only one of them"
            )
        if self.distill.attention > 0:
            raise ValueError("distill.attention is for phases: `compress` cuts heads out, and their maps with them")
        if self.shape == "layers" and not self.search.drop_layers:
            raise ValueError("shape layers leaves out whole layers, which search.drop_layers=false forbids")
        labels = [t.label for t in self.targets]
        if len(set(labels)) != len(labels):
            raise ValueError(f"the same target is given twice: {', '.join(labels)}")
        return self

    @model_validator(mode="after")
    def _sound_phases(self) -> Recipe:
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"two phases have the same name: {', '.join(names)}")
        for rule in (rule for phase in self.phases for rule in phase.rules):
            if rule.sparsity is None and self.sparsity is None:
                raise ValueError("a rule has no target: give it, or the recipe, a sparsity")
            for kind, part in rule.components():
                if part.kind not in registry.names(kind):
                    raise ValueError(str(unknown(kind, part.kind, registry.names(kind))))
        return self

    def plain(self) -> dict[str, Any]:
        """The recipe as JSON-able values."""
        return self.model_dump(mode="json", by_alias=True)

    @property
    def given_teachers(self) -> list[str]:
        """Folders and hub names of the phases' teachers, without the dense model of the run itself."""
        return sorted({phase.teacher for phase in self.phases if phase.teacher not in (None, "dense")})

    @property
    def hash(self) -> str:
        """Twelve hex digits that change when any value changes but the name, which decides nothing."""
        decides = self.plain() | {"name": None}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]


def load_recipe(path: Path | str | None, settings: Sequence[str] = (), **overrides: Any) -> Recipe:
    """Read a YAML file (none = defaults), apply `dotted.key=value` settings, then keyword overrides that are not None.

    `path` may be the name of a recipe that ships with the package; a recipe without a name has that of its file.
    Raises UserError for a missing or unreadable file, an unknown key (with the nearest one), or a bad value.
    """
    values = _read(recipe_file(path)) if path else {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found:
            raise UserError("A setting must look like key=value", got=setting, fix="for example --set seed=1")
        _assign(values, key.strip().split("."), read_value(text, "The value of a setting is not readable", setting))
    values.update({key: value for key, value in overrides.items() if value is not None})
    return parse_recipe(values)


def recipe_file(path: Path | str) -> Path:
    """The file of a path, or of the name of a shipped recipe. Raises UserError where there is neither."""
    if Path(path).is_file():
        return Path(path)
    if str(path) in shipped_recipes():
        return SHIPPED / f"{path}.yaml"
    if Path(path).name == str(path) and not Path(path).suffix:
        raise unknown("recipe", str(path), shipped_recipes())
    raise UserError(
        "The recipe file does not exist", got=path, fix="give a YAML file, or a name of `sparsebert recipes`"
    )


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package, in order."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def read_value(text: str, what: str, got: object) -> Any:
    """The plain value of a YAML text that the user typed. Raises UserError, with `what` and `got`, if it has none."""
    try:
        return read_yaml(text)
    except NotPlainError as error:
        raise UserError(f"{what}: {error}", got=got, fix="put texts with special letters in quotes") from None


def parse_recipe(values: dict[str, Any]) -> Recipe:
    """Validate plain values. Raises UserError with the first problems in one line."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError("The recipe is not valid: " + " | ".join(islice(_problems(error), MOST_PROBLEMS))) from None


def differing_keys(old: Recipe, new: Recipe) -> list[str]:
    """Dotted names of the values in which two recipes differ, apart from what they are called."""
    left, right = ({**dict(flat_values(one.plain())), "name": None} for one in (old, new))
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(_text(path))
    except NotPlainError as error:
        raise UserError(f"The recipe file is not readable: {error}", got=path) from None
    if not isinstance(values, dict):
        raise UserError("The recipe file must hold a mapping of keys to values", got=path)
    name = "".join(filter(str.isprintable, path.stem))[:LONGEST_NAME]
    return {"name": name or None} | values


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise NotPlainError(f"it has more than {MOST_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotPlainError(f"it is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a dotted key; a part may be the index of a list, as in phases.0.rules.0.criterion."""
    at: Any = values
    for key in keys[:-1]:
        at = at.setdefault(key, {}) if isinstance(at, dict) else at[_index(at, key, keys)]
        if not isinstance(at, (dict, list)):
            raise UserError(f"'{key}' is a single value, so it has no part to set", got=".".join(keys))
    if isinstance(at, dict):
        at[keys[-1]] = value
    else:
        at[_index(at, keys[-1], keys)] = value


def _index(at: list[Any], key: str, keys: list[str]) -> int:
    places = {str(place): place for place in range(len(at))}
    if key in places:
        return places[key]
    raise UserError(
        f"'{key}' is no entry of a list of {len(at)}", got=".".join(keys), allowed=f"0 to {len(at) - 1}" if at else None
    )


def flat_values(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and their values; entries of lists of parts have their index as a name."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from flat_values(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        for index, value in enumerate(values):
            yield from flat_values(value, f"{prefix}.{index}")
    else:
        yield prefix, values


def _problems(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            owner = _owner(item["loc"][:-1])
            allowed = [field.alias or name for name, field in owner.model_fields.items()]
            yield str(unknown("recipe key", where, allowed))
        else:
            message = item["msg"].removeprefix("Value error, ") + _given(item)
            yield f"{where}: {message}" if where else message


def _given(item: Mapping[str, Any]) -> str:
    """What the user gave, where it is one value and not a part of which something is missing."""
    value = item["input"]
    return f", got {value}" if item["type"] != "value_error" and isinstance(value, (str, int, float)) else ""


def _owner(path: Sequence[int | str]) -> type[BaseModel]:
    """The part in which a key was not known."""
    owners: dict[str, type[BaseModel]] = {
        "columns": Columns,
        "dense": Training,
        "training": Training,
        "finetune": Recovery,
        "distill": Distill,
        "measure": Measure,
        "search": Search,
        "trees": Trees,
        "targets": Target,
        "phases": Phase,
        "rules": Rule,
        "start": When,
        "stop": When,
        "every": When,
    }
    names = [str(part) for part in path if isinstance(part, str)]
    return owners[names[-1]] if names else Recipe
