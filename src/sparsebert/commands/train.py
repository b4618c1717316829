"""`sparsebert train`: a recipe with phases in, a sparse model, a table and a report out."""

from __future__ import annotations

from pathlib import Path

from sparsebert.commands.compress import run_and_show
from sparsebert.errors import UserError
from sparsebert.recipe.recipe import Recipe


def train(recipe: Recipe, output: Path | None, json_wanted: bool, restart: bool = False) -> None:
    """Run the recipe in `output` (none = a folder named after it) and print what came out."""
    if not recipe.phases:
        raise UserError(
            "The recipe has no phases, so there is nothing to train",
            fix="give --recipe with a file that has phases, or use `sparsebert compress`",
        )
    run_and_show(recipe, output, json_wanted, restart)
