"""The runtimes of PyTorch: eager, compiled, and with the package's sparse kernels."""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from sparsebert.kernels import dispatch, native
from sparsebert.models.accelerate import accelerate, sparse_layers
from sparsebert.runtimes.program import RuntimeUnavailableError
from sparsebert.runtimes.runtime import (
    ModelInputs,
    Prepared,
    Runtime,
    attention_of,
    only_output,
    predicts_classes,
    ready,
)


@dataclass(frozen=True)
class Eager(Runtime):
    """Plain torch, with weights and activations of one dtype; bfloat16 is slow on a CPU without a unit for it."""

    dtype: torch.dtype

    def prepare(self, model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
        """The model itself, or a copy of this dtype."""
        return _layer_by_layer(ready(model, self.dtype))


@dataclass(frozen=True)
class Compiled(Runtime):
    """torch.compile in float32, for inputs of one shape."""

    def unavailable(self) -> str | None:
        """A C++ compiler that is missing, on a machine without a GPU."""
        return None if torch.cuda.is_available() else _no_compiler()

    def prepare(self, model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
        """Compile for the shapes of `inputs`, now.

        Raises RuntimeUnavailableError without a C++ compiler, and if the model does not compile as one whole graph.
        """
        missing = None if model.device.type == "cuda" else _no_compiler()
        if missing is not None:
            raise RuntimeUnavailableError("compile", missing)
        from torch._dynamo import config

        # A copy, so that hooks on the eager model stay out of the graph. All models of one class share one cache of
        # graphs, which holds 8 by default.
        module = _copy(ready(model, torch.float32))
        graph = torch.compile(module, dynamic=False, fullgraph=True)
        try:
            with torch.inference_mode(), config.patch(recompile_limit=10_000, accumulated_recompile_limit=10_000):
                graph(**inputs)
        except RuntimeError as error:
            # Of the compiler's own kind; or a plain one, where so many models of this class were compiled that it gave
            # up.
            raise RuntimeUnavailableError("compile", str(error).strip().splitlines()[0]) from error
        return Prepared(
            run=lambda given: only_output(graph(**given)),
            dtype=_dtype(module),
            attention=attention_of(module),
            predicts=predicts_classes(module),
            module=None,
            any_shape=False,
        )


@dataclass(frozen=True)
class Sparse(Runtime):
    """Plain torch, but for encoder matrices with zeros, which run by the package's kernels where they gain.

    In bfloat16: blocks only on a CPU with AVX-512 BF16 or AMX, or a GPU. Gains are over the dense product of the dtype.
    """

    name: str
    dtype: torch.dtype

    def unavailable(self) -> str | None:
        """That there are no kernels of this dtype, for the GPU if there is one."""
        return self._no_kernels("cuda" if torch.cuda.is_available() else "cpu")

    def prepare(self, model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
        """Time every matrix for as many tokens as `inputs` have, and replace those that gain.

        Raises RuntimeUnavailableError if there are no kernels here, or none gains anything.
        """
        missing = self._no_kernels(model.device.type)
        if missing is not None:
            raise RuntimeUnavailableError(self.name, missing)
        tokens = inputs["input_ids"].numel()
        module = accelerate(ready(model, self.dtype), tokens)
        if not sparse_layers(module):
            slow = f"no kernel is faster than the dense product for this model at {tokens} tokens"
            raise RuntimeUnavailableError(self.name, slow)
        return _layer_by_layer(module)

    def _no_kernels(self, device: str) -> str | None:
        if dispatch.linear_heights(torch.empty(1, 1, dtype=self.dtype, device=device)):
            return None
        here = f"native library: {native.isa() or 'not built, or switched off'}"
        return f"there are no sparse kernels for {self.dtype} on this {device} ({here})"


EAGER = Eager(torch.float32)
EAGER_BF16 = Eager(torch.bfloat16)
COMPILE = Compiled()
SPARSE = Sparse("sparse", torch.float32)
SPARSE_BF16 = Sparse("sparse-bf16", torch.bfloat16)


def _no_compiler() -> str | None:
    compiler = os.environ.get("CXX", "g++")
    return f"no C++ compiler found ({compiler})" if shutil.which(compiler) is None else None


def _layer_by_layer(module: PreTrainedModel) -> Prepared:
    return Prepared(
        run=lambda given: only_output(module(**given)),
        dtype=_dtype(module),
        attention=attention_of(module),
        predicts=predicts_classes(module),
        module=module,
        any_shape=True,
    )


def _copy(model: PreTrainedModel) -> PreTrainedModel:
    """Modules of its own around the same weights."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def _dtype(model: PreTrainedModel) -> str:
    return str(model.dtype).removeprefix("torch.")
