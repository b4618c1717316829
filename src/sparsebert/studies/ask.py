"""Ask a study: its name and checkpoints in, its result out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparsebert import registry
from sparsebert.errors import UserError
from sparsebert.models.named import sources
from sparsebert.records import read_record
from sparsebert.reports.study import StudyResult
from sparsebert.studies.checkpoints import AskedCheckpoints
from sparsebert.studies.records import AskedRecords, files_of
from sparsebert.studies.study import CheckpointStudy, RecordStudy, Study, StudyOptions


def study(
    name: str,
    checkpoints: Sequence[str],
    options: StudyOptions | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> StudyResult:
    """The answer of a registered study, or of the user's own, about models named as folders, hub names or runs.

    A run stands for all its models, the dense one first; studies of runs read their records alone. Raises UserError for
    an unknown study, for too few or too many checkpoints, for an option that the study does not take, for a value out
    of range, and as loading models does.
    """
    options = options or StudyOptions()
    asked: CheckpointStudy | RecordStudy = registry.get("study", name)
    _check_options(name, asked, options)
    if isinstance(asked, RecordStudy):
        files = files_of(checkpoints)
        _check_number(name, asked, list(files), "run")
        runs = {label: read_record(file) for label, file in files.items()}
        return asked.answer(AskedRecords(runs, files, options, progress))
    found = sources(checkpoints)
    _check_number(name, asked, list(found), "checkpoint")
    return asked.answer(AskedCheckpoints(found, options, progress))


def _check_number(name: str, asked: Study, given: Sequence[str], noun: str) -> None:
    fewest, most = asked.fewest, asked.most
    if len(given) >= fewest and (most is None or len(given) <= most):
        return
    several = f"{fewest} {noun}{'s' if fewest > 1 else ''}"
    wanted = several if fewest == most else f"{several} or more" if most is None else f"{fewest} to {most} {noun}s"
    raise UserError(f"The study {name} asks about {wanted}", got=", ".join(given) or "none")


def _check_options(name: str, asked: Study, options: StudyOptions) -> None:
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
