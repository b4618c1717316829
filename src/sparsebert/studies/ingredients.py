"""What each ingredient is worth, larger than chance or not: arms with intervals over examples and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparsebert.errors import UserError
from sparsebert.records import read_record, record_files
from sparsebert.reports.families import Family, families
from sparsebert.reports.ingredients import Arm, arms, comparable
from sparsebert.reports.values import Value
from sparsebert.studies.significance import Contender, Difference, contenders, differences, holm


@dataclass(frozen=True)
class Judged:
    """An arm with its differences from its own dense model and from the base; the base has none from itself."""

    arm: Arm
    change: Difference
    worth: Difference | None


def judged_arms(
    paths: Sequence[Path],
    resamples: int,
    seed: int,
    remark: Callable[[str], None] = lambda text: None,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Judged]:
    """The base first. Change and worth of each arm have the interval of studies.significance in the place of ranges.

    Holm's correction is over all changes, and over all worths. Raises UserError for fewer than two recipes of sparse
    training, for those of several tasks or models or without a dense model, and as `contenders` and `differences` do.
    """
    groups = families([read_record(file) for path in paths for file in record_files(path)])
    if not comparable(groups):
        raise UserError(
            "Ingredients are compared among recipes of sparse training, of one task and model, each with a dense model",
            got=", ".join(family.label for family in groups) or "no finished run",
            fix="give the runs of two recipes or more, made with --set baseline=true",
        )
    made = _by_label(groups, contenders(paths, None, remark))
    dense = _by_label(groups, contenders(paths, "dense"))
    found = arms(groups)
    labels = [arm.label for arm in found]
    changes = holm([differences([dense[one], made[one]], resamples, seed, progress)[0] for one in labels])
    worths = differences([made[one] for one in labels], resamples, seed, progress)
    return [_judged(*one) for one in zip(found, changes, [None, *worths], strict=True)]


def _by_label(groups: Sequence[Family], found: Sequence[Contender]) -> dict[str, Contender]:
    """Contenders come one a family, in the order of families."""
    return {family.label: one for family, one in zip(groups, found, strict=True)}


def _judged(arm: Arm, change: Difference, worth: Difference | None) -> Judged:
    told = replace(arm, change=_value(change), worth=None if worth is None else _value(worth))
    return Judged(told, change, worth)


def _value(one: Difference) -> Value:
    return Value(one.points, one.low, one.high, one.seeds)
