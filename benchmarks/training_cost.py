"""What does sparsity cost while training? Time of a step with rules over a step without, in interleaved rounds.

    python benchmarks/training_cost.py --batch 32 --length 64 --rounds 15

Every variant has its own copy of the model and optimiser (AdamW) and reads the same random tokens; a step is forward,
backward, the Sparsifier's part and the optimiser. `RigL, a step that swaps` is compared with RigL's other steps.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence

import torch

from harness import Row, options_of, print_table, rows_of, with_threads, write
from sparsebert.counts import example_inputs
from sparsebert.models.layout import layout_of, scope_names
from sparsebert.models.load import load_model
from sparsebert.models.source import resolve
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.sparsifier import Sparsifier
from sparsebert.timing import Variant, interleave, torch_threads

BASE = {"sparsity": 0.9, "schedule": "one_shot", "stop": {"steps": 10**6}, "every": {"steps": 10**6}}
SWAP = {"schedule": "constant", "update": {"kind": "swap", "grow": "gradient", "fraction": 0.3}}
SWAPPING, NOT_SWAPPING = "RigL, a step that swaps", "RigL, a step without a swap"
RULES = {
    "dense": None,
    "hard masks (magnitude)": BASE,
    NOT_SWAPPING: BASE | SWAP,
    SWAPPING: BASE | SWAP | {"every": {"steps": 1}},
    "gate: movement, top-k every step": BASE | {"gate": "movement", "every": {"steps": 1}},
    "gate: movement, top-k every 10 steps": BASE | {"gate": "movement", "every": {"steps": 10}},
    "gate: soft movement + l0": BASE | {"gate": "soft_movement", "penalty": "l0"},
    "gate: hard concrete + lagrangian": BASE | {"gate": "hard_concrete", "penalty": "lagrangian"},
    "gate: hard concrete, heads and neurons": None,
    "gate: soft mask every 10 steps": BASE | {"gate": "soft_mask", "every": {"steps": 10}},
}
UNITS = [
    BASE | {"scope": ["attention"], "structure": "head", "gate": "hard_concrete", "penalty": "lagrangian"},
    BASE | {"scope": ["ffn"], "structure": "neuron", "gate": "hard_concrete", "penalty": "lagrangian"},
]


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    model = load_model(resolve(options.model), num_labels=2, kind="classification")
    inputs = example_inputs([model], options.batch, options.length)
    with torch_threads(options.threads) as threads:
        samples = interleave(
            [Variant(name, training_step(copy.deepcopy(model), name, inputs)) for name in RULES], options.rounds
        )
        baselines = {name: ["dense"] for name in RULES if name != "dense"}
        baselines[SWAPPING] = ["dense", NOT_SWAPPING]
        rows = rows_of({"batch": options.batch, "length": options.length}, samples, baselines)
        print(f"batch {options.batch}, length {options.length}, {threads} threads, {options.rounds} rounds\n")
        print_costs(rows)
        write(options, rows, threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, batch=32, length=64, rounds=15))
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    return parser.parse_args(argv)


def print_costs(rows: Sequence[Row]) -> None:
    """Costs are the other way round than speedups: the time of a step over that of the baseline."""
    lines = []
    for row in rows:
        found, cost = row["times"], ""
        if row["baseline"] is not None:
            least, middle, most = (1 / found[key] for key in ("speedup_q75", "speedup", "speedup_q25"))
            cost = f"{middle:.3f} ({least:.3f}–{most:.3f})"
        ms = f"{found['median_ms']:.0f} ({found['q25_ms']:.0f}–{found['q75_ms']:.0f})"
        lines.append([row["variant"], row["baseline"] or "", ms, cost])
    print_table(["rules", "baseline", "ms a step, median (quartiles)", "over the baseline, median (quartiles)"], lines)


def training_step(model, name: str, inputs: dict[str, torch.Tensor]) -> Callable[[], None]:
    model.train()
    sparsifier = None
    rules = UNITS if name.endswith("heads and neurons") else [RULES[name]] if RULES[name] else []
    if rules:
        made = [Rule.model_validate(rule) for rule in rules]
        sparsifier = Sparsifier(model, made, scope_names(model), layout_of(model).groups)
        sparsifier.begin(Times(total=10**7, per_epoch=1000))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    labels = torch.arange(len(inputs["input_ids"])) % 2
    count = iter(range(10**9))

    def step() -> None:
        with torch.inference_mode(False), torch.enable_grad():
            now = next(count)
            loss = model(**inputs, labels=labels).loss
            penalty = sparsifier.penalty(now) if sparsifier else None
            (loss if penalty is None else loss + penalty).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if sparsifier:
                sparsifier.before_step(now, optimizer)
            optimizer.step()
            if sparsifier:
                sparsifier.after_step()
            optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
