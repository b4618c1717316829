"""How many times faster is a linear layer whose zeros are left out, on this machine?

    python benchmarks/linear.py --tokens 1 128 1024

Distinct random inputs from a pool, outputs checked against fp64, all variants of a row in the same interleaved rounds.
Zeros are in whole blocks (32 or 16 outputs x 32 inputs), or anywhere; time includes everything from a plain tensor to a
plain tensor. The dense products are torch's in fp32 and, on processors with a bfloat16 unit, in bf16 with the weight
packed once by oneDNN and by the package's own tiles. GFLOP/s count only values that are there.
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
from sparsebert.kernels import dispatch, native, native_linear
from sparsebert.kernels.packed import HEIGHTS, SINGLE, WIDTH, pack_matrix
from sparsebert.timing import Variant, interleave, quartiles, ratios, torch_threads

SHAPES = ((768, 3072), (3072, 768), (768, 768))
POOL_TOKENS = 8192
Layer = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    options = arguments()
    here, isa = environment(), native.isa()
    if isa is None:
        raise SystemExit("the native library was not built, so there is nothing to measure")
    rows = []
    with torch_threads(options.threads) as threads, torch.inference_mode():
        print(f"{here.cpu}, {threads} threads, torch {here.packages['torch']}, native {isa}; {options.rounds} rounds\n")
        for inputs, outputs in SHAPES:
            for tokens in options.tokens:
                for sparsity in options.sparsity:
                    rows += measured(inputs, outputs, tokens, sparsity, isa, options.rounds)
    if options.output:
        plain = {"cpu": here.cpu, "flags": here.cpu_flags, "threads": threads, "native": isa, "rows": rows}
        options.output.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 1024])
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, help="also write the rows as JSON here")
    return parser.parse_args()


def measured(inputs: int, outputs: int, tokens: int, sparsity: float, isa: str, rounds: int) -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(max(POOL_TOKENS, tokens), inputs, generator=generator).split(tokens)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    bias = torch.randn(outputs, generator=generator)
    layers: dict[str, Layer] = {"dense fp32": lambda x: F.linear(x, weight, bias)}
    if any(flag in environment().cpu_flags for flag in ("amx_bf16", "avx512_bf16")):
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
    samples = interleave([variant(name, layer, pool) for name, layer in layers.items()], rounds)
    return [row(inputs, outputs, tokens, sparsity, name, samples) for name in samples]


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


def variant(name: str, layer: Layer, pool: tuple[torch.Tensor, ...]) -> Variant:
    given = itertools.cycle(x for x in pool if len(x) == len(pool[0]))
    return Variant(name, lambda: layer(next(given)))


def row(
    inputs: int, outputs: int, tokens: int, sparsity: float, name: str, samples: dict[str, list[float]]
) -> dict[str, object]:
    us = quartiles(samples[name])[1] * 1000
    dense = name.startswith("dense")
    useful = 2 * tokens * inputs * outputs * (1 if dense else 1 - sparsity) / us / 1000
    found: dict[str, object] = {"inputs": inputs, "outputs": outputs, "tokens": tokens, "sparsity": sparsity}
    found |= {"layer": name, "us": round(us, 1), "useful_gflop_per_s": round(useful, 1)}
    said = ""
    for base in (base for base in samples if base.startswith("dense") and not dense):
        low, middle, high = (round(value, 2) for value in quartiles(ratios(samples[name], samples[base])))
        found[f"over {base}"] = [low, middle, high]
        said += f"  {middle:5.2f}x {base} ({low:.2f}-{high:.2f})"
    what = f"{inputs:>4} -> {outputs:<4} {tokens:>5} tokens {sparsity:4.0%} {name:<23}"
    print(f"{what} {us:>9.0f} us {useful:6.1f} GFLOP/s{said}")
    return found


if __name__ == "__main__":
    main()
