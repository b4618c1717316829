"""`sparsebert doctor`: what this machine can do with a model's sparsity, measured."""

from __future__ import annotations

from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sparsebert.commands.models import open_model
from sparsebert.commands.output import put_json, quiet_libraries, say, show
from sparsebert.doctor import Diagnosis, diagnose
from sparsebert.models.source import resolve


def doctor(name: str, batch: int, length: int, rounds: int, threads: int | None, json_wanted: bool) -> None:
    """Print what was found, the verdict first."""
    with quiet_libraries(), Console(stderr=True).status("Loading") as status:
        model = open_model(resolve(name))
        found = diagnose(model, batch, length, rounds, threads, lambda text: status.update(text.capitalize()))
    if json_wanted:
        put_json(asdict(found) | {"batch": batch, "length": length, "rounds": rounds})
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
    how = f"Measured on the CPU, batch {batch}, {length} tokens, {rounds} rounds"
    timed = _table(how, "Sparsity", "Speedup", "Quartiles", "Over")
    for trial in found.trials:
        quartiles = f"{trial.q25:.2f}-{trial.q75:.2f}"
        timed.add_row(trial.what, f"{trial.sparsity:.0%}", f"{trial.speedup:.2f}x", quartiles, trial.over)
    show(timed)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
