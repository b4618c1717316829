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
import json
import shlex
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from sparsebert.commands.models import open_model
from sparsebert.commands.output import quiet_libraries
from sparsebert.counts import example_inputs
from sparsebert.environment import environment
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.attention import NAME
from sparsebert.models.source import resolve
from sparsebert.recipe.load import parse_recipe
from sparsebert.records import ModelResult, Record, read_record
from sparsebert.runs.sweep import Point, sweep
from sparsebert.timing import Variant, interleave, quartiles, ratios, torch_threads

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
BATCHES, LENGTH = (1, 8), 128


def main() -> None:
    options = arguments()
    groups = cut_groups(options.cut)
    with quiet_libraries():
        for point, record in sweep(points(options), options.output, shlex.join(sys.argv), keep_models=True):
            model, group = record.models[-1], groups.setdefault(str(point.recipe.name), [])
            group.append((options.output / point.name / model.folder, model, record))
        rows = [row for batch in BATCHES for row in timed(options, groups, batch)]
    print_table(rows)
    if options.results:
        here = environment()
        plain = {"cpu": here.cpu, "flags": here.cpu_flags, "options": vars(options), "rows": rows}
        options.results.write_text(json.dumps(plain, indent=1, default=str) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the dense fine-tuned model")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", help="folder of the GLUE tasks; none = the hub")
    parser.add_argument("--cut", type=Path, nargs="*", default=[], help="runs of heads and neurons, one a seed")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9])
    parser.add_argument("--train-examples", type=int, help="none = all; the teacher runs over each of them once")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=Path("runs/forms"))
    parser.add_argument("--results", type=Path, help="also write the rows as JSON here")
    return parser.parse_args()


Group = list[tuple[Path, ModelResult, Record]]


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


def recipe(options: argparse.Namespace, form: str, sparsity: float, seed: int):
    training = {"max_steps": options.steps, "learning_rate": 1e-4, "freeze_embeddings": True, "dropout": False}
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


def timed(options: argparse.Namespace, groups: dict[str, Group], batch: int) -> list[dict[str, Any]]:
    """One row a group and way of running it, and the dense model's; times are of the first seed's model."""
    dense = opened(Path(options.model))
    models = {"dense": dense} | {name: opened(group[0][0]) for name, group in groups.items()}
    inputs = example_inputs(list(models.values()), batch, LENGTH)
    with torch_threads(options.threads):
        ways = {key: model for name, model in models.items() for key, model in ways_of(name, model, batch).items()}
        variants = [Variant("/".join(key), lambda model=model: model(**inputs)) for key, model in ways.items()]
        samples = interleave(variants, options.rounds)
    rows = []
    for (name, way), model in ways.items():
        own = samples[f"{name}/{way}"]
        speedup = quartiles(ratios(own, samples["dense/torch"]))
        row = {"model": name, "runs by": way, "batch": batch, "length": LENGTH, "ms": round(quartiles(own)[1], 2)}
        row |= {"speedup": [round(value, 2) for value in speedup], "sparse matrices": len(sparse_layers(model))}
        rows.append(row | scores_of(groups.get(name, [])))
    return rows


def ways_of(name: str, model: PreTrainedModel, batch: int) -> dict[tuple[str, str], PreTrainedModel]:
    own = copy.deepcopy(model)
    own.set_attn_implementation(NAME)
    found = {(name, "torch"): model, (name, "own attention"): own}
    fast = accelerate(model, batch * LENGTH)
    return found | ({(name, "kernels"): fast} if sparse_layers(fast) else {})


def opened(folder: Path) -> PreTrainedModel:
    return open_model(resolve(str(folder))).eval()


def scores_of(group: Group) -> dict[str, Any]:
    if not group:
        return {}
    scores = [
        100 * next(score.value for score in model.scores if score.metric == record.main_metric)
        for _, model, record in group
    ]
    sparsity = group[0][1].sparsity
    return {
        "score": [round(value, 1) for value in (min(scores), statistics.median(scores), max(scores))],
        "seeds": len(scores),
        "sparsity": [round(x, 3) for x in (sparsity.encoder_linear, sparsity.whole_model, sparsity.bytes_on_disk)],
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| model | runs by | batch | score: median (range), n | speedup (quartiles) | zeros: encoder, model, disk |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        low, middle, high = row["speedup"]
        score, zeros = "", ""
        if "score" in row:
            least, median, most = row["score"]
            score = f"{median:.1f} ({least:.1f}-{most:.1f}), {row['seeds']}"
            zeros = ", ".join(f"{part:.0%}" for part in row["sparsity"])
        speedup = f"{middle:.2f} ({low:.2f}-{high:.2f})"
        print(
            f"| {row['model']} | {row['runs by']} | {row['batch']} x {row['length']} | {score} | {speedup} | {zeros} |"
        )


if __name__ == "__main__":
    main()
