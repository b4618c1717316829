"""Blocks without units: what attention without heads, and a feedforward block without neurons, still compute.

No matrix product of width zero runs in them: exporters mishandle those, some without an error. Parameters keep their
names, the empty ones too, so that files look like those of any other shape.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig


class NoInputs(nn.Module):
    """A projection that has lost all its inputs: every token gets the bias, or zeros where there is none."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., any], of which only the shape and the type are used, to [..., outputs]."""
        shape = (*hidden_states.shape[:-1], self.weight.shape[0])
        zeros = hidden_states.new_zeros(shape)
        # Not a view of the bias: in inference mode that would ask for gradients it has no function for.
        return zeros if self.bias is None else zeros + self.bias


class NoOutputs(nn.Module):
    """A projection that has lost all its outputs: hands its input on, to a NoInputs that needs the shape only."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The same tensor."""
        return hidden_states


class NoNeurons(nn.Module):
    """A feedforward block, input and output projections in one module, that has lost all its neurons."""

    def __init__(self, projections: Mapping[str, nn.Module], output: str) -> None:
        super().__init__()
        self.output = output
        for name, projection in projections.items():
            self.add_module(name, projection)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., hidden] to [..., hidden]: what the projection named `output` gives."""
        return self.get_submodule(self.output)(hidden_states)


def remove_heads(core: Any, inputs: Sequence[str], output: str, config: PretrainedConfig) -> None:
    """Make an attention core one without heads, in place; `inputs` and `output` name projections inside it, if any."""
    for name in {name for name, _ in core.named_children()}.intersection(inputs):
        delattr(core, name)
    if output:
        linear = core.get_submodule(output)
        assert isinstance(linear, nn.Linear)
        core.set_submodule(output, NoInputs(linear))
    core.output_name, core.model_config = output, config
    core.__class__ = headless(type(core))


@functools.cache
def headless(stock: type[nn.Module]) -> type[nn.Module]:
    """The class of a core of class `stock` without heads.

    A subclass, as transformers collects attention maps from the modules of `stock`, and users count one map a layer.
    """

    def forward(
        self: Any, hidden_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Give [batch, length, hidden], and attention maps [batch, 0, length, length] where the stock core gives maps.

        With the output projection inside the core that is its output, else a placeholder for its NoInputs.
        """
        context = self.get_submodule(self.output_name)(hidden_states) if self.output_name else hidden_states
        batch, length = hidden_states.shape[:2]
        gives_maps = self.model_config._attn_implementation == "eager"
        return context, hidden_states.new_zeros(batch, 0, length, length) if gives_maps else None

    def reduce(self: nn.Module) -> tuple[Any, ...]:
        return _blank, (stock,), self.__dict__

    namespace = {
        "__module__": __name__,
        "__doc__": f"{stock.__name__} without heads.",
        "forward": forward,
        "__reduce__": reduce,
    }
    return types.new_class(f"Headless{stock.__name__}", (stock,), exec_body=lambda body: body.update(namespace))


def _blank(stock: type[nn.Module]) -> nn.Module:
    """What a copy or an unpickled core starts from: the class itself has no place to import it from."""
    made = headless(stock)
    return made.__new__(made)
