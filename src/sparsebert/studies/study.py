"""What a study is: one question, asked of models or of runs, answered by a table, a chart and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparsebert.recipe.schema import Columns
from sparsebert.reports.study import StudyResult

if TYPE_CHECKING:
    from sparsebert.studies.checkpoints import AskedCheckpoints
    from sparsebert.studies.records import AskedRecords

EXAMPLES = 256
"""Texts that a study looks at, unless another number is asked for."""


@dataclass(frozen=True)
class StudyOptions:
    """What a study may be asked beside its checkpoints; None or empty = not given.

    `texts` and `second` are the sides of texts of the user's own. `sparsity`, `threshold` and
    `criterion` may be several.
    """

    task: str | None = None
    data: str | None = None
    columns: Columns = field(default_factory=Columns)
    texts: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    examples: int | None = None
    sparsity: tuple[float, ...] = ()
    threshold: tuple[float, ...] = ()
    criterion: tuple[str, ...] = ()
    seed: int = 0

    @property
    def given(self) -> tuple[str, ...]:
        """Names of what is given, as `Study.takes` has them."""
        task = self.task is not None or self.data is not None or self.columns != Columns()
        found = {
            "task": task,
            "texts": bool(self.texts),
            "examples": self.examples is not None,
            "sparsity": bool(self.sparsity),
            "threshold": bool(self.threshold),
            "criterion": bool(self.criterion),
        }
        return tuple(name for name, is_given in found.items() if is_given)


@dataclass(frozen=True, kw_only=True)
class Study:
    """How many models or runs a study needs, and which options it takes."""

    fewest: int = 1
    most: int | None = None
    takes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointStudy(Study):
    """A registered study of models: what it asks in one line, and what answers."""

    summary: str
    answer: Callable[[AskedCheckpoints], StudyResult]


@dataclass(frozen=True)
class RecordStudy(Study):
    """A registered study of runs by their records alone."""

    summary: str
    answer: Callable[[AskedRecords], StudyResult]
