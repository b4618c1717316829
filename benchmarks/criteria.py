"""Which way of choosing weights keeps most, at 50, 80 and 90 % zeros, with equal training?

    python benchmarks/criteria.py --task mrpc --data DIR --epochs 3
    python benchmarks/criteria.py --task sst2 --data DIR --train-examples 20000 --epochs 1
    python benchmarks/criteria.py --task mrpc --data DIR --model FINE_TUNED --freeze-embeddings --batch-size 16

Every run starts from the same model, pretrained or fine-tuned, trains for the same number of steps with the same rate,
and prunes single weights of attention and feedforward matrices; masks change from 10 to 70 % of the steps. Scores are
of the whole validation split. A run in --runs that is finished is found again; --teacher adds the logits of a
fine-tuned dense model. --output is a folder for the records.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import keep_records, options_of, records_of, with_task
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import parse_recipe
from sparsebert.reports import as_markdown, curve_table, curves, write_report
from sparsebert.runs.sweep import Point

EVERY, FINE = {"percent": 2}, {"percent": 0.5}
CUBIC = {"schedule": "cubic", "start": {"percent": 10}, "stop": {"percent": 70}, "every": EVERY}
# In some hundred steps scores must fall by 2 to 4, which 0.05 a step allows; for single weights multipliers must reach
# hundreds.
LAGRANGIAN = {"kind": "lagrangian", "lr": 2.0}
# The loss of the teacher's logits is multiplied with the squared temperature, 4, and with it what resists the penalty.
LAGRANGIAN_OF_TEACHER = LAGRANGIAN | {"lr": 4.0}
METHODS: dict[str, dict[str, Any]] = {
    "magnitude": CUBIC,
    "random": CUBIC | {"criterion": "random"},
    "movement": CUBIC | {"gate": {"kind": "movement", "lr": 0.01}, "every": FINE},
    "soft movement": CUBIC | {"gate": {"kind": "soft_movement", "lr": 0.05}, "penalty": LAGRANGIAN},
    "fisher": CUBIC | {"criterion": {"kind": "fisher", "block": 32, "gradients": 16}, "every": {"percent": 6}},
    "RigL": {
        "schedule": "constant",
        "start": {"steps": 0},
        "stop": {"percent": 75},
        "every": EVERY,
        "budget": "erk",
        "update": {"kind": "swap", "grow": "gradient"},
    },
    "L0": CUBIC | {"gate": {"kind": "hard_concrete", "lr": 0.05}, "penalty": LAGRANGIAN},
}


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    todo = [
        Point(f"{method.replace(' ', '-')}_{sparsity:g}_seed{seed}", recipe(options, method, sparsity, seed))
        for seed in range(options.seeds)
        for sparsity in options.sparsity
        for method in options.methods
    ]
    found = records_of(todo, options.runs, shlex.join(sys.argv), keep_models=False)
    records = [record for _, record in found]
    print(as_markdown(curve_table(curves(records))))
    write_report(records, options.runs / "report.html", options.runs / "plots")
    keep_records({point.name: record for point, record in found}, options.output)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_task(options_of(__doc__, seeds=3))
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--train-examples", type=int)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--freeze-embeddings", action="store_true")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.9, 0.5, 0.8])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--teacher", help="folder of the dense fine-tuned model, whose logits are learned too")
    parser.add_argument("--runs", type=Path, default=Path("runs/criteria"), help="folder of the runs")
    return parser.parse_args(argv)


def recipe(options: argparse.Namespace, method: str, sparsity: float, seed: int) -> Recipe:
    phase: dict[str, Any] = {
        "name": "prune",
        "training": {
            "epochs": options.epochs,
            "learning_rate": options.learning_rate,
            "batch_size": options.batch_size,
            "freeze_embeddings": options.freeze_embeddings,
        },
        "rules": [METHODS[method]],
    }
    if options.teacher:
        phase |= {"teacher": options.teacher, "distill": {"labels": 0.2, "logits": 0.8, "hidden": 0.0}}
        if METHODS[method].get("penalty") == LAGRANGIAN:
            phase["rules"] = [METHODS[method] | {"penalty": LAGRANGIAN_OF_TEACHER}]
    return parse_recipe(
        {
            "name": method + (", teacher" if options.teacher else ""),
            "model": options.model,
            "task": options.task,
            "data": options.data,
            "train_examples": options.train_examples,
            "sparsity": sparsity,
            "seed": seed,
            "phases": [phase],
            "measure": {"timed": False},
        }
    )


if __name__ == "__main__":
    main()
