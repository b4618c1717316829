"""Errors on the command line: one line on stderr and an exit code, with a traceback only when it is asked for."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import typer

from sparsebert.errors import UserError

# How torch.save says that a file could not be written: with RuntimeErrors of its own.
TORCH_WRITE_FAILURES = ("PytorchStreamWriter failed writing", "unexpected pos", "iostream error")
# How torch on a CPU and the loader of libraries say that memory is used up; on a GPU the error has a class of its own.
MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cannot allocate memory",
    "failed to map segment",
)
THREADS = ("can't start new thread", "resource temporarily unavailable")
NO_MEMORY = "There is not enough memory; use a smaller batch, shorter texts or fewer examples."
NO_THREAD = "No further thread or process can be started; close others, free memory, or set OMP_NUM_THREADS=1."
GOES_ON = "interrupted; the same command goes on from here"
READER_GONE = 1
USER_ERROR = 2
INTERRUPTED = 130
# Beside Ctrl-C: `kill` and service managers, and a terminal that closes.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to end, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def print_error(error: str) -> None:
    """Print an error, on one line, to stderr; letters that would steer the terminal are shown as what they are."""
    line = " ".join(error.split())
    _tell("error: " + "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line))


@contextmanager
def cli_errors(debug: bool, interrupted: str = "interrupted") -> Iterator[None]:
    """Run the work of a command in this block: errors that are known become one line on stderr and an exit code.

    Known are UserError, what the operating system refuses, memory that is used up, and unreadable weight files: exit
    code 2. Any other error is a bug of ours and keeps its traceback. Ctrl-C prints `interrupted` and exits with 130; so
    do SIGTERM and SIGHUP, with 143 and 129. A reader of the output that has gone, as `head`, ends it without a word.
    Without `debug`, warnings of libraries are hidden; with it, a known error shows its traceback too.
    """
    import rich

    # Bars are for terminals: a log would get nothing of them but empty lines.
    rich.reconfigure(stderr=True, quiet=not sys.stderr.isatty())
    with warnings.catch_warnings(), _stoppable():
        if not debug:
            warnings.simplefilter("ignore")
        try:
            yield
            sys.stdout.flush()
        except KeyboardInterrupt as stop:
            _tell(interrupted)
            raise typer.Exit(stop.exit_code if isinstance(stop, Stopped) else INTERRUPTED) from None
        except BrokenPipeError:
            _drop_output()
            raise typer.Exit(READER_GONE) from None
        except _known() as error:
            message = _message(error)
            if message is None:
                raise
            if debug:
                traceback.print_exc()
            print_error(message)
            raise typer.Exit(USER_ERROR) from None


@contextmanager
def _stoppable() -> Iterator[None]:
    """Inside, signals that end a process raise Stopped; one that is ignored, as after `nohup`, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in ENDINGS if signal.getsignal(number) is signal.SIG_DFL]
    for number in heeded:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # A second one ends the process at once.
    signal.signal(number, signal.SIG_DFL)
    raise Stopped(number)


def _tell(line: str) -> None:
    """Print a last line to stderr, if there is still somebody to read it."""
    try:
        sys.stdout.flush()
        typer.echo(line, err=True)
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """What is still to be written goes nowhere: Python would complain about it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _known() -> tuple[type[Exception], ...]:
    # To import something now could fail for want of memory, and what was not imported has raised nothing.
    loaded: Any = sys.modules.get("safetensors")
    known = (UserError, OSError, RuntimeError, MemoryError, ImportError)
    return known if loaded is None else (*known, loaded.SafetensorError)


def _message(error: Exception) -> str | None:
    """One line about an error that is not a bug, else None."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return _refused(error)
    if isinstance(error, RuntimeError | MemoryError | ImportError):
        return _exhausted(error)
    return f"A weight file cannot be read or written: {_first_line(error)}"


def _exhausted(error: RuntimeError | MemoryError | ImportError) -> str | None:
    said = str(error)
    if isinstance(error, MemoryError) or any(words in said.lower() for words in MEMORY):
        return NO_MEMORY
    if any(words in said.lower() for words in THREADS):
        return NO_THREAD
    if any(words in said for words in TORCH_WRITE_FAILURES):
        return "A checkpoint could not be written; free some disk space and run the command again."
    return None


def _refused(error: OSError) -> str:
    told = {
        errno.ENOSPC: "The disk is full; free some space and run the command again.",
        errno.ENOMEM: NO_MEMORY,
        errno.EAGAIN: NO_THREAD,
    }
    if error.errno in told:
        return told[error.errno]
    if error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
