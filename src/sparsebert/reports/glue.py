"""GLUE as tables: models by tasks, averages on the left; the averages of papers; and each metric by itself."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sparsebert.records import Evaluation, Record, Score
from sparsebert.reports import values as v
from sparsebert.reports.families import short_name
from sparsebert.reports.glue_averages import AverageScore, averages
from sparsebert.reports.glue_scores import OverRuns, TaskRun, TaskScores, scores_by_model
from sparsebert.reports.tables import Cell, Section, Table, metric_name
from sparsebert.tasks.glue import GLUE, GlueTask
from sparsebert.tasks.table import SUBSET

SHORT = {"accuracy": "acc", "f1": "F1", "matthews": "Matthews", "pearson": "Pearson", "spearman": "Spearman"}
LEFT = ("present", "eight", "nine")


@dataclass(frozen=True)
class Reference:
    """What scores are given as per cent of: medians by task and by key of an average."""

    name: str
    tasks: Mapping[str, float]
    averages: Mapping[str, float]


@dataclass(frozen=True)
class GlueScores:
    """The scores of every model by task, and their averages; `absent` are runs without a result, by task."""

    tasks: dict[str, dict[str, TaskScores]]
    averages: dict[str, list[AverageScore]]
    absent: Mapping[str, int] = field(default_factory=dict)
    reference: Reference | None = None

    def heading(self, name: str) -> str:
        """A model, and what it was made from."""
        own = next(iter(self.tasks[name].values()))
        return f"{short_name(str(own.some.record.recipe.get('model', 'model')))}, {name}"

    @property
    def columns(self) -> list[GlueTask]:
        """The tasks that any model has, and those whose runs have no result, in order."""
        present = {task for own in self.tasks.values() for task in own} | set(self.absent)
        return [task for task in GLUE.values() if task.name in present]

    def as_reference(self, name: str, model: str) -> Reference:
        """The medians of one of the models."""
        own = {task: found.median for task, one in self.tasks[model].items() if (found := one.over_runs())}
        return Reference(name, own, {one.average.key: one.scores.median for one in self.averages[model]})


def glue_scores(
    records: Sequence[Record], absent: Mapping[str, int] | None = None, reference: Reference | None = None
) -> GlueScores:
    """The scores in records of GLUE tasks, all of one start; `absent` are the runs that left none, by task."""
    tasks = scores_by_model(records)
    return GlueScores(tasks, {name: averages(own) for name, own in tasks.items()}, absent or {}, reference)


def glue_table(scores: GlueScores) -> Table:
    """Models by tasks: the median, the spread and the best of so many side by side, beside the majority class."""
    keys = [key for key in LEFT if any(one.average.key == key for own in scores.averages.values() for one in own)]
    columns = (Cell(""), *(_average_head(scores, key) for key in keys), *map(_task_head(scores), scores.columns))
    sections = tuple(Section(scores.heading(name), tuple(_rows(scores, name, keys))) for name in scores.tasks)
    return Table("GLUE on the dev sets", columns, sections, tuple(_notes(scores)))


def average_table(scores: GlueScores) -> Table:
    """All averages of every model, by what they are of."""
    heads = (Cell("Average"), Cell("Median"), Cell("Min–max"), Cell("Best", "per task"), Cell("Majority", "class"))
    reference = scores.reference
    columns = (*heads, Cell("% of", reference.name)) if reference else heads
    sections = []
    for name, own in scores.averages.items():
        rows = [_average_row(one, reference) for one in own]
        sections.append(Section(scores.heading(name), tuple(rows)))
    return Table("Averages", columns, tuple(sections))


def metric_table(scores: GlueScores) -> Table:
    """Every metric of every task: over runs, over examples, beside the majority class, on train, and on the way."""
    columns = (
        Cell("Task"),
        Cell("Median"),
        Cell("Min–max"),
        Cell("Best"),
        Cell("95% interval", "examples, median run"),
        Cell("Majority", "class"),
        Cell("On train", "median"),
        Cell("Loss on train", "median"),
        Cell("Highest seen", "while training"),
    )
    sections = tuple(
        Section(scores.heading(name), tuple(row for one in own.values() for row in _metric_rows(one)))
        for name, own in scores.tasks.items()
    )
    keep = [
        place for place in range(len(columns)) if any(row[place].text != v.DASH for s in sections for row in s.rows)
    ]
    return Table(
        "GLUE metric by metric",
        tuple(columns[place] for place in keep),
        tuple(Section(s.heading, tuple(tuple(row[place] for place in keep) for row in s.rows)) for s in sections),
        (
            "Highest seen: the highest main metric of all evaluations while training, of all runs; the model that is "
            "scored above need not be that one.",
        ),
    )


def points(value: float | None) -> str:
    """A score of 0-1 as 0-100 with one decimal, as tables of GLUE have it; a dash where there is none."""
    return v.DASH if value is None else f"{100 * value:.1f}".replace("-", v.MINUS)


def _spread(over: OverRuns | None) -> str:
    if over is None or over.runs < 2:
        return v.DASH
    return f"{points(over.low)}–{points(over.high)}"


def _best(over: OverRuns | None) -> Cell:
    return Cell(v.DASH) if over is None or over.best_of < 2 else Cell(points(over.best), f"of {over.best_of}")


def _average_head(scores: GlueScores, key: str) -> Cell:
    found = [one for own in scores.averages.values() for one in own if one.average.key == key]
    names = {one.name for one in found}
    name = found[0].name if len(names) == 1 else found[0].average.name
    return Cell(name[0].upper() + name[1:], "not the official one, see below" if any(o.reasons for o in found) else "")


def _task_head(scores: GlueScores) -> Callable[[GlueTask], Cell]:
    def head(task: GlueTask) -> Cell:
        runs = [own[task.name].some for own in scores.tasks.values() if task.name in own]
        splits = len(runs[0].on_dev(task.metrics[0])) if runs else len(task.dev_rows)
        if len(task.dev_rows) > 1:
            return Cell(task.title, "m/mm" if splits > 1 else "m")
        return Cell(task.title, "/".join(SHORT[metric] for metric in task.metrics))

    return head


def _rows(scores: GlueScores, name: str, keys: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
    tasks, by_key = scores.tasks[name], {one.average.key: one for one in scores.averages[name]}
    over = {task: one.over_runs() for task, one in tasks.items()}
    runs = max((one.runs for one in over.values() if one), default=0)

    def row(
        title: Cell, of_average: Callable[[AverageScore], Cell], of_task: Callable[[GlueTask], Cell]
    ) -> tuple[Cell, ...]:
        left = [of_average(by_key[key]) if key in by_key else Cell(v.DASH) for key in keys]
        return (title, *left, *map(of_task, scores.columns))

    def plain(make: Callable[[TaskScores], str]) -> Callable[[GlueTask], Cell]:
        return lambda task: Cell(make(tasks[task.name]) if task.name in tasks else v.DASH)

    yield row(
        Cell(f"median of {runs} runs" if runs > 1 else "one run", "chosen on dev" if _has_choice(tasks) else ""),
        lambda one: Cell(points(one.scores.median), _few(one.scores.runs, runs)),
        lambda task: _main_cell(scores, tasks.get(task.name), task, runs),
    )
    if runs > 1:
        yield row(
            Cell("minimum–maximum"), lambda one: Cell(_spread(one.scores)), plain(lambda t: _spread(t.over_runs()))
        )
    if any(one.best_of > 1 for one in over.values() if one):
        yield row(
            Cell("best per task"),
            lambda one: _best(one.scores),
            lambda task: _best(over.get(task.name)),
        )
    yield row(
        Cell("majority class"),
        lambda one: Cell(points(one.baseline)),
        plain(lambda task: _slashed(task, lambda run, metric, split: run.baseline((metric,), split))),
    )
    if (base := scores.reference) is not None:
        yield row(
            Cell(f"% of {base.name}"),
            lambda one: Cell(_part(one.scores.median, base.averages.get(one.average.key))),
            lambda task: Cell(_part(_median_of(over.get(task.name)), base.tasks.get(task.name))),
        )


def _median_of(over: OverRuns | None) -> float | None:
    return None if over is None else over.median


def _part(value: float | None, whole: float | None) -> str:
    return v.DASH if value is None or whole is None or whole <= 0 else f"{100 * value / whole:.1f}%"


def _few(runs: int, wanted: int) -> str:
    return "" if runs == wanted else f"n = {runs}"


def _has_choice(tasks: Mapping[str, TaskScores]) -> bool:
    return any(one.choice for one in tasks.values())


def _main_cell(scores: GlueScores, own: TaskScores | None, task: GlueTask, runs: int) -> Cell:
    lost = scores.absent.get(task.name, 0)
    if own is None or (over := own.over_runs()) is None:
        return Cell(v.DASH, f"{lost} failed" if lost else "")
    text = _slashed(own, lambda run, metric, split: run.value((metric,), split))
    small = [f"{lost} failed"] if lost else [] if over.runs == runs else [f"n = {over.runs}"]
    if runs == 1 and (interval := _interval(own)):
        small.append(interval)
    return Cell(text, "; ".join(small))


def _slashed(scores: TaskScores, value: Callable[[TaskRun, str, str], float | None]) -> str:
    """Medians over the runs shown, of each metric on each dev split that was scored, with slashes between."""
    metrics = scores.task.metrics
    splits = dict.fromkeys(score.split.removesuffix(SUBSET) for score in scores.some.on_dev(metrics[0]))
    parts = []
    for metric in metrics:
        for split in splits:
            found = [one for run in scores.shown.values() if (one := value(run, metric, split)) is not None]
            if found:
                parts.append(points(statistics.median(found)))
    return "/".join(parts) or v.DASH


def _middle(scores: TaskScores) -> TaskRun:
    """The run whose score is the median, or next to it."""
    over = scores.over_runs()
    middle = over.median if over else 0.0
    return min(scores.shown.values(), key=lambda run: abs((run.value() or 0.0) - middle))


def _interval(scores: TaskScores) -> str:
    found = _middle(scores).on_dev(scores.task.metrics[0])
    return _ends(found[0]) if found else ""


def _ends(score: Score) -> str:
    return "" if score.low is None or score.high is None else f"{points(score.low)}–{points(score.high)}"


def _average_row(one: AverageScore, reference: Reference | None) -> tuple[Cell, ...]:
    cells = (
        Cell(one.name, one.average.says),
        Cell(points(one.scores.median), f"{one.scores.runs} run{'s' if one.scores.runs > 1 else ''}"),
        Cell(_spread(one.scores)),
        _best(one.scores),
        Cell(points(one.baseline)),
    )
    if reference is None:
        return cells
    return (*cells, Cell(_part(one.scores.median, reference.averages.get(one.average.key))))


def _metric_rows(scores: TaskScores) -> Iterator[tuple[Cell, ...]]:
    middle, task = _middle(scores), scores.task
    for place, (metric, split) in enumerate(scores.parts):
        found = middle.on_dev(metric, split)
        if not found:
            continue
        score, over = found[0], scores.over_runs((metric,), split)
        part = "" if split is None else f", {split.removeprefix('validation_')}"
        yield (
            Cell(f"{task.title} {metric_name(metric)}{part}", "" if place else "; ".join(_about(scores, score))),
            Cell(points(over.median if over else None)),
            Cell(_spread(over)),
            _best(over),
            Cell(_ends(score) or v.DASH),
            Cell(points(score.baseline)),
            Cell(points(_median(scores, metric))),
            Cell(v.DASH if place else _loss(_median(scores, "loss"))),
            Cell(v.DASH) if place else _highest(scores),
        )


def _about(scores: TaskScores, score: Score) -> Iterator[str]:
    yield f"n = {score.examples:,}"
    if scores.choice:
        yield scores.choice


def _median(scores: TaskScores, metric: str) -> float | None:
    found = [one for run in scores.shown.values() if (one := run.on_train(metric)) is not None]
    return statistics.median(found) if found else None


def _loss(value: float | None) -> str:
    return v.DASH if value is None else f"{value:.3f}"


def _highest(scores: TaskScores) -> Cell:
    metric = scores.task.metrics[0]
    runs = [run for run in scores.runs if run.highest() is not None]
    seen: list[Evaluation] = [one for run in runs if (one := run.highest()) is not None]
    if not seen:
        return Cell(v.DASH)
    top = max(seen, key=lambda one: one.scores[metric])
    count = sum(len(training.evaluations) for run in runs for training in run.trainings)
    return Cell(points(top.scores[metric]), f"step {top.step:,}, {top.split.replace('_', ' ')}; of {count} evaluations")


def _notes(scores: GlueScores) -> Iterator[str]:
    yield "Scores are of dev sets, 0-100; of several metrics a spread or a best is of their mean."
    if any(one.best_of > 1 for own in scores.tasks.values() for t in own.values() if (one := t.over_runs())):
        yield "A best of several runs is chosen by the very rows that it is scored on: compare medians."
    said = {}
    for own in scores.averages.values():
        for one in own:
            if one.average.key in LEFT and one.reasons and one.average.title:
                said[f"{one.name} is no {one.average.title}: {'; '.join(one.reasons)}."] = None
            elif one.average.key == "present":
                said[f"{one.name}: {one.average.says}" + "".join(f"; {reason}" for reason in one.reasons) + "."] = None
    yield from (text[0].upper() + text[1:] for text in said)
    for name, own in scores.tasks.items():
        choices = [f"{task.task.title} {task.choice}" for task in own.values() if task.choice]
        if choices:
            yield f"{name}: {'; '.join(choices)}. What is chosen on dev flatters the score there."
    for task, count in scores.absent.items():
        yield f"{GLUE[task].title}: {count} run{'s' if count > 1 else ''} without a result."
