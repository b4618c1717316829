"""How many times faster is an encoder with zero blocks, or with trees, than a dense one in the fastest engine here?

    pip install -e '.[engines]'        # each engine that is missing is left out, and said so
    python benchmarks/encoder.py --batch 8 --length 128

A BERT of random weights, of the shape asked for; for the sparse ones, 32 x 32 blocks or single values of all attention
and feedforward matrices are set to zero, the same share in each. Dense engines run the dense model: torch,
torch.compile, ONNX Runtime (fp32, int8 dynamic), OpenVINO (fp32, int8 by NNCF on 3 random batches); `dense, own
attention` is torch with the native attention kernel, the part of the gain that is not pruning's. All in one process, in
interleaved rounds; inputs are random tokens, the same for all. Outputs are checked against torch in fp32 first.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertModel

from harness import Row, Samples, has_bf16, options_of, print_rows, rows_of, with_threads, write
from sparsebert.counts import example_inputs
from sparsebert.environment import environment
from sparsebert.kernels import native
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.models.layout import encoder_linear_names
from sparsebert.models.surgeon import convert_ffn
from sparsebert.runtimes.program import openvino_core
from sparsebert.timing import Variant, interleave, quartiles, torch_threads

BLOCK, CALIBRATION_BATCHES, CLOSE = 32, 3, 0.1
PLAIN = "torch fp32"
Inputs = dict[str, torch.Tensor]
Run = Callable[[Inputs], Any]


def main(argv: Sequence[str] | None = None) -> None:
    options, here = arguments(argv), environment()
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": options.layers, "hidden_size": options.hidden, "num_attention_heads": options.heads}
    dense = BertModel(BertConfig(**sizes, intermediate_size=4 * options.hidden), add_pooling_layer=False).eval()
    inputs = example_inputs([dense], options.batch, options.length)
    with torch_threads(options.threads) as threads, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(f"{here.cpu}, {threads} threads, torch {here.packages['torch']}")
        print(f"{options.layers} layers of {options.hidden}, batch {options.batch} x {options.length} tokens\n")
        runs = torch_runs(dense, inputs) | engine_runs(dense, inputs, threads)
        ours = sparse_runs(dense, inputs, options.sparsity) | tree_runs(dense, inputs, options.depth)
        with torch.inference_mode():
            variants = [Variant(name, lambda run=run: run(inputs)) for name, run in (runs | ours).items()]
            samples = interleave(variants, options.rounds)
        rows = compared(samples, list(runs), {"batch": options.batch, "length": options.length})
        print_rows(rows)
        write(options, rows, threads)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    sizes = {"layers": 12, "hidden": 768, "heads": 12, "batch": 8, "length": 128, "depth": 11, "rounds": 9}
    parser = with_threads(options_of(__doc__, **sizes))
    parser.add_argument("--sparsity", type=float, default=0.9)
    return parser.parse_args(argv)


def compared(samples: Samples, dense: Sequence[str], case: dict[str, int]) -> list[Row]:
    """Everything against plain torch and against the fastest dense engine."""
    fastest = min(dense, key=lambda name: quartiles(samples[name])[1])
    print(f"\nthe fastest dense engine is {fastest}\n")
    return rows_of(case, samples, {name: list(dict.fromkeys((PLAIN, fastest))) for name in samples})


def torch_runs(dense: BertModel, inputs: Inputs) -> dict[str, Run]:
    compiled = torch.compile(dense)
    with torch.inference_mode():
        compiled(**inputs)
    runs: dict[str, Run] = {PLAIN: lambda x: dense(**x)[0], "torch.compile fp32": lambda x: compiled(**x)[0]}
    if has_bf16():
        half = BertModel(dense.config, add_pooling_layer=False).eval().bfloat16()
        half.load_state_dict(dense.state_dict())
        runs["torch bf16"] = lambda x: half(**x)[0]
    return runs


def sparse_runs(dense: BertModel, inputs: Inputs, sparsity: float) -> dict[str, Run]:
    plain = accelerate(dense, inputs["input_ids"].numel())
    with torch.inference_mode():
        torch.testing.assert_close(plain(**inputs)[0], dense(**inputs)[0], rtol=1e-3, atol=1e-4)
    runs: dict[str, Run] = {"dense, own attention": lambda x: plain(**x)[0]}
    for what, block in (("blocks", BLOCK), ("single values", 1)):
        runs |= accelerated(f"sparsebert {sparsity:.0%} {what}", with_zeros(dense, sparsity, block), inputs)
    return runs


def with_zeros(dense: BertModel, sparsity: float, block: int) -> BertModel:
    sparse = BertModel(dense.config, add_pooling_layer=False).eval()
    sparse.load_state_dict(dense.state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in encoder_linear_names(sparse):
            weight = sparse.get_parameter(name)
            kept = torch.rand(weight.shape[0] // block, weight.shape[1] // block, generator=generator) >= sparsity
            weight.mul_(kept.repeat_interleave(block, 0).repeat_interleave(block, 1))
    return sparse


def accelerated(name: str, sparse: BertModel, inputs: Inputs) -> dict[str, Run]:
    tokens, runs = inputs["input_ids"].numel(), {}
    fast = accelerate(sparse, tokens)
    with torch.inference_mode():
        torch.testing.assert_close(fast(**inputs)[0], sparse(**inputs)[0], rtol=1e-3, atol=1e-4)
    replaced, of = len(sparse_layers(fast)), len(encoder_linear_names(sparse))
    attention = fast.config._attn_implementation
    print(f"{name}: {replaced} of {of} matrices run by sparse kernels, attention by {attention}")
    if native.has_tiles():
        half = accelerate(copy.deepcopy(sparse).bfloat16(), tokens)
        runs[f"{name} bf16"] = lambda x: half(**x)[0]
    return {name: lambda x: fast(**x)[0]} | runs


def tree_runs(dense: BertModel, inputs: Inputs, depth: int) -> dict[str, Run]:
    converted, runs, tokens = convert_ffn(dense, depth).eval(), {}, inputs["input_ids"].numel()
    if native.has_tiles():
        half = accelerate(copy.deepcopy(converted).bfloat16(), tokens)
        runs[f"sparsebert fff 1x{depth} bf16"] = lambda x: half(**x)[0]
    fast = accelerate(converted, tokens)
    return {f"sparsebert fff 1x{depth}": lambda x: fast(**x)[0]} | runs


def engine_runs(dense: BertModel, inputs: Inputs, threads: int) -> dict[str, Run]:
    """What is installed of ONNX Runtime and OpenVINO."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"left out, not installed: {', '.join(missing)}, so ONNX Runtime and OpenVINO")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dense.onnx"
        export(dense, inputs, file)
        runs: dict[str, Run] = {}
        for package, make in (("onnxruntime", onnxruntime_runs), ("openvino", openvino_runs)):
            if importlib.util.find_spec(package) is None:
                print(f"left out, not installed: {package}")
            else:
                runs |= make(file, inputs, threads)
        with torch.inference_mode():
            expected = dense(**inputs)[0].numpy()
        for name, run in runs.items():
            apart = float(np.abs(np.asarray(run(inputs)) - expected).max() / np.abs(expected).max())
            print(f"{name}: largest difference {apart:.1e} of the largest output")
            if "int8" not in name and apart > CLOSE:
                raise SystemExit(f"{name} does not compute the same model")
        return runs


