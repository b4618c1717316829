"""How fast is a fast feedforward layer against a dense one when both are computed by the same primitive?

    python benchmarks/fff_primitive.py --output results/fff-primitive/records/cpu.json

Table 2 of Belcak & Wattenhofer (arXiv:2311.10770), on this machine: one tree of depth 11 against dense layers with as
many neurons (4,095) and as BERT has (3,072), all with gelu. `--rounds 250` gives as many passes as they made.

- BLAS level 1: a dot product and an axpy a neuron. BLAS level 2: a matrix-vector product a token; for the tree one of a
  single row a level, and one of its gathered output rows. Both by scipy's BLAS, in loops that blas_loops.cpp compiles,
  so that nothing of Python is in them.
- batched products: torch.bmm with a product a token, for the tree with gathered weights.
- compiled PyTorch: torch.compile of the plain dense layer and of the plain walk.
- best of each: matrix products of all tokens, and the package's own kernel, which computes in fp32 only.

Whoever multiplies a token at a time takes as long for each, so that dense layers do so for `--part` tokens of a batch,
and their time is scaled to the whole batch. Outputs are checked against fp64 first. Every call gets tokens of its own,
and all variants of a type of numbers run in the same interleaved rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import scipy
import torch
import torch.nn.functional as F
from threadpoolctl import threadpool_limits

from harness import Layer, Row, on_distinct_inputs, options_of, print_rows, rows_of, with_threads, write
from sparsebert.environment import environment
from sparsebert.kernels import dispatch, native, reference
from sparsebert.timing import interleave, torch_threads

SOURCE = Path(__file__).with_name("blas_loops.cpp")
TYPES = {"fp32": torch.float32, "fp64": torch.float64}
LETTERS = {torch.float32: "s", torch.float64: "d"}
WITHIN = {torch.float32: 1e-4, torch.float64: 1e-10}
LEVEL_1, LEVEL_2, BATCHED, COMPILED = "BLAS level 1", "BLAS level 2", "batched products", "compiled PyTorch"
BEST = "best of each"
A_TOKEN_AT_A_TIME = (LEVEL_1, LEVEL_2, BATCHED)
POOL_TOKENS = 32768
CHECKED = 64


@dataclass(frozen=True)
class Weights:
    """Input rows and output rows [neurons, hidden], a row a neuron; `levels` of a tree, 0 for a dense layer."""

    rows_in: torch.Tensor
    rows_out: torch.Tensor
    levels: int

    def to(self, dtype: torch.dtype) -> Weights:
        return Weights(self.rows_in.to(dtype), self.rows_out.to(dtype), self.levels)


Primitive = Callable[[Weights], Layer]


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    here, rows, compiled = environment(), [], loops()
    with torch_threads(options.threads) as threads, threadpool_limits(threads, "blas"), torch.inference_mode():
        levels = options.depth + 1
        print(f"{here.cpu}, {threads} threads, torch {here.packages['torch']}, {blas()}, native: {native.isa()}")
        print(f"{options.tokens} tokens, hidden {options.hidden}, one tree of depth {options.depth}: it needs {levels}")
        print(f"of {2**levels - 1} neurons, 1 in {(2**levels - 1) / levels:.1f}; {options.rounds} rounds\n")
        for name in options.types:
            rows += measured(name, options, primitives(compiled))
        print_rows(rows)
        write(options, rows, threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    numbers = {"tokens": 16384, "hidden": 768, "depth": 11, "width": 3072, "pool": POOL_TOKENS, "rounds": 15}
    parser = with_threads(options_of(__doc__, **numbers), default=1)
    parser.add_argument("--part", type=int, default=16, help="tokens of a dense layer a token at a time, default 16")
    parser.add_argument("--types", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument(
        "--primitives", nargs="+", choices=[*A_TOKEN_AT_A_TIME, COMPILED], default=[*A_TOKEN_AT_A_TIME, COMPILED]
    )
    return parser.parse_args(argv)


def measured(type_name: str, options: argparse.Namespace, make: Mapping[str, Primitive]) -> list[Row]:
    """All primitives in one type of numbers: a case each, with the best dense layers as further baselines."""
    dtype, part = TYPES[type_name], min(options.part, options.tokens)
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(max(options.pool, 2 * options.tokens), options.hidden, generator=generator, dtype=dtype)
    batches = pool.split(options.tokens)
    weights = {name: one.to(dtype) for name, one in random_weights(options, generator).items()}
    variants, tokens = [], {}
    for primitive in (*options.primitives, BEST):
        for name, layer in weights.items():
            if primitive == BEST and layer.levels and dtype == torch.float64:
                continue
            key, run = f"{primitive}: {name}", make[primitive](layer)
            a_part = primitive in A_TOKEN_AT_A_TIME and not layer.levels
            tokens[key] = part if a_part else options.tokens
            inputs = [batch[: tokens[key]] for batch in batches]
            check(run(inputs[0]), inputs[0], layer, key)
            variants.append(on_distinct_inputs(key, run, inputs))
    samples = {
        key: [ms * options.tokens / tokens[key] for ms in found]
        for key, found in interleave(variants, options.rounds).items()
    }
    case = {"type": type_name, "tokens": options.tokens}
    return [
        row
        | {"tokens_run": tokens[f"{primitive}: {row['variant']}"]}
        | ({"blas": blas()} if "BLAS" in primitive else {})
        for primitive in (*options.primitives, BEST)
        for row in rows_of_primitive(primitive, case, samples)
    ]


def rows_of_primitive(primitive: str, case: Mapping[str, object], samples: Mapping[str, Sequence[float]]) -> list[Row]:
    """Of the layers by this primitive; a tree is compared with its dense layers, and with those of the best."""
    own = {key.removeprefix(f"{primitive}: "): ms for key, ms in samples.items() if key.startswith(f"{primitive}: ")}
    dense = [name for name in own if name.startswith("dense")]
    best = {f"best {name}": samples[f"{BEST}: {name}"] for name in dense if primitive != BEST}
    bases = {name: [*dense, *best] for name in own if name not in dense}
    made = rows_of({"primitive": primitive, **case}, own | best, bases)
    return [row for row in made if row["variant"] in own]


def random_weights(options: argparse.Namespace, generator: torch.Generator) -> dict[str, Weights]:
    """A tree and two dense layers, one as wide as the tree."""
    levels, hidden = options.depth + 1, options.hidden
    neurons = 2**levels - 1

    def rows(count: int, used: int) -> torch.Tensor:
        return torch.randn(count, hidden, generator=generator) / used**0.5

    layers = {
        f"dense {width}": Weights(rows(width, hidden), rows(width, width), 0) for width in (neurons, options.width)
    }
    return layers | {f"tree 1x{options.depth}": Weights(rows(neurons, hidden), rows(neurons, levels), levels)}


def primitives(compiled: ctypes.CDLL) -> dict[str, Primitive]:
    return {
        LEVEL_1: partial(by_blas, compiled, 1),
        LEVEL_2: partial(by_blas, compiled, 2),
        BATCHED: by_batched_products,
        COMPILED: lambda weights: torch.compile(plain(weights), dynamic=False, fullgraph=True),
        BEST: lambda weights: own_kernel(weights) if weights.levels else plain(weights),
    }


def by_blas(compiled: ctypes.CDLL, level: int, weights: Weights) -> Layer:
    dtype = weights.rows_in.dtype
    run = compiled.run_fp64 if dtype == torch.float64 else compiled.run_fp32
    number, pointer = ctypes.c_int, ctypes.c_void_p
    run.argtypes = [pointer, number, ctypes.c_int64, number, number, number, pointer, pointer, pointer, pointer]
    run.restype = None
    addresses = (pointer * 4)(*(address(LETTERS[dtype] + name) for name in ("dot", "axpy", "copy", "gemv")))
    neurons, hidden = weights.rows_in.shape

    def layer(x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(x)
        places = [tensor.data_ptr() for tensor in (weights.rows_in, weights.rows_out, x, y)]
        run(addresses, level, len(x), hidden, neurons, weights.levels, *places)
        return y

    return layer


def address(routine: str) -> int:
    """Of a routine in scipy's BLAS."""
    capsule = vars(importlib.import_module("scipy.linalg.cython_blas"))["__pyx_capi__"][routine]
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.argtypes, name.restype = [ctypes.py_object], ctypes.c_char_p
    pointer.argtypes, pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    return pointer(capsule, name(capsule))


