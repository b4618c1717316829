"""What the loss of training is the sum of. A new part of the loss is one more LossTerm."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from transformers import PreTrainedModel

from sparsebert.fast_feedforward.layer import FastFeedForward
from sparsebert.sparse.sparsifier import Sparsifier
from sparsebert.training.live_distill import Teaching
from sparsebert.training.teacher import layer_outputs


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass in training, as the terms of the loss see it.

    `batch` is what the collator gave, `output` what the model made of it, and `task_loss` the loss on its labels.
    `step` counts the optimiser steps taken so far. `summed` is the number of micro-batches whose losses are added up
    for one step without an average: 1 where Trainer divides by that number itself.
    """

    batch: Mapping[str, Any]
    output: Any
    task_loss: torch.Tensor
    step: int
    summed: int


class LossTerm(ABC):
    """One term of the training loss.

    `columns` are the columns of the training rows that it needs, so that Trainer does not remove them; `arguments` are
    what the model is asked for beside the batch.
    """

    columns: tuple[str, ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the model's forward pass."""
        return {}

    @contextmanager
    def watching(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """The forward pass of the batch takes place inside."""
        yield

    @abstractmethod
    def value(self, forward: ForwardPass) -> torch.Tensor | None:
        """The term [], or None where it adds nothing."""


class TaskLoss(LossTerm):
    """The loss on the labels, by the model or by the user's own function."""

    def value(self, forward: ForwardPass) -> torch.Tensor:
        """As Trainer computed it."""
        return forward.task_loss


class TeacherLoss(LossTerm):
    """The distiller's weighted sum of the task loss and what a teacher says; takes the place of TaskLoss."""

    columns = ("row",)

    def __init__(self, distiller: Teaching, student: PreTrainedModel) -> None:
        self._distiller, self._student = distiller, student
        self._layers: Sequence[torch.Tensor] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        """Attention maps, where they are compared."""
        return {"output_attentions": True} if self._distiller.wants_maps else {}

    @contextmanager
    def watching(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Collects the layers' outputs, where they are compared."""
        with layer_outputs(self._student) if self._distiller.wants_hidden else nullcontext([]) as self._layers:
            yield

    def value(self, forward: ForwardPass) -> torch.Tensor:
        """See Distiller.loss."""
        # Kept here, the outputs would hold the activations of this pass through the next one.
        layers, self._layers = self._layers, ()
        return self._distiller.loss(forward.output, layers, dict(forward.batch))


class SparsityPenalty(LossTerm):
    """The penalties of sparsity rules."""

    def __init__(self, sparsifier: Sparsifier) -> None:
        self._sparsifier = sparsifier

    def value(self, forward: ForwardPass) -> torch.Tensor | None:
        """Their sum at this step."""
        penalty = self._sparsifier.penalty(forward.step)
        return None if penalty is None else penalty / forward.summed


class RoutingPenalty(LossTerm):
    """The hardening and balance terms of one fast feedforward layer."""

    columns = ("attention_mask",)

    def __init__(self, layer: FastFeedForward) -> None:
        self._layer = layer

    @contextmanager
    def watching(self, batch: Mapping[str, Any]) -> Iterator[None]:
        """Tells the layer which tokens are real."""
        # Where training goes without dropout the model is in evaluation mode, and the layer would compute no penalty.
        self._layer.train()
        self._layer.counted = batch.get("attention_mask")
        yield

    def value(self, forward: ForwardPass) -> torch.Tensor | None:
        """What the layer computed in the forward pass."""
        return None if self._layer.penalty is None else self._layer.penalty / forward.summed


def total_loss(terms: Sequence[LossTerm], forward: ForwardPass) -> torch.Tensor:
    """The sum of the terms [], the first of which always has a value."""
    return reduce(operator.add, (part for term in terms if (part := term.value(forward)) is not None))
