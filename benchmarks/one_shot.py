"""One shot, no fine-tuning: how much does each criterion lose at the same shapes?

The shapes are those that `obs` finds for the encoder sparsities asked for; every criterion then chooses its own units
for exactly these numbers of heads and neurons in each layer.

    python benchmarks/one_shot.py --model runs/minilm-sst2/dense --task sst2 --data DIR
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from harness import options_of, print_table, with_task, write
from sparsebert.models.source import resolve
from sparsebert.pruning.assemble import assemble
from sparsebert.pruning.calibration import Calibrated, calibrate
from sparsebert.pruning.knapsack import CostTable
from sparsebert.pruning.search import Found, scorer
from sparsebert.pruning.targets import Goal, meet
from sparsebert.recipe.compress import CompressRecipe
from sparsebert.recipe.load import load_recipe
from sparsebert.recipe.schema import Target
from sparsebert.runs.context import RunContext, set_up
from sparsebert.training.evaluate import predict_logits

SHAPED_BY = "obs"
CRITERIA = (SHAPED_BY, "magnitude", "random", "gradient", "activation")
# Shapes come from a search among 20 candidates that keeps every layer.
SEARCH = ("search.candidates=20", "search.drop_layers=false")
Row = dict[str, Any]
Context = RunContext[CompressRecipe]


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    rows = [row for seed in range(options.seeds) for row in one_seed(options, seed)]
    print_scores(rows)
    write(options, rows)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_task(options_of(__doc__))
    parser.add_argument("--model", required=True, help="folder of the dense fine-tuned model")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.75, 0.875])
    parser.add_argument("--criteria", nargs="+", default=list(CRITERIA))
    parser.add_argument("--seeds", type=int, default=3, help="each draws other calibration examples")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(argv)


def one_seed(options: argparse.Namespace, seed: int) -> list[Row]:
    asked = {"model": options.model, "task": options.task, "data": options.data, "seed": seed}
    recipe = load_recipe(None, [*SEARCH, *options.set], kind="compress", **asked)
    assert isinstance(recipe, CompressRecipe)
    context = set_up(recipe, Path("unused"))
    model = context.load(resolve(options.model))
    rows = [scored(context, model, "dense", 0.0)]
    shapes: dict[float, Found] = {}
    for criterion in dict.fromkeys((SHAPED_BY, *options.criteria)):
        calibrated = calibrated_by(context, model, criterion)
        for sparsity in options.sparsity:
            if criterion == SHAPED_BY:
                shapes[sparsity] = shape_for(context, model, calibrated, sparsity)
            choices = shapes[sparsity].choices
            small = assemble(model, calibrated.candidates, choices)
            own = predict_logits(small, calibrated.score_rows, context.collate, kind=calibrated.kind)
            found = {
                "divergence": calibrated.kind.divergence(calibrated.teacher_logits, own),
                "shape": [tuple(choice.kept.values()) for choice in choices],
            }
            rows.append(scored(context, small, criterion, sparsity) | found)
    return rows


def calibrated_by(context: Context, model: PreTrainedModel, criterion: str) -> Calibrated:
    search, seed = context.recipe.search, context.recipe.seed
    return calibrate(
        model, model, context.train, context.collate, criterion, search.examples, search.score_examples, seed
    )


def shape_for(context: Context, model: PreTrainedModel, calibrated: Calibrated, sparsity: float) -> Found:
    goal = Goal(Target(kind="sparsity", value=sparsity), context.recipe, context.setting, model, model, model)
    return meet(goal, no_latency, calibrated, scorer(model, calibrated, context.collate))[0]


def no_latency(_: PreTrainedModel) -> CostTable:
    raise AssertionError("sparsity targets need no latency table")


def scored(context: Context, model: PreTrainedModel, criterion: str, sparsity: float) -> Row:
    split = context.task.validation_name
    found = context.score(context.predict(model))
    return {
        "task": context.spec.name,
        "criterion": criterion,
        "sparsity": sparsity,
        "seed": context.recipe.seed,
        "scores": {score.metric: score.value for score in found if score.split == split},
        "metric": context.spec.main_metric,
    }


def print_scores(rows: Sequence[Row]) -> None:
    levels = sorted({row["sparsity"] for row in rows if row["sparsity"]})
    lines = []
    for criterion in dict.fromkeys(row["criterion"] for row in rows):
        asked = [0.0] * len(levels) if criterion == "dense" else levels
        runs = [[row for row in rows if (row["criterion"], row["sparsity"]) == (criterion, one)] for one in asked]
        lines.append([criterion, *map(spread, runs)])
    print_table(["criterion", *(f"{level:g} of encoder weights removed" for level in levels)], lines)


def spread(rows: Sequence[Row]) -> str:
    """Median (minimum–maximum) of the main metric, in percent; a run in which it has no value is left out."""
    values = [100 * row["scores"][row["metric"]] for row in rows if row["metric"] in row["scores"]]
    return f"{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})" if values else "–"


if __name__ == "__main__":
    main()
