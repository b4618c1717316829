"""What the linear layers under masks read: running sums over real tokens, equal on all processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from sparsebert.errors import UserError
from sparsebert.sparse.views import InputSums, State


class InputWatch:
    """Sums the inputs of the linear layers that own the weights named, in passes that record gradients.

    Padding is left out where the model was called with an `attention_mask` [B, T] and the layer reads [B, T, in].
    Raises UserError for weights of other layers, such as embeddings, which read no numbers.
    """

    def __init__(self, model: nn.Module, weights: Iterable[str]) -> None:
        modules = {name: _linear(model, name) for name in weights}
        self._sums = {name: _zeros(model.get_parameter(name)) for name in modules}
        self._new = {name: _zeros(model.get_parameter(name)) for name in modules}
        self._mask: torch.Tensor | None = None
        self._handles = [model.register_forward_pre_hook(self._note_mask, with_kwargs=True)] if modules else []
        for name, module in modules.items():
            self._handles.append(module.register_forward_pre_hook(self._add_to(name)))

    def sums(self, name: str) -> InputSums | None:
        """The sums so far of the layer with that weight; None if it is not watched."""
        return self._sums.get(name)

    def fold(self) -> None:
        """Add what was read since the last call to the sums, over all processes. All of them must call this."""
        for name, new in self._new.items():
            total = self._sums[name]
            for part, kept in zip(_parts(new), _parts(total), strict=True):
                if dist.is_available() and dist.is_initialized():
                    dist.all_reduce(part)
                kept += part
                part.zero_()

    def state(self) -> State:
        """The sums by name, to be saved."""
        parts = {}
        for name, sums in self._sums.items():
            parts |= {f"{name}/squares": sums.squares, f"{name}/absolute": sums.absolute, f"{name}/tokens": sums.tokens}
        return parts

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _note_mask(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._mask = kwargs.get("attention_mask")

    def _add_to(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            if not torch.is_grad_enabled():
                return
            with torch.no_grad():
                read = args[0].detach()
                if self._mask is not None and self._mask.shape == read.shape[:-1]:
                    read = read[self._mask.bool()]
                read = read.reshape(-1, read.shape[-1]).float()
                new = self._new[name]
                new.squares.add_(read.square().sum(dim=0))
                new.absolute.add_(read.abs().sum(dim=0))
                new.tokens.add_(len(read))

        return hook


def _linear(model: nn.Module, weight: str) -> nn.Linear:
    module = model.get_submodule(weight.rpartition(".")[0])
    if not isinstance(module, nn.Linear):
        raise UserError(
            "Criteria that read activations are of linear layers",
            got=f"{weight} of {type(module).__name__}",
            fix="narrow the scope, for example to [attention, ffn], or use another criterion",
        )
    return module


def _zeros(weight: torch.Tensor) -> InputSums:
    columns = torch.zeros(weight.shape[1], device=weight.device)
    return InputSums(columns, columns.clone(), torch.zeros(1, device=weight.device))


def _parts(sums: InputSums) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return sums.squares, sums.absolute, sums.tokens
