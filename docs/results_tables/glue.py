"""Tables of GLUE: a family of models on every task, and what each member costs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from results_tables.values import percent, records, table
from sparsebert.records import ModelResult, Record
from sparsebert.reports.glue import GlueScores, glue_scores
from sparsebert.reports.glue_scores import OverRuns
from sparsebert.reports.tables import metric_name

STUDY, DENSE = "glue-minilm", "dense"


def scores() -> str:
    """Each task's metrics, median (min–max) over seeds, and the share of the dense model's median that is kept."""
    found = _scores()
    names = list(found.tasks)
    header = [
        "task",
        "metric",
        "dev rows",
        "seeds",
        *names,
        *(f"{name}, % of dense" for name in names if name != DENSE),
    ]
    lines = [
        _line(found, task.name, metric, names)
        for task in found.columns
        for metric, _ in found.tasks[DENSE][task.name].parts
    ]
    return table(header, lines)


def _line(found: GlueScores, task: str, metric: str, names: Sequence[str]) -> list[str]:
    own = {name: found.tasks[name][task] for name in names if task in found.tasks[name]}
    over = {name: one.over_runs([metric]) for name, one in own.items()}
    dense = over[DENSE]
    kept = [_share(over.get(name), dense) for name in names if name != DENSE]
    rows = own[DENSE].some.on_dev(metric)[0].examples
    runs = 0 if dense is None else dense.runs
    cells = [_cell(over.get(name)) for name in names]
    return [f"`{task}`", metric_name(metric), f"{rows:,}", str(runs), *cells, *kept]


def costs() -> str:
    """Speed, parameters and bytes of each member over the tasks: median (lowest–highest)."""
    found = list(records(STUDY).values())
    lines = []
    for name in [model.name for model in found[0].models]:
        members = [(record, model) for record in found for model in record.models if model.name == name]
        lines.append(
            [
                name,
                _over([_speed(model, "encoder") for _, model in members], "x"),
                _over([_speed(model, "model") for _, model in members], "x"),
                *(percent(statistics.median(_sparsities(model)[place] for _, model in members)) for place in range(3)),
                _over([_minutes(record, model) for record, model in members], ""),
            ]
        )
    header = ["model", "encoder speedup", "model speedup", "encoder weights removed", "of all weights", "of bytes"]
    return table([*header, "training, minutes"], lines)


def _scores() -> GlueScores:
    return glue_scores(list(records(STUDY).values()))


def _cell(found: OverRuns | None) -> str:
    if found is None:
        return ""
    middle = f"{100 * found.median:.1f}"
    return middle if found.runs == 1 else f"{middle} ({100 * found.low:.1f}–{100 * found.high:.1f})"


def _share(found: OverRuns | None, dense: OverRuns | None) -> str:
    return "" if found is None or dense is None else f"{100 * found.median / dense.median:.1f}"


def _over(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f}–{max(values):.2f})"


def _speed(model: ModelResult, scope: str) -> float:
    return next(one.speedup or 1.0 for one in model.timings if one.scope == scope)


def _sparsities(model: ModelResult) -> tuple[float, float, float]:
    return model.sparsity.encoder_linear, model.sparsity.whole_model, model.sparsity.bytes_on_disk


def _minutes(record: Record, model: ModelResult) -> float:
    return 0.0 if model.training is None else model.training.seconds / 60
