"""`sparsebert tasks`, `models` and `recipes`: what there is to choose from."""

from __future__ import annotations

import re
import sys
from itertools import takewhile

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from sparsebert import registry
from sparsebert.commands.output import put_json, show
from sparsebert.errors import unknown
from sparsebert.recipe.load import SHIPPED, load_recipe, shipped_recipes
from sparsebert.tasks.table import task_names, task_spec


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


def recipes(name: str | None, json_wanted: bool) -> None:
    """Print the table of the recipes that ship, or the text of one. Raises UserError for a name that is none."""
    if name is not None and name not in shipped_recipes():
        raise unknown("recipe", name, shipped_recipes())
    if name is not None and not json_wanted:
        sys.stdout.write(_text(name))
        return
    rows = [_recipe_row(one) for one in ([name] if name else shipped_recipes())]
    if json_wanted:
        put_json(rows)
        return
    table = _table("Recipe", "Command", "What it does")
    for row in rows:
        table.add_row(row["name"], row["command"], escape(row["description"]))
    show(table)


def _recipe_row(name: str) -> dict[str, str]:
    recipe = load_recipe(name)
    return {"name": name, "command": recipe.kind, "description": _first_sentence(_text(name))}


def _first_sentence(text: str) -> str:
    """Of the comment on top."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return re.split(r"(?<=\.) (?=[A-Z])", " ".join(line.lstrip("# ") for line in comment), maxsplit=1)[0]


def _text(name: str) -> str:
    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


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
