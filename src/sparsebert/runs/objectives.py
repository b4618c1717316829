"""What a search looks for: scores on held-out rows, and what a record says of times and sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparsebert.data.hold_out import HELD_OUT_SPLIT
from sparsebert.errors import UserError, unknown
from sparsebert.records import ModelResult, Record
from sparsebert.records.searched import Aim, Direction
from sparsebert.reports.families import headline

_MEGA, _GIGA = 1e6, 1e9
Reading = Callable[[Record, ModelResult], float | None]


@dataclass(frozen=True)
class Objective:
    """A number of a model in a record; `timed` if it takes a measurement of times."""

    aim: Aim
    read: Reading
    timed: bool = False


def _latency(record: Record, model: ModelResult) -> float | None:
    timing = headline(record, model, "model")
    return None if timing is None else timing.median_ms


def _speedup(scope: str) -> Reading:
    def read(record: Record, model: ModelResult) -> float | None:
        timing = headline(record, model, scope)
        return None if timing is None else timing.speedup

    return read


def _gflops(record: Record, model: ModelResult) -> float | None:
    return None if model.size.flops is None else model.size.flops / _GIGA


# Named as in the JSON of all commands.
_QUANTITIES: dict[str, tuple[Direction, bool, Reading]] = {
    "latency_ms": ("minimize", True, _latency),
    "model_speedup": ("maximize", True, _speedup("model")),
    "encoder_speedup": ("maximize", True, _speedup("encoder")),
    "size_mb": ("minimize", False, lambda record, model: model.size.file_bytes / _MEGA),
    "parameters": ("minimize", False, lambda record, model: model.size.parameters),
    "gflops": ("minimize", False, _gflops),
    "encoder_sparsity": ("maximize", False, lambda record, model: model.sparsity.encoder_linear),
    "whole_sparsity": ("maximize", False, lambda record, model: model.sparsity.whole_model),
    "bytes_sparsity": ("maximize", False, lambda record, model: model.sparsity.bytes_on_disk),
}


def objectives_of(names: Sequence[str], metrics: Sequence[str], timed: bool) -> tuple[Objective, ...]:
    """Objectives by their names; none = the task's main metric, the first of `metrics`.

    Raises UserError for a name that no record of this task has, for one given twice, and for a time where a recipe
    measures none.
    """
    wanted = list(names) or [metrics[0]]
    for name in wanted:
        if name not in metrics and name not in _QUANTITIES:
            raise unknown("objective", name, [*metrics, *_QUANTITIES])
    if len(set(wanted)) < len(wanted):
        raise UserError("An objective is given twice", got=", ".join(wanted))
    found = tuple(_objective(name, name in metrics) for name in wanted)
    if not timed and any(one.timed for one in found):
        raise UserError("The recipe measures no times (measure.timed is false), so none can be an objective")
    return found


def _objective(name: str, is_metric: bool) -> Objective:
    if is_metric:
        return Objective(Aim(name=name, direction="maximize"), _score(name))
    direction, timed, read = _QUANTITIES[name]
    return Objective(Aim(name=name, direction=direction), read, timed)


def _score(metric: str) -> Reading:
    def read(record: Record, model: ModelResult) -> float | None:
        found = (one.value for one in model.scores if one.metric == metric and one.split == HELD_OUT_SPLIT)
        return next(found, None)

    return read


def scored_model(record: Record, name: str | None) -> ModelResult:
    """The model that is searched for: by its name, else the last one. Raises UserError where there is no such model."""
    found = [model for model in record.models if name in (None, model.name)]
    if not found:
        raise unknown("model of the run", str(name), [model.name for model in record.models])
    return found[-1]


def pareto_front(scores: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Places of the points that no other one beats: as good in every objective and better in one. The first of equals.

    `scores` [points][objectives].
    """
    signs = [1 if direction == "maximize" else -1 for direction in directions]
    points = [tuple(sign * value for sign, value in zip(signs, point, strict=True)) for point in scores]

    def beaten(place: int) -> bool:
        own = points[place]
        return any(
            all(theirs >= mine for theirs, mine in zip(other, own, strict=True)) and (other != own or index < place)
            for index, other in enumerate(points)
            if index != place
        )

    return [place for place in range(len(points)) if not beaten(place)]
