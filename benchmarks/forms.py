"""Which zeros buy the most speed for the accuracy that they cost: heads and neurons, blocks, or single weights?

    python benchmarks/forms.py --model runs/minilm-sst2/dense --task sst2 --data DIR --train-examples 20000 \\
        --cut runs/structured/obs-?

All models come from one dense fine-tuned model, which is their teacher too, with as many training steps at the same
rate: --cut names runs that `benchmarks/structured.py` left, one a seed; the others are made here, and a run that is
finished is found again. Scores are of the whole validation split. Then the models of the first seed are timed in
interleaved rounds, against the dense one in plain torch: cut models in plain torch, the others by the kernels wherever
`accelerate` finds a gain. Both also run with the native attention, to tell its gain from that of the zeros.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from harness import Row, main_score, options_of, print_rows, print_table, records_of, rows_of, with_task, with_threads
from harness import write as write_rows
from sparsebert.counts import example_inputs
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.attention import NAME
from sparsebert.models.named import open_model
from sparsebert.models.source import resolve
from sparsebert.recipe.base import Recipe
from sparsebert.recipe.load import parse_recipe
from sparsebert.records import ModelResult, Record, read_record
from sparsebert.runs.sweep import Point
from sparsebert.timing import Variant, interleave, torch_threads

SCHEDULE = {"schedule": "cubic", "start": {"percent": 10}, "stop": {"percent": 70}}
BLOCK = {"structure": {"kind": "block", "rows": 32, "cols": 32}}
FISHER = {"criterion": {"kind": "fisher", "block": 32, "gradients": 16}, "every": {"percent": 6}}
# Rates as in benchmarks/criteria.py.
MOVEMENT = {"gate": {"kind": "soft_movement", "lr": 0.05}, "penalty": {"kind": "lagrangian", "lr": 2.0}}
FORMS: dict[str, dict[str, Any]] = {
    "blocks fisher": SCHEDULE | BLOCK | FISHER,
    "blocks soft movement": SCHEDULE | BLOCK | MOVEMENT | {"every": {"percent": 2}},
    "single fisher": SCHEDULE | FISHER,
}
BASELINE = "dense, by torch"
Group = list[tuple[Path, ModelResult, Record]]


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    groups = cut_groups(options.cut)
    for point, record in records_of(points(options), options.runs, shlex.join(sys.argv), keep_models=True):
        model, group = record.models[-1], groups.setdefault(str(point.recipe.name), [])
        group.append((options.runs / point.name / model.folder, model, record))
    rows = [row for batch in options.batch for row in timed(options, groups, batch)]
    print_scores(rows)
    print_rows(rows)
    write_rows(options, rows, options.threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(with_task(options_of(__doc__, steps=600, length=128, seeds=3, rounds=15)), default=1)
    parser.add_argument("--model", required=True, help="folder of the dense fine-tuned model")
    parser.add_argument("--cut", type=Path, nargs="*", default=[], help="runs of heads and neurons, one a seed")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9])
    parser.add_argument("--train-examples", type=int, help="none = all; the teacher runs over each of them once")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runs", type=Path, default=Path("runs/forms"), help="folder of the runs")
    return parser.parse_args(argv)


def cut_groups(runs: Iterable[Path]) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for folder in runs:
        record = read_record(folder)
        for model in record.models[1:]:
            name = f"heads and neurons {record.recipe['criterion']} {model.name}"
            groups.setdefault(name, []).append((folder / model.folder, model, record))
    return groups


def points(options: argparse.Namespace) -> list[Point]:
    wanted = [(seed, s, form) for seed in range(options.seeds) for s in options.sparsity for form in options.forms]
    return [
        Point(f"{form.replace(' ', '-')}_{sparsity:g}_seed{seed}", recipe(options, form, sparsity, seed))
        for seed, sparsity, form in wanted
    ]


def recipe(options: argparse.Namespace, form: str, sparsity: float, seed: int) -> Recipe:
    training = {"max_steps": options.steps, "learning_rate": 1e-4, "freeze_embeddings": True, "dropout": 0}
    return parse_recipe(
        {
            "name": f"{form} {sparsity:.0%}",
            "model": options.model,
            "task": options.task,
            "data": options.data,
            "train_examples": options.train_examples,
            "sparsity": sparsity,
            "seed": seed,
            "phases": [{"name": "prune", "training": training, "teacher": options.model, "rules": [FORMS[form]]}],
            "measure": {"timed": False},
        }
    )


def timed(options: argparse.Namespace, groups: dict[str, Group], batch: int) -> list[Row]:
    """Rows of a batch size: each group by each way of running it, and the dense model; of the first seed's models."""
    models = {"dense": opened(Path(options.model))} | {name: opened(group[0][0]) for name, group in groups.items()}
    inputs = example_inputs(list(models.values()), batch, options.length)
    tokens = batch * options.length
    with torch_threads(options.threads):
        ways = {
            f"{name}, by {way}": (name, module)
            for name, model in models.items()
            for way, module in ways_of(model, tokens).items()
        }
        variants = [Variant(name, lambda module=module: module(**inputs)) for name, (_, module) in ways.items()]
        samples = interleave(variants, options.rounds)
    rows = rows_of({"batch": batch, "length": options.length}, samples, {name: [BASELINE] for name in ways})
    return [
        row | {"sparse_matrices": len(sparse_layers(module))} | scores_of(groups.get(name, []))
        for row, (name, module) in zip(rows, ways.values(), strict=True)
    ]


def ways_of(model: PreTrainedModel, tokens: int) -> dict[str, PreTrainedModel]:
    """Plain torch, the same with the native attention, and the kernels where one gains."""
    own = copy.deepcopy(model)
    own.set_attn_implementation(NAME)
    fast = accelerate(model, tokens)
    return {"torch": model, "own attention": own} | ({"kernels": fast} if sparse_layers(fast) else {})


def opened(folder: Path) -> PreTrainedModel:
    return open_model(resolve(str(folder))).eval()


def scores_of(group: Group) -> dict[str, Any]:
    if not group:
        return {}
    scores = [main_score(record, model.scores) for _, model, record in group]
    sparsity = group[0][1].sparsity
    return {
        "score": [round(value, 1) for value in (min(scores), statistics.median(scores), max(scores))],
        "seeds": len(scores),
        "sparsity": [round(x, 3) for x in (sparsity.encoder_linear, sparsity.whole_model, sparsity.bytes_on_disk)],
    }


def print_scores(rows: Sequence[Row]) -> None:
    """What each model scores, and what is zero or gone of its encoder, of the whole model and of its bytes."""
    lines = {}
    for row in (row for row in rows if "score" in row):
        least, median, most = row["score"]
        name = row["variant"].rpartition(", by ")[0]
        zeros = ", ".join(f"{part:.0%}" for part in row["sparsity"])
        lines[name] = [name, f"{median:.1f} ({least:.1f}–{most:.1f}), {row['seeds']}", zeros]
    print_table(["model", "score: median (range), n", "zeros: encoder, model, disk"], list(lines.values()))
    print()


if __name__ == "__main__":
    main()
