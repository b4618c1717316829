"""How many times faster is a linear layer whose zeros are left out, on this machine?

    python benchmarks/linear.py --tokens 1 128 1024

Distinct random inputs from a pool, outputs checked against fp64, all variants of a row in the same interleaved rounds.
Zeros are in whole blocks (32 or 16 outputs x 32 inputs), or anywhere; time includes everything from a plain tensor to a
plain tensor. The dense products are torch's in fp32 and, on processors with a bfloat16 unit, in bf16 with the weight
packed once by oneDNN and by the package's own tiles. GFLOP/s count only values that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from harness import (
    Layer,
    Row,
    has_bf16,
    on_distinct_inputs,
    options_of,
    print_rows,
    rows_of,
    shape,
    with_threads,
    write,
)
from sparsebert.environment import environment
from sparsebert.kernels import dispatch, native, native_linear
from sparsebert.kernels.packed import HEIGHTS, SINGLE, WIDTH, pack_matrix
from sparsebert.timing import interleave, torch_threads

SHAPES = [(768, 3072), (3072, 768), (768, 768)]
POOL_TOKENS = 8192


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    here, isa, rows = environment(), native.isa(), []
    if isa is None:
        raise SystemExit("the native library was not built, so there is nothing to measure")
    with torch_threads(options.threads) as threads, torch.inference_mode():
        print(f"{here.cpu}, {threads} threads, torch {here.packages['torch']}, native {isa}; {options.rounds} rounds\n")
        for inputs, outputs in options.shapes:
            for tokens in options.tokens:
                for sparsity in options.sparsity:
                    rows += measured(inputs, outputs, tokens, sparsity, isa, options.rounds)
        print_rows(rows)
        write(options, rows, threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = with_threads(options_of(__doc__, rounds=15))
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, metavar="INPUTSxOUTPUTS")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 1024])
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    return parser.parse_args(argv)


def measured(inputs: int, outputs: int, tokens: int, sparsity: float, isa: str, rounds: int) -> list[Row]:
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(max(POOL_TOKENS, tokens), inputs, generator=generator).split(tokens)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    bias = torch.randn(outputs, generator=generator)
    layers: dict[str, Layer] = {"dense fp32": lambda x: F.linear(x, weight, bias)}
    if has_bf16():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), tokens)
        half = bias.bfloat16()
        layers["dense bf16 packed"] = lambda x: torch.ops.mkldnn._linear_pointwise(
            x.bfloat16(), packed, half, "none", [], ""
        )
    if native.has_tiles():
        layers |= in_bf16("dense own tiles bf16", weight, HEIGHTS[0], bias)
    for height in (*HEIGHTS, SINGLE):
        masked = weight * mask(outputs, inputs, height, sparsity)
        stored = pack_matrix(masked, height)
        name = "single values" if height == SINGLE else f"{height}x{WIDTH} blocks"
        layers[name] = lambda x, stored=stored: native_linear.linear(x, stored, bias, "none", isa)
        expected = F.linear(pool[0].double(), masked.double(), bias.double())
        torch.testing.assert_close(layers[name](pool[0]).double(), expected, rtol=1e-4, atol=1e-4)
        if native.has_tiles():
            layers |= in_bf16(f"{name} bf16", masked, height, bias)
            torch.testing.assert_close(layers[f"{name} bf16"](pool[0]).double(), expected, rtol=0.05, atol=0.05)
    samples = interleave([on_distinct_inputs(name, layer, pool) for name, layer in layers.items()], rounds)
    dense = [name for name in layers if name.startswith("dense")]
    case = {"inputs": inputs, "outputs": outputs, "tokens": tokens, "sparsity": sparsity}
    rows = rows_of(case, samples, {name: dense for name in layers if name not in dense})
    return [row | {"useful_gflop_per_s": useful_rate(row)} for row in rows]


def useful_rate(row: Row) -> float:
    """GFLOP/s of the products with values that are there."""
    case, kept = row["case"], 1.0 if row["baseline"] is None else 1 - row["case"]["sparsity"]
    operations = 2 * case["tokens"] * case["inputs"] * case["outputs"] * kept
    return round(operations / row["times"]["median_ms"] / 1e6, 1)


def in_bf16(name: str, masked: torch.Tensor, height: int, bias: torch.Tensor) -> dict[str, Layer]:
    """The weight in bf16, on x that is rounded to it, as for the dense bf16 product."""
    stored, shift = dispatch.pack_weight(masked.bfloat16(), height), bias.bfloat16()
    return {name: lambda x: dispatch.sparse_linear(x.bfloat16(), stored, shift, "none")}


def mask(outputs: int, inputs: int, height: int, sparsity: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if height == SINGLE:
        return torch.rand(outputs, inputs, generator=generator) >= sparsity
    kept = torch.rand(outputs // height, inputs // WIDTH, generator=generator) >= sparsity
    return kept.repeat_interleave(height, 0).repeat_interleave(WIDTH, 1)


if __name__ == "__main__":
    main()
