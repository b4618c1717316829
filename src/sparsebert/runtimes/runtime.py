"""What a runtime is: one way to run a model, at one precision, that prepares a model or says why it cannot.

A runtime never changes the model it is given, and it refuses where it cannot run instead of running another way.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sparsebert import registry
from sparsebert.models.families import ANSWERER

ModelInputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to run. `run` gives its output: logits, or hidden states where there is no head.

    `predicts`: the output scores more than one class. `module` is the model whose layers are called one by one, none
    where the runtime runs the whole as one program. `any_shape`: it takes inputs of other shapes than it was prepared
    for.
    """

    run: Callable[[ModelInputs], Tensor]
    dtype: str
    attention: str
    predicts: bool
    module: PreTrainedModel | None
    any_shape: bool


class Runtime(ABC):
    """One way to run a model. Its name includes the precision, as in `eager-bf16`."""

    calibrated: bool = False
    """Whether texts set the scales of its numbers: where these are not the user's own, its times mean something, its
    outputs do not."""

    def unavailable(self) -> str | None:
        """Why this runtime runs no model here, whatever the model is; none where it may."""
        return None

    @abstractmethod
    def prepare(self, model: PreTrainedModel, inputs: ModelInputs) -> Prepared:
        """Make the model ready for inputs such as these, with as many threads as torch has now.

        `inputs` are integer tensors [batch, length] by name. Raises RuntimeUnavailableError with the reason where this
        runtime cannot run the model here.
        """


def ready(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model itself if it is in evaluation mode and of this dtype, else a copy that is."""
    if not model.training and all(p.dtype == dtype for p in model.parameters()):
        return model
    duplicate = copy.deepcopy(model)
    # As from_pretrained does: buffers, such as the frequencies of rotary positions, stay as exact as they are.
    for parameter in duplicate.parameters():
        parameter.data = parameter.data.to(dtype)
    return duplicate.eval()


def attention_of(model: PreTrainedModel) -> str:
    """The attention implementation that transformers runs for this model: sdpa, eager, flex_attention ..."""
    return str(model.config._attn_implementation)


def only_output(output: Any) -> Tensor:
    """The output of a model that counts, its first one; of one that finds answers both [batch, length, 2]."""
    if "start_logits" in output:
        return torch.stack([output["start_logits"], output["end_logits"]], dim=-1)
    return output[0]


def predicts_classes(model: PreTrainedModel) -> bool:
    """Whether the output of the model scores more than one class."""
    answers = type(model).__name__.endswith(ANSWERER)
    return model.base_model is not model and not answers and (model.config.num_labels or 0) > 1


def obstacles() -> dict[str, str | None]:
    """Every registered runtime, and why it runs no model here; none where it may."""
    return {name: registry.get("runtime", name).unavailable() for name in registry.names("runtime")}
