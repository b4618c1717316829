"""`sparsebert tasks`: the tasks that need no file of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsebert.cli.errors import cli_errors
from sparsebert.cli.options import DebugOption, JsonOption

if TYPE_CHECKING:
    from sparsebert.tasks.table import TaskSpec


def tasks(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the tasks that need no file of yours."""
    with cli_errors(debug):
        from sparsebert.cli.output import put_json, show, table
        from sparsebert.tasks.table import task_names, task_spec

        specs = [task_spec(name) for name in task_names()]
        if as_json:
            put_json(
                [
                    {
                        "name": spec.name,
                        "kind": spec.kind,
                        "columns": list(spec.columns),
                        "labels": list(spec.labels),
                        "metrics": list(spec.metrics),
                        "validation": list(spec.validation_splits),
                        "description": spec.description,
                    }
                    for spec in specs
                ]
            )
            return
        rows = table("Task", "Labels", "Metrics", "Question")
        for spec in specs:
            rows.add_row(spec.name, _labels(spec), ", ".join(spec.metrics), spec.description)
        show(rows)


def _labels(spec: TaskSpec) -> str:
    from sparsebert.tasks.kind import task_kind

    return ", ".join(spec.labels) or ("a number" if task_kind(spec.kind).labelled else "none")
