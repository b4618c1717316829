"""Ask a study: its name and checkpoints in, its result out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.named import sources
from sparsebert.reports.study import StudyResult
from sparsebert.studies.checkpoints import AskedCheckpoints
from sparsebert.studies.study import CheckpointStudy, StudyOptions


def study(
    name: str,
    checkpoints: Sequence[str],
    options: StudyOptions | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> StudyResult:
    """The answer of a registered study, or of the user's own, about models named as folders, hub names or runs.

    A run stands for all its models, the dense one first. Raises UserError for an unknown study, for too few or too many
    checkpoints, for an option that the study does not take, for a value out of range, and as loading models does.
    """
    options = options or StudyOptions()
    asked: CheckpointStudy = registry.get("study", name)
    _check_options(name, asked, options)
    found = sources(checkpoints)
    if len(found) < asked.fewest or (asked.most is not None and len(found) > asked.most):
        raise UserError(f"The study {name} asks about {_wanted(asked)}", got=", ".join(found) or "none")
    return asked.answer(AskedCheckpoints(found, options, progress))


def _wanted(asked: CheckpointStudy) -> str:
    fewest, most = asked.fewest, asked.most
    if most is None:
        return f"{fewest} checkpoint{'s' if fewest > 1 else ''} or more"
    return f"{fewest} checkpoint{'s' if fewest > 1 else ''}" if fewest == most else f"{fewest} to {most} checkpoints"


def _check_options(name: str, asked: CheckpointStudy, options: StudyOptions) -> None:
    for given in options.given:
        if given not in asked.takes:
            raise UserError(f"The study {name} takes no --{given}", allowed=", ".join(asked.takes) or "none")
    for one in options.sparsity:
        if not 0 < one < 1:
            raise UserError("A sparsity is a part between 0 and 1", got=one)
    if len({*options.sparsity}) < len(options.sparsity):
        raise UserError("A sparsity is given twice", got=", ".join(map(str, options.sparsity)))
    for one in options.threshold:
        if not 0 < one < float("inf"):
            raise UserError("A threshold is a positive number", got=one)
    if len(options.criterion) == 1 or len({*options.criterion}) < len(options.criterion):
        raise UserError("Two different criteria or more can be compared", got=", ".join(options.criterion))
    if options.examples is not None and options.examples < 2:
        raise UserError("A study needs two examples or more", got=options.examples)
