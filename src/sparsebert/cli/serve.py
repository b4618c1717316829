"""`sparsebert serve`: models behind HTTP, until a signal comes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsebert import registry
from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import HOW, DebugOption
from sparsebert.errors import UserError

PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "prometheus_client")
WHERE, LIMITS = "Where", "Limits"


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Folders or hub names, as NAME=FOLDER or called as the folder is; the first answers /predict.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Any but this machine's own needs a token.", rich_help_panel=WHERE)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any that is free.", rich_help_panel=WHERE)] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What clients have to send as a bearer token. Default: SPARSEBERT_TOKEN, if set.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Of all models: {', '.join(registry.names('runtime'))}; auto measures what is there.",
            rich_help_panel=HOW,
        ),
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each model. Default: all cores.", rich_help_panel=HOW)
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="Cut longer texts. Default: the model's own.", rich_help_panel=HOW),
    ] = None,
    max_batch: Annotated[
        int, typer.Option(min=1, metavar="TEXTS", help="Go through a model together.", rich_help_panel=HOW)
    ] = 32,
    max_wait_ms: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="MS", help="A batch waits for company, never while the model idles.", rich_help_panel=HOW
        ),
    ] = 5.0,
    queue: Annotated[
        int, typer.Option(min=1, metavar="TEXTS", help="Wait for each model; more get 503.", rich_help_panel=LIMITS)
    ] = 1024,
    max_texts: Annotated[int, typer.Option(min=1, metavar="TEXTS", help="In a request.", rich_help_panel=LIMITS)] = 256,
    max_chars: Annotated[
        int, typer.Option(min=1, metavar="CHARACTERS", help="In a text.", rich_help_panel=LIMITS)
    ] = 20_000,
    max_body_kb: Annotated[
        int, typer.Option(min=1, metavar="KB", help="In the body of a request.", rich_help_panel=LIMITS)
    ] = 4096,
    timeout: Annotated[
        float,
        typer.Option(min=0.001, max=86_400, metavar="SECONDS", help="For a request; then 503.", rich_help_panel=LIMITS),
    ] = 30.0,
    max_connections: Annotated[
        int, typer.Option(min=1, metavar="N", help="Open at once; more get 503.", rich_help_panel=LIMITS)
    ] = 512,
    debug: DebugOption = False,
) -> None:
    """Answer texts over HTTP, several models side by side; SIGTERM and Ctrl-C let those who wait be answered.

    Needs the extra serve. An exported folder is served without torch.
    """
    with cli_errors(debug):
        from sparsebert.cli.output import quiet_where_needed
        from sparsebert.runtimes.program import not_installed

        missing = not_installed(PACKAGES, "serve")
        if missing is not None:
            raise UserError(f"The server cannot start: {missing}")
        from sparsebert.serve.door import Address
        from sparsebert.serve.limits import Limits
        from sparsebert.serve.served import plans
        from sparsebert.serve.server import serve as run

        planned = plans(models, runtime, max_length, threads)
        limits = Limits(
            max_batch, max_wait_ms, queue, max_texts, max_chars, max_body_kb * 1024, timeout, max_connections
        )
        with quiet_where_needed(*(plan.model for plan in planned)):
            run(planned, Address(host, port), limits, token_file)
