"""How much masks moved while a model was trained, and when they came to rest: from the film that a run keeps.

After Gordon et al. 2020, "Compressing BERT" (arXiv:2002.08307), who compare masks over training, and Evci et al. 2020,
"Rigging the Lottery" (arXiv:1911.11134), whose masks move on at a constant sparsity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparsebert.errors import UserError
from sparsebert.records import Record
from sparsebert.reports.charts import ChartLine, LinePanel, StudyChart, written
from sparsebert.reports.film import FilmPart, read_film
from sparsebert.reports.study import StudyColumn, StudyResult, StudyRow
from sparsebert.studies.records import AskedRecords
from sparsebert.studies.study import RecordStudy

QUESTION = "How much do masks move, and when do they come to rest?"
STILL = 0.001
DEFINITION = (
    "A sparse training looks at its masks at steps alike apart, up to 41 times. Went: the weights that a look finds "
    "pruned and the look before did not, over all weights that the phase's rules cover, summed over the phase; came "
    "back: the same for weights that are there again. What came back and went again between two looks is not seen. At "
    f"rest from: the first step after which fewer than {STILL:.1%} of the weights move between two looks; absent where "
    "they move until the end. Masks that are changed every so many steps stand still between: that they are at rest is "
    "only known where the training goes on for longer than that."
)
_COLUMNS = (
    StudyColumn("phase", "Phase"),
    StudyColumn("looks", "Looks", form="count"),
    StudyColumn("pruned", "Pruned in the end", form="percent"),
    StudyColumn("went", "Went", form="percent"),
    StudyColumn("returned", "Came back", form="percent"),
    StudyColumn("rest", "At rest from step", form="count"),
    StudyColumn("steps", "of", form="count"),
)


@dataclass(frozen=True)
class MaskPhase:
    """A phase of a run whose masks were looked at."""

    run: str
    part: FilmPart

    @property
    def rest(self) -> int | None:
        """The step from which on masks are still, counted within the phase."""
        moved = self.part.went + self.part.returned >= STILL
        if moved[-1]:
            return None
        return int(self.part.steps[moved.nonzero()[0][-1]]) if moved.any() else 0

    @property
    def row(self) -> StudyRow:
        """Of the table."""
        part = self.part
        sums = (float(part.pruned[-1]), float(part.went.sum()), float(part.returned.sum()))
        return StudyRow(self.run, (part.phase, len(part.steps), *sums, self.rest, int(part.steps[-1])))

    @property
    def panel(self) -> LinePanel:
        """What is pruned, went and came back over the steps of the phase."""
        steps = tuple(map(float, self.part.steps))
        lines = zip(("pruned", "went", "came back"), self.part.counted, strict=True)
        return LinePanel(
            f"{self.run}, {self.part.phase}",
            "Step",
            "Of the weights, %",
            tuple(ChartLine(name, steps, tuple((100 * values).tolist())) for name, values in lines),
        )


def mask_movement(records: Mapping[str, Record], files: Mapping[str, Path]) -> StudyResult:
    """Of every phase of the runs that has a film. Raises UserError for a run without one, and for a damaged one."""
    found = [one for name, record in records.items() for one in _of_run(name, record, files[name])]
    return StudyResult(
        "mask-movement",
        QUESTION,
        " ".join(map(_sentence, found)),
        DEFINITION,
        tuple(records),
        _COLUMNS,
        tuple(one.row for one in found),
        StudyChart(tuple(one.panel for one in found)),
        heading="run",
    )


def _of_run(name: str, record: Record, file: Path) -> Iterator[MaskPhase]:
    found = [part for model in record.models for part in read_film(file, model)]
    if not found:
        raise UserError(
            "The study mask-movement asks about sparse trainings that keep a film of their masks",
            got=name,
            fix="train it again with this version, by rules that cover matrices",
        )
    return (MaskPhase(name, part) for part in found)


def _sentence(one: MaskPhase) -> str:
    part = one.part
    pruned, returned = (written(float(value), "percent") for value in (part.pruned[-1], part.returned.sum()))
    steps = f"{int(part.steps[-1]):,}"
    rest = "and they move until the end" if one.rest is None else f"at rest from step {one.rest:,} of {steps} on"
    return f"{one.run}, {part.phase}: {pruned} of the weights are pruned in the end, {returned} came back, {rest}."


def _ask(asked: AskedRecords) -> StudyResult:
    return mask_movement(asked.records, asked.files)


MASK_MOVEMENT = RecordStudy("how much masks move in a training, and when they come to rest", _ask)
