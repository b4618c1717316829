"""Every model of every run, and the medians over seeds: which there are, and what they are called in links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsebert.explorer.library import FoundRun
from sparsebert.records import ModelResult, Record
from sparsebert.reports.families import Family, families

# What runs of one method may differ in.
_WITHIN_A_METHOD = ("seed", "sparsity")


@dataclass(frozen=True)
class ShownModel:
    """One point: a model of one run, or the median of the runs of one family that hold it.

    `run` names the run, or the family for a median; `file` is the record of the run, or of the first of them.
    """

    run: str
    name: str
    method: str
    family: Family
    file: Path

    @property
    def key(self) -> str:
        """What a link calls it."""
        return f"{self.run}/{self.name}"

    @property
    def first(self) -> tuple[Record, ModelResult]:
        """The run whose shape, training and decisions are shown, with the model."""
        return self.family.runs(self.name)[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs behind it."""
        return tuple(record.seed for record, _ in self.family.runs(self.name))


def shown_models(runs: Sequence[FoundRun]) -> list[ShownModel]:
    """The models of all finished runs, run by run, and after them the medians of families with several runs."""
    by_record = {id(run.record): run for run in runs}
    single: dict[str, list[ShownModel]] = {run.name: [] for run in runs}
    medians: list[ShownModel] = []
    for before, records in _alike(runs):
        methods = _methods(records, before)
        for family in families(records):
            named = Family(before.task + before.kind + family.label, family.records)
            for record in family.records:
                run = by_record[id(record)]
                single[run.name] += _of(run.name, Family(named.label, (record,)), methods[id(record)], run.file)
            if len(family.records) > 1:
                first = by_record[id(family.first)]
                name = f"{named.label} · {len(family.records)} runs"
                medians += _of(name, named, methods[id(family.first)], first.file)
    return [model for models in single.values() for model in models] + medians


@dataclass(frozen=True)
class _Before:
    """What stands before the names of recipes where there are several tasks, or several types of runs."""

    task: str
    kind: str


def _alike(runs: Sequence[FoundRun]) -> Iterator[tuple[_Before, list[Record]]]:
    """The records of each task and type of run: only among these are recipes told apart by what differs in them."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for run in runs:
        groups.setdefault((run.record.task, run.record.kind), []).append(run.record)
    tasks, kinds = ({key[place] for key in groups} for place in (0, 1))
    for (task, kind), records in groups.items():
        yield _Before(f"{task}, " if len(tasks) > 1 else "", f"{kind}: " if len(kinds) > 1 else ""), records


def _of(run: str, family: Family, method: str, file: Path) -> Iterator[ShownModel]:
    return (ShownModel(run, name, method, family, file) for name in family.names)


def _methods(records: Sequence[Record], before: _Before) -> dict[int, str]:
    """By a record's identity what its method is called: the task itself is no method."""
    found = families(records, _WITHIN_A_METHOD)
    return {id(record): before.kind + family.label for family in found for record in family.records}
