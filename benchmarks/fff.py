"""How many times faster is a fast feedforward layer than the dense layers that it replaces, on this machine?

    python benchmarks/fff.py --tokens 1 128 1024 16384

Every call gets tokens of its own, from a pool of distinct random ones, so that ways differ; weights are random, so
trees are balanced. Outputs are checked against fp64 first. All variants of a row run in the same interleaved rounds.
The dense layers are as wide as the tree (4,095 for depth 11) and as BERT's (3,072), in fp32, bf16, and bf16 whose
weights oneDNN packed once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from harness import Layer, Row, has_bf16, on_distinct_inputs, options_of, print_rows, rows_of, with_threads, write
from sparsebert.environment import environment
from sparsebert.kernels import dispatch, native, native_fff, reference
from sparsebert.timing import interleave, torch_threads

POOL_TOKENS = 32768
BERT_WIDTH = 3072


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    here, rows = environment(), []
    with torch_threads(options.threads) as threads, torch.inference_mode():
        print(f"{here.cpu}, {threads} threads, torch {here.packages['torch']}, native: {native.isa()}")
        print(f"hidden {options.hidden}, one tree of depth {options.depth}; {options.rounds} rounds\n")
        for tokens in options.tokens:
            rows += measured(tokens, options)
        for tokens in options.sorting:
            rows += sorting(tokens, options)
        print_rows(rows)
        write(options, rows, threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, hidden=768, depth=11, width=BERT_WIDTH, pool=POOL_TOKENS, rounds=15))
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 1024, 16384])
    parser.add_argument(
        "--sorting",
        type=int,
        nargs="*",
        default=[],
        help="for so many tokens: by the nodes of which level to sort them",
    )
    return parser.parse_args(argv)


def measured(tokens: int, options: argparse.Namespace) -> list[Row]:
    """The tree in all its forms against dense layers of two widths."""
    hidden, nodes = options.hidden, 2 ** (options.depth + 1) - 1
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(max(options.pool, 2 * tokens), hidden, generator=generator).split(tokens)
    tree = [torch.randn(1, nodes, hidden, generator=generator) / hidden**0.5 for _ in range(2)]
    bias = torch.zeros(1, nodes)
    layers: dict[str, Layer] = {}
    for width in (options.width, nodes):
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
    samples = interleave([on_distinct_inputs(name, layer, pool) for name, layer in layers.items()], options.rounds)
    dense = [name for name in layers if name.startswith("dense")]
    return rows_of({"tokens": tokens}, samples, {name: dense for name in layers if name not in dense})


def sorting(tokens: int, options: argparse.Namespace) -> list[Row]:
    """Sorted at different levels against not sorted, by the native kernel in fp32."""
    isa, hidden, depth = native.isa(), options.hidden, options.depth
    if isa is None:
        return []
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(max(options.pool, 2 * tokens), hidden, generator=generator).split(tokens)
    w_in, w_out = (torch.randn(1, 2 ** (depth + 1) - 1, hidden, generator=generator) / hidden**0.5 for _ in range(2))
    calls = native_fff.FffCalls(w_in, torch.zeros(w_in.shape[:2]), w_out, "gelu", isa)
    layers: dict[str, Layer] = {
        "not sorted" if level == 0 else f"sorted at level {level}": lambda x, level=level: calls.with_paths(x, level)[0]
        for level in range(0, depth + 1, 2)
    }
    samples = interleave([on_distinct_inputs(name, layer, pool) for name, layer in layers.items()], options.rounds)
    return rows_of({"tokens": tokens}, samples, {name: ["not sorted"] for name in layers if name != "not sorted"})


def tree_layer(w_in: torch.Tensor, bias: torch.Tensor, w_out: torch.Tensor) -> Layer:
    cache = dispatch.FffCache()
    return lambda x: dispatch.fff(x, w_in, bias, w_out, "gelu", cache)


def dense_layers(hidden: int, width: int, tokens: int, generator: torch.Generator) -> dict[str, Layer]:
    up = torch.randn(width, hidden, generator=generator) / hidden**0.5
    down = torch.randn(hidden, width, generator=generator) / width**0.5
    in_fp32: dict[str, Layer] = {f"dense {width} fp32": lambda x: F.linear(F.gelu(F.linear(x, up)), down)}
    if not has_bf16():
        return in_fp32
    half = [weight.bfloat16() for weight in (up, down)]
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), tokens) for weight in half]

    def linear(x: torch.Tensor, weight: torch.Tensor, post: str) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, post, [], "none")

    return {
        **in_fp32,
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


if __name__ == "__main__":
    main()
