"""ONNX Runtime on the CPU: the model exported as one program, for any number of texts of any length."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sparsebert.counts import ROWS_A_TEXT
from sparsebert.runtimes.runtime import (
    ModelInputs,
    Prepared,
    Runtime,
    RuntimeUnavailableError,
    attention_of,
    predicts_classes,
    ready,
)

if TYPE_CHECKING:
    import onnxruntime

NAME = "onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FREE = {0: "batch", 1: "length"}


@dataclass(frozen=True)
class Onnx(Runtime):
    """The model in float32, by the exporter of torch.export and ONNX Runtime's CPU provider."""

    def prepare(self, model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
        """Export the model and load the program. Its threads are those that torch has now.

        Raises RuntimeUnavailableError where a package is missing, for a model on a GPU, and for one that cannot be
        exported.
        """
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            raise RuntimeUnavailableError(NAME, f"not installed: {', '.join(missing)} (pip install 'sparsebert[onnx]')")
        if model.device.type != "cpu":
            raise RuntimeUnavailableError(NAME, f"it runs on the CPU, and the model lies on {model.device.type}")
        session = _session(ready(model, torch.float32), inputs)
        return Prepared(
            run=lambda given: _run(session, given),
            dtype="float32",
            attention=attention_of(model),
            predicts=predicts_classes(model),
            module=None,
            any_shape=True,
        )


ONNX = Onnx()


class _FirstOutput(nn.Module):
    """A model as the exporter wants it: one dictionary of tensors in, one tensor out."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.model(**inputs)[0]


def _session(model: PreTrainedModel, inputs: ModelInputs) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # A file, as a program in memory may hold no more than 2 GB; ONNX Runtime has read it once it is loaded.
    with tempfile.TemporaryDirectory(prefix="sparsebert-onnx-") as folder:
        file = Path(folder) / "model.onnx"
        _export(model, inputs, file)
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _export(model: PreTrainedModel, inputs: ModelInputs, file: Path) -> None:
    # Of pairs that are read apart a batch has two rows for each.
    rows_a_text = int(vars(model).get(ROWS_A_TEXT, 1))
    free = {0: rows_a_text * torch.export.Dim("batch"), 1: torch.export.Dim("length")} if rows_a_text > 1 else FREE
    try:
        with torch.no_grad(), _quiet_exporter():
            program = torch.onnx.export(
                _FirstOutput(model),
                kwargs={"inputs": {name: _at_least_two(value, rows_a_text) for name, value in inputs.items()}},
                input_names=list(inputs),
                output_names=["output"],
                dynamic_shapes={"inputs": dict.fromkeys(inputs, free)},
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise RuntimeUnavailableError(NAME, f"the model cannot be exported: {reason}") from error
    assert program is not None
    program.save(file)


def _at_least_two(values: Tensor, rows_a_text: int) -> Tensor:
    """[batch, length], repeated where there is one text or token, which the exporter takes for a constant."""
    rows, length = values.shape
    return values[torch.arange(max(rows, 2 * rows_a_text)) % rows][:, torch.arange(max(length, 2)) % length]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Without the exporter's words on its own insides and on packages that no encoder needs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run(session: onnxruntime.InferenceSession, given: ModelInputs) -> Tensor:
    """Inputs are read where torch has them."""
    [output] = session.run(None, {name: value.contiguous().numpy() for name, value in given.items()})
    return torch.from_numpy(output)
