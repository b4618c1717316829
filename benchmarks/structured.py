"""Does obs beat magnitude and layer dropping at the same measured speedup and the same fine-tuning budget?

Runs one family an arm and seed in --runs (finished ones are found again), all from one dense fine-tuned model, and
prints the median and range over seeds. --output is a folder for the records.

    python benchmarks/structured.py --model runs/minilm-sst2/dense --data DIR --seeds 3
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from harness import keep_records, main_score, options_of, print_table
from sparsebert.cli.output import quiet_libraries
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import load_recipe
from sparsebert.records import ModelResult, Record, read_record
from sparsebert.runs.cache import shared_cache
from sparsebert.runs.run import run

ARMS = {
    "obs": {"criterion": "obs"},
    "magnitude": {"criterion": "magnitude"},
    "layers": {"criterion": "magnitude", "shape": "layers"},
}


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    wanted = [(arm, seed) for seed in range(options.seeds) for arm in options.arms]
    recipes = {f"{arm}-{seed}": recipe(options, arm, seed) for arm, seed in wanted}
    with shared_cache(options.runs) as cache, quiet_libraries():
        records = {name: finished(one, options.runs / name, cache) for name, one in recipes.items()}
    print_families({arm: [records[f"{arm}-{seed}"] for seed in range(options.seeds)] for arm in options.arms})
    keep_records(records, options.output)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options_of(__doc__, seeds=3)
    parser.add_argument("--recipe", type=Path, default=Path("structured-sst2"))
    parser.add_argument("--model", required=True, help="folder of the dense fine-tuned model")
    parser.add_argument("--task", help="none = the recipe's")
    parser.add_argument("--data", help="the folder of the data; none = the hub")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("runs/structured"))
    return parser.parse_args(argv)


def recipe(options: argparse.Namespace, arm: str, seed: int) -> Recipe:
    given = {"model": options.model, "data": options.data, "seed": seed} | ARMS[arm]
    if options.task:
        given["task"] = options.task
    return load_recipe(options.recipe, options.set, **given)


def finished(recipe: Recipe, folder: Path, cache: Path) -> Record:
    if not (folder / "record.json").is_file():
        torch.set_num_threads(recipe.measure.threads or torch.get_num_threads())
        run(recipe, folder, f"python benchmarks/structured.py ({folder.name})", cache)
        shutil.rmtree(folder / "work" / "teacher", ignore_errors=True)
    return read_record(folder)


def print_families(families: Mapping[str, Sequence[Record]]) -> None:
    """A line for each arm and member of its family, over the seeds."""
    lines = [
        line(arm, runs[0], [record.models[place] for record in runs])
        for arm, runs in families.items()
        for place in range(len(runs[0].models))
    ]
    header = ["arm", "target", "score: median (min–max), n", "encoder speedup", "encoder sparsity", "one-shot"]
    print_table(header, lines)


def line(arm: str, record: Record, models: Sequence[ModelResult]) -> list[str]:
    scores = [main_score(record, model.scores) for model in models]
    shots = [main_score(record, model.one_shot_scores) for model in models if model.one_shot_scores]
    speed = statistics.median(encoder_speedup(model) for model in models)
    return [
        arm,
        models[0].name,
        f"{statistics.median(scores):.1f} ({min(scores):.1f}–{max(scores):.1f}), {len(scores)}",
        f"{speed:.2f}",
        f"{statistics.median(model.sparsity.encoder_linear for model in models):.3f}",
        f"{statistics.median(shots):.1f}" if shots else "",
    ]


def encoder_speedup(model: ModelResult) -> float:
    """Over the dense model, which is itself the first of the family and has none."""
    return next((one.speedup or 1.0 for one in model.timings if one.scope == "encoder"), 1.0)


if __name__ == "__main__":
    main()
