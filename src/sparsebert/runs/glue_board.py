"""How far a GLUE run is: task by task the runs, the step, the scores and the time left; a line a run in a log."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sparsebert.progress import console, line, plain
from sparsebert.records import Record
from sparsebert.reports.glue import points as shown
from sparsebert.reports.glue_scores import TaskRun
from sparsebert.runs.sweep import Point
from sparsebert.tasks.glue import GLUE

STATE = "trainer_state.json"


@dataclass
class GlueBoard:
    """The points of a run, the train `rows` of each task, and what is known; `workers` runs go on at once.

    What runs is read from the points' folders, so that it does not matter which process works there.
    """

    points: Sequence[Point]
    folder: Path
    rows: Mapping[str, int]
    workers: int | None = 1
    records: dict[str, Record] = field(default_factory=dict)

    def ended(self, point: Point, record: Record) -> None:
        """A point has a record now."""
        self.records[point.name] = record
        if console.is_terminal:
            return
        left = self.left()
        rest = "" if left is None else f", about {_clock(left)} left"
        line(f"{point.name}: {_scores([record])}; {len(self.records)} of {len(self.points)} runs{rest}")

    def left(self) -> float | None:
        """Seconds until all is done, by what the runs took so far, for a task without one by its rows.

        What runs now counts as not begun. None at first, and where it is not known how many work at once.
        """
        done = list(self.records.values())
        took = {
            task: statistics.fmean(one.seconds for one in done if one.task == task) for task in {r.task for r in done}
        }
        known = sum(self.rows[task] for task in took)
        if not known or self.workers is None:
            return None
        a_row = sum(took.values()) / known
        waiting = [point.recipe.task for point in self.points if point.name not in self.records]
        return sum(took.get(task, a_row * self.rows[task]) for task in waiting) / self.workers

    def __rich__(self) -> Table:
        left = self.left()
        title = f"GLUE: {len(self.records)} of {len(self.points)} runs"
        title += "" if left is None or len(self.records) == len(self.points) else f", about {_clock(left)} left"
        drawn = Table(box=SIMPLE_HEAD, title=title, title_justify="left", show_edge=False)
        for column in ("task", "runs", "now", "score"):
            drawn.add_column(column, overflow="fold")
        for task in dict.fromkeys(point.recipe.task for point in self.points):
            own = [point for point in self.points if point.recipe.task == task]
            done = [self.records[point.name] for point in own if point.name in self.records]
            cells = (GLUE[task].title, f"{len(done)}/{len(own)}", self._now(own), _scores(done))
            drawn.add_row(*(Text(plain(cell)) for cell in cells))
        return drawn

    def _now(self, own: Sequence[Point]) -> str:
        """What runs, and at which step it is."""
        found = [(point, _state(self.folder / point.name)) for point in own if point.name not in self.records]
        return "; ".join(f"{point.name}: {state}" for point, state in found if state)


@contextmanager
def glue_board(points: Sequence[Point], folder: Path, rows: Mapping[str, int], on: str | None) -> Iterator[GlueBoard]:
    """A board, shown on a terminal for as long as the block lasts."""
    board = GlueBoard(points, folder, rows, _workers(on))
    if not console.is_terminal or console.quiet:
        yield board
        return
    with Live(board, console=console, refresh_per_second=1):
        yield board


def _workers(on: str | None) -> int | None:
    count = (on or "local").removeprefix("local").removeprefix(":")
    return max(1, int(count)) if count.isdecimal() else None if count else 1


def _scores(records: Sequence[Record]) -> str:
    """Medians by model; failures are counted."""
    failed = sum(record.status == "failed" for record in records)
    by_model: dict[str, list[float]] = {}
    for record in records:
        for model in record.models:
            value = TaskRun(record, model, "").value()
            by_model.setdefault(model.name, []).extend([] if value is None else [value])
    said = [f"{name} {shown(statistics.median(values))}" for name, values in by_model.items() if values]
    return ", ".join([*said, *([f"{failed} failed"] if failed else [])])


def _state(folder: Path) -> str:
    """The step of the newest checkpoint of a run, and its last score; empty for one that has not begun."""
    if not (folder / "work").is_dir():
        return ""
    try:
        files = sorted((folder / "work").rglob(STATE), key=lambda file: file.stat().st_mtime)
        state = json.loads(files[-1].read_bytes()) if files else {}
    except (OSError, ValueError):
        # It is being written or removed just now.
        return "training"
    step = f"step {state['global_step']:,} of {state['max_steps']:,}" if "max_steps" in state else "begun"
    seen = [entry for entry in state.get("log_history", []) if any(key.startswith("eval_") for key in entry)]
    last = [f"{key[5:]} {value:.3f}" for key, value in (seen[-1] if seen else {}).items() if _is_score(key)]
    return ", ".join([step, *last[:1]])


def _is_score(key: str) -> bool:
    return key.startswith("eval_") and not key.endswith(("loss", "runtime", "per_second"))


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes // 60} h {minutes % 60:02} min"
