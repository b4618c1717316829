"""`sparsebert pull`: a repository of the hub to a folder, which is there once the model in it has been opened."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import COMMON, HOW, DebugOption, JsonOption


def pull(
    repo: Annotated[str, typer.Argument(help="Repository of the hub: OWNER/NAME.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Default: NAME of the repository.", rich_help_panel=COMMON),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="NAME", help="Branch, tag or commit. Default main.", rich_help_panel=HOW),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Fetch a model from the hub into a new folder, and open it.

    Code that lies in the repository is not run.
    """
    with cli_errors(debug):
        from sparsebert.cli.output import put_json, quiet_libraries, say
        from sparsebert.hub.pull import folder_of
        from sparsebert.hub.pull import pull as fetch
        from sparsebert.progress import busy

        folder = output or folder_of(repo)
        with quiet_libraries(), busy(f"Fetching {repo}"):
            fetched = fetch(repo, folder, revision)
        names = sorted(str(file) for file in fetched.files)
        if as_json:
            put_json({"repo": repo, "folder": str(folder), "files": names})
            return
        options, where = fetched.predict_options, shlex.quote(str(folder))
        say(f"{len(names)} files in {folder}; the model opens.")
        use = f"info {where}" if options is None else f'predict {where} "a text"{options}'
        say(f"Next: sparsebert {use}")
