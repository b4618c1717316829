"""`sparsebert fff`: fast feedforward layers in place of a model's feedforward blocks, with their controls."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from sparsebert.commands.compress import default_folder, show_run
from sparsebert.commands.output import quiet_libraries, say, show
from sparsebert.errors import UserError
from sparsebert.recipe import Recipe
from sparsebert.report import as_rich
from sparsebert.report.trees import tree_table


def fff(recipe: Recipe, output: Path | None, json_wanted: bool) -> None:
    """Run the recipe in `output` (none = a folder named after it) and print what came out."""
    if recipe.trees is None:
        raise UserError("The recipe has no trees, so there is nothing to plant", fix="give --trees or --depth")
    from sparsebert.run import run

    folder = output or default_folder(recipe)
    with quiet_libraries():
        record = run(recipe, folder, shlex.join(["sparsebert", *sys.argv[1:]]))
    show_run(record, folder, json_wanted)
    if not json_wanted:
        say("Fast feedforward layers, error after teaching and the rest after training:")
        show(as_rich(tree_table([record])))
