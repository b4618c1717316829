"""`sparsebert push`: a model's folder to the hub, checked before, with a card that says what is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import HOW, DebugOption, JsonOption

if TYPE_CHECKING:
    from sparsebert.hub.push import Upload


def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a model (plain, shrunk, packed), or an exported one.")],
    repo: Annotated[str, typer.Argument(help="Repository of the hub: OWNER/NAME.")],
    private: Annotated[
        bool,
        typer.Option("--private", help="Make it a private one. Default: as its owner has chosen.", rich_help_panel=HOW),
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="BRANCH", help="Made if it is new. Default main.", rich_help_panel=HOW),
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit.", rich_help_panel=HOW)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files and connect to nothing.", rich_help_panel=HOW)
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send a model to the hub, in one commit, once it was opened.

    A README.md is made where the folder has none, from the record of the run that made the model if it lies beside it.
    The token is that of `hf auth login` or of HF_TOKEN.
    """
    with cli_errors(debug):
        from sparsebert.cli.output import put_json, quiet_libraries, say
        from sparsebert.files import home_of
        from sparsebert.hub.push import prepare, send
        from sparsebert.progress import busy

        with quiet_libraries(), busy("Opening the model"):
            upload = prepare(home_of(str(folder)), repo)
        address = None
        if not dry_run:
            with quiet_libraries(), busy(f"Sending {sum(upload.sizes.values()) / 1e6:.1f} MB"):
                address = send(upload, private, revision, message)
        if as_json:
            put_json({"repo": repo, "files": upload.sizes, "card_is_new": upload.card is not None, "commit": address})
            return
        _show(upload)
        say(f"Commit: {address}. Next: sparsebert pull {repo}" if address else "A dry run: nothing was sent.")


def _show(upload: Upload) -> None:
    from rich.markup import escape

    from sparsebert.cli.output import say, show, table
    from sparsebert.reports.values import megabytes

    drawn = table("File", "Bytes", right=(1,))
    for name, size in upload.sizes.items():
        drawn.add_row(escape(name), f"{size:,}")
    show(drawn)
    card = ", README.md made for it" if upload.card is not None else ""
    say(f"{len(upload.sizes)} files, {megabytes(sum(upload.sizes.values()) / 1e6)}{card}.")
