"""`sparsebert explore`: records and models in, a page in the browser out, live or as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import COMMON, DebugOption
from sparsebert.errors import UserError

PACKAGES = ("starlette", "uvicorn", "jinja2", "plotly")
WHERE = "Where"


def explore(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|MODEL...",
            help="Run folders, folders of runs as sweeps make them, or record.json files; folders of models to ask, "
            "exported ones too, and OWNER/NAME of the hub.",
        ),
    ],
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            "-o",
            metavar="DIR",
            help="Write the page as files that open from the disk, and end.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Any but this machine's own needs a token.", rich_help_panel=WHERE)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any that is free.", rich_help_panel=WHERE)] = 8080,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the page asks for before it shows anything. Default: SPARSEBERT_TOKEN, if set.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Look at runs in the browser, pick a model, and ask it beside the dense one.

    Until Ctrl-C, or with --export as files, which cannot ask. Needs the extra explorer; starts without torch.
    """
    with cli_errors(debug):
        from sparsebert.runtimes.program import not_installed

        missing = not_installed(PACKAGES, "explorer")
        if missing is not None:
            raise UserError(f"The explorer cannot start: {missing}")
        from sparsebert.live.catalogue import divided

        runs, models = divided(given)
        if export is not None:
            _export(runs, models, export)
            return
        from sparsebert.cli.output import say
        from sparsebert.explorer.library import Library
        from sparsebert.explorer.server import explore as run
        from sparsebert.live.annex import live_annex
        from sparsebert.serve.door import Address

        def opened(url: str) -> None:
            say(f"Open {url} (Ctrl-C ends it)")

        run(Library(runs), live_annex(models), Address(host, port), token_file, opened)


def _export(runs: Sequence[Path], models: Sequence[str], folder: Path) -> None:
    from sparsebert.cli.output import remark, say
    from sparsebert.explorer.export import export
    from sparsebert.explorer.library import Library
    from sparsebert.progress import bar_if_slow

    with bar_if_slow("Models", None) as done:
        page, problems = export(Library(runs), folder, done)
    for model in models:
        remark(f"Left out: {model}: files cannot ask a model, only the page of a server can")
    for problem in problems:
        remark(f"Left out: {problem}")
    say(f"Open {page}")
