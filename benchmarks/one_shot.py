"""One shot, no fine-tuning: how much does each criterion lose at the same shapes?

The shapes are those that `obs` finds for the encoder sparsities asked for; every criterion then chooses its own units
for exactly these numbers of heads and neurons in each layer.

    python benchmarks/one_shot.py --model runs/minilm-sst2/dense --task sst2 --data DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from sparsebert.models.load import load_model
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import calibrate
from sparsebert.pruning.search import Found, divergence, scorer
from sparsebert.pruning.targets import Goal, meet
from sparsebert.recipe.load import load_recipe
from sparsebert.recipe.schema import Target
from sparsebert.runs.context import RunContext, set_up
from sparsebert.training.evaluate import predict_logits

CRITERIA = ("obs", "magnitude", "random", "gradient", "activation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the dense fine-tuned model")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", help="folder of the GLUE tasks; none = the hub")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.75, 0.875])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA))
    parser.add_argument("--seeds", type=int, default=3, help="each draws other calibration examples")
    parser.add_argument("--output", type=Path, help="also write the rows as JSON here")
    candidates = parser.parse_args()
    rows = [row for seed in range(candidates.seeds) for row in one_seed(candidates, seed)]
    if candidates.output:
        candidates.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print_table(rows)


def one_seed(candidates: argparse.Namespace, seed: int) -> list[dict]:
    targets = [Target(kind="sparsity", value=value) for value in candidates.sparsity]
    recipe = load_recipe(
        None,
        ["search.candidates=20", "search.drop_layers=false"],
        model=candidates.model,
        task=candidates.task,
        data=candidates.data,
        seed=seed,
    )
    bench = set_up(recipe, Path("unused"))
    kind, labels = bench.spec.kind, len(bench.spec.labels) or 1
    model = load_model(candidates.model, num_labels=labels, kind=kind)
    rows = [result(bench, model, "dense", 0.0, seed, None)]
    shapes: dict[float, Found] = {}
    for criterion in ("obs", *(name for name in candidates.criteria if name != "obs")):
        calibrated = calibrate(
            model, model, bench.train, bench.collate, criterion, recipe.search.examples, 256, recipe.seed
        )
        for target in targets:
            if criterion == "obs":
                goal = Goal(target, recipe, bench.setting, model, model)
                shapes[target.value], _ = meet(goal, no_latency, calibrated, scorer(model, calibrated, bench.collate))
            small = assemble(model, calibrated.candidates, shapes[target.value].choices)
            teacher = calibrated.teacher_logits
            rows.append(
                result(bench, small, criterion, target.value, seed, (teacher, calibrated.score_rows))
                | {"shape": [(choice.heads, choice.neurons) for choice in shapes[target.value].choices]}
            )
    return rows


def no_latency():
    raise AssertionError("sparsity targets need no latency table")


def result(bench: RunContext, model, criterion: str, sparsity: float, seed: int, reference) -> dict:
    scores = {score.metric: score.value for score in bench.score(model)}
    row = {"task": bench.spec.name, "criterion": criterion, "sparsity": sparsity, "seed": seed, "scores": scores}
    if reference is not None:
        teacher, rows = reference
        row["divergence"] = divergence(teacher, predict_logits(model, rows, bench.collate))
    return row | {"metric": bench.spec.main_metric}


def print_table(rows: list[dict]) -> None:
    levels = sorted({row["sparsity"] for row in rows if row["sparsity"]})
    print("| criterion | " + " | ".join(f"{level:g} of encoder weights removed" for level in levels) + " |")
    print("|---|" + "---|" * len(levels))
    for criterion in dict.fromkeys(row["criterion"] for row in rows):
        cells = [cell([row for row in rows if (row["criterion"], row["sparsity"]) == (criterion, s)]) for s in levels]
        dense = cell([row for row in rows if row["criterion"] == "dense"])
        print(
            f"| {criterion} | "
            + (" | ".join([dense] * len(levels)) if criterion == "dense" else " | ".join(cells))
            + " |"
        )


def cell(rows: list[dict]) -> str:
    values = [100 * row["scores"][row["metric"]] for row in rows if row["metric"] in row["scores"]]
    return f"{np.median(values):.1f} ({min(values):.1f}-{max(values):.1f})" if values else "–"


if __name__ == "__main__":
    torch.set_num_threads(max(1, torch.get_num_threads()))
    Console(stderr=True).print(f"torch threads: {torch.get_num_threads()}")
    main()
