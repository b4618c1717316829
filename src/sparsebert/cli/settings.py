"""From the options of the command line to a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsebert.errors import UserError

if TYPE_CHECKING:
    from sparsebert.recipe.base import Recipe


def recipe_of(file: Path | None, options: Mapping[str, Any], settings: Sequence[str]) -> Recipe:
    """The recipe of a command that runs none: the file, over it the options, over these `--set`.

    `options` have dotted keys, None = not given. They are applied as settings, so that one value of a part leaves the
    others alone.
    """
    from sparsebert.recipe.load import load_recipe

    return load_recipe(file, [*as_settings(options), *settings])


def check_contradiction(key: str, option: str, settings: Sequence[str]) -> None:
    """Raises UserError for a setting that gives a value to a key, or a part of it, that an option clears."""
    from sparsebert.recipe.load import read_value

    for setting in settings:
        name, _, value = setting.partition("=")
        part = name.strip()
        if part == key and read_value(value, "The value of a setting is not readable", setting) is None:
            continue
        if part == key or part.startswith(f"{key}."):
            raise UserError(f"{option} and --set {setting} contradict each other", fix="leave one of the two out")


def as_settings(options: Mapping[str, Any]) -> list[str]:
    """Options that are given, as `--set` would have them."""
    from sparsebert.recipe.load import setting

    return [setting(key, value) for key, value in options.items() if value is not None]


def task_settings(
    task: str | None,
    data: str | None,
    text: list[str] | None,
    label: list[str] | None,
    kind: str | None,
    delimiter: str | None,
    encoding: str | None,
) -> dict[str, Any]:
    """The recipe's keys for the options that say which task it is and where its texts and labels are."""
    from sparsebert.data.meant import label_of

    return {
        "task": task,
        "data": data,
        "columns.text": text or None,
        "columns.label": label_of(label or []),
        "columns.kind": kind,
        "columns.delimiter": delimiter,
        "columns.encoding": encoding,
    }
