"""How long does one layer take with fewer heads, or fewer neurons, on this machine?

The answer says what pruning can buy here, before any model is pruned. Random weights of a MiniLM's shape; each size is
a real stack of three layers inside a model, and all sizes are measured in the same interleaved rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from transformers import BertConfig, BertModel, PreTrainedModel

from harness import Row, options_of, print_rows, with_threads, write
from sparsebert.environment import environment
from sparsebert.measurement.bench import BenchRow, bench
from sparsebert.measurement.setting import Setting
from sparsebert.models.layout import layout_of
from sparsebert.models.surgeon import shrink
from sparsebert.records import TimeSummary

LAYERS = 3
PARTS = (1.0, 0.75, 0.5, 0.25, 0.0)
WHOLE = "whole layer"


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    dense = stack(options.hidden, options.heads, options.neurons)
    models = {WHOLE: dense}
    models |= {f"{n} heads": cut(dense, n, 0) for n in sizes(options.heads)}
    models |= {f"{n} neurons": cut(dense, 0, n) for n in sizes(options.neurons)[:-1]}
    settings = [Setting(batch, length) for batch in options.batch for length in options.length]
    here = environment()
    print(f"{here.cpu}, {here.cores} cores, torch {here.packages['torch']}, float32, eager")
    print(f"hidden size {options.hidden}, {options.heads} heads, {options.neurons} neurons; ms a layer\n")
    rows = [row_of(found) for found in bench(models, settings, rounds=options.rounds, threads=options.threads)]
    print_rows(rows)
    write(options, rows, options.threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, hidden=384, heads=12, neurons=1536, rounds=15))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--length", type=int, nargs="+", default=[128])
    return parser.parse_args(argv)


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


def row_of(found: BenchRow) -> Row:
    """Times are of one layer of the stack."""
    whole = found.timing("encoder")
    assert whole is not None
    one = {name: getattr(whole, name) / LAYERS for name in ("median_ms", "q25_ms", "q75_ms")}
    times = whole.model_copy(update=one).model_dump(include=set(TimeSummary.model_fields), exclude_none=True)
    case = {"batch": found.batch, "length": found.length}
    return {"case": case, "variant": found.model, "baseline": WHOLE, "times": times}


if __name__ == "__main__":
    main()
