"""How many times faster are fast feedforward layers and block-sparse linear layers than dense ones, on this GPU?

    python benchmarks/gpu.py --output results/gpu.json

bfloat16. Distinct random tokens and balanced random trees; outputs are checked against the plain product first. The
dense layer runs as cuBLAS does it, also compiled with its gelu fused; each row compares with the faster of the two.
Times are of CUDA events over whole rounds, variants one after the other in each round, in a fresh order every round.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from harness import Layer, Row, options_of, print_rows, rows_of, write
from sparsebert.kernels import dispatch, reference
from sparsebert.kernels.packed import HEIGHTS, WIDTH, PackedMatrix, pack_matrix, unpack_matrix
from sparsebert.timing import quartiles

CALLS = 20


def main(argv: Sequence[str] | None = None) -> None:
    options, rows = arguments(argv), []
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here, so there is nothing to measure")
    name = torch.cuda.get_device_name(0)
    print(f"{name}, torch {torch.__version__}, bfloat16, {options.rounds} rounds of {CALLS} calls\n")
    with torch.inference_mode():
        for tokens in options.tokens:
            rows += trees(tokens, options.hidden, options.depth, options.rounds)
            for shape in ((options.hidden, 4 * options.hidden), (4 * options.hidden, options.hidden)):
                rows += blocks(tokens, *shape, options.sparsity, options.rounds)
    print_rows(rows)
    write(options, rows)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = options_of(__doc__, hidden=768, depth=11, rounds=15)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 128, 1024, 16384])
    parser.add_argument("--sparsity", type=float, default=0.9)
    return parser.parse_args(argv)


def trees(tokens: int, hidden: int, depth: int, rounds: int) -> list[Row]:
    nodes = 2 ** (depth + 1) - 1
    w_in, w_out = (random_tensor(1, nodes, hidden) / hidden**0.5 for _ in range(2))
    bias, inputs = random_tensor(1, nodes) / 10, pool(tokens, hidden)
    layers = {"fff": lambda x: dispatch.fff(x, w_in, bias, w_out, "gelu")}
    # Logits near zero may turn the other way in another order of summing, so tokens with such are left out.
    some = torch.cat([given[:256] for given in inputs])
    x, wide_in, wide_bias, wide_out = (tensor.double() for tensor in (some, w_in, bias, w_out))
    sure = (reference.fff_route(x, wide_in, wide_bias)[1].abs() > 0.02).all(dim=-1)[0]
    found = torch.cat([layers["fff"](given)[:256] for given in inputs])
    close(found[sure], reference.fff(x, wide_in, wide_bias, wide_out, "gelu")[sure])
    found = []
    for width in (nodes, 4 * hidden):
        up, down = random_tensor(width, hidden) / hidden**0.5, random_tensor(hidden, width) / width**0.5
        dense = dense_layers(lambda x, up=up, down=down: F.linear(F.gelu(F.linear(x, up)), down))
        found += compared(f"fff 1x{depth} against {hidden}-{width}-{hidden}", tokens, layers, dense, inputs, rounds)
    return found


def blocks(tokens: int, inputs: int, outputs: int, sparsity: float, rounds: int) -> list[Row]:
    weight, bias, given = random_tensor(outputs, inputs) / inputs**0.5, random_tensor(outputs), pool(tokens, inputs)
    layers: dict[str, Layer] = {}
    for height in HEIGHTS:
        stored = thinned(weight, height, sparsity)
        layers[f"{height}x{WIDTH} blocks"] = lambda x, s=stored: dispatch.sparse_linear(x, s, bias, "none")
        expected = F.linear(given[0].double(), unpack_matrix(stored).double(), bias.double())
        close(layers[f"{height}x{WIDTH} blocks"](given[0]), expected)
    dense = dense_layers(lambda x: F.linear(x, weight, bias))
    return compared(f"linear {inputs} -> {outputs}, {sparsity:.0%} zero", tokens, layers, dense, given, rounds)


def thinned(weight: torch.Tensor, height: int, sparsity: float) -> PackedMatrix:
    kept = torch.rand(weight.shape[0] // height, weight.shape[1] // WIDTH, device="cuda") >= sparsity
    made = pack_matrix(weight * kept.repeat_interleave(height, 0).repeat_interleave(WIDTH, 1), height)
    return replace(made, values=made.values.bfloat16())


def dense_layers(layer: Layer) -> dict[str, Layer]:
    return {"dense": layer, "dense, compiled": torch.compile(layer, mode="max-autotune-no-cudagraphs", dynamic=False)}


def random_tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device="cuda").bfloat16()


def pool(tokens: int, inputs: int) -> list[torch.Tensor]:
    return [random_tensor(tokens, inputs) for _ in range(4)]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0.05, atol=0.02 * scale)


def compared(
    what: str, tokens: int, layers: dict[str, Layer], dense: dict[str, Layer], inputs: list[torch.Tensor], rounds: int
) -> list[Row]:
    every = layers | dense
    samples: dict[str, list[float]] = {name: [] for name in every}
    for layer in every.values():
        timed(layer, inputs)
    for number in range(rounds):
        for name in random.Random(number).sample(list(every), len(every)):
            samples[name].append(timed(every[name], inputs))
    best = min(dense, key=lambda name: quartiles(samples[name])[1])
    return rows_of({"what": what, "tokens": tokens}, samples, {name: [best] for name in every})


def timed(layer: Layer, inputs: list[torch.Tensor]) -> float:
    """Milliseconds a call."""
    given = itertools.islice(itertools.cycle(inputs), CALLS)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for x in given:
        layer(x)
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / CALLS


if __name__ == "__main__":
    main()
