"""`sparsebert doctor`: what this machine can do with a model's sparsity, measured."""

from __future__ import annotations

from collections.abc import Container

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sparsebert.commands.models import open_model
from sparsebert.commands.output import put_json, quiet_libraries, say, show
from sparsebert.measurement.doctor import Diagnosis, diagnose
from sparsebert.models.source import resolve
from sparsebert.progress import busy
from sparsebert.reports import values as v


def doctor(name: str, batch: int, length: int, rounds: int, threads: int | None, json_wanted: bool) -> None:
    """Print what was found, the verdict first."""
    with quiet_libraries(), busy("Loading") as update:
        model = open_model(resolve(name))
        found = diagnose(model, batch, length, rounds, threads, lambda text: update(text.capitalize()))
    if json_wanted:
        put_json(found.as_dict() | {"batch": batch, "length": length, "rounds": rounds})
    else:
        _print(found, batch, length, rounds)


def _print(found: Diagnosis, batch: int, length: int, rounds: int) -> None:
    for line in found.advice:
        say(line)
    flags = ", ".join(found.flags) or "no known flags"
    say(f"\n{found.cpu}, {found.threads} threads; {flags}; GPU: {found.gpu or 'none'}")
    can = _table("Way to run sparse weights", "Here", "Why")
    for kernel in found.kernels:
        can.add_row(kernel.name, "yes" if kernel.runs else "no", kernel.why)
    show(can)
    say(f"\nMeasured on the CPU, batch {batch}, {length} tokens, {rounds} rounds:")
    timed = _table("What", "Matrix", "Sparsity", "Speedup", "Quartiles", "Over", numbers=range(1, 5))
    for trial in found.trials:
        shape = v.DASH if trial.shape is None else f"{trial.shape[0]} x {trial.shape[1]}"
        quartiles = f"{trial.q25:.2f}-{trial.q75:.2f}"
        timed.add_row(trial.what, shape, f"{trial.sparsity:.0%}", f"{trial.speedup:.2f}x", quartiles, trial.over)
    show(timed)


def _table(*columns: str, numbers: Container[int] = ()) -> Table:
    """Columns that hold `numbers` keep them in one piece."""
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index in numbers)
    return table
