"""How long does one layer take with fewer heads, or fewer neurons, on this machine?

The answer says what pruning can buy here, before any model is pruned. Random weights of a MiniLM's shape; each size is
a real stack of three layers inside a model, and all sizes are measured in the same interleaved rounds.
"""

from __future__ import annotations

import argparse

import torch
from transformers import BertConfig, BertModel, PreTrainedModel

from sparsebert.environment import environment
from sparsebert.measurement.bench import BenchRow, Setting, bench
from sparsebert.models.layout import layout_of
from sparsebert.models.surgeon import shrink

LAYERS = 3
PARTS = (1.0, 0.75, 0.5, 0.25, 0.0)


def main() -> None:
    options = arguments()
    dense = stack(options.hidden, options.heads, options.neurons)
    models = {"whole layer": dense}
    models |= {f"{n:>4} heads": cut(dense, n, 0) for n in sizes(options.heads)}
    models |= {f"{n:>4} neurons": cut(dense, 0, n) for n in sizes(options.neurons)[:-1]}
    settings = [Setting(batch, length) for batch in options.batch for length in options.length]
    here = environment()
    print(f"{here.cpu}, {here.threads} of {here.cores} cores, torch {here.packages['torch']}, float32, eager")
    print(f"hidden size {options.hidden}, {options.heads} heads, {options.neurons} neurons")
    print("ms a layer: median (quartiles), and how many times faster than the whole layer\n")
    for row in bench(models, settings, rounds=options.rounds):
        print(line(row))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"hidden": 384, "heads": 12, "neurons": 1536, "rounds": 15}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--length", type=int, nargs="+", default=[128])
    return parser.parse_args()


def stack(hidden: int, heads: int, neurons: int) -> PreTrainedModel:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=hidden, num_attention_heads=heads, intermediate_size=neurons, num_hidden_layers=LAYERS
    )
    return BertModel(config).eval()


def sizes(full: int) -> list[int]:
    return [round(full * part) for part in PARTS]


def cut(model: PreTrainedModel, heads: int, neurons: int) -> PreTrainedModel:
    keep = {
        group.name: torch.arange(group.units) < (heads if group.kind == "head" else neurons)
        for group in layout_of(model).groups
    }
    return shrink(model, keep)


def line(row: BenchRow) -> str:
    found = row.timing("encoder")
    assert found is not None and found.speedup is not None
    low, middle, high = (value / LAYERS for value in (found.q25_ms, found.median_ms, found.q75_ms))
    setting = f"batch {row.batch:>3} x {row.length:>4}  {row.model:<13}"
    return f"{setting} {middle:7.3f}  ({low:.3f}-{high:.3f})  {found.speedup:5.2f}x"


if __name__ == "__main__":
    main()
