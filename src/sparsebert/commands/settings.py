"""From the options of the command line to a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import load_recipe


def recipe_of(
    file: Path | None,
    options: Mapping[str, Any],
    settings: Sequence[str],
    cleared: Sequence[str] = (),
    kind: str | None = None,
) -> Recipe:
    """The recipe of a command: the file, over it the options, over these `--set`.

    `options` have dotted keys, None = not given; `cleared` keys become none. Options are applied as settings, so that
    one value of a part leaves the others alone. Raises UserError for a recipe of another `kind`, none = any.
    """
    return load_recipe(file, [*as_settings(options), *(f"{key}=null" for key in cleared), *settings], kind=kind)


def as_settings(options: Mapping[str, Any]) -> list[str]:
    """Options that are given, as `--set` would have them."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in options.items() if value is not None]
