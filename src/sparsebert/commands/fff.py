"""`sparsebert fff`: fast feedforward layers in place of a model's feedforward blocks, with their controls."""

from __future__ import annotations

from pathlib import Path

from sparsebert.commands.compress import run_and_show
from sparsebert.commands.output import say, show
from sparsebert.recipe.base import Recipe
from sparsebert.reports import as_rich
from sparsebert.reports.trees import tree_table


def fff(recipe: Recipe, output: Path | None, json_wanted: bool, restart: bool = False) -> None:
    """Run the recipe in `output` (none = a folder named after it) and print what came out."""
    record = run_and_show(recipe, output, json_wanted, restart)
    if not json_wanted:
        say("Fast feedforward layers, error after teaching and the rest after training:")
        show(as_rich(tree_table([record])))
