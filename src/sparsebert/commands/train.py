"""`sparsebert train`: a recipe with phases in, a sparse model, a table and a report out."""

from __future__ import annotations

from pathlib import Path

from sparsebert.commands.compress import run_and_show
from sparsebert.recipe.base import Recipe


def train(recipe: Recipe, output: Path | None, json_wanted: bool, restart: bool = False) -> None:
    """Run the recipe in `output` (none = a folder named after it) and print what came out."""
    run_and_show(recipe, output, json_wanted, restart)
