"""`sparsebert tasks` and `sparsebert models`: the two closed lists."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sparsebert import registry
from sparsebert.commands.output import put_json, show
from sparsebert.data.tasks import task_names, task_spec


def tasks(json_wanted: bool) -> None:
    """Print the table of tasks."""
    specs = [task_spec(name) for name in task_names()]
    if json_wanted:
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
    table = _table("Task", "Labels", "Metrics", "Question")
    for spec in specs:
        table.add_row(spec.name, ", ".join(spec.labels) or "a number", ", ".join(spec.metrics), spec.description)
    show(table)


def models(json_wanted: bool) -> None:
    """Print the supported model families with an example of each."""
    rows = [{"family": name, "example": EXAMPLES[name]} for name in registry.names("family")]
    if json_wanted:
        put_json(rows)
        return
    table = _table("Family", "For example")
    for row in rows:
        table.add_row(row["family"], row["example"])
    show(table)


EXAMPLES = {
    "bert": "sentence-transformers/all-MiniLM-L6-v2, google-bert/bert-base-uncased",
    "roberta": "FacebookAI/roberta-base",
    "distilbert": "distilbert/distilbert-base-uncased",
    "electra": "google/electra-small-discriminator",
    "modernbert": "answerdotai/ModernBERT-base",
    "deberta-v2": "microsoft/deberta-v3-small",
}


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
