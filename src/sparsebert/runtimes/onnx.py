"""ONNX Runtime on the CPU: the model exported as one program, for any number of texts of any length."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sparsebert.runtimes.program import Engine, ProgramPrecision, RuntimeUnavailableError, not_installed
from sparsebert.runtimes.runtime import ModelInputs, only_output, ready
from sparsebert.runtimes.whole import WholeProgram, examples, quiet_exporters, rows_a_text

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SCOPES = "pkg.torch.onnx.name_scopes"
LOGGERS = ("torch.onnx", "onnxscript", "onnx_ir", "")


@dataclass(frozen=True)
class Onnx(WholeProgram):
    """The model by the exporter of torch.export, in float32 or with int8 products.

    In int8 matrices are rounded once, with a scale for each column, and activations anew for each input, so that no
    texts are needed to set their scales.
    """

    name: str
    precision: ProgramPrecision
    file: str
    engine: Engine = "onnx"

    def unavailable(self) -> str | None:
        """Packages that are missing."""
        return not_installed(PACKAGES, "onnx")

    def convert(self, model: PreTrainedModel, inputs: ModelInputs, file: Path) -> None:
        """Export the model, with its weights in the file; nodes are named by the modules that they come from."""
        rows = rows_a_text(model)
        batch = torch.export.Dim("batch")
        free = {0: rows * batch if rows > 1 else batch, 1: torch.export.Dim("length")}
        try:
            with torch.no_grad(), quiet_exporters(*LOGGERS):
                program = torch.onnx.export(
                    _FirstOutput(ready(model, torch.float32)),
                    kwargs={"inputs": examples(model, inputs)},
                    input_names=list(inputs),
                    output_names=["output"],
                    dynamic_shapes={"inputs": dict.fromkeys(inputs, free)},
                    dynamo=True,
                    verbose=False,
                )
        except torch.onnx.OnnxExporterError as error:
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise RuntimeUnavailableError(self.name, f"the model cannot be exported: {reason}") from error
        assert program is not None
        for graph in program.model.graphs():
            for node in graph:
                node.name = f"{_module_of(node.metadata_props)}/{node.name}"
                # What the exporter notes on each node, with paths of this machine: on a small model most of the file.
                node.metadata_props.clear()
        program.save(file)

    def quantise(
        self, exact: Path, texts: Sequence[ModelInputs], file: Path, way: str, kept: Collection[str] = ()
    ) -> None:
        """Round the matrices; `texts` are not looked at.

        Seven bits are used: without VNNI units two products of eight are added in 16 bits, which may overflow.
        """
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        model = onnx.load(exact)
        # Shapes that the exporter noted down are those of float32, and quantised outputs would contradict them.
        del model.graph.value_info[:]
        left = [node.name for node in model.graph.node if node.name.split("/")[0] in kept]
        # Which is what the quantiser makes of a Gemm before it looks for names.
        left += [f"{name}_MatMul" for name in left]
        with quiet_exporters(*LOGGERS):
            quantize_dynamic(
                model,
                file,
                nodes_to_exclude=left,
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
            )


ONNX = Onnx("onnx", "fp32", "onnx/model.onnx")
ONNX_INT8 = Onnx("onnx-int8", "int8", "onnx/model_quantized.onnx")


class _FirstOutput(nn.Module):
    """A model as the exporter wants it: one dictionary of tensors in, one tensor out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return only_output(self.model(**inputs))


def _module_of(notes: Mapping[str, str]) -> str:
    """The module that a node comes from, by the exporter's notes: wrapper, `model`, modules, operation."""
    scopes = ast.literal_eval(notes.get(SCOPES, "[]"))
    return scopes[-2].removeprefix("model").removeprefix(".") if len(scopes) > 1 else ""
