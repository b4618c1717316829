"""What GLUE fixed (Wang et al. 2019, arXiv:1804.07461): metrics, sizes of splits, files for the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sparsebert.errors import unknown
from sparsebert.tasks.table import GLUE_HUB


@dataclass(frozen=True)
class ServerFile:
    """One file of a submission: its name, whose rows it answers, and how many these are.

    `source` is the hub's id and configuration, `folder` the task's folder of local data. `named` files hold the names
    of classes, others their numbers.
    """

    name: str
    folder: str
    split: str
    rows: int
    named: bool = False

    @property
    def source(self) -> tuple[str, str]:
        """Where the hub has it."""
        return (GLUE_HUB, self.folder)


@dataclass(frozen=True)
class GlueTask:
    """One of the nine: `metrics` are averaged for the GLUE score, over all dev splits; `dev_rows` are theirs."""

    name: str
    title: str
    metrics: tuple[str, ...]
    train_rows: int
    dev_rows: tuple[tuple[str, int], ...]
    files: tuple[ServerFile, ...]


def _task(
    name: str, title: str, metrics: tuple[str, ...], train: int, dev: int, test: int, named: bool = False
) -> GlueTask:
    file = ServerFile(title, name, "test", test, named)
    return GlueTask(name, title, metrics, train, (("validation", dev),), (file,))


AX = ServerFile("AX", "ax", "test", 1_104, named=True)
"""The diagnostic set, which the model of MNLI answers."""
_MNLI = GlueTask(
    "mnli",
    "MNLI",
    ("accuracy",),
    392_702,
    (("validation_matched", 9_815), ("validation_mismatched", 9_832)),
    (
        ServerFile("MNLI-m", "mnli", "test_matched", 9_796, named=True),
        ServerFile("MNLI-mm", "mnli", "test_mismatched", 9_847, named=True),
        AX,
    ),
)
# In the order of the usual tables.
GLUE = {
    task.name: task
    for task in (
        _task("cola", "CoLA", ("matthews",), 8_551, 1_043, 1_063),
        _MNLI,
        _task("mrpc", "MRPC", ("f1", "accuracy"), 3_668, 408, 1_725),
        _task("qnli", "QNLI", ("accuracy",), 104_743, 5_463, 5_463, named=True),
        _task("qqp", "QQP", ("f1", "accuracy"), 363_846, 40_430, 390_965),
        _task("rte", "RTE", ("accuracy",), 2_490, 277, 3_000, named=True),
        _task("sst2", "SST-2", ("accuracy",), 67_349, 872, 1_821),
        _task("stsb", "STS-B", ("pearson", "spearman"), 5_749, 1_500, 1_379),
        _task("wnli", "WNLI", ("accuracy",), 635, 71, 146),
    )
}


def glue_tasks(names: Iterable[str]) -> list[GlueTask]:
    """The tasks of these names without repeats, in the order of the tables; none given = all nine.

    Raises UserError for a name that is none of the nine.
    """
    wanted = list(names)
    for name in wanted:
        if name not in GLUE:
            raise unknown("GLUE task", name, GLUE)
    return [task for task in GLUE.values() if not wanted or task.name in wanted]
