"""Does obs beat magnitude and layer dropping at the same measured speedup and the same fine-tuning budget?

Runs one family an arm and seed (finished ones are found again), all from one dense fine-tuned model, and prints the
median and range over seeds. Accepted records go to --results.

    python benchmarks/structured.py --model runs/minilm-sst2/dense --data DIR --seeds 3
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path

import torch

from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import load_recipe
from sparsebert.records import Record, read_record, write_record
from sparsebert.runs.cache import shared_cache
from sparsebert.runs.run import run

ARMS = {
    "obs": {"criterion": "obs"},
    "magnitude": {"criterion": "magnitude"},
    "layers": {"criterion": "magnitude", "shape": "layers"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("structured-sst2"))
    parser.add_argument("--model", required=True, help="folder of the dense fine-tuned model")
    parser.add_argument("--data", help="folder of the GLUE tasks; none = the hub")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=Path("runs/structured"))
    parser.add_argument("--results", type=Path, help="folder to copy the records to")
    options = parser.parse_args()
    recipes = {
        (arm, seed): load_recipe(
            options.recipe, options.set, model=options.model, data=options.data, seed=seed, **ARMS[arm]
        )
        for seed in range(options.seeds)
        for arm in options.arms
    }
    with shared_cache(options.output) as common:
        records = {
            key: finished(recipe, options.output / f"{key[0]}-{key[1]}", common) for key, recipe in recipes.items()
        }
    if options.results:
        for (arm, seed), record in records.items():
            write_record(record, options.results / f"{record.task}-{arm}-{seed}")
    print_table(records, options.arms)


def finished(recipe: Recipe, folder: Path, common: Path) -> Record:
    if not (folder / "record.json").is_file():
        torch.set_num_threads(recipe.measure.threads or torch.get_num_threads())
        run(recipe, folder, f"python benchmarks/structured.py ({folder.name})", common)
        shutil.rmtree(folder / "work" / "teacher", ignore_errors=True)
    return read_record(folder)


def print_table(records: dict[tuple[str, int], Record], arms: list[str]) -> None:
    print("| arm | target | score: median (min-max), n | encoder speedup | encoder sparsity | one-shot |")
    print("|---|---|---|---|---|---|")
    for arm in arms:
        runs = [record for (name, _), record in records.items() if name == arm]
        for place, first in enumerate(runs[0].models):
            models = [record.models[place] for record in runs]
            scores = [100 * main_score(model.scores, runs[0]) for model in models]
            shots = [100 * main_score(model.one_shot_scores, runs[0]) for model in models if model.one_shot_scores]
            speed = statistics.median(model.timings[1].speedup or 1 for model in models)
            sparsity = statistics.median(model.sparsity.encoder_linear for model in models)
            spread = f"{statistics.median(scores):.1f} ({min(scores):.1f}-{max(scores):.1f}), {len(scores)}"
            shot = f"{statistics.median(shots):.1f}" if shots else ""
            print(f"| {arm} | {first.name} | {spread} | {speed:.2f} | {sparsity:.3f} | {shot} |")


def main_score(scores, record: Record) -> float:
    return next(score.value for score in scores if score.metric == record.main_metric)


if __name__ == "__main__":
    main()
