"""`max_drop` of compress: which model fell too far, which to take, and what so few examples can tell at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sparsebert.recipe.compress import CompressRecipe
from sparsebert.records import ModelResult, Score, Timing
from sparsebert.reports import values as v
from sparsebert.reports.tables import metric_name
from sparsebert.result import is_within
from sparsebert.runs.context import RunContext
from sparsebert.runs.remarks import collapse, main_score

# As many decisions that all became wrong are more than chance: by the sign test 2 / 2**6 = 0.03.
FEWEST_FLIPS = 6


def fell_too_far(context: RunContext[CompressRecipe], dense: float | None, value: float | None) -> bool:
    """Whether the main metric is more than `max_drop` below the dense model's, or is not there; never without limit."""
    limit = context.recipe.max_drop
    if limit is None:
        return False
    return dense is None or value is None or not is_within(limit, dense, value)


def too_far(context: RunContext[CompressRecipe], name: str, dense: float | None, value: float | None) -> str:
    """A line for the model that fell too far."""
    metric = context.spec.main_metric
    why = f"has no {metric}"
    if dense is not None and value is not None:
        why = f"lost {100 * (dense - value):.1f} points of {metric}, more than {context.recipe.max_drop:g}"
    return f"{name} {why}, so the search for smaller models ended there"


def least_drop(context: RunContext) -> float | None:
    """Points that the split which decides could at best tell from chance; None where texts are not counted."""
    if not context.kind.exclusive or context.kind.by_word:
        return None
    return 100 * FEWEST_FLIPS / len(context.validations[context.task.validation_name])


def too_few_examples(context: RunContext[CompressRecipe], least: float | None) -> str | None:
    """A line where `max_drop` asks for less than the `least` points that the examples can tell; else None."""
    limit = context.recipe.max_drop
    if limit is None or least is None or least <= limit:
        return None
    count = len(context.validations[context.task.validation_name])
    return (
        f"On {count:,} examples a drop of less than about {least:.1f} points cannot be told from chance, so chance has "
        f"a part in which models lost at most {limit:g}: give more validation examples, or a larger max_drop"
    )


def answers(context: RunContext[CompressRecipe], models: Sequence[ModelResult]) -> Iterator[str]:
    """For `max_drop`: which of the models, all within it, is the smallest and which the fastest."""
    limit, small = context.recipe.max_drop, models[1:]
    if limit is None:
        return
    points = "point" if limit == 1 else "points"
    what = f"lost at most {limit:g} {points} of {metric_name(context.spec.main_metric).lower()}"
    if not small:
        yield f"No model found {what}: only the dense one is left"
        return
    smallest = min(small, key=lambda model: model.size.file_bytes)
    score = main_score(context, smallest.scores)
    yield (
        f"{smallest.name} is the smallest model found that {what} ({v.megabytes(smallest.size.file_bytes / 1e6)}"
        f"{_change(models[0], score, context)}). It was chosen on the validation split that its score is of"
    )
    empty = collapse(context, smallest.name, smallest.scores, smallest.decisions)
    if empty:
        yield f"{empty}, so it is no answer to how small the model may be"
    timings = {model.name: _whole_time(context, model) for model in small}
    timed = {name: timing for name, timing in timings.items() if timing is not None}
    if timed:
        yield _fastest(timed)
    widths = [least_drop(context), _half_width(score)]
    note = too_few_examples(context, max((width for width in widths if width is not None), default=None))
    if note:
        yield note


def _change(dense: ModelResult, score: Score | None, context: RunContext) -> str:
    before = main_score(context, dense.scores)
    if score is None or before is None:
        return ""
    change = f"; {v.signed(100 * (score.value - before.value))} points"
    if score.change_low is None or score.change_high is None:
        return change
    return f"{change}, 95% interval {v.signed(100 * score.change_low)} to {v.signed(100 * score.change_high)}"


def _half_width(score: Score | None) -> float | None:
    if score is None or score.change_low is None or score.change_high is None:
        return None
    return 50 * (score.change_high - score.change_low)


def _fastest(timed: Mapping[str, Timing]) -> str:
    """Which model is the fastest, and from which others its time is not shown to differ."""
    fastest = min(timed, key=lambda name: timed[name].median_ms)
    best = timed[fastest]
    as_fast = [name for name, other in timed.items() if name != fastest and other.q25_ms <= best.q75_ms]
    doubt = f", but not shown to be faster than {', '.join(as_fast)}: quartiles overlap" if as_fast else ""
    return (
        f"{fastest} is the fastest of those ({v.digits(best.median_ms)} ms the whole model, "
        f"batch {best.batch}, {best.length} tokens){doubt}"
    )


def _whole_time(context: RunContext, model: ModelResult) -> Timing | None:
    wanted = (context.setting.batch, context.setting.length)
    return next((t for t in model.timings if t.scope == "model" and (t.batch, t.length) == wanted), None)
