"""`sparsebert split`: a model with three heads in, three models with one head each out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import COMMON, DebugOption, JsonOption
from sparsebert.errors import UserError


def split(
    model: Annotated[str, typer.Argument(help="Run folder of `sparsebert multitask`, or its model's folder.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the models.", rich_help_panel=COMMON)
    ],
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Take a multitask model apart: sentiment, paraphrase and similarity, each a model with the same outputs."""
    with cli_errors(debug):
        from sparsebert.cli.output import put_json, say

        found = _split(model, output)
        if as_json:
            put_json({"models": found})
            return
        for name, folder in found.items():
            say(f"{name}: {folder}")


def _split(name: str, output: Path) -> dict[str, str]:
    """Write the models and give their folders. Raises UserError if the folder is taken; then nothing is left behind."""
    from sparsebert.cli.output import quiet_libraries
    from sparsebert.files import folder_beside
    from sparsebert.models.load import load_model, load_tokenizer, save_model
    from sparsebert.models.named import sources
    from sparsebert.models.split import split_heads
    from sparsebert.progress import busy

    if output.exists():
        raise UserError("The output folder exists already", got=output, fix="choose another --output")
    source, *others = sources([name]).values()
    if others:
        raise UserError("The run has several models, so it is none of multitask", got=name)
    with quiet_libraries(), busy("Splitting"):
        models, tokenizer = split_heads(load_model(source)), load_tokenizer(source)
        with folder_beside(output) as place:
            for head, one in models.items():
                save_model(one, tokenizer, place / output.name / head)
            os.replace(place / output.name, output)
    return {head: str(output / head) for head in models}
