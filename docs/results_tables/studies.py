"""What `sparsebert study` answered about MiniLM, fine-tuned for two tasks."""

from __future__ import annotations

from pathlib import Path

from results_tables.values import RESULTS, table
from sparsebert.reports.study import StudyResult
from sparsebert.reports.study_files import read_study, study_files

STUDY, TASKS = "studies-minilm", ("sst2", "mrpc")


def answers() -> str:
    """Each study with its sentence for each task."""
    found = {task: _studies(RESULTS / STUDY / "records" / task) for task in TASKS}
    names = list(dict.fromkeys(name for own in found.values() for name in own))
    lines = [
        [f"`{name}`", *(found[task][name].answer if name in found[task] else "" for task in TASKS)] for name in names
    ]
    return table(["study", "SST-2", "MRPC"], lines)


def _studies(run: Path) -> dict[str, StudyResult]:
    return {one.study: one for one in map(read_study, study_files(run))}
