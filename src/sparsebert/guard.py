"""What the command line makes of an error: one line and an exit code, a traceback only when asked for."""

from __future__ import annotations

import errno
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from sparsebert.errors import UserError

# How torch.save says that a file could not be written: with RuntimeErrors of its own.
TORCH_WRITE_FAILURES = ("PytorchStreamWriter failed writing", "unexpected pos", "iostream error")
# How torch says on a CPU that memory is used up; the error on a GPU has a class of its own.
TORCH_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
USER_ERROR = 2
INTERRUPTED = 130


class OneLineErrors(TyperGroup):
    """Commands whose usage errors take one line, as all others do; alone they print the help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does; no arguments ask for help."""
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As typer does, and ends the process where it stands alone; exit code 2 for wrong usage."""
        try:
            ended = super().main(*args, standalone_mode=False, **extra)
        except typer.TyperException as error:
            if not standalone_mode:
                raise
            message = error.format_message()
            say(message if message.endswith("?") else str(UserError(message, fix="--help says more")))
            sys.exit(USER_ERROR)
        return sys.exit(ended) if standalone_mode else ended


def say(error: str) -> None:
    """Print an error, on one line, to stderr."""
    typer.echo(f"error: {' '.join(error.split())}", err=True)


@contextmanager
def guard(debug: bool, interrupted: str = "interrupted") -> Iterator[None]:
    """Run a command's work: progress on stderr, warnings of libraries hidden, known errors as one line, exit code 2.

    Known are UserError, what the operating system refuses, memory that is used up, and unreadable weight files. Any
    other error is a bug of ours and keeps its traceback. Ctrl-C prints `interrupted` and exits with 130.
    """
    import rich

    # Bars are for terminals: a log would get nothing of them but empty lines.
    rich.reconfigure(stderr=True, quiet=not sys.stderr.isatty())
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        try:
            yield
        except KeyboardInterrupt:
            typer.echo(interrupted, err=True)
            raise typer.Exit(INTERRUPTED) from None
        except _known() as error:
            message = _message(error)
            if message is None:
                raise
            if debug:
                traceback.print_exc()
            say(message)
            raise typer.Exit(USER_ERROR) from None


def _known() -> tuple[type[Exception], ...]:
    from safetensors import SafetensorError

    return UserError, OSError, SafetensorError, RuntimeError, MemoryError


def _message(error: Exception) -> str | None:
    """One line about an error that is not a bug, else None."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        # A reader of our output that has seen enough, as `head`: typer ends quietly.
        return None if isinstance(error, BrokenPipeError) else _refused(error)
    if isinstance(error, RuntimeError | MemoryError):
        return _exhausted(error)
    return f"A weight file cannot be read or written: {_first_line(error)}"


def _exhausted(error: RuntimeError | MemoryError) -> str | None:
    if isinstance(error, MemoryError) or any(words in str(error) for words in TORCH_MEMORY):
        return "There is not enough memory; use a smaller batch, shorter texts or fewer examples."
    if any(words in str(error) for words in TORCH_WRITE_FAILURES):
        return "A checkpoint could not be written; free some disk space and run the command again."
    return None


def _refused(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "The disk is full; free some space and run the command again."
    if error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
