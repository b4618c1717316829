"""OpenVINO on the CPU: the model converted to one program, in float32, in bfloat16, or with int8 products by NNCF."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sparsebert.runtimes.program import (
    Engine,
    ProgramPrecision,
    RuntimeUnavailableError,
    cannot_run,
    no_telemetry,
    not_installed,
    openvino_core,
    openvino_package,
)
from sparsebert.runtimes.runtime import ModelInputs, only_output, ready
from sparsebert.runtimes.whole import WholeProgram, examples, quiet_exporters

# How much of the spread of activations SmoothQuant moves into the weights (arXiv:2211.10438, equation 4); -1 = none.
SMOOTHING: Mapping[str, float] = {"smoothed by 0.95": 0.95, "smoothed by 0.5": 0.5, "not smoothed": -1.0}
LOGGERS = ("nncf", "openvino")


@dataclass(frozen=True)
class OpenVino(WholeProgram):
    """The model as OpenVINO converts it from torch, at one precision.

    In int8 the scales of activations are set once, by texts. The file for bfloat16 is that of float32.
    """

    name: str
    precision: ProgramPrecision
    file: str
    engine: Engine = "openvino"
    calibrated: bool = False

    @property
    def ways(self) -> tuple[str, ...]:
        """In int8 strengths of SmoothQuant, NNCF's own first."""
        return tuple(SMOOTHING) if self.precision == "int8" else ("",)

    def unavailable(self) -> str | None:
        """Packages, or units of the processor, that are missing."""
        packages = ("openvino", "nncf") if self.precision == "int8" else ("openvino",)
        return not_installed(packages, "openvino") or cannot_run("openvino", self.precision)

    def convert(self, model: PreTrainedModel, inputs: ModelInputs, file: Path) -> None:
        """Convert the model; its operations are named by the modules that they come from."""
        names, openvino = list(inputs), openvino_package()
        try:
            with torch.no_grad(), no_telemetry(), quiet_exporters(*LOGGERS):
                exact = _InOrder(ready(model, torch.float32), names)
                program = openvino.convert_model(exact, example_input=tuple(examples(model, inputs).values()))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RuntimeUnavailableError(self.name, f"the model cannot be converted: {reason}") from error
        for value, name in zip(program.inputs, names, strict=True):
            value.get_tensor().set_names({name})
        program.outputs[0].get_tensor().set_names({"output"})
        openvino.save_model(program, file, compress_to_fp16=False)

    def quantise(
        self, exact: Path, texts: Sequence[ModelInputs], file: Path, way: str, kept: Collection[str] = ()
    ) -> None:
        """Have NNCF quantise the program as one of a transformer, by what it does with `texts`."""
        with no_telemetry():
            import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters

        # By the core that stays, which those that NNCF makes then leave as they found it.
        program = openvino_core().read_model(exact)
        samples = [{name: value.numpy() for name, value in batch.items()} for batch in texts]
        alphas = AdvancedSmoothQuantParameters(matmul=SMOOTHING[way])
        products = [one for one in program.get_ordered_ops() if one.get_type_name() == "MatMul"]
        left = [one.get_friendly_name() for one in products if _module_of(one.get_friendly_name()) in kept]
        # NNCF draws its bars on the screen whatever it is told.
        with no_telemetry(), quiet_exporters(*LOGGERS), contextlib.redirect_stdout(io.StringIO()):
            rounded = nncf.quantize(
                program,
                nncf.Dataset(samples),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(samples),
                ignored_scope=nncf.IgnoredScope(names=left) if left else None,
                advanced_parameters=AdvancedQuantizationParameters(smooth_quant_alphas=alphas),
            )
        openvino_package().save_model(rounded, file, compress_to_fp16=False)


OPENVINO = OpenVino("openvino", "fp32", "openvino/openvino_model.xml")
OPENVINO_BF16 = OpenVino("openvino-bf16", "bf16", "openvino/openvino_model.xml")
OPENVINO_INT8 = OpenVino("openvino-int8", "int8", "openvino/openvino_model_qint8_quantized.xml", calibrated=True)


class _InOrder(nn.Module):
    """A model as the converter wants it: tensors in the order of `names` in, one tensor out."""

    def __init__(self, model: PreTrainedModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *values: Tensor) -> Tensor:
        return only_output(self.model(**dict(zip(self.names, values, strict=True))))


def _module_of(operation: str) -> str:
    """The module that an operation comes from, by the name that the converter gave it."""
    return operation.split("/")[0].removeprefix("__module.model.")
