"""Back ends: ways to run one model. Each is a function `(model, example inputs) -> Prepared`, named in the registry.

A back end never changes the model it is given, and says so when it cannot run here instead of running another way.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sparsebert.errors import UserError
from sparsebert.kernels import dispatch, native
from sparsebert.models.accelerate import accelerate, sparse_layers

ModelInputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to run. `run` gives the first output: logits, or hidden states where there is no head.

    `predicts`: the output scores more than one class. `module` is the model whose layers are called one by one, none
    where the back end runs the whole as one program.
    """

    run: Callable[[ModelInputs], Tensor]
    dtype: str
    attention: str
    predicts: bool
    module: PreTrainedModel | None


class BackendError(UserError):
    """This back end cannot run here; `reason` says why."""

    def __init__(self, backend: str, reason: str) -> None:
        super().__init__(f"The back end '{backend}' is not available: {reason}")
        self.reason = reason


def eager(model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
    """Plain torch in float32."""
    return _plain(ready(model, torch.float32))


def eager_bf16(model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
    """Plain torch with weights and activations in bfloat16; slow on a CPU that has no bfloat16 unit."""
    return _plain(ready(model, torch.bfloat16))


def compiled(model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
    """torch.compile in float32, for the shapes of `inputs`, compiled here.

    Raises BackendError without a C++ compiler, and if the model does not compile as one whole graph.
    """
    compiler = os.environ.get("CXX", "g++")
    if not model.device.type == "cuda" and shutil.which(compiler) is None:
        raise BackendError("compile", f"no C++ compiler found ({compiler})")
    from torch._dynamo import config

    # A copy, so that hooks on the eager model stay out of the graph. All models of one class share one cache of
    # graphs, which holds 8 by default.
    module = _copy(ready(model, torch.float32))
    graph = torch.compile(module, dynamic=False, fullgraph=True)
    try:
        with torch.inference_mode(), config.patch(recompile_limit=10_000, accumulated_recompile_limit=10_000):
            graph(**inputs)
    except RuntimeError as error:
        # Of the compiler's own kind; or a plain one, where so many models of this class were compiled that it gave up.
        raise BackendError("compile", str(error).strip().splitlines()[0]) from error
    return Prepared(lambda given: graph(**given)[0], _dtype(module), attention_of(module), _predicts(module), None)


def sparse(model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
    """Plain torch in float32, but for encoder matrices with zeros, which run by the package's kernels where they gain.

    Raises BackendError if there are none here, or none gains anything.
    """
    return _sparse("sparse", model, inputs, torch.float32)


def sparse_bf16(model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
    """As `sparse`, in bfloat16: blocks only on a CPU with AVX-512 BF16 or AMX, or a GPU. Gains are over bfloat16."""
    return _sparse("sparse-bf16", model, inputs, torch.bfloat16)


def attention_of(model: PreTrainedModel) -> str:
    """The attention implementation that transformers runs for this model: sdpa, eager, flex_attention ..."""
    return str(model.config._attn_implementation)


def _sparse(name: str, model: PreTrainedModel, inputs: ModelInputs, dtype: torch.dtype) -> Prepared:
    if not dispatch.linear_heights(torch.empty(1, 1, dtype=dtype, device=model.device)):
        here = f"native library: {native.isa() or 'not built, or switched off'}"
        raise BackendError(name, f"there are no sparse kernels for {dtype} on this {model.device.type} ({here})")
    tokens = inputs["input_ids"].numel()
    module = accelerate(ready(model, dtype), tokens)
    if not sparse_layers(module):
        raise BackendError(name, f"no kernel is faster than the dense product for this model at {tokens} tokens")
    return _plain(module)


def _plain(module: PreTrainedModel) -> Prepared:
    return Prepared(lambda given: module(**given)[0], _dtype(module), attention_of(module), _predicts(module), module)


def ready(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model itself if it is in evaluation mode and of this dtype, else a copy that is."""
    if not model.training and all(p.dtype == dtype for p in model.parameters()):
        return model
    duplicate = copy.deepcopy(model)
    # As from_pretrained does: buffers, such as the frequencies of rotary positions, stay as exact as they are.
    for parameter in duplicate.parameters():
        parameter.data = parameter.data.to(dtype)
    return duplicate.eval()


def _copy(model: PreTrainedModel) -> PreTrainedModel:
    """Modules of its own around the same weights."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def _dtype(model: PreTrainedModel) -> str:
    return str(model.dtype).removeprefix("torch.")


def _predicts(model: PreTrainedModel) -> bool:
    return model.base_model is not model and (model.config.num_labels or 0) > 1
