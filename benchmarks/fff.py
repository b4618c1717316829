"""How many times faster is a fast feedforward layer than the dense layers that it replaces, on this machine?

    python benchmarks/fff.py --tokens 1 128 1024 16384

Every call gets tokens of its own, from a pool of distinct random ones, so that ways differ; weights are random, so
trees are balanced. Outputs are checked against fp64 first. All variants of a row run in the same interleaved rounds.
The dense layers are as wide as the tree (4,095 for depth 11) and as BERT's (3,072), in fp32, bf16, and bf16 whose
weights oneDNN packed once.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from sparsebert.environment import environment
from sparsebert.kernels import dispatch, native, native_fff, reference
from sparsebert.timing import Variant, interleave, quartiles, ratios, torch_threads

POOL_TOKENS = 32768
BERT_WIDTH = 3072
Layer = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    options = arguments()
    here = environment()
    rows = []
    with torch_threads(options.threads) as threads, torch.inference_mode():
        print(f"{here.cpu}, {threads} threads, torch {here.packages['torch']}, native: {native.isa()}")
        print(f"hidden {options.hidden}, one tree of depth {options.depth}; {options.rounds} rounds\n")
        for tokens in options.tokens:
            rows += measured(tokens, options.hidden, options.depth, options.rounds)
        for tokens in options.sorting:
            rows += sorting(tokens, options.hidden, options.depth, options.rounds)
    if options.output:
        plain = {"cpu": here.cpu, "flags": here.cpu_flags, "threads": threads, "native": native.isa(), "rows": rows}
        options.output.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"hidden": 768, "depth": 11, "rounds": 15, "threads": None}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 1024, 16384])
    parser.add_argument(
        "--sorting",
        type=int,
        nargs="*",
        default=[],
        help="for so many tokens: by the nodes of which level to sort them",
    )
    parser.add_argument("--output", type=Path, help="also write the rows as JSON here")
    return parser.parse_args()


def measured(tokens: int, hidden: int, depth: int, rounds: int) -> list[dict[str, object]]:
    nodes = 2 ** (depth + 1) - 1
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(max(POOL_TOKENS, 2 * tokens), hidden, generator=generator).split(tokens)
    tree = [torch.randn(1, nodes, hidden, generator=generator) / hidden**0.5 for _ in range(2)]
    bias = torch.zeros(1, nodes)
    layers: dict[str, Layer] = {}
    for width in (BERT_WIDTH, nodes):
        layers |= dense_layers(hidden, width, tokens, generator)
    for name, dtype in (("fff fp32", torch.float32), ("fff bf16 weights", torch.bfloat16)):
        w_in, w_out = (weight.to(dtype) for weight in tree)
        layers[name] = tree_layer(w_in, bias, w_out)
        check(layers[name](pool[0]), pool[0], w_in, bias, w_out)
    if native.has_tiles():
        half = [weight.bfloat16() for weight in tree]
        by_tiles = tree_layer(half[0], bias, half[1])
        layers["fff bf16"] = lambda x: by_tiles(x.bfloat16()).float()
        check(layers["fff bf16"](pool[0]), pool[0].bfloat16(), half[0], bias, half[1], within=0.05)
    layers["fff in plain torch"] = lambda x: reference.fff(x, tree[0], bias, tree[1], "gelu")
    samples = interleave([variant(name, layer, pool) for name, layer in layers.items()], rounds)
    return [row(name, tokens, own, samples) for name, own in samples.items()]


def sorting(tokens: int, hidden: int, depth: int, rounds: int) -> list[dict[str, object]]:
    """Sorted at different levels against not sorted, by the native kernel in fp32."""
    isa = native.isa()
    if isa is None:
        return []
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(max(POOL_TOKENS, 2 * tokens), hidden, generator=generator).split(tokens)
    w_in, w_out = (torch.randn(1, 2 ** (depth + 1) - 1, hidden, generator=generator) / hidden**0.5 for _ in range(2))
    calls = native_fff.FffCalls(w_in, torch.zeros(w_in.shape[:2]), w_out, "gelu", isa)
    layers: dict[str, Layer] = {
        f"level {level}": lambda x, level=level: calls.with_paths(x, level)[0] for level in range(0, depth + 1, 2)
    }
    samples = interleave([variant(name, layer, pool) for name, layer in layers.items()], rounds)
    found = []
    for name, own in samples.items():
        low, middle, high = (round(value, 2) for value in quartiles(ratios(own, samples["level 0"])))
        us = round(quartiles(own)[1] * 1000, 1)
        print(f"{tokens:>6} tokens sorted at {name:<8} {us:>10} us  {middle:5.2f}x not sorted ({low:.2f}-{high:.2f})")
        found.append({"tokens": tokens, "layer": f"sorted at {name}", "us": us, "over not sorted": [low, middle, high]})
    return found


def tree_layer(w_in: torch.Tensor, bias: torch.Tensor, w_out: torch.Tensor) -> Layer:
    cache = dispatch.FffCache()
    return lambda x: dispatch.fff(x, w_in, bias, w_out, "gelu", cache)


def dense_layers(hidden: int, width: int, tokens: int, generator: torch.Generator) -> dict[str, Layer]:
    up = torch.randn(width, hidden, generator=generator) / hidden**0.5
    down = torch.randn(hidden, width, generator=generator) / width**0.5
    half = [weight.bfloat16() for weight in (up, down)]
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), tokens) for weight in half]

    def linear(x: torch.Tensor, weight: torch.Tensor, post: str) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, post, [], "none")

    return {
        f"dense {width} fp32": lambda x: F.linear(F.gelu(F.linear(x, up)), down),
        f"dense {width} bf16": lambda x: F.linear(F.gelu(F.linear(x.bfloat16(), half[0])), half[1]).float(),
        f"dense {width} bf16 packed": lambda x: linear(
            linear(x.bfloat16(), packed[0], "gelu"), packed[1], "none"
        ).float(),
    }


def check(
    y: torch.Tensor,
    x: torch.Tensor,
    w_in: torch.Tensor,
    bias: torch.Tensor,
    w_out: torch.Tensor,
    within: float = 1e-4,
) -> None:
    part = slice(0, 64)
    expected = reference.fff(x[part].double(), w_in.double(), bias.double(), w_out.double(), "gelu")
    torch.testing.assert_close(y[part].double(), expected, rtol=within, atol=within / 10)


def variant(name: str, layer: Layer, pool: tuple[torch.Tensor, ...]) -> Variant:
    whole = [x for x in pool if len(x) == len(pool[0])]
    inputs = itertools.cycle(whole)
    return Variant(name, lambda: layer(next(inputs)))


def row(name: str, tokens: int, own: list[float], samples: dict[str, list[float]]) -> dict[str, object]:
    found: dict[str, object] = {"tokens": tokens, "layer": name, "us": round(quartiles(own)[1] * 1000, 2)}
    said = []
    for base in samples:
        if base.startswith("dense") and name.startswith("fff"):
            low, middle, high = (round(value, 2) for value in quartiles(ratios(own, samples[base])))
            found[f"over {base}"] = [low, middle, high]
            said.append(f"{middle:.1f}x {base.removeprefix('dense ')}")
    print(f"{tokens:>6} {name:<24} {found['us']:>12} us  {', '.join(said)}")
    return found


if __name__ == "__main__":
    main()
