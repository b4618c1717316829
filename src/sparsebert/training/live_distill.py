"""Distillation from a teacher that runs along: for tasks whose outputs are too many to be kept for all rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from sparsebert.data.batches import inputs_of
from sparsebert.environment import supports_bf16_training
from sparsebert.errors import UserError
from sparsebert.recipe.schema import Distill
from sparsebert.tasks.kind import IGNORED
from sparsebert.tasks.masked_lm import MASKED_LM
from sparsebert.training.collate import Batch, Collator
from sparsebert.training.distill import Distiller, hidden_loss, nearest_loss
from sparsebert.training.teacher import layer_outputs


@dataclass(frozen=True)
class LiveDistiller:
    """A masked language model as teacher of another one, by its logits of the hidden tokens, and by its layers.

    loss = labels * task loss + logits * T^2 * KL(teacher || student), a mean over hidden tokens, + hidden * squared
    error of the outputs of layers, as Distiller has it, where `layers` holds for each of the student's the teacher's
    that it was; none = layers are not compared. `dimensions` are the teacher's that a narrower student has, none = all.
    """

    teacher: PreTrainedModel
    weights: Distill
    layers: tuple[int, ...] = ()
    dimensions: tuple[int, ...] | None = None
    wants_maps = False

    @property
    def wants_hidden(self) -> bool:
        """Whether the outputs of the student's layers are needed."""
        return self.weights.hidden > 0 and len(self.layers) > 0

    def check(self, student: PreTrainedModel, rows: int | None) -> None:
        """Raises UserError for a student with another vocabulary."""
        own, taught = (model.config.vocab_size for model in (student, self.teacher))
        if own != taught:
            raise UserError(
                "Teacher and student have different vocabularies",
                got=f"{taught:,} and {own:,} tokens",
                fix="give a teacher that was pretrained with this tokenizer",
            )

    def collator(self, collate: Collator) -> Collator:
        """The same: batches carry nothing of the teacher's."""
        return collate

    @contextmanager
    def at_work(self, student: PreTrainedModel) -> Iterator[None]:
        """Inside, the teacher is where the student is."""
        nn.Module.to(self.teacher, student.device)
        self.teacher.eval()
        yield

    def loss(self, output: Any, layers: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        """The weighted sum [] of the task loss and what the teacher says of the hidden tokens."""
        hidden = batch["labels"] != IGNORED
        kind = batch["input_ids"].device.type
        compared = layer_outputs(self.teacher) if self.wants_hidden else nullcontext([])
        with (
            compared as states,
            torch.no_grad(),
            torch.autocast(kind, torch.bfloat16, enabled=supports_bf16_training()),
        ):
            taught = _of_hidden(self.teacher(**inputs_of(batch)), hidden)
        own = _of_hidden(output, hidden)
        told = MASKED_LM.distillation(own, taught, self.weights.temperature)
        total = self.weights.labels * output.loss + self.weights.logits * told
        if self.wants_hidden:
            total = total + self.weights.hidden * self._layer_loss(layers, states, batch["attention_mask"])
        return total

    def _layer_loss(
        self, own: Sequence[torch.Tensor], states: Sequence[torch.Tensor], mask: torch.Tensor
    ) -> torch.Tensor:
        nearest = self.weights.match == "nearest"
        taught = torch.stack(tuple(states) if nearest else [states[layer] for layer in self.layers]).float()
        if self.dimensions is not None:
            taught = taught[..., list(self.dimensions)]
        # The mean square of each layer in this batch, so that every layer counts alike.
        scale = (taught.square().mean(dim=-1) * mask).sum(dim=(1, 2)) / mask.sum()
        compare = nearest_loss if nearest else hidden_loss
        return compare(torch.stack(tuple(own)).float(), taught, mask, scale)


def _of_hidden(output: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [hidden tokens, vocabulary]; some models decode no others where there are labels."""
    logits = MASKED_LM.outputs(output)
    return (logits if logits.dim() == 2 else logits[hidden]).float()


Teaching = Distiller | LiveDistiller
"""What a training may learn from beside labels."""
