"""`sparsebert doctor`: what this machine can do with a model's sparsity, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import HOW, SPEED, DebugOption, JsonOption, ThreadsOption

if TYPE_CHECKING:
    from sparsebert.measurement.doctor import Diagnosis


def doctor(
    model: Annotated[
        str, typer.Argument(help="Folder or hub name.", show_default="sentence-transformers/all-MiniLM-L6-v2")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    batch: Annotated[int, typer.Option(min=1, help="Texts at a time.", rich_help_panel=SPEED)] = 1,
    length: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Of a text.", rich_help_panel=SPEED)] = 128,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds.", rich_help_panel=HOW)] = 15,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say whether sparsity would help: what this machine can do with it, measured."""
    with cli_errors(debug):
        from sparsebert.cli.output import put_json

        found = _diagnose(model, batch, length, rounds, threads)
        if as_json:
            put_json(found.as_dict() | {"batch": batch, "length": length, "rounds": rounds})
        else:
            _print(found, batch, length, rounds)


def _diagnose(name: str, batch: int, length: int, rounds: int, threads: int | None) -> Diagnosis:
    from sparsebert.cli.output import quiet_libraries
    from sparsebert.measurement.doctor import diagnose
    from sparsebert.models.named import open_model
    from sparsebert.models.source import resolve
    from sparsebert.progress import busy

    with quiet_libraries(), busy("Loading") as update:
        model = open_model(resolve(name))
        return diagnose(model, batch, length, rounds, threads, lambda text: update(text.capitalize()))


def _print(found: Diagnosis, batch: int, length: int, rounds: int) -> None:
    from sparsebert.cli.output import say, show, table
    from sparsebert.reports import values as v

    for line in found.advice:
        say(line)
    flags = ", ".join(found.flags) or "no known flags"
    say(f"\n{found.cpu}, {found.threads} threads; {flags}; GPU: {found.gpu or 'none'}")
    for device, source in found.energy.items():
        say(f"Energy of the {device}: {source}")
    there = [name for name, reason in found.runtimes.items() if reason is None]
    say(f"Runtimes: {', '.join(there)}")
    for name, reason in found.runtimes.items():
        if reason is not None:
            say(f"Not {name}: {reason}")
    can = table("Way to run sparse weights", "Here", "Why")
    for kernel in found.kernels:
        can.add_row(kernel.name, "yes" if kernel.runs else "no", kernel.why)
    show(can)
    say(f"\nMeasured on the CPU, batch {batch}, {length} tokens, {rounds} rounds:")
    timed = table("What", "Matrix", "Sparsity", "Speedup", "Quartiles", "Over", whole=range(1, 5))
    for trial in found.trials:
        shape = v.DASH if trial.shape is None else f"{trial.shape[0]} x {trial.shape[1]}"
        quartiles = f"{trial.q25:.2f}-{trial.q75:.2f}"
        timed.add_row(trial.what, shape, f"{trial.sparsity:.0%}", f"{trial.speedup:.2f}x", quartiles, trial.over)
    show(timed)
