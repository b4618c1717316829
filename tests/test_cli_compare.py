"""Which models `sparsebert compare` takes where none is named."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from example_record import tree_record
from sparsebert.records import PREDICTIONS, write_record
from tiny_run import run_cli


def fff_run(folder: Path, depth: int) -> Path:
    """A finished run with predictions: a dense model, one with trees of this depth, and a control that comes last."""
    record = tree_record()
    models = tuple(
        model.model_copy(update={"name": f"fff-1x{depth}"}) if model.trees else model for model in record.models
    )
    recipe = record.recipe | {"trees": {"depth": depth}}
    write_record(record.model_copy(update={"models": models, "recipe": recipe, "recipe_hash": str(depth)}), folder)
    labels = np.arange(40) % 2
    logits = {f"{model.name}/validation/logits": np.eye(2, dtype=np.float32)[labels] for model in models}
    save_file({"validation/labels": labels, **logits}, folder / PREDICTIONS)
    return folder


def compared(*arguments: object) -> list[tuple[str, str]]:
    said = run_cli("compare", *arguments, "--resamples", 100, "--json")
    assert said.exit_code == 0, said.output
    return [(one["against"].split(": ")[-1], one["name"].split(": ")[-1]) for one in json.loads(said.stdout)]


def test_runs_with_trees_are_compared_by_the_trees_and_not_by_their_controls(tmp_path):
    runs = fff_run(tmp_path / "deep", 10), fff_run(tmp_path / "flat", 6)
    assert compared(*runs) == [("fff-1x10", "fff-1x6")]
    assert compared(*runs, "--model", "no-ffn") == [("no-ffn", "no-ffn")]
    assert compared(runs[0]) == [("dense", "fff-1x10"), ("dense", "no-ffn")]
