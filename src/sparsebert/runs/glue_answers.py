"""Which run answers a test set: that with the best score on dev. Models are kept no longer than until that is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from sparsebert.files import remove_folder, write_text_atomically
from sparsebert.progress import line
from sparsebert.records import ModelResult, Record
from sparsebert.reports.glue_scores import TaskRun
from sparsebert.runs.claim import finished_record
from sparsebert.runs.submission import answer, pack_answers
from sparsebert.runs.sweep import Point
from sparsebert.tasks.glue import GLUE

FOLDER, CHOSEN = "test", "chosen.json"


class Answered(BaseModel):
    """Who answered a task: the point, its score on dev, and of how many it is the best."""

    point: str
    score: float
    best_of: int = 1


class _Chosen(BaseModel):
    tasks: dict[str, Answered] = {}


class Answers:
    """The answers of every model name in `folder`/test/NAME, and who gave them.

    Every record goes through `look` once, and `complete` follows after the last. With `restart` the answers of before
    are removed.
    """

    def __init__(self, folder: Path, data: Path | None, keep_models: bool, restart: bool) -> None:
        self._folder, self._data, self._keep_models = folder, data, keep_models
        self._best: dict[tuple[str, str], Answered] = {}
        if restart:
            remove_folder(folder / FOLDER)

    def has_finished(self, point: Point) -> bool:
        """Whether a point needs no run."""
        record = finished_record(self._folder / point.name)
        return record is not None and record.recipe_hash == point.recipe.hash

    def look(self, point: Point, record: Record) -> None:
        """Answer with the models of a run that are the best so far, and remove them if they are not to be kept."""
        if record.status != "finished":
            return
        for model in record.models:
            self._look_at(point, record, model)
        if not self._keep_models:
            for name in (*(model.folder for model in record.models), "work"):
                remove_folder(self._folder / point.name / name)

    def complete(
        self, points: Sequence[Point], run: Callable[[Sequence[Point]], Iterable[tuple[Point, Record]]]
    ) -> None:
        """Run the best points again whose models are gone and that have not answered, and say who answered."""
        missing = {best.point for key, best in self._best.items() if self._known(*key) != best.point}
        again = [point for point in points if point.name in missing]
        if again:
            line(f"Run again, as their models are gone: {', '.join(point.name for point in again)}")
            for point, record in run(again):
                self.look(point, record)
        for (model, task), best in self._best.items():
            chosen = self._chosen(model)
            if task in chosen.tasks and chosen.tasks[task].point == best.point:
                self._write(model, task, best)

    def _look_at(self, point: Point, record: Record, model: ModelResult) -> None:
        key, value = (model.name, record.task), TaskRun(record, model, "").value()
        if value is None:
            return
        best = self._best.get(key)
        count = 1 if best is None else best.best_of + (best.point != point.name)
        if best is not None and value <= best.score and best.point != point.name:
            self._best[key] = best.model_copy(update={"best_of": count})
            return
        self._best[key] = Answered(point=point.name, score=value, best_of=count)
        place = self._folder / point.name / model.folder
        if self._known(*key) != point.name and place.is_dir():
            answer(place, GLUE[record.task], self._data, self._home(model.name))
            self._write(*key, self._best[key])

    def _home(self, model: str) -> Path:
        return self._folder / FOLDER / model

    def _known(self, model: str, task: str) -> str | None:
        """The point whose answers of a task are there."""
        found = self._chosen(model).tasks.get(task)
        whole = all((self._home(model) / f"{file.name}.tsv").is_file() for file in GLUE[task].files)
        return found.point if found is not None and whole else None

    def _chosen(self, model: str) -> _Chosen:
        file = self._home(model) / CHOSEN
        try:
            return _Chosen.model_validate_json(file.read_bytes()) if file.is_file() else _Chosen()
        except ValidationError:
            line(f"{file} is damaged, so the test sets are answered again")
            return _Chosen()

    def _write(self, model: str, task: str, best: Answered) -> None:
        chosen = self._chosen(model)
        plain = {**chosen.model_dump()["tasks"], task: best.model_dump()}
        write_text_atomically(self._home(model) / CHOSEN, json.dumps({"tasks": plain}, indent=1) + "\n")


def submissions(folder: Path, models: Iterable[str]) -> Iterator[str]:
    """Pack what was answered, a zip a model, and say in words what is in it, or why there is none."""
    for model in models:
        home = folder / FOLDER / model
        if not (home / CHOSEN).is_file():
            continue
        packed, wrong = pack_answers(home, folder / f"submission-{model}.zip")
        chosen = _Chosen.model_validate_json((home / CHOSEN).read_bytes())
        if packed is not None:
            yield f"{packed.name} is what the GLUE server takes"
        yield from (f"{packed.name}: {one}" if packed else f"{model}: {one}" for one in wrong)
        for task, best in chosen.tasks.items():
            yield (
                f"{GLUE[task].title} test, {model}: answered by {best.point}, the best of {best.best_of} on dev "
                f"({100 * best.score:.1f})"
            )