def blas() -> str:
    """Name and version of scipy's BLAS."""
    config: Any = scipy.show_config(mode="dicts")
    built = config["Build Dependencies"]["blas"]
    return f"{built['name']} {built['version']}"


def loops() -> ctypes.CDLL:
    """The compiled loops. Raises SystemExit where there is no C++ compiler, which torch.compile needs as well."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise SystemExit("there is no C++ compiler here, so neither loops nor compiled PyTorch can be measured")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "blas_loops.so"
        command = [compiler, "-std=c++17", "-O2", "-fno-math-errno", "-Wall", "-Wextra", "-shared", "-fPIC"]
        subprocess.run([*command, str(SOURCE), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def by_batched_products(weights: Weights) -> Layer:
    """A product of one row a token, so that dense layers read all of their weights for each token."""
    rows_in, rows_out = weights.rows_in, weights.rows_out

    def dense(x: torch.Tensor) -> torch.Tensor:
        logits = torch.bmm(x[:, None], rows_in.t().expand(len(x), -1, -1))
        return torch.bmm(F.gelu(logits), rows_out.expand(len(x), -1, -1))[:, 0]

    def tree(x: torch.Tensor) -> torch.Tensor:
        node = torch.zeros(len(x), dtype=torch.long)
        nodes, logits = [], []
        for _ in range(weights.levels):
            logit = torch.bmm(x[:, None], rows_in[node][:, :, None])[:, 0, 0]
            nodes.append(node)
            logits.append(logit)
            node = 2 * node + 1 + (logit > 0)
        return torch.bmm(F.gelu(torch.stack(logits, 1))[:, None], rows_out[torch.stack(nodes, 1)])[:, 0]

    return tree if weights.levels else dense


def plain(weights: Weights) -> Layer:
    """Products of all tokens at once; for the tree the package's plain walk."""
    if weights.levels:
        w_in, bias, w_out = as_tree(weights)
        return lambda x: reference.fff(x, w_in, bias, w_out, "gelu")
    up, down = weights.rows_in, weights.rows_out.t().contiguous()
    return lambda x: F.linear(F.gelu(F.linear(x, up)), down)


def own_kernel(weights: Weights) -> Layer:
    parts, cache = as_tree(weights), dispatch.FffCache()
    return lambda x: dispatch.fff(x, *parts, "gelu", cache)


def as_tree(weights: Weights) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights and biases with a dimension of one tree."""
    rows = weights.rows_in[None]
    return rows, torch.zeros(rows.shape[:2], dtype=rows.dtype), weights.rows_out[None]


def check(y: torch.Tensor, x: torch.Tensor, weights: Weights, name: str) -> None:
    """Raise AssertionError unless the first outputs are those of the plain layer in fp64."""
    within = WITHIN[x.dtype]
    expected = plain(weights.to(torch.float64))(x[:CHECKED].double())
    torch.testing.assert_close(
        y[:CHECKED].double(), expected, rtol=within, atol=within / 10, msg=lambda text: f"{name}: {text}"
    )


if __name__ == "__main__":
    main()