def export(dense: BertModel, inputs: Inputs, file: Path) -> None:
    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = dense

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask)[0]

    names = ["input_ids", "attention_mask"]
    with torch.no_grad():
        torch.onnx.export(
            Encoder(), tuple(inputs[n] for n in names), file, input_names=names, dynamo=True, verbose=False
        )


def onnxruntime_runs(file: Path, inputs: Inputs, threads: int) -> dict[str, Run]:
    import onnx
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    model = onnx.load(file)
    del model.graph.value_info[:]
    plain, small = file.with_name("plain.onnx"), file.with_name("int8.onnx")
    onnx.save(model, plain)
    quantize_dynamic(plain, small)
    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = threads

    def run_of(path: Path) -> Run:
        session = onnxruntime.InferenceSession(str(path), how)
        return lambda x: session.run(None, {name: tensor.numpy() for name, tensor in x.items()})[0]

    return {"onnxruntime fp32": run_of(plain), "onnxruntime int8": run_of(small)}


def openvino_runs(file: Path, inputs: Inputs, threads: int) -> dict[str, Run]:
    core = openvino_core()
    model = core.read_model(file)
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}

    def run_of(given: Any, **more: str) -> Run:
        compiled = core.compile_model(given, "CPU", {**hints, **more})
        return lambda x: compiled({name: tensor.numpy() for name, tensor in x.items()})[0]

    runs = {"openvino fp32": run_of(model, INFERENCE_PRECISION_HINT="f32")}
    if has_bf16():
        runs["openvino bf16"] = run_of(model, INFERENCE_PRECISION_HINT="bf16")
    if importlib.util.find_spec("nncf") is None:
        print("left out, not installed: nncf, so OpenVINO int8")
        return runs
    import nncf  # pyright: ignore[reportMissingImports]

    batch, length = inputs["input_ids"].shape
    samples = [{n: t.numpy() for n, t in drawn(batch, length, seed).items()} for seed in range(CALIBRATION_BATCHES)]
    small = nncf.quantize(core.read_model(file), nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER)
    runs["openvino int8"] = run_of(small)
    return runs


def drawn(batch: int, length: int, seed: int) -> Inputs:
    ids = torch.randint(1000, 30000, (batch, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


if __name__ == "__main__":
    main()
