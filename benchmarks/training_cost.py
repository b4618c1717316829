"""What does sparsity cost while training? Time of a step with rules over a step without, in interleaved rounds.

    python benchmarks/training_cost.py --batch 32 --length 64 --rounds 15

Every variant has its own copy of the model and optimiser (AdamW) and reads the same random tokens; a step is forward,
backward, the Sparsifier's part and the optimiser. `RigL, a step that swaps` is compared with RigL's other steps.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch

from sparsebert.counts import example_inputs
from sparsebert.models.layout import layout_of, scope_names
from sparsebert.models.load import load_model
from sparsebert.models.source import resolve
from sparsebert.recipe.schema import Rule
from sparsebert.sparse.schedules import Times
from sparsebert.sparse.sparsifier import Sparsifier
from sparsebert.timing import Variant, interleave, quartiles, ratios, torch_threads

BASE = {"sparsity": 0.9, "schedule": "one_shot", "stop": {"steps": 10**6}, "every": {"steps": 10**6}}
SWAP = {"schedule": "constant", "update": {"kind": "swap", "grow": "gradient", "fraction": 0.3}}
RULES = {
    "dense": None,
    "hard masks (magnitude)": BASE,
    "RigL, a step without a swap": BASE | SWAP,
    "RigL, a step that swaps": BASE | SWAP | {"every": {"steps": 1}},
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="also write the rows as JSON here")
    options = parser.parse_args()
    model = load_model(resolve(options.model), num_labels=2, kind="classification")
    inputs = example_inputs([model], options.batch, options.length)
    with torch_threads(options.threads) as threads:
        samples = interleave(
            [Variant(name, training_step(copy.deepcopy(model), name, inputs)) for name in RULES], options.rounds
        )
    rows = [row(name, samples) for name in RULES]
    print(f"batch {options.batch}, length {options.length}, {threads} threads, {options.rounds} interleaved rounds\n")
    print("| variant | ms a step, median (quartiles) | over dense, median (quartiles) |\n|---|---|---|")
    for one in rows:
        low, ms, high = one["ms"]
        least, ratio, most = one["over_dense"]
        print(f"| {one['variant']} | {ms:.0f} ({low:.0f}-{high:.0f}) | {ratio:.3f} ({least:.3f}-{most:.3f}) |")
    swap, plain = samples["RigL, a step that swaps"], samples["RigL, a step without a swap"]
    q25, median, q75 = quartiles([one / two - 1 for one, two in zip(swap, plain, strict=True)])
    print(f"\nA RigL update costs {median:.2f} ({q25:.2f}-{q75:.2f}) extra steps.")
    if options.output:
        setting = {"batch": options.batch, "length": options.length, "threads": threads, "rounds": options.rounds}
        found = setting | {"rows": rows, "swap_extra_steps": [q25, median, q75]}
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def row(name: str, samples: dict[str, list[float]]) -> dict:
    # `ratios` gives how many times faster; a cost is the other way round.
    cost = [1 / one for one in ratios(samples[name], samples["dense"])]
    return {"variant": name, "ms": quartiles(samples[name]), "over_dense": quartiles(cost)}


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
