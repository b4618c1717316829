"""From YAML and settings to a recipe of the right kind, and what differs between two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sparsebert import registry
from sparsebert.errors import UserError, unknown
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.plain_yaml import MOST_BYTES, NotPlainError, read_yaml
from sparsebert.recipe.schema import LONGEST_NAME

MOST_PROBLEMS = 5
SHIPPED = Path(__file__).parents[1] / "recipes"
# Keys that tell the kind of a recipe which does not say it: the first of those that have the key.
MARKS = {"phases": ("train", "pretrain"), "trees": ("fff",)}
USUAL = "compress"


def load_recipe(path: Path | str | None, settings: Sequence[str] = (), **overrides: Any) -> Recipe:
    """Read a YAML file (none = defaults), apply `dotted.key=value` settings, then keyword overrides that are not None.

    `path` may be the name of a recipe that ships with the package; a recipe without a name has that of its file. A
    recipe that does not say its `kind` is of `train` if it has phases, of `fff` if it has trees, else of the `kind`
    that is given, or of `compress`. Raises UserError for a missing or unreadable file, a recipe of another kind than
    is given, an unknown key (with the nearest one), or a bad value.
    """
    values = _read(recipe_file(path)) if path else {}
    for given in settings:
        key, found, text = given.partition("=")
        if not found:
            raise UserError("A setting must look like key=value", got=given, fix="for example --set seed=1")
        _assign(values, key.strip().split("."), read_value(text, "The value of a setting is not readable", given))
    _check_kind(values, overrides.get("kind"))
    values.update({key: value for key, value in overrides.items() if value is not None})
    return parse_recipe(values)


def setting(key: str, value: Any) -> str:
    """A key and its value as a setting, as `load_recipe` reads it. Raises UserError for what no recipe can hold."""
    try:
        return f"{key}={json.dumps(value, ensure_ascii=False, default=_as_plain)}"
    except TypeError as error:
        raise UserError(f"A recipe cannot hold this value of {key}: {error}", got=value) from None


def _as_plain(value: Any) -> Any:
    """A part of a recipe, such as a Rule, as plain values; only what was given, so that defaults stay defaults."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no plain value")


def _check_kind(values: Mapping[str, Any], wanted: str | None) -> None:
    """Raises UserError for a recipe that says, by its kind or by its keys, that it is of another kind than `wanted`."""
    mark = _mark(values)
    found = values.get("kind") or (MARKS[mark][0] if mark else wanted)
    if wanted is None or found == wanted or ("kind" not in values and mark and wanted in MARKS[mark]):
        return
    why = f"is of kind {found}" if "kind" in values else f"has {mark}, so it is one of {found}"
    own = found not in registry.names("run_type")
    command = "sweep`, or run_recipe of sparsebert.api" if own else f"{found}`"
    raise UserError(f"The recipe {why}", fix=f"use `sparsebert {command}")


def _mark(values: Mapping[str, Any]) -> str | None:
    """The key by which the kind of a recipe is known that does not say it."""
    return next((key for key in MARKS if key in values), None)


def recipe_class(kind: str) -> type[Recipe]:
    """The recipe of a run type. Raises UserError for an unknown one, with the nearest, and for one without a recipe."""
    if kind in registry.names("recipe"):
        return registry.get("recipe", kind)
    found = getattr(registry.get("run_type", kind), "recipe", None)
    if isinstance(found, type) and issubclass(found, Recipe):
        return found
    raise UserError(
        f"The run type '{kind}' has no recipe", got=found, fix="give it an attribute `recipe`, a class made from Recipe"
    )


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


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Validate plain values, of the kind that `load_recipe` says. Raises UserError with the first problems."""
    mark = _mark(values)
    kind = values.get("kind") or (MARKS[mark][0] if mark else USUAL)
    if not isinstance(kind, str):
        raise UserError("The kind of a recipe is a word", got=kind, allowed=", ".join(registry.names("recipe")))
    owner = recipe_class(kind)
    try:
        return owner.model_validate({**values, "kind": kind})
    except ValidationError as error:
        problems = islice(_problems(error, owner), MOST_PROBLEMS)
        raise UserError("The recipe is not valid: " + " | ".join(problems)) from None


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values at some dotted keys. Raises UserError as `parse_recipe` does."""
    plain = recipe.plain()
    for key, value in values.items():
        _assign(plain, key.split("."), value)
    return parse_recipe(plain)


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


def _problems(error: ValidationError, recipe: type[Recipe]) -> Iterator[str]:
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            owner = _owner(recipe, item["loc"][:-1])
            allowed = [field.alias or name for name, field in owner.model_fields.items()]
            yield str(unknown("recipe key", where, allowed)) + _elsewhere(where)
        else:
            message = item["msg"].removeprefix("Value error, ") + _given(item)
            yield f"{where}: {message}" if where else message


def _elsewhere(key: str) -> str:
    """Whose key it is, where recipes of another kind have it."""
    kinds = [kind for kind in registry.names("recipe") if key in registry.get("recipe", kind).model_fields]
    return f" It is a key of {' and '.join(kinds)}." if kinds else ""


def _given(item: Mapping[str, Any]) -> str:
    """What the user gave, where it is one value and not a part of which something is missing."""
    value = item["input"]
    if item["type"] == "value_error" or not isinstance(value, (str, int, float)):
        return ""
    return f", got {value}" + ("; none is written as null" if str(value).lower() == "none" else "")


def _owner(recipe: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """The part in which a key was not known."""
    owner = recipe
    for name in (part for part in path if isinstance(part, str)):
        fields = {field.alias or key: field for key, field in owner.model_fields.items()}
        owner = next(_parts_in(fields[name].annotation)) if name in fields else owner
    return owner


def _parts_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts_in(inner)
