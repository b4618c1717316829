"""`sparsebert train`: a recipe with phases in, a sparse model, a table and a report out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from sparsebert.commands.compress import default_folder, show_run
from sparsebert.commands.output import quiet_libraries
from sparsebert.errors import UserError
from sparsebert.recipe import Recipe


def train(recipe: Recipe, output: Path | None, json_wanted: bool) -> None:
    """Run the recipe in `output` (none = a folder named after it) and print what came out."""
    if not recipe.phases:
        raise UserError(
            "The recipe has no phases, so there is nothing to train",
            fix="give --recipe with a file that has phases, or use `sparsebert compress`",
        )
    from sparsebert.run import run

    folder = output or default_folder(recipe)
    with quiet_libraries():
        record = run(recipe, folder, shlex.join(["sparsebert", *sys.argv[1:]]))
    show_run(record, folder, json_wanted)
